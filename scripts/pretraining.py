"""What pre-training distillation is worth: a general student, then the same fine-tuning as others.

    .venv/bin/python scripts/pretraining.py --encoder FOLDER --text wiki.txt \
        --train sentences.tsv --eval dev.tsv

encoder: a BERT checkpoint without a task, which becomes the teacher: it learns to guess the hidden
tokens of --text. By recipe `distilbert` a student of half its layers then learns from it, on the
same text. At last three students of one shape are fine-tuned alike on --train, by labels alone: the
general one, one that has the teacher's layers and no more training, and one of random weights.

Everything lies below --work; what is there is not made again. On two cores an hour or less.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LAYERS = "1/2"


def main() -> None:
    """Make what is missing, then print a table."""
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    text = _some_lines(args.text, args.work / "text.txt", args.lines, header=False)
    train = _some_lines(args.train, args.work / "train.tsv", args.rows, header=True)
    teacher = _distil(
        args,
        "teacher",
        student=str(args.encoder),
        task="fill-mask",
        recipe="finetune",
        train=str(text),
        max_steps=args.teacher_steps,
        learning_rate=2e-4,
    )
    general = _distil(
        args,
        "general",
        teacher=str(teacher),
        recipe=str(_short_recipe(args.work)),
        train=str(text),
        max_steps=args.steps,
        learning_rate=args.learning_rate,
    )
    print(f"general student: {_fall(general, 'labels')}, {_fall(general, 'logits')}")
    shape = "architecture=distilbert,layers=" + LAYERS
    students = {
        "general": str(general),
        "teacher's layers": str(_untrained(args, teacher, "copied", shape)),
        "random": str(_untrained(args, teacher, "random", f"{shape},init=random")),
    }
    for name, student in students.items():
        values = []
        for seed in range(args.seeds):
            folder = _distil(
                args,
                f"task-{name.replace(' ', '-')}-{seed}",
                student=student,
                recipe="finetune",
                train=str(train),
                eval=str(args.eval),
                epochs=args.epochs,
                seed=seed,
            )
            record = json.loads((folder / "distillation.json").read_text(encoding="utf-8"))
            values.append(100 * float(record["value"]))
        spread = f" (+-{statistics.stdev(values):.1f})" if len(values) > 1 else ""
        print(f"{name}: {record['metric']} {statistics.mean(values):.1f}{spread}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("encoder", "text", "train", "eval"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pretraining")
    parser.add_argument("--lines", type=int, default=13_500, help="of --text")
    parser.add_argument("--rows", type=int, default=2000, help="of --train")
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=300, help="of the general student")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=2, help="of the fine-tuning")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    return parser.parse_args()


def _some_lines(source: Path, target: Path, count: int, *, header: bool) -> Path:
    """The same `count` lines at every run; the first one stays where it names columns."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    first, rest = lines[:header], lines[header:]
    rest = random.Random(0).sample(rest, min(count, len(rest)))
    target.write_text("".join(first + rest), encoding="utf-8")
    return target


def _short_recipe(work: Path) -> Path:
    """`distilbert` without accumulation: a short run wants many small steps."""
    from distill.config import recipe_file

    recipe = yaml.safe_load(recipe_file("distilbert").read_text(encoding="utf-8"))
    recipe["stages"][0]["gradient_accumulation"] = 1
    path = work / "distilbert.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def _distil(args: argparse.Namespace, name: str, **settings: Any) -> Path:
    """The folder of a finished run."""
    from distill import DistillConfig, distil

    folder: Path = args.work / name
    if not folder.exists():
        common = {
            "batch_size": args.batch_size,
            "max_length": args.max_length,
            "threads": args.threads,
            "bf16": args.bf16,
            "output": folder,
        }
        distil(DistillConfig.build({**common, **settings}))
    return folder


def _untrained(args: argparse.Namespace, teacher: Path, name: str, spec: str) -> Path:
    """A student as it is made, before it learns anything."""
    from distill.spec import parse_spec
    from distill.students import Teacher, build_student
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint, save_checkpoint
    from edge.data import Table

    folder: Path = args.work / name
    if not folder.exists():
        checkpoint = open_checkpoint(teacher)
        opened = Teacher(checkpoint, load_model(checkpoint), load_tokenizer(checkpoint))
        table = Table("none", [], None, None)
        student = build_student(parse_spec(spec), opened, table, seed=0)
        folder.mkdir()
        save_checkpoint(student.model, student.tokenizer, folder)
    return folder


def _fall(folder: Path, term: str) -> str:
    """A term over the first and the last tenth of a run."""
    with (folder / "training_log.csv").open(encoding="utf-8", newline="") as file:
        values = [float(row[term]) for row in csv.DictReader(file) if row[term]]
    part = max(1, len(values) // 10)
    first, last = statistics.mean(values[:part]), statistics.mean(values[-part:])
    return f"{term} {first:.2f} to {last:.2f}"


if __name__ == "__main__":
    main()
