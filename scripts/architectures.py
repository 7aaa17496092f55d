"""Convert a tiny random model of every architecture for every task, and print what passed.

    .venv/bin/python scripts/architectures.py [--architecture NAME ...] [--task NAME ...]

Takes about a quarter of a minute a model. Exits with 1 when one was refused.
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
    """Print a line a model: architecture, task, and the largest error of each artifact."""
    models = _load(MODELS)
    options = _options(models)
    refused = 0
    for architecture in options.architecture:
        for task in options.task:
            try:
                line = _passed(models, architecture, task)
            except EdgeError as error:
                line, refused = f"REFUSED {error}", refused + 1
            print(f"{architecture}\t{task}\t{line}", flush=True)
    return int(refused > 0)


def _passed(models: ModuleType, architecture: str, task: str) -> str:
    """The figures of each artifact: relative error, and agreement where the task has answers."""
    with tempfile.TemporaryDirectory() as folder, hush():
        # A question-answering head has as many labels as outputs: two.
        source = models.tiny_checkpoint(
            Path(folder) / "checkpoint", architecture, task=task, labels=("a", "b")
        )
        manifest = convert(
            ConvertConfig(
                source=str(source), output=Path(folder) / "bundle", task=task, seq_length=LENGTHS
            )
        )
    return "  ".join(_figures(artifact) for artifact in manifest.artifacts)


def _figures(artifact: Artifact) -> str:
    found = artifact.verification
    assert found is not None and found.max_relative_error is not None
    agreement = "" if found.label_agreement is None else f"/{found.label_agreement:.3f}"
    return f"{artifact.name} {found.max_relative_error:.1e}{agreement}"


def _options(models: ModuleType) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--architecture", nargs="+", choices=models.ARCHITECTURES, default=[*models.ARCHITECTURES]
    )
    parser.add_argument("--task", nargs="+", choices=TASKS, default=[*TASKS])
    return parser.parse_args()


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
