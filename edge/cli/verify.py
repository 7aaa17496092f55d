"""`edge verify`: run every artifact of a bundle against its golden vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.options import (
    AsJson,
    BundlePath,
    Formats,
    LabelColumn,
    MaxSamples,
    PairColumn,
    Precisions,
    TextColumn,
    columns,
    number,
    print_json,
    print_table,
    several,
)
from edge.console import human_bytes, say

if TYPE_CHECKING:
    from edge.bundle import Artifact, Verification
    from edge.evaluate import Evaluation


def verify(
    bundle: BundlePath,
    format: Formats = None,
    precision: Precisions = None,
    eval: Annotated[
        str | None, typer.Option(help="Data file for the task's metric of every artifact, too.")
    ] = None,
    max_samples: MaxSamples = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    json: AsJson = False,
) -> None:
    """Run every artifact in every engine it declares and compare it with the checkpoint."""
    from edge.bundle import Bundle
    from edge.engines.runner import bundle_task
    from edge.evaluate import bundle_examples, evaluate
    from edge.verify import require_passed
    from edge.verify import verify as run_verify

    opened = Bundle.open(bundle)
    read = columns(text_column, pair_column, label_column)
    table = examples = None
    if eval:
        table = bundle_task(opened).read(eval, columns=read).head(max_samples)
        # Data of another task is better refused now than when every artifact has run.
        examples = bundle_examples(opened, table)
    formats, precisions = several(format), several(precision)
    artifacts = run_verify(opened, formats=formats, precisions=precisions)
    passed = all(a.verification and a.verification.status == "passed" for a in artifacts)
    # What does not run, or runs wrong, has no metric worth a look; the error below says so.
    metrics = (
        evaluate(opened, table, formats=formats, precisions=precisions, examples=examples)
        if table is not None and passed
        else []
    )
    if json:
        print_json({"artifacts": _records(artifacts, metrics)})
    else:
        print_verifications(str(bundle), artifacts, metrics)
    for artifact in artifacts:
        require_passed(artifact)


def _records(artifacts: list[Artifact], metrics: list[Evaluation]) -> list[dict[str, Any]]:
    """The artifacts as plain data, each with its metric where that was asked for."""
    records = [artifact.model_dump(mode="json") for artifact in artifacts]
    held = {_key(metric): metric for metric in metrics}
    for record, artifact in zip(records, artifacts, strict=True):
        if _key(artifact) in held:
            record["evaluation"] = held[_key(artifact)].model_dump(mode="json")
    return records


def _key(one: Artifact | Evaluation) -> tuple[str, str, str]:
    """What tells an artifact from the others of its bundle."""
    return (one.format, one.precision, one.target)


def print_verifications(
    title: str, artifacts: Sequence[Artifact], metrics: Sequence[Evaluation] = ()
) -> None:
    """One line for each artifact and engine; the metric is on the line of the main engine."""
    header = ("format", "precision", "size", "engine", "status", "rel. error", "agreement", "runs")
    values = {_key(metric): metric.value for metric in metrics}
    rows = []
    for artifact in artifacts:
        for result in artifact.verifications:
            row = (
                artifact.format,
                artifact.variant,
                human_bytes(artifact.bytes),
                result.engine,
                artifact.verdict(result),
                number(result.max_relative_error, ".1e"),
                result.agreement_text,
                str(result.samples),
            )
            main = result is artifact.verifications[0]
            value = values.get(_key(artifact)) if main else None
            rows.append((*row, number(value)) if metrics else row)
    print_table(title, (*header, metrics[0].metric) if metrics else header, rows)
    for artifact in artifacts:
        for result in artifact.verifications:
            if result.status != "passed":
                say(f"{artifact.name} {_in_words(artifact, result)}: {result.reason}")


def _in_words(artifact: Artifact, result: Verification) -> str:
    """The verdict as a sentence without its reason."""
    verdict = artifact.verdict(result)
    if verdict == "not tried":
        return f"was not tried in {result.engine}"
    if verdict == "failed":
        return f"failed in {result.engine}"
    return f"is {verdict.replace('declared', f'declared for {result.engine}')}"
