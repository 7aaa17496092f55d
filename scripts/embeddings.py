"""What distilled sentence embeddings are worth: for similarity on STS-B, for search on SQuAD.

    .venv/bin/python scripts/embeddings.py --encoder FOLDER --text wiki.txt --stsb FOLDER \
        --squad FOLDER

encoder: a sentence-embedding model. Similarity: students of half its layers learn its vectors by
recipe `embedding`, from sentences of plain text, from those of STS-B, and cut to fewer numbers,
beside one that learned from STS-B's labels; Spearman's correlation on its test file.

Search: which sentence of a paragraph answers a question? A cross-encoder is made of the encoder
with the answers of SQuAD, and teaches students by recipe `bi-encoder`, which embed question and
sentence apart; beside them one that learned from the labels. nDCG@10 and MRR on other articles.

Everything lies below --work; what is there is not made again. On two cores an hour and a half.
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

from scripts.made import UNTRAINED, distilled, scores, wait_quietly  # noqa: E402

SHAPE = "layers=1/2"
CANDIDATES = 4


def main() -> None:
    """Make what is missing, then print a table."""
    args = _arguments()
    wait_quietly(args.threads)
    for part in args.parts:
        {"similarity": similarity, "search": search}[part](args)


def similarity(args: argparse.Namespace) -> None:
    """Students of the encoder's vectors."""
    pairs = {"train": str(args.stsb / "train.tsv")}
    plain = {"train": str(_text(args))}
    taught = {"teacher": str(args.encoder), "recipe": "embedding", "student": SHAPE}
    labels = {"recipe": "finetune", "task": "feature-extraction"}
    layers = _layers(args)
    runs: dict[str, dict[str, Any]] = {
        "embedding, plain text": {**taught, **plain},
        "labels of STS-B": {**labels, **pairs, "student": str(layers)},
        "embedding, then labels": {
            **labels,
            **pairs,
            "student": str(args.work / _folder("embedding, plain text")),
        },
        "embedding, STS-B's sentences": {**taught, **pairs},
        "embedding, 64 numbers": {**taught, **plain, "student": f"{SHAPE},embedding_dim=64"},
    }
    made = {"encoder": args.encoder, "encoder's layers": layers}
    _report(args, runs, args.stsb / "test.tsv", made)


def search(args: argparse.Namespace) -> None:
    """Students of a cross-encoder."""
    train = _ranking(args.squad / "train.json", args.work / "ranking.tsv", args.questions)
    test = _ranking(args.squad / "dev.json", args.work / "ranking-test.tsv", args.test_questions)
    rows = {"train": str(train)}
    judge = distilled(
        args.work / "cross-encoder",
        **_common(args),
        **rows,
        recipe="finetune",
        task="text-classification",
        student=str(args.encoder),
        epochs=2,
    )
    taught = {**rows, "teacher": str(judge), "recipe": "bi-encoder"}
    labels = {**rows, "recipe": "finetune", "task": "feature-extraction"}
    layers = _layers(args)
    runs = {
        # Scored as it is distilled, which tells the teacher's own order as well.
        "cross-encoder's layers": {**taught, **UNTRAINED, "student": SHAPE, "eval": str(test)},
        "bi-encoder, cross-encoder's layers": {**taught, "student": SHAPE},
        "bi-encoder, encoder's layers": {**taught, "student": str(layers)},
        "labels, encoder's layers": {**labels, "student": str(layers)},
    }
    _report(args, runs, test, {"encoder": args.encoder, "encoder's layers": layers})
    record = args.work / _folder("cross-encoder's layers") / "distillation.json"
    found = json.loads(record.read_text(encoding="utf-8"))
    print(f"cross-encoder: {found['metric']} {100 * found['teacher_value']:.1f}")


def _layers(args: argparse.Namespace) -> Path:
    """A student of the encoder's layers as it is made."""
    return distilled(
        args.work / "layers",
        **_common(args),
        **UNTRAINED,
        teacher=str(args.encoder),
        recipe="embedding",
        student=SHAPE,
        train=str(_text(args)),
    )


def _report(
    args: argparse.Namespace, runs: dict[str, dict[str, Any]], test: Path, made: dict[str, Path]
) -> None:
    for name, folder in made.items():
        _tell(name, folder, test, args)
    for name, settings in runs.items():
        folder = distilled(args.work / _folder(name), **_common(args), **settings)
        _tell(name, folder, test, args)


def _folder(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _tell(name: str, folder: Path, test: Path, args: argparse.Namespace) -> None:
    found = scores(folder, test, max_length=args.max_length)
    print(f"{name}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in found.items()), flush=True)


def _common(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_length": args.max_length, "threads": args.threads, "bf16": args.bf16}


def _text(args: argparse.Namespace) -> Path:
    """The same sentences of --text at every run."""
    target: Path = args.work / "sentences.txt"
    texts = args.text.read_text(encoding="utf-8").splitlines()
    found = [s for text in texts for s in _split(text) if len(s.split()) > 3]
    target.parent.mkdir(parents=True, exist_ok=True)
    chosen = random.Random(0).sample(found, args.sentences)
    target.write_text("".join(f"{_plain(one)}\n" for one in chosen), encoding="utf-8")
    return target


def _split(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)


def _ranking(source: Path, target: Path, count: int) -> Path:
    """`count` questions, each with the sentence of its answer and others of the paragraph."""
    questions = list(_questions(json.loads(source.read_text(encoding="utf-8"))))
    choose = random.Random(0)
    lines = ["sentence1\tsentence2\tscore"]
    for question, answer, others in choose.sample(questions, min(count, len(questions))):
        rows = [(answer, 1), *((other, 0) for other in choose.sample(others, CANDIDATES - 1))]
        choose.shuffle(rows)
        lines += [f"{_plain(question)}\t{_plain(sentence)}\t{score}" for sentence, score in rows]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def _questions(squad: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """A question, the sentence of its answer, the paragraph's other ones: no fewer than needed."""
    seen: set[str] = set()
    for article in squad["data"]:
        for paragraph in article["paragraphs"]:
            sentences = _split(paragraph["context"])
            for asked in paragraph["qas"]:
                question = asked["question"]
                place = _place(sentences, asked["answers"][0]["answer_start"])
                others = [s for s in dict.fromkeys(sentences) if s != sentences[place]]
                if len(others) >= CANDIDATES - 1 and question not in seen:
                    seen.add(question)
                    yield question, sentences[place], others


def _place(sentences: list[str], start: int) -> int:
    """The sentence that a character of their paragraph is in: one of white space parts two."""
    ends = itertools.accumulate(len(sentence) + 1 for sentence in sentences)
    return next(number for number, end in enumerate(ends) if start < end)


def _plain(text: str) -> str:
    """On one line of a file, whatever parts its words."""
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
