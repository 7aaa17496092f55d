"""The texts whose answers by the checkpoint become a bundle's golden vectors."""

from __future__ import annotations

from dataclasses import replace

from converters.calibration import encode_inputs
from converters.config import ConvertConfig
from edge.bundle.golden import texts_for
from edge.probes import Text, probes
from edge.tasks import Task
from edge.tasks.summary import say_understood
from edge.tokenization import Tokenizer

# A vocabulary of logits a token is large; a few texts prove as much as many.
_FILL_MASK_TEXTS = 8


def read_samples(
    config: ConvertConfig, task: Task, tokenizer: Tokenizer, *, max_length: int
) -> list[Text]:
    """The first `sample_count` inputs of `config.samples`; none where there is no file.

    They also tell whether the model reads pairs.
    """
    if config.samples is None:
        return []
    table = task.read(config.samples, columns=config.columns, targets=False)
    # Nothing is asked of their labels.
    table = replace(table.head(config.sample_count), targets=None)
    task.note_pairs(table)
    encodings = encode_inputs(task, table, tokenizer, max_length=max_length)
    say_understood(task, table, encodings, max_length=max_length)
    return list(dict.fromkeys(task.inputs(table)))[: config.sample_count]


def choose_texts(
    config: ConvertConfig, task: Task, tokenizer: Tokenizer, samples: list[Text], *, length: int
) -> list[Text]:
    """The samples, then the built-in texts, then those that try the tokenizer."""
    short = task.name == "fill-mask"
    built_in = texts_for(length, pairs=task.takes_pairs)
    texts = [*samples, *built_in][:_FILL_MASK_TEXTS] if short else [*samples, *built_in]
    texts += probes(tokenizer, max_length=length, pairs=task.takes_pairs, short=short)
    if config.golden_texts is None:
        return texts
    return texts[: len(samples) + config.golden_texts]
