"""`edge predict`: try a text on every artifact of a bundle."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edge.cli.options import (
    AsJson,
    BundlePath,
    Formats,
    Precisions,
    Threads,
    print_json,
    print_table,
    several,
)

_SHOWN_CHARACTERS = 100


def predict(
    bundle: BundlePath,
    text: Annotated[list[str], typer.Option(help="Text; repeat for several.")],
    text_pair: Annotated[
        list[str] | None, typer.Option(help="Second text of each pair, e.g. the context.")
    ] = None,
    format: Formats = None,
    precision: Precisions = None,
    engine: Annotated[str | None, typer.Option(help="Run in this engine only.")] = None,
    threads: Threads = 1,
    json: AsJson = False,
) -> None:
    """Run texts through every artifact, from the bundle alone."""
    from edge.bundle import Bundle
    from edge.predict import predict as run_predict

    found = run_predict(
        Bundle.open(bundle),
        text,
        text_pair or None,
        formats=several(format),
        precisions=several(precision),
        engine=engine,
        threads=threads,
    )
    if json:
        print_json({"predictions": [row.model_dump(mode="json") for row in found]})
        return
    from edge.formats import variant

    header = ("format", "precision", "engine", "text", "prediction")
    rows = [
        (
            r.format,
            variant(r.format, r.target, r.precision),
            r.engine,
            _cut(r.text),
            _words(r.prediction, paired=bool(text_pair)),
        )
        for r in found
    ]
    print_table(str(bundle), header, rows)


def _words(prediction: dict[str, Any], *, paired: bool) -> str:
    """A prediction in few words. paired: whether there were second texts."""
    if "embedding" in prediction:
        size = f"{len(prediction['embedding'])} numbers"
        cosine = prediction.get("similarity")
        other = "" if paired else " to the first text"
        return size if cosine is None else f"similarity {cosine:.4f}{other}, {size}"
    if "answer" in prediction:
        place = f"characters {prediction['start']}-{prediction['end']}"
        return f"{prediction['answer']!r} ({place}, score {prediction['score']:.3f})"
    if "label" in prediction:
        return f"{prediction['label']} ({prediction['score']:.3f})"
    if "labels" in prediction:
        return ", ".join(prediction["labels"]) or "none"
    if "tokens" in prediction:
        return " ".join(f"{token['token']}/{token['label']}" for token in prediction["tokens"])
    if "masks" in prediction:
        return "; ".join(
            ", ".join(choice["token"] for choice in mask["choices"]) for mask in prediction["masks"]
        )
    return _cut(", ".join(f"{key} {value}" for key, value in prediction.items()))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
