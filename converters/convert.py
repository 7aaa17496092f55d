"""From a checkpoint to a bundle, complete and verified or not at all."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from converters.base import Plan
from converters.calibration import Calibration, model_inputs, read_calibration
from converters.config import ConvertConfig
from converters.golden import choose_texts, read_samples
from converters.refusals import require_fitting_files
from converters.write import requests, write_artifacts
from edge import __version__
from edge.bundle import (
    GOLDEN_FILE,
    TOKENIZER_FILE,
    Bundle,
    Golden,
    Manifest,
    Source,
    TokenizerInfo,
    Tool,
    golden,
    is_bundle,
    write_manifest,
)
from edge.checkpoint import (
    Checkpoint,
    count_parameters,
    glance,
    has_token_types,
    load_model,
    load_tokenizer,
    max_length,
    open_checkpoint,
)
from edge.console import counted, hush, say, step
from edge.errors import CheckpointError, ConfigError
from edge.process.memory import release_memory
from edge.reference import Reference, golden_cases
from edge.storage import (
    check_target,
    output_lock,
    require_space,
    sha256,
    staged_folder,
    write_text,
)
from edge.tasks.base import Examples
from edge.tokenization import Tokenizer, read_otherwise, word_pieces
from edge.tokenization import describe as describe_tokenizer
from edge.verify import verify_new


def convert(config: ConvertConfig) -> Manifest:
    """Convert, verify and write the bundle `config.output`; returns its manifest.

    An existing bundle there is replaced once the new one is complete. Raises CheckpointError or
    ConfigError for a source or request that cannot work, ConversionError when a converter fails,
    VerificationError when an artifact disagrees with the checkpoint. Nothing is left behind.
    """
    with output_lock(config.output):
        return _convert(config)


def _convert(config: ConvertConfig) -> Manifest:
    check_target(config.output, replaces=is_bundle)
    task = glance(config.source, config.task)
    for file in (config.samples, config.calibration):
        if task is not None and file is not None:
            # A mistake in a file is told before Transformers is loaded.
            task.check_file(file, columns=config.columns, targets=False)
    with hush():
        checkpoint = open_checkpoint(
            config.source,
            task=config.task,
            allow_pickle=config.allow_pickle,
            trust_remote_code=config.trust_remote_code,
            pooling=config.pooling,
            normalize=config.normalize,
        )
        tokenizer = load_tokenizer(checkpoint)
    lengths = config.lengths(max_length(checkpoint, tokenizer))
    reader = Tokenizer.of(tokenizer, folder=checkpoint.path)
    _check_room(reader, lengths[-1], checkpoint)
    samples = read_samples(config, checkpoint.task, reader, max_length=lengths[-1])
    with staged_folder(config.output, replaces=is_bundle) as stage:
        info = _write_tokenizer(stage, checkpoint, tokenizer)
        ours = Tokenizer.from_file(stage / TOKENIZER_FILE, info)
        calibration = read_calibration(config, checkpoint.task, ours, max_length=lengths[-1])
        with step(f"golden vectors of {config.source}"), hush():
            model = load_model(checkpoint)
            parameters = count_parameters(model)
            require_fitting_files(parameters, requests(config))
            texts = choose_texts(config, checkpoint.task, ours, samples, length=lengths[-1])
            cases = golden_cases(
                checkpoint, model, tokenizer, texts, inputs=info.inputs, length=lengths[-1]
            )
        write_text(stage / GOLDEN_FILE, golden.dump(cases, max_length=lengths[-1]))
        require_space(config.output, _space_bytes(parameters, config))
        plan = Plan(
            task=checkpoint.task,
            inputs=info.inputs,
            lengths=lengths,
            flexible=config.shapes == "flexible",
            calibration=model_inputs(calibration, ours, info.inputs),
        )
        counts = (len(cases), min(len(samples), len(cases)))
        draft = _manifest(checkpoint, info, plan, stage, counts, parameters)
        scored = _scored(config, checkpoint, model, calibration)
        del model
        release_memory()
        artifacts = write_artifacts(
            config, checkpoint, plan, Bundle(stage, draft), cases, scored=scored
        )
        manifest = draft.model_copy(update={"artifacts": tuple(artifacts)})
        manifest = write_manifest(stage, manifest)
        release_memory()
        if config.verify:
            manifest = verify_new(Bundle.open(stage, checksums=False))
            manifest = write_manifest(stage, manifest)
    return manifest


def _check_room(tokenizer: Tokenizer, length: int, checkpoint: Checkpoint) -> None:
    """Refuse inputs that hold no token of a text beside special tokens and a prompt."""
    around = len(tokenizer.encode_whole([""])[0])
    if around >= length:
        prompt = " and its prompt" if checkpoint.head and checkpoint.head.prompt else ""
        raise ConfigError(
            f"the special tokens of {checkpoint.source}{prompt} take {around} tokens of every "
            f"text, and the longest input has {length}: shorten them, or use a longer --seq-length"
        )


def _scored(
    config: ConvertConfig, checkpoint: Checkpoint, model: Any, calibration: Calibration | None
) -> tuple[Examples, tuple[str, float]] | None:
    """Labelled examples and the checkpoint's own metric on them, where a budget is asked for."""
    if config.max_drop is None or calibration is None or calibration.examples is None:
        return None
    examples = calibration.examples
    with step(f"score {config.source} on {counted(calibration.samples, 'row')}"), hush():
        found = examples.score(Reference(checkpoint, model).infer(examples.encodings))
    return examples, next(iter(found.items()))


