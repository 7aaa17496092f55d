"""Convert a tiny random model of every architecture for every task, and print the errors.

    .venv/bin/python scripts/architectures.py [--architecture NAME ...] [--task NAME ...]
        [--others] [--format NAME ...] [--precision NAME ...]

Takes about 15 seconds per model. Exits with 1 if one was refused.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from converters import ConvertConfig, convert
from edge.bundle import Artifact
from edge.console import hush
from edge.errors import EdgeError
from edge.tasks import TASKS

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models.py"
LENGTHS = (16, 32)


def main() -> int:
    """Print a line per model: architecture, task, and the largest error of each artifact."""
    models = _load(MODELS)
    options = _options(models)
    refused = 0
    for architecture in options.architecture:
        for task in options.task:
            try:
                line = _passed(models, architecture, task, options)
            except EdgeError as error:
                line, refused = f"REFUSED {error}", refused + 1
            print(f"{architecture}\t{task}\t{line}", flush=True)
    return int(refused > 0)


def _passed(models: ModuleType, architecture: str, task: str, options: argparse.Namespace) -> str:
    """Convert a model; return relative error and label agreement of each artifact."""
    with tempfile.TemporaryDirectory() as folder, hush():
        # A question-answering head has as many labels as outputs: two.
        source = models.tiny_checkpoint(
            Path(folder) / "checkpoint", architecture, task=task, labels=("a", "b")
        )
        chosen = {"format": options.format, "precision": options.precision}
        values = {"source": str(source), "output": Path(folder) / "bundle", "task": task}
        values["seq_length"] = None if options.others else LENGTHS
        values |= {name: value for name, value in chosen.items() if value}
        manifest = convert(ConvertConfig.build(values))
    return "  ".join(_figures(artifact) for artifact in manifest.artifacts)


def _figures(artifact: Artifact) -> str:
    verification = artifact.verification
    assert verification is not None and verification.max_relative_error is not None
    agreement = (
        "" if verification.label_agreement is None else f"/{verification.label_agreement:.3f}"
    )
    return f"{artifact.name} {verification.max_relative_error:.1e}{agreement}"


def _options(models: ModuleType) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    known = models.ARCHITECTURES | models.OTHER_ARCHITECTURES
    parser.add_argument("--architecture", nargs="+", choices=known)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument(
        "--others", action="store_true", help="the further encoders, at their longest text"
    )
    parser.add_argument("--format", nargs="+", help="all of them where none is named")
    parser.add_argument("--precision", nargs="+", help="the usual ones where none is named")
    options = parser.parse_args()
    usual = models.OTHER_ARCHITECTURES if options.others else models.ARCHITECTURES
    options.architecture = options.architecture or [*usual]
    return options


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
