"""`edge demo`: the full pipeline offline, from generated texts to a report."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edge.console import hush, step
from edge.pipeline.baseline import BERT_TOKENS
from edge.pipeline.config import RunRecipe, load_recipe
from edge.pipeline.demo_data import LABELS, messages, to_tsv
from edge.pipeline.ledger import Ledger, claim, is_run
from edge.pipeline.run import RunInputs, RunResult, run
from edge.provenance import describe, versions
from edge.storage import check_target, output_lock, staged_folder, write_text

if TYPE_CHECKING:
    from distill import DistillConfig

# Size and training of the teacher, which starts from random weights; more rows only take longer.
_LAYERS, _HIDDEN, _HEADS, _EPOCHS, _LEARNING_RATE = 4, 128, 4, 6, 5e-4
_POSITIONS, _MAX_LENGTH = 128, 64
TRAIN_ROWS = 4000
_TRAIN_ROWS_PER_EVAL_ROW = 5


def demo(
    output: Path, *, seed: int = 0, train_rows: int = TRAIN_ROWS, recipe: str = "demo"
) -> RunResult:
    """Generate texts, train a small teacher on them, and run a recipe with it.

    `output` gets data/, teacher/ and the output of `edge run`. After an interruption, running again
    resumes. recipe: as in `edge run`.
    """
    steps = load_recipe(recipe)
    with output_lock(output):
        return _demo(output, steps, seed=seed, train_rows=train_rows)


def _demo(output: Path, steps: RunRecipe, *, seed: int, train_rows: int) -> RunResult:
    check_target(output, replaces=is_run, as_whole=False)
    train, held_out = output / "data" / "train.tsv", output / "data" / "eval.tsv"
    claim(output)
    write_text(train, to_tsv(messages(train_rows, seed=seed)))
    eval_rows = max(1, train_rows // _TRAIN_ROWS_PER_EVAL_ROW)
    write_text(held_out, to_tsv(messages(eval_rows, seed=seed + 1)))
    ledger = Ledger(output)
    teacher = _teacher(output, ledger, train, held_out, seed=seed)
    inputs = RunInputs(
        teacher=str(teacher),
        train=str(train),
        eval=str(held_out),
        output=output,
        overrides={"distill": {"seed": seed}},
    )
    result = run(steps, inputs)
    return result.model_copy(update={"duration_s": ledger.duration_s | result.duration_s})


def _teacher(output: Path, ledger: Ledger, train: Path, held_out: Path, *, seed: int) -> Path:
    """Return a small BERT trained on the generated texts, reusing an unchanged one."""
    from distill import DistillConfig, distill

    target, template = output / "teacher", output / "teacher-shape"
    _write_template(template, train)
    config: DistillConfig = DistillConfig(
        student=str(template),
        train=str(train),
        eval=str(held_out),
        recipe="finetune",
        output=target,
        epochs=_EPOCHS,
        learning_rate=_LEARNING_RATE,
        max_length=_MAX_LENGTH,
        seed=seed,
    )
    made_from = {**describe(config), "versions": versions("distill")}
    ledger.part("teacher", made_from, lambda: distill(config).to_dict(), output=target)
    shutil.rmtree(template)
    return target


def _write_template(folder: Path, train: Path) -> None:
    """Write a configuration and a tokenizer for the texts, without weights."""
    with step("vocabulary of the training texts"), hush():
        import transformers

        vocabulary = _vocabulary(train.read_text(encoding="utf-8"))
        config = transformers.BertConfig(
            architectures=["BertForSequenceClassification"],
            vocab_size=len(vocabulary),
            hidden_size=_HIDDEN,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            intermediate_size=4 * _HIDDEN,
            max_position_embeddings=_POSITIONS,
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
        with staged_folder(folder, replaces=lambda _: True) as stage:
            config.save_pretrained(stage)
            write_text(stage / "vocab.txt", "\n".join(vocabulary) + "\n")
            transformers.BertTokenizerFast(
                str(stage / "vocab.txt"), model_max_length=_POSITIONS
            ).save_pretrained(stage)


def _vocabulary(text: str) -> list[str]:
    """Return special tokens, characters, and words that occur at least twice, in a fixed order.

    A trained vocabulary would depend on the order of equally frequent pairs, which varies between
    runs.
    """
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    characters = sorted(set(text.lower()) - set(" \t\n"))
    pieces = [*characters, *(f"##{character}" for character in characters)]
    entries = dict.fromkeys([*BERT_TOKENS, *pieces])
    return [*entries, *sorted(w for w, count in words.items() if count > 1 and w not in entries)]
