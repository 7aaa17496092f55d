"""`edge verify`: run every artifact of a bundle against its golden vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.cli.options import (
    AsJson,
    BundlePath,
    Formats,
    Precisions,
    number,
    print_json,
    print_table,
    several,
)
from edge.console import human_bytes, say

if TYPE_CHECKING:
    from edge.bundle import Artifact


def verify(
    bundle: BundlePath, format: Formats = None, precision: Precisions = None, json: AsJson = False
) -> None:
    """Run every artifact in every engine it declares and compare it with the checkpoint."""
    from edge.bundle import Bundle
    from edge.verify import require_passed
    from edge.verify import verify as run_verify

    artifacts = run_verify(
        Bundle.open(bundle), formats=several(format), precisions=several(precision)
    )
    if json:
        print_json({"artifacts": [artifact.model_dump(mode="json") for artifact in artifacts]})
    else:
        print_verifications(str(bundle), artifacts)
    for artifact in artifacts:
        require_passed(artifact)


def print_verifications(title: str, artifacts: Sequence[Artifact]) -> None:
    """One line for each artifact and engine."""
    header = ("format", "precision", "size", "engine", "status", "rel. error", "agreement", "runs")
    rows = [
        (
            artifact.format,
            artifact.precision,
            human_bytes(artifact.bytes),
            result.engine,
            result.status,
            number(result.max_relative_error, ".1e"),
            number(result.label_agreement, ".3f"),
            str(result.samples),
        )
        for artifact in artifacts
        for result in artifact.verifications
    ]
    print_table(title, header, rows)
    for artifact in artifacts:
        for result in artifact.verifications:
            if result.status != "passed":
                say(f"{artifact.name} {result.status} in {result.engine}: {result.reason}")
