"""Answers for a person: texts through the artifacts of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge.bundle import Bundle
from edge.config import Config
from edge.console import hush
from edge.engines.runner import Runner, bundle_task, choose
from edge.errors import ConfigError


class Prediction(Config):
    """One artifact's answer to one text."""

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
    """Every artifact's answer to every text; raises ConfigError for pairs that do not fit."""
    if pairs is not None and not bundle_task(bundle).takes_pairs:
        raise ConfigError(f"{bundle.manifest.task} takes one text, not a pair")
    if pairs is not None and len(pairs) != len(texts):
        raise ConfigError(f"{len(texts)} texts but {len(pairs)} second texts")
    found = []
    for artifact, runs_in in choose(bundle, formats, precisions, engine):
        with hush(), Runner(bundle, artifact, runs_in, threads=threads) as runner:
            encodings = runner.tokenizer.encode(texts, pairs, max_length=bundle.manifest.max_length)
            for row, outputs in enumerate(runner.infer(encodings)):
                answer = runner.task.predict(outputs, encodings[row], runner.tokenizer)
                found.append(
                    Prediction(
                        format=artifact.format,
                        target=artifact.target,
                        precision=artifact.precision,
                        engine=runner.engine.name,
                        text=texts[row],
                        text_pair=None if pairs is None else pairs[row],
                        prediction=answer,
                    )
                )
    return found
