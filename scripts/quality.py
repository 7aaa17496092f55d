"""Accuracy of students of a real teacher, by recipe, size and seed: mean and spread.

    .venv/bin/python scripts/quality.py [--bf16] [--students layers=3] [--recipes kd,finetune]

Every student is trained on the 6,920 labeled sentences of SST-2 and scored on dev and test pooled
(2,693 rows). Beside the recipes: `finetune` without a teacher, `finetune-random` from random
weights, and `finetune-phrases` with the labels of all 67,349 phrases.

Each finished cell is a line of JSON in --work/cells.jsonl. The same command resumes after an
interruption, and repeats a cell only if its recipe has changed. `--table` prints the existing
results. A whole study takes days on two cores, so the most informative cells come first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EDGE_SHARED", ROOT.parent / "shared"))
STUDENTS = ("layers=3", "layers=2", "layers=3,hidden=128")
PLAIN, RANDOM, PHRASES = "finetune", "finetune-random", "finetune-phrases"
# Students without a teacher train with the settings of `kd`, which are better for them than their
# recipe's three epochs at 5e-5; all phrases are ten times the sentences already.
PLAIN_SETTINGS = {"epochs": 6, "learning-rate": 1e-4}
OWN_SETTINGS = {PLAIN: PLAIN_SETTINGS, RANDOM: PLAIN_SETTINGS, PHRASES: {"learning-rate": 1e-4}}
# The most informative first, for an interrupted study.
RECIPES = (
    *(PLAIN, "kd-augmented", "kd-hidden", "kd", "tinybert", "pkd", "minilm", "minilm-v2"),
    *(RANDOM, PHRASES),
)


@dataclass(frozen=True)
class Cell:
    """One training. made_of: fingerprint of the recipe's stages. unlabelled: name of a file."""

    student: str
    recipe: str
    seed: int
    bf16: bool
    made_of: str
    unlabelled: str | None = None

    @property
    def name(self) -> str:
        recipe = Path(self.recipe).stem + (f"+{self.unlabelled}" if self.unlabelled else "")
        parts = (self.student, recipe, f"seed{self.seed}", self.made_of)
        return "-".join(re.sub("[,/]", "-", part.replace("=", "")) for part in parts)


class Study:
    """The files of a study and the commands that write them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._teacher = str(options.teacher)
        self._data: Path = options.data
        self._unlabelled: Path | None = options.unlabelled
        self._work: Path = options.work
        self._keep: bool = options.keep
        self._threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
        self._lines = self._work / "cells.jsonl"
        self._lock = threading.Lock()
        self._pooled = self._work / "pooled.tsv"

    def prepare(self) -> None:
        """Write the evaluation file, dev, then test; set the threads, here and for children."""
        # Spinning threads make a busy machine several times slower. Torch reads it when imported.
        os.environ |= {"OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "PASSIVE"}
        (self._work / "logs").mkdir(parents=True, exist_ok=True)
        dev, test = (
            (self._data / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
            for name in ("dev", "test")
        )
        assert dev[0] == test[0], "dev and test have other columns"
        self._pooled.write_text("\n".join([*dev, *test[1:]]) + "\n", encoding="utf-8")

    def finished(self) -> list[dict[str, Any]]:
        """Return the finished cells, one dict each."""
        if not self._lines.is_file():
            return []
        return [json.loads(line) for line in self._lines.read_text("utf-8").splitlines()]

    def remaining(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells that are not finished."""
        done = {
            Cell(**{name: row.get(name) for name in Cell.__annotations__})
            for row in self.finished()
        }
        return [cell for cell in cells if cell not in done]

    def run(self, cell: Cell) -> None:
        """Train and score one cell, and write its line."""
        output = self._work / "students" / cell.name
        with (self._work / "logs" / f"{cell.name}.log").open("w") as log:
            done = self._edge(*self._arguments(cell, output), stderr=log)
        if done.returncode == 2:
            # The recipe does not fit this student: its error is the result.
            reason = Path(log.name).read_text().strip().splitlines()[-1]
            self._write(cell, {"error": reason})
            return
        if done.returncode:
            raise SystemExit(f"{cell.name} failed: see {log.name}")
        result = json.loads(done.stdout)
        pooled, rows = result["value"], result["eval_samples"]
        dev, dev_rows = self._score(output)
        test = (pooled * rows - dev * dev_rows) / (rows - dev_rows)
        scores = {"pooled": pooled, "dev": dev, "test": test}
        facts = {name: result[name] for name in ("teacher_value", "parameters", "duration_s")}
        self._write(cell, {**scores, **facts})
        if not self._keep:
            shutil.rmtree(output)

    def _arguments(self, cell: Cell, output: Path) -> list[str]:
        from distill import load_recipe

        recipe = _distill_recipe(cell.recipe)
        train = "train" if cell.recipe == PHRASES else "train_sentences"
        student = cell.student + (",init=random" if cell.recipe == RANDOM else "")
        arguments = {
            "teacher": self._teacher,
            "train": self._data / f"{train}.tsv",
            "eval": self._pooled,
            "student": student,
            "recipe": recipe,
            "seed": cell.seed,
            "threads": self._threads,
            "augment-folder": self._work / "texts",
            "output": output,
        }
        arguments |= OWN_SETTINGS.get(cell.recipe, {})
        if cell.unlabelled:
            arguments["unlabelled"] = self._unlabelled
        if load_recipe(recipe).needs_teacher:
            arguments["teacher-cache"] = self._work / "teacher"
        named = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
        return ["distill", *named, "--json", *(["--bf16"] if cell.bf16 else [])]

    def _score(self, output: Path) -> tuple[float, int]:
        """Return accuracy on dev alone, and its number of rows."""
        from edge.checkpoint import open_checkpoint
        from edge.evaluate import evaluate_checkpoint

        checkpoint = open_checkpoint(str(output))
        table = checkpoint.task.read(str(self._data / "dev.tsv"))
        with self._lock:
            _, value = evaluate_checkpoint(checkpoint, table, max_length=128)
        return value, len(table)

    def _edge(self, *arguments: str, stderr: Any) -> subprocess.CompletedProcess[str]:
        # Keep freed memory in the process: returning embedding gradients costs a tenth of a step.
        memory = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **memory}
        command = [sys.executable, "-m", "edge.cli.main", *arguments]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )

    def _write(self, cell: Cell, figures: dict[str, Any]) -> None:
        line = json.dumps({**asdict(cell), **figures})
        with self._lock, self._lines.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        print(line, file=sys.stderr, flush=True)


