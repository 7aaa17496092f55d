"""`edge convert`: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Formats,
    LabelColumn,
    Output,
    PairColumn,
    Precisions,
    SeqLengths,
    TextColumn,
    TrustRemoteCode,
    columns,
    given,
    print_json,
    several,
    whole_numbers,
)
from edge.console import say

if TYPE_CHECKING:
    from edge.bundle import Manifest


def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint folder or hub id.")],
    output: Output,
    task: Annotated[
        str | None, typer.Option(help="Task, if not what the checkpoint was trained for.")
    ] = None,
    format: Formats = None,
    precision: Precisions = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What artifacts must run on: onnxruntime, avx2, portable; litert, legacy; "
            "ios15 to ios18. Repeat or separate by commas."
        ),
    ] = None,
    seq_length: SeqLengths = None,
    shapes: Annotated[
        str | None,
        typer.Option(help="Core ML: every length (flexible) or only those listed (enumerated)."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="Sentence embeddings: mean or cls, if not the checkpoint's.")
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(help="Sentence embeddings of length 1, if not as the checkpoint says."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Data like the app's, for int8-static and --max-drop."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Metric an artifact may lose on --calibration: 0.01 is one point."),
    ] = None,
    samples: Annotated[
        str | None, typer.Option(help="Data file whose first texts join the golden vectors.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    verify: Annotated[
        bool, typer.Option(help="Run every artifact and compare it with the checkpoint.")
    ] = True,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: AsJson = False,
) -> None:
    """Convert a checkpoint to ONNX, TFLite and Core ML, and verify every file by running it."""
    from converters import ConvertConfig
    from converters import convert as run_convert

    values = {
        "source": source,
        "output": output,
        "task": task,
        "format": several(format),
        "precision": several(precision),
        "target": several(target),
        "shapes": shapes,
        "pooling": pooling,
        "normalize": normalize,
        "calibration": calibration,
        "max_drop": max_drop,
        "seq_length": whole_numbers(seq_length, "--seq-length"),
        "samples": samples,
        "columns": columns(text_column, pair_column, label_column),
        "verify": verify,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
    }
    manifest = run_convert(ConvertConfig.build(given(values), where="edge convert"))
    if json:
        print_json(manifest.model_dump(mode="json"))
        return
    from edge.cli.inspect import print_wider
    from edge.cli.verify import print_verifications

    if not verify:
        say(f"{output} is written, not verified; next: edge verify {shlex.quote(str(output))}")
        return
    print_verifications(str(output), manifest.artifacts)
    print_wider(manifest.artifacts)
    say(f"{output} is complete; next: {_next_command(output, manifest)}")


def _next_command(output: Path, manifest: Manifest) -> str:
    """A command that shows the bundle at work."""
    texts = "--text 'a text of yours'"
    if manifest.task == "question-answering":
        texts = "--text 'a question' --text-pair 'a text that answers it'"
    elif manifest.pairs:
        texts += " --text-pair 'its second text'"
    return f"edge predict {shlex.quote(str(output))} {texts}"