def _write_tokenizer(stage: Path, checkpoint: Checkpoint, tokenizer: Any) -> TokenizerInfo:
    text, info = describe_tokenizer(tokenizer, folder=checkpoint.path)
    if "token_type_ids" in info.inputs and not has_token_types(checkpoint):
        # The tokenizer offers what the model would silently ignore.
        info = info.model_copy(
            update={"inputs": tuple(n for n in info.inputs if n != "token_type_ids")}
        )
    write_text(stage / TOKENIZER_FILE, text)
    digests: dict[str, str | None] = {"sha256": sha256(stage / TOKENIZER_FILE)}
    name = info.vocabulary
    if name is not None:
        lines, otherwise = word_pieces(text), read_otherwise(text, info)
        if otherwise is not None:
            say(f"no {name}: by BERT's rules apps would read other tokens in {otherwise!r}")
            digests["vocabulary"] = None
        elif lines is None:
            say(f"no {name}: two tokens of the tokenizer share an id or hold line breaks")
            digests["vocabulary"] = None
        else:
            write_text(stage / name, lines)
            digests["vocabulary_sha256"] = sha256(stage / name)
    return info.model_copy(update=digests)


def _space_bytes(parameters: int, config: ConvertConfig) -> int:
    """What the artifacts and the largest temporary files take, with a tenth to spare."""
    by_format = requests(config).values()
    widths = (request.precision.weight_bits for wanted in by_format for request in wanted)
    artifacts = sum(parameters * bits // 8 for bits in widths)
    # Core ML needs the most beside its results: a full and a half package for each target.
    targets = max(len({request.target for request in wanted}) for wanted in by_format)
    return int(1.1 * (artifacts + 6 * parameters * targets))


def _manifest(
    checkpoint: Checkpoint,
    info: TokenizerInfo,
    plan: Plan,
    stage: Path,
    counts: tuple[int, int],
    parameters: int,
) -> Manifest:
    """The manifest of a bundle whose artifacts are still to be written.

    counts: golden vectors, and how many of them are of the user's own texts.
    """
    golden_file = stage / GOLDEN_FILE
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
        embedding=checkpoint.embedding,
        pairs=checkpoint.task.pairs,
        similarity=checkpoint.similarity,
        golden=Golden(
            file=GOLDEN_FILE, sha256=sha256(golden_file), samples=counts[0], from_data=counts[1]
        ),
        artifacts=(),
        tool=Tool(name="edge-encoders", version=__version__),
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