def report(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table: mean and spread over seeds, and difference to fine-tuning, in points."""
    yield "student\trecipe\tseeds\tpooled\tspread\tdev\ttest\tabove finetune"
    # Of a repeated cell the last result counts.
    latest = {(row["student"], _label(row), row["seed"]): row for row in rows}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (student, recipe, _), row in latest.items():
        groups.setdefault((student, recipe), []).append(row)
    for (student, recipe), group in groups.items():
        scored = [row for row in group if "pooled" in row]
        if not scored:
            yield f"{student}\t{recipe}\t{len(group)}\t{group[0]['error']}"
            continue
        pooled, dev, test = (_percent(scored, name) for name in ("pooled", "dev", "test"))
        plain = _percent([r for r in groups.get((student, PLAIN), []) if "pooled" in r], "pooled")
        above = f"{statistics.mean(pooled) - statistics.mean(plain):+.2f}" if plain else ""
        averages = (f"{statistics.mean(values):.2f}" for values in (dev, test))
        spread = f"{statistics.stdev(pooled):.2f}" if len(pooled) > 1 else ""
        line = (
            student,
            recipe,
            len(pooled),
            f"{statistics.mean(pooled):.2f}",
            spread,
            *averages,
        )
        yield "\t".join(map(str, (*line, above)))


def _label(row: dict[str, Any]) -> str:
    texts = row.get("unlabelled")
    return f"{row['recipe']} + {texts}" if texts else str(row["recipe"])


def _percent(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [100 * row[name] for row in rows]


def cells(options: argparse.Namespace) -> list[Cell]:
    """Return the requested cells by student, seed and recipe, so that a part is comparable."""
    return [
        Cell(student, recipe, seed, options.bf16, _made_of(recipe), _texts_of(recipe, options))
        for student in options.students
        for seed in options.seeds
        for recipe in options.recipes
    ]


def _distill_recipe(recipe: str) -> str:
    """Return the distillation recipe of a cell."""
    return PLAIN if recipe in (RANDOM, PHRASES) else recipe


def _texts_of(recipe: str, options: argparse.Namespace) -> str | None:
    """Return the name of the file of unlabeled texts if the recipe uses it, else None."""
    from distill import load_recipe
    from distill.recipe.unlabelled import takes_texts

    used = options.unlabelled and takes_texts(load_recipe(_distill_recipe(recipe)))
    return str(options.unlabelled.name) if used else None


def _made_of(recipe: str) -> str:
    """Return a fingerprint of a cell's recipe and settings."""
    from distill import recipe_file

    stages = yaml.safe_load(recipe_file(_distill_recipe(recipe)).read_text(encoding="utf-8"))[
        "stages"
    ]
    settings = json.dumps([stages, OWN_SETTINGS.get(recipe, {})], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:8]


def main() -> int:
    """Run the remaining cells, several at a time, and print the table."""
    options = _options()
    study = Study(options)
    if not options.table:
        study.prepare()
        with ThreadPoolExecutor(options.jobs) as pool:
            running = [pool.submit(study.run, cell) for cell in study.remaining(cells(options))]
            try:
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    print("\n".join(report(study.finished())))
    return 0


def _options() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=SHARED / "models" / "minilm-sst2")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "sst2")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quality")
    parser.add_argument(
        "--students", type=lambda text: text.split(";"), default=STUDENTS, help="apart by ;"
    )
    parser.add_argument("--recipes", type=listed, default=RECIPES, help="names or YAML files")
    parser.add_argument(
        "--seeds", type=lambda text: list(map(int, listed(text))), default=[0, 1, 2]
    )
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, sharing all cores")
    parser.add_argument("--threads", type=int, help="of a cell; all cores shared out by default")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    parser.add_argument(
        "--unlabelled", type=Path, help="texts for the recipes that want some without labels"
    )
    parser.add_argument("--keep", action="store_true", help="keep the students")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    options = parser.parse_args()
    if not options.teacher.is_dir() or not options.data.is_dir():
        parser.error(f"{options.teacher} or {options.data} is not there: name --teacher and --data")
    options.work = options.work.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
