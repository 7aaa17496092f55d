"""From a checkpoint to a bundle, complete and verified or not at all."""

from __future__ import annotations

import datetime
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.base import (
    Converter,
    Plan,
    Request,
    artifact_path,
    describe,
)
from converters.config import ConvertConfig
from edge import __version__
from edge.bundle import (
    GOLDEN_FILE,
    TOKENIZER_FILE,
    Artifact,
    Bundle,
    Golden,
    GoldenCase,
    Manifest,
    Source,
    TokenizerInfo,
    Tool,
    golden,
    is_bundle,
    write_manifest,
)
from edge.bundle.golden import texts_for
from edge.checkpoint import (
    Checkpoint,
    count_parameters,
    load_model,
    load_tokenizer,
    max_length,
    open_checkpoint,
)
from edge.console import hush, step
from edge.data import read_table
from edge.errors import CheckpointError
from edge.formats import FORMATS
from edge.reference import golden_cases
from edge.storage import check_target, require_space, sha256, staged_folder, write_text
from edge.tokenization import describe as describe_tokenizer
from edge.tokenization import word_pieces
from edge.verify import verify_new

# format -> module and class, imported on use.
CONVERTERS = {
    "onnx": "converters.onnx:OnnxConverter",
    "tflite": "converters.tflite:TfliteConverter",
    "coreml": "converters.coreml:CoremlConverter",
}


def convert(config: ConvertConfig) -> Manifest:
    """Convert, verify and write the bundle `config.output`; returns its manifest.

    An existing bundle there is replaced once the new one is complete. Raises CheckpointError or
    ConfigError for a source or request that cannot work, ConversionError when a converter fails,
    VerificationError when an artifact disagrees with the checkpoint. Nothing is left behind.
    """
    check_target(config.output, replaces=is_bundle)
    with hush():
        checkpoint = open_checkpoint(
            config.source,
            task=config.task,
            allow_pickle=config.allow_pickle,
            trust_remote_code=config.trust_remote_code,
        )
        tokenizer = load_tokenizer(checkpoint)
    lengths = config.lengths(max_length(checkpoint, tokenizer))
    samples = _samples(config)
    with staged_folder(config.output, replaces=is_bundle) as stage:
        info = _write_tokenizer(stage, checkpoint, tokenizer)
        with step(f"golden vectors of {config.source}"), hush():
            model = load_model(checkpoint)
            built_in = texts_for(lengths[-1], pairs=checkpoint.task.takes_pairs)
            texts = [*samples, *built_in[: config.golden_texts]]
            cases = golden_cases(
                checkpoint, model, tokenizer, texts, inputs=info.inputs, length=lengths[-1]
            )
        write_text(stage / GOLDEN_FILE, golden.dump(cases, max_length=lengths[-1]))
        parameters = count_parameters(model)
        require_space(config.output, _space_bytes(parameters, config))
        plan = Plan(
            task=checkpoint.task,
            inputs=info.inputs,
            lengths=lengths,
            flexible=config.shapes == "flexible",
        )
        draft = _manifest(checkpoint, info, plan, stage, len(cases), parameters)
        del model
        artifacts = _write_artifacts(config, checkpoint, plan, stage, _sizes(checkpoint, cases))
        manifest = draft.model_copy(update={"artifacts": tuple(artifacts)})
        write_manifest(stage, manifest)
        if config.verify:
            manifest = verify_new(Bundle.open(stage, checksums=False))
            write_manifest(stage, manifest)
    return manifest


def get_converter(name: str) -> Converter:
    """The converter of a format."""
    module, _, attribute = CONVERTERS[name].partition(":")
    converter: Converter = getattr(importlib.import_module(module), attribute)()
    return converter


def _samples(config: ConvertConfig) -> list[tuple[str, str | None]]:
    if config.samples is None:
        return []
    table = read_table(config.samples, columns=config.columns, targets=False)
    table = table.head(config.sample_count)
    pairs: Sequence[str | None] = table.pairs or [None] * len(table)
    return list(zip(table.texts, pairs, strict=True))


