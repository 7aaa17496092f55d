"""Predictions of the artifacts of a bundle for texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.bundle import Bundle
from edge.config import Config
from edge.console import hush, say
from edge.data.values import is_text
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer, choose
from edge.errors import ConfigError


class Prediction(Config):
    """The prediction of one artifact for one text."""

    format: str
    target: str
    precision: str
    engine: str
    text: str
    text_pair: str | None
    prediction: dict[str, Any]


def predict(
    bundle: Bundle,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
) -> list[Prediction]:
    """Return the prediction of every artifact for every text.

    Raises ConfigError for pairs where the task reads one text, or the other way round.
    """
    if pairs is not None and len(pairs) != len(texts):
        raise ConfigError(f"{len(texts)} texts but {len(pairs)} second texts: give each text one")
    for number, text in enumerate((*texts, *(pairs or ())), start=1):
        if not is_text(text):
            raise ConfigError(
                f"text {number} is not UTF-8 ({ascii(text)[:60]}): check its encoding"
            )
    manifest = bundle.manifest
    with hush():
        queries = bundle_task(bundle).queries(
            texts, pairs, bundle_tokenizer(bundle), max_length=manifest.max_length
        )
    cut = sum(encoding.cut for encoding in queries.encodings)
    if cut:
        say(f"{cut} of {len(queries.encodings)} inputs cut at {manifest.max_length} tokens")
    predictions = []
    for artifact, chosen_engine in choose(bundle, formats, precisions, engine):
        with hush(), Runner(bundle, artifact, chosen_engine, threads=threads) as runner:
            answers = queries.answers(runner.infer(queries.encodings))
        predictions += [
            Prediction(
                format=artifact.format,
                target=artifact.target,
                precision=artifact.precision,
                engine=chosen_engine.name,
                text=text,
                text_pair=None if pairs is None else pairs[row],
                prediction=answer,
            )
            for row, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
    return predictions
