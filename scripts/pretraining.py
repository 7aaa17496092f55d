"""Effect of pre-training distillation: a general student against others, fine-tuned alike.

    .venv/bin/python scripts/pretraining.py --encoder FOLDER --text wiki.txt \
        --eval-text wiki-dev.txt --train sentences.tsv --eval dev.tsv

encoder: a BERT checkpoint without a task, which becomes the teacher after masked-language-model
training on --text. By recipe `distilbert`, or --recipe, a student with half its layers is distilled
from it, on the same text: initialized with the teacher's layers, or at random with --from-random.
Two further students of its shape are untrained: one with the teacher's layers, one with random
weights. All predict the masked tokens of --eval-text; then the three students are fine-tuned alike
on --train, by labels alone.

All files are below --work, and existing models are reused. Takes an hour or less on two cores.
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

from scripts.students import UNTRAINED, distilled_student, scores, set_threads  # noqa: E402

SHAPE = "architecture=distilbert,layers=1/2"
FROM_RANDOM = SHAPE + ",init=random"


def main() -> None:
    """Train the missing models, then print a table."""
    args = _arguments()
    set_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    text = _sample_lines(args.text, args.work / "text.txt", args.lines, header=False)
    train = _sample_lines(args.train, args.work / "train.tsv", args.rows, header=True)
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
    from_teacher: dict[str, Any] = {
        "teacher": str(teacher),
        "recipe": str(_recipe_without_accumulation(args.recipe, args.work)),
        "train": str(text),
    }
    general = _distil(
        args,
        "general",
        **from_teacher,
        student=FROM_RANDOM if args.from_random else SHAPE,
        max_steps=args.steps,
        learning_rate=args.learning_rate,
    )
    print(f"general student: {_loss_changes(general)}")
    students = {
        "general": general,
        "teacher's layers": _distil(args, "copied", **from_teacher, **UNTRAINED, student=SHAPE),
        "random": _distil(args, "random", **from_teacher, **UNTRAINED, student=FROM_RANDOM),
    }
    eval_text = _sample_lines(args.eval_text, args.work / "eval.txt", args.eval_lines, header=False)
    for name, folder in {"teacher": teacher, **students}.items():
        print(f"{name}: {_masked_token_score(folder, eval_text, args)}", flush=True)
    for name, student in students.items():
        values = []
        for seed in range(args.seeds):
            folder = _distil(
                args,
                f"task-{name.replace(' ', '-')}-{seed}",
                student=str(student),
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
    for name in ("encoder", "text", "eval-text", "train", "eval"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pretraining")
    parser.add_argument("--lines", type=int, default=13_500, help="of --text")
    parser.add_argument("--eval-lines", type=int, default=500, help="of --eval-text")
    parser.add_argument("--rows", type=int, default=2000, help="of --train")
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--recipe", default="distilbert", help="of the general student, or a file")
    parser.add_argument("--from-random", action="store_true", help="the general student's start")
    parser.add_argument("--steps", type=int, default=300, help="of the general student")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=2, help="of the fine-tuning")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    return parser.parse_args()


def _sample_lines(source: Path, target: Path, count: int, *, header: bool) -> Path:
    """Write a fixed sample of `count` lines; header: keep the first line."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    first, rest = lines[:header], lines[header:]
    rest = random.Random(0).sample(rest, min(count, len(rest)))
    target.write_text("".join(first + rest), encoding="utf-8")
    return target


def _recipe_without_accumulation(name: str, work: Path) -> Path:
    """Write the recipe without gradient accumulation: a short run needs many small steps."""
    from distill.recipe.config import recipe_file

    recipe = yaml.safe_load(recipe_file(name).read_text(encoding="utf-8"))
    for stage in recipe["stages"]:
        stage["gradient_accumulation"] = 1
    path = work / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def _distil(args: argparse.Namespace, name: str, **settings: Any) -> Path:
    """Return the folder of a finished run."""
    common = {
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "threads": args.threads,
        "bf16": args.bf16,
    }
    return distilled_student(args.work / name, **{**common, **settings})


def _masked_token_score(folder: Path, text: Path, args: argparse.Namespace) -> str:
    """Return a model's score at predicting masked tokens."""
    metric, value = next(iter(scores(folder, text, max_length=args.max_length).items()))
    return f"{metric} {100 * value:.1f}"


def _loss_changes(folder: Path) -> str:
    """Return the mean of each loss term over the first and the last tenth of a run."""
    with (folder / "training_log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    part = max(1, len(rows) // 10)
    falls = []
    for term in list(rows[0])[list(rows[0]).index("loss") + 1 :]:
        values = [float(row[term]) for row in rows if row[term]]
        first, last = statistics.mean(values[:part]), statistics.mean(values[-part:])
        falls.append(f"{term} {first:.3g} to {last:.3g}")
    return ", ".join(falls)


if __name__ == "__main__":
    main()
