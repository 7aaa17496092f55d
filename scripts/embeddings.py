"""Quality of distilled sentence embeddings: similarity on STS-B, and search on SQuAD.

    .venv/bin/python scripts/embeddings.py --encoder FOLDER --text wiki.txt --stsb FOLDER \
        --squad FOLDER

encoder: a sentence-embedding model. Similarity: students with half its layers learn its vectors by
recipe `embedding`, from sentences of plain text, from those of STS-B, and with fewer dimensions,
beside one trained on STS-B's labels; Spearman's correlation on its test file.

Search: rank the sentences of a paragraph by whether they answer a question. A cross-encoder is
fine-tuned from the encoder on SQuAD, and distilled into students by recipe `bi-encoder`, which
embed question and sentence separately; beside them one trained on the labels. nDCG@10 and MRR on
other articles.

All files are below --work, and existing models are reused. Takes 1.5 hours on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.students import UNTRAINED, distilled_student, scores, set_threads  # noqa: E402

SHAPE = "layers=1/2"
CANDIDATES = 4


def main() -> None:
    """Train the missing models, then print a table."""
    args = _arguments()
    set_threads(args.threads)
    for part in args.parts:
        {"similarity": similarity, "search": search}[part](args)


def similarity(args: argparse.Namespace) -> None:
    """Compare students of the encoder's vectors."""
    pairs = {"train": str(args.stsb / "train.tsv")}
    plain = {"train": str(_text(args))}
    from_teacher = {"teacher": str(args.encoder), "recipe": "embedding", "student": SHAPE}
    labels = {"recipe": "finetune", "task": "feature-extraction"}
    layers = _layers(args)
    runs: dict[str, dict[str, Any]] = {
        "embedding, plain text": {**from_teacher, **plain},
        "labels of STS-B": {**labels, **pairs, "student": str(layers)},
        "embedding, then labels": {
            **labels,
            **pairs,
            "student": str(args.work / _folder("embedding, plain text")),
        },
        "embedding, STS-B's sentences": {**from_teacher, **pairs},
        "embedding, 64 numbers": {**from_teacher, **plain, "student": f"{SHAPE},embedding_dim=64"},
    }
    models = {"encoder": args.encoder, "encoder's layers": layers}
    _report(args, runs, args.stsb / "test.tsv", models)


def search(args: argparse.Namespace) -> None:
    """Compare students of a cross-encoder."""
    train = _ranking(args.squad / "train.json", args.work / "ranking.tsv", args.questions)
    test = _ranking(args.squad / "dev.json", args.work / "ranking-test.tsv", args.test_questions)
    rows = {"train": str(train)}
    cross_encoder = distilled_student(
        args.work / "cross-encoder",
        **_common(args),
        **rows,
        recipe="finetune",
        task="text-classification",
        student=str(args.encoder),
        epochs=2,
    )
    from_teacher = {**rows, "teacher": str(cross_encoder), "recipe": "bi-encoder"}
    labels = {**rows, "recipe": "finetune", "task": "feature-extraction"}
    layers = _layers(args)
    runs = {
        # Scored during distillation, which also gives the teacher's score.
        "cross-encoder's layers": {
            **from_teacher,
            **UNTRAINED,
            "student": SHAPE,
            "eval": str(test),
        },
        "bi-encoder, cross-encoder's layers": {**from_teacher, "student": SHAPE},
        "bi-encoder, encoder's layers": {**from_teacher, "student": str(layers)},
        "labels, encoder's layers": {**labels, "student": str(layers)},
    }
    _report(args, runs, test, {"encoder": args.encoder, "encoder's layers": layers})
    record = args.work / _folder("cross-encoder's layers") / "distillation.json"
    metrics = json.loads(record.read_text(encoding="utf-8"))
    print(f"cross-encoder: {metrics['metric']} {100 * metrics['teacher_value']:.1f}")


def _layers(args: argparse.Namespace) -> Path:
    """Return an untrained student with the encoder's layers."""
    return distilled_student(
        args.work / "layers",
        **_common(args),
        **UNTRAINED,
        teacher=str(args.encoder),
        recipe="embedding",
        student=SHAPE,
        train=str(_text(args)),
    )


def _report(
    args: argparse.Namespace, runs: dict[str, dict[str, Any]], test: Path, models: dict[str, Path]
) -> None:
    for name, folder in models.items():
        _print_scores(name, folder, test, args)
    for name, settings in runs.items():
        folder = distilled_student(args.work / _folder(name), **_common(args), **settings)
        _print_scores(name, folder, test, args)


def _folder(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _print_scores(name: str, folder: Path, test: Path, args: argparse.Namespace) -> None:
    metrics = scores(folder, test, max_length=args.max_length)
    print(f"{name}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in metrics.items()), flush=True)


def _common(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_length": args.max_length, "threads": args.threads, "bf16": args.bf16}


def _text(args: argparse.Namespace) -> Path:
    """Write a fixed sample of the sentences of --text."""
    target: Path = args.work / "sentences.txt"
    texts = args.text.read_text(encoding="utf-8").splitlines()
    sentences = [s for text in texts for s in _split(text) if len(s.split()) > 3]
    target.parent.mkdir(parents=True, exist_ok=True)
    chosen = random.Random(0).sample(sentences, args.sentences)
    target.write_text("".join(f"{_one_line(sentence)}\n" for sentence in chosen), encoding="utf-8")
    return target


def _split(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)


def _ranking(source: Path, target: Path, count: int) -> Path:
    """Write `count` questions, each with the sentence of its answer and others of the paragraph."""
    questions = list(_questions(json.loads(source.read_text(encoding="utf-8"))))
    generator = random.Random(0)
    lines = ["sentence1\tsentence2\tscore"]
    for question, answer, others in generator.sample(questions, min(count, len(questions))):
        rows = [(answer, 1), *((other, 0) for other in generator.sample(others, CANDIDATES - 1))]
        generator.shuffle(rows)
        lines += [
            f"{_one_line(question)}\t{_one_line(sentence)}\t{score}" for sentence, score in rows
        ]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def _questions(squad: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each question, the sentence of its answer, and enough other sentences."""
    seen: set[str] = set()
    for article in squad["data"]:
        for paragraph in article["paragraphs"]:
            sentences = _split(paragraph["context"])
            for entry in paragraph["qas"]:
                question = entry["question"]
                place = _sentence_index(sentences, entry["answers"][0]["answer_start"])
                others = [s for s in dict.fromkeys(sentences) if s != sentences[place]]
                if len(others) >= CANDIDATES - 1 and question not in seen:
                    seen.add(question)
                    yield question, sentences[place], others


def _sentence_index(sentences: list[str], start: int) -> int:
    """Return the index of the sentence with a character; one space separates two sentences."""
    ends = itertools.accumulate(len(sentence) + 1 for sentence in sentences)
    return next(number for number, end in enumerate(ends) if start < end)


def _one_line(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("encoder", "text", "stsb", "squad"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["similarity", "search"])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "embeddings")
    parser.add_argument("--sentences", type=int, default=8000, help="of --text")
    parser.add_argument("--questions", type=int, default=2000, help="to learn from")
    parser.add_argument("--test-questions", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