def _write_tokenizer(stage: Path, checkpoint: Checkpoint, tokenizer: Any) -> TokenizerInfo:
    text, info = describe_tokenizer(tokenizer, folder=checkpoint.path)
    if "token_type_ids" in info.inputs and not _has_token_types(checkpoint):
        # The tokenizer offers what the model would silently ignore.
        info = info.model_copy(
            update={"inputs": tuple(n for n in info.inputs if n != "token_type_ids")}
        )
    write_text(stage / TOKENIZER_FILE, text)
    if info.vocabulary is not None:
        write_text(stage / info.vocabulary, word_pieces(text))
    return info.model_copy(update={"sha256": sha256(stage / TOKENIZER_FILE)})


def _has_token_types(checkpoint: Checkpoint) -> bool:
    return bool(getattr(checkpoint.config, "type_vocab_size", 0))


def _sizes(checkpoint: Checkpoint, cases: list[GoldenCase]) -> dict[str, int]:
    """The sizes of symbolic output dimensions, read off the golden vectors."""
    sizes: dict[str, int] = {}
    for name, shape in checkpoint.task.outputs.items():
        for symbol, size in zip(shape[1:], cases[0].outputs[name].shape, strict=False):
            if isinstance(symbol, str) and symbol != "sequence":
                sizes[symbol] = size
    return sizes


def _write_artifacts(
    config: ConvertConfig, checkpoint: Checkpoint, plan: Plan, stage: Path, sizes: dict[str, int]
) -> list[Artifact]:
    with hush():
        from converters.graph import ExportView

        # Eager attention exports everywhere; several architectures have nothing else.
        view = ExportView(load_model(checkpoint, attention="eager"), checkpoint.task).eval()
    artifacts = []
    for name, requests in _requests(config).items():
        converter = get_converter(name)
        with tempfile.TemporaryDirectory(dir=stage) as scratch:
            with step(f"export to {FORMATS[name].title}"), hush():
                export = converter.open(view, plan, Path(scratch))
            for request in requests:
                path = artifact_path(stage, name, request)
                with step(f"write {path.name}"), hush():
                    kept = export.write(request, path)
                artifact = describe(converter, request, path, plan, sizes)
                artifacts.append(artifact.model_copy(update={"kept_wider": kept}))
    return artifacts


def _requests(config: ConvertConfig) -> dict[str, list[Request]]:
    """What to write, by format."""
    found: dict[str, list[Request]] = {}
    for form, target in config.targets():
        wanted = [Request(precision, target.name) for precision in config.precisions(target)]
        found.setdefault(form.name, []).extend(wanted)
    return found


def _space_bytes(parameters: int, config: ConvertConfig) -> int:
    """What the artifacts and the largest temporary file take, with a tenth to spare."""
    requests = [request for several in _requests(config).values() for request in several]
    artifacts = sum(parameters * request.precision.weight_bits // 8 for request in requests)
    return int(1.1 * (artifacts + 4 * parameters))


def _manifest(
    checkpoint: Checkpoint,
    info: TokenizerInfo,
    plan: Plan,
    stage: Path,
    samples: int,
    parameters: int,
) -> Manifest:
    """The manifest of a bundle whose artifacts are still to be written."""
    architecture = next(iter(checkpoint.config.architectures or []), None)
    if architecture is None:
        raise CheckpointError(f"{checkpoint.source}/config.json names no architectures")
    return Manifest(
        task=checkpoint.task.name,
        problem_type=checkpoint.task.problem_type,
        labels=checkpoint.task.labels,
        activation=checkpoint.task.activation,
        source=Source(
            checkpoint=checkpoint.source,
            architecture=architecture,
            parameters=parameters,
            sha256=checkpoint.weights_sha256,
        ),
        tokenizer=info,
        max_length=plan.max_length,
        golden=Golden(file=GOLDEN_FILE, sha256=sha256(stage / GOLDEN_FILE), samples=samples),
        artifacts=(),
        tool=Tool(name="edge-encoders", version=__version__),
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
