"""`edge pack`: an artifact of a bundle becomes the one file a mobile library takes as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import AsJson, BundlePath, given, number, print_json, print_table
from edge.console import human_bytes, say

if TYPE_CHECKING:
    from converters.packs import PackReport


def pack(
    kind: Annotated[
        str,
        typer.Argument(
            help="mediapipe (.tflite for MediaPipe's TextClassifier) or ort-text (.onnx that takes "
            "text, for ONNX Runtime with onnxruntime-extensions)."
        ),
    ],
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    precision: Annotated[
        str | None, typer.Option(help="Of the artifact to pack: fp32, fp16 or int8.")
    ] = None,
    seq_length: Annotated[
        int | None,
        typer.Option(help="Tokens; longer texts are cut. The longest the bundle has."),
    ] = None,
    pair: Annotated[
        bool | None,
        typer.Option("--pair/--single", help="Two texts or one. As the bundle was made."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Pack an artifact with its tokenizer and labels into one file, and verify it by running it."""
    from converters.packs import PackConfig
    from converters.packs import pack as run_pack

    values = {
        "kind": kind,
        "bundle": bundle,
        "output": output,
        "precision": precision,
        "seq_length": seq_length,
        "pair": pair,
    }
    report = run_pack(PackConfig.build(given(values), where="edge pack"))
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(report)


def _print(report: PackReport) -> None:
    """The file, then one line for each engine; on stderr what an app has to know."""
    header = ("file", "size", "from", "tokens", "engine", "status", "rel. error", "agreement")
    rows = [
        (
            str(report.file),
            human_bytes(report.bytes),
            report.artifact,
            str(report.sequence_length),
            result.engine,
            result.status,
            number(result.max_relative_error, ".1e"),
            result.agreement_text,
        )
        for result in report.verifications
    ]
    print_table(f"{report.kind} pack", header, rows)
    for result in report.verifications:
        if result.status == "unavailable":
            say(f"not run in {result.engine}: {result.reason}")
    if report.different:
        say(
            f"its tokenizer splits {len(report.different)} of {report.texts} texts in another way "
            "than the bundle's, so their scores differ:"
        )
        for difference in report.different:
            say(f"  {_excerpt(' + '.join(filter(None, (difference.text, difference.text_pair))))}")


def _excerpt(text: str, *, width: int = 70) -> str:
    """The part of a text around its first character that is not plain ASCII, quoted."""
    first = next((i for i, char in enumerate(text) if not " " <= char <= "~"), 0)
    start = max(0, first - width // 2)
    return repr(text[start : start + width])
