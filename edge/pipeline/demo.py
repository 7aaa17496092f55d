"""`edge demo`: the whole way offline, from generated texts to a report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from edge.config import Config
from edge.console import hush, step
from edge.pipeline.config import load_recipe
from edge.pipeline.demo_data import LABELS, messages, to_tsv
from edge.pipeline.ledger import LEDGER_FILE
from edge.pipeline.run import RunInputs, RunResult, run
from edge.storage import check_target, staged_folder, write_text

if TYPE_CHECKING:
    from distill import DistillConfig

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY_SIZE = 1200


class DemoSize(Config):
    """How large the demo is; smaller ones are for tests.

    vocabulary and layers belong to the teacher; precisions and preset go to convert and benchmark.
    """

    train_rows: int = 4000
    eval_rows: int = 800
    layers: int = 4
    hidden: int = 128
    epochs: float = 6
    student_epochs: float = 4


FULL = DemoSize()


def demo(output: Path, *, seed: int = 0, size: DemoSize = FULL, recipe: str = "demo") -> RunResult:
    """Generate texts, train a small teacher on them, and run the recipe with it.

    `output` gets data/, teacher/ and everything that `edge run` writes. Run again after an
    interruption, it goes on where it stopped.
    """
    check_target(output, replaces=lambda folder: (folder / LEDGER_FILE).is_file())
    data = output / "data"
    train, held_out = data / "train.tsv", data / "eval.tsv"
    # The ledger marks the folder as ours from the first moment on.
    if not (output / LEDGER_FILE).is_file():
        write_text(output / LEDGER_FILE, '{"parts": {}}\n')
    write_text(train, to_tsv(messages(size.train_rows, seed=seed)))
    write_text(held_out, to_tsv(messages(size.eval_rows, seed=seed + 1)))
    teacher = _teacher(output, train, held_out, seed=seed, size=size)
    inputs = RunInputs(
        teacher=str(teacher),
        train=str(train),
        eval=str(held_out),
        output=output,
        overrides={"distill": {"epochs": size.student_epochs, "seed": seed}},
    )
    return run(load_recipe(recipe), inputs)


def _teacher(output: Path, train: Path, held_out: Path, *, seed: int, size: DemoSize) -> Path:
    """A small BERT fine-tuned on the generated texts from random weights; kept when there."""
    from distill import DistillConfig, distil, is_distilled

    target = output / "teacher"
    if is_distilled(target):
        return target
    shape = output / "teacher-shape"
    _write_shape(shape, train, size)
    config: DistillConfig = DistillConfig(
        student=str(shape),
        train=str(train),
        eval=str(held_out),
        recipe="finetune",
        output=target,
        epochs=size.epochs,
        learning_rate=5e-4,
        max_length=64,
        seed=seed,
    )
    distil(config)
    shutil.rmtree(shape)
    return target


def _write_shape(folder: Path, train: Path, size: DemoSize) -> None:
    """A folder with a configuration and a tokenizer made for the texts, and no weights."""
    with step("tokenizer from the training texts"), hush():
        import tokenizers
        import transformers

        words = tokenizers.BertWordPieceTokenizer(lowercase=True)
        words.train(
            [str(train)],
            vocab_size=_VOCABULARY_SIZE,
            min_frequency=2,
            special_tokens=list(_SPECIAL),
            show_progress=False,
        )
        config = transformers.BertConfig(
            architectures=["BertForSequenceClassification"],
            vocab_size=words.get_vocab_size(),
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            intermediate_size=4 * size.hidden,
            max_position_embeddings=128,
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
        with staged_folder(folder, replaces=lambda _: True) as stage:
            config.save_pretrained(stage)
            words.save_model(str(stage))
            transformers.BertTokenizerFast(
                str(stage / "vocab.txt"), model_max_length=128
            ).save_pretrained(stage)
