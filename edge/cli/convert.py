"""`edge convert`: a checkpoint becomes a verified bundle."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.options import (
    AllowPickle,
    AsJson,
    Formats,
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


def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint folder or hub id.")],
    output: Output,
    task: Annotated[
        str | None, typer.Option(help="Task, if not what the checkpoint was trained for.")
    ] = None,
    format: Formats = None,
    precision: Precisions = None,
    seq_length: SeqLengths = None,
    samples: Annotated[
        str | None, typer.Option(help="Data file whose first texts join the golden vectors.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
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
        "seq_length": whole_numbers(seq_length, "--seq-length"),
        "samples": samples,
        "columns": columns(text_column, pair_column, None),
        "verify": verify,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
    }
    manifest = run_convert(ConvertConfig.build(given(values), where="edge convert"))
    if json:
        print_json(manifest.model_dump(mode="json"))
        return
    from edge.cli.verify import print_verifications

    print_verifications(str(output), manifest.artifacts)
