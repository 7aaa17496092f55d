"""`edge pack mediapipe`: a .tflite that MediaPipe Tasks' TextClassifier loads as it is.

MediaPipe tokenises by itself and runs one fixed length: it wants three int32 inputs, probabilities
as output, and the vocabulary and labels inside the file. What it cannot express is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from converters.packs import tflite_file, tflite_metadata
from converters.packs.config import PackConfig
from converters.packs.mediapipe_process import ENGINE, ENVIRONMENT, TextClassifier
from converters.packs.report import Proof, TextDifference
from converters.packs.texts import (
    Sample,
    agreeing,
    differences,
    encode,
    golden_cases,
    inputs_to_try,
    require_tokenizer,
    samples_at,
    tokenizer_errors,
)
from edge.bundle import Artifact, Bundle, Verification
from edge.console import hush, step
from edge.engines import Array, get_engine
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer
from edge.errors import ConfigError, EdgeError, EngineError, VerificationError
from edge.inspection.contents import damaged
from edge.precision import Precision
from edge.tasks import Outputs, Task
from edge.tasks.base import softmax, stable_sigmoid
from edge.verify import Tally

# Signature name -> what MediaPipe calls it; in this order.
_INPUTS = {
    "input_ids": tflite_metadata.IDS,
    "token_type_ids": tflite_metadata.SEGMENTS,
    "attention_mask": tflite_metadata.MASK,
}
_OUTPUT = "probabilities"
_TOKENS = ("[CLS]", "[SEP]", "[UNK]")
# Added tokens that only a user who means to would type.
_KNOWN = (*_TOKENS, "[PAD]", "[MASK]")
# The pack and its artifact are the same operators on the same weights, but for the activation.
_SAME = 1e-5


class MediapipePacker:
    """One length of a .tflite artifact, probabilities behind it, metadata and files after it."""

    format = "tflite"
    engine = "litert"

    def check(self, bundle: Bundle, *, pair: bool) -> None:
        """Raise ConfigError for what MediaPipe's TextClassifier cannot do."""
        with tokenizer_errors(bundle):
            reason = _refusal(bundle, pair=pair)
        if reason:
            raise ConfigError(f"{bundle.path} cannot be packed for MediaPipe: {reason}")

    def write(self, bundle: Bundle, artifact: Artifact, config: PackConfig, path: Path) -> Proof:
        """Write and run the pack; raises ConversionError or VerificationError."""
        length = _length(artifact, config.seq_length)
        with step(f"mediapipe pack of {artifact.name}, {length} tokens"):
            _write(bundle, artifact, length, path)
        with step(f"verify {path.name} in litert"), hush():
            cases = golden_cases(bundle, pair=False)
            runner = Runner(bundle, artifact, get_engine(self.engine))
            samples = samples_at(runner, cases, length, padded=True)
            results = [_in_litert(bundle, artifact, path, length, samples)]
        found = ENVIRONMENT.availability()
        if not found.available:
            reason = f"{found.reason}: {found.remedy}"
            results.append(Verification(status="unavailable", engine=ENGINE, reason=reason))
            return _proof(length, results, 0, ())
        with step(f"verify {path.name} in {ENGINE}"), hush():
            texts = inputs_to_try(cases, pair=False)
            wrong = _wrong_texts(bundle, path, length, texts)
            kept = agreeing(samples, wrong)
            results.append(_in_mediapipe(bundle, artifact, path, length, kept, found.version))
        return _proof(length, results, len(texts), wrong)


def _proof(
    length: int, results: list[Verification], texts: int, wrong: tuple[TextDifference, ...]
) -> Proof:
    return Proof(length, tuple(_INPUTS.values()), (_OUTPUT,), tuple(results), texts, wrong)


def _refusal(bundle: Bundle, *, pair: bool) -> str | None:
    """Why not, or None."""
    manifest = bundle.manifest
    info = manifest.tokenizer
    if manifest.task != "text-classification":
        return f"its TextClassifier classifies texts, this bundle is for {manifest.task}"
    if manifest.activation == "none":
        return "its TextClassifier gives probabilities, this bundle is a regression"
    if pair:
        return "its TextClassifier takes one text, this bundle was made for pairs of texts"
    if info.vocabulary is None:
        return "its tokenizer is WordPiece with a vocab.txt, this bundle's is another kind"
    if not info.lowercase:
        return "its tokenizer lower-cases every text, this bundle's tells capitals apart"
    if info.pad_token_id != 0:
        return f"it pads with token 0, this bundle with token {info.pad_token_id}"
    labels = manifest.labels or ()
    # MediaPipe ends a line at a carriage return too, and reads a name up to its first NUL.
    if any(set(label) & set("\n\r\0") or not label.strip() for label in labels):
        return "its labels are the lines of a file, and a label of this bundle is not a line"
    return _tokenizer_refusal(bundle)


def _tokenizer_refusal(bundle: Bundle) -> str | None:
    info = bundle.manifest.tokenizer
    vocabulary = _vocabulary(bundle).decode().split("\n")[:-1]
    values = json.loads(bundle.file(info.file).read_text(encoding="utf-8"))
    model: dict[str, Any] = values["model"]
    added = [a["content"] for a in values.get("added_tokens") or () if a["content"] not in _KNOWN]
    if added:
        return f"its tokenizer knows no added tokens, this bundle's has {added[0]!r}"
    missing = [token for token in _TOKENS if token not in vocabulary]
    if missing:
        return f"its tokenizer needs {' and '.join(missing)} in the vocabulary"
    known = model["vocab"] | {added["content"]: added["id"] for added in values["added_tokens"]}
    # What fills the line of an id without a token is no word of any text.
    if any(known.get(token, index) != index for index, token in enumerate(vocabulary)):
        return "its tokenizer numbers the lines of vocab.txt, this bundle's tokens have other ids"
    if model.get("continuing_subword_prefix", "##") != "##":
        prefix = model["continuing_subword_prefix"]
        return f"its tokenizer marks the rest of a word by ##, this bundle's by {prefix}"
    ids = encode(bundle_tokenizer(bundle), "", None, max_length=8).input_ids
    if [vocabulary[index] for index in ids] != ["[CLS]", "[SEP]"]:
        return "its tokenizer puts [CLS] and [SEP] around a text, this bundle's something else"
    return None


def _vocabulary(bundle: Bundle) -> bytes:
    name = bundle.manifest.tokenizer.vocabulary
    assert name is not None
    return bundle.file(name).read_bytes()


def _length(artifact: Artifact, asked: int | None) -> int:
    if asked is None:
        return artifact.sequence_lengths[-1]
    if asked not in artifact.sequence_lengths:
        held = ", ".join(map(str, artifact.sequence_lengths))
        raise ConfigError(
            f"{artifact.name} has no signature of {asked} tokens: use --seq-length {held}, "
            f"or edge convert with --seq-length {asked}"
        )
    return asked


def _write(bundle: Bundle, artifact: Artifact, length: int, path: Path) -> None:
    manifest = bundle.manifest
    file = bundle.artifact_path(artifact)
    try:
        model = tflite_file.read_model(file.read_bytes())
        signature = tflite_file.keep_signature(model, length)
        tflite_file.arrange_inputs(model, signature, _INPUTS)
        tflite_file.append_activation(model, signature, manifest.activation, _OUTPUT)
    except EdgeError:
        raise
    except Exception as error:  # a damaged flatbuffer raises several classes, all about this file
        raise damaged(file, "TFLite", error) from None
    labels = manifest.labels or tuple(map(str, range(_label_count(artifact))))
    _save(model, path, _vocabulary(bundle), labels, name=manifest.source.architecture)


def _label_count(artifact: Artifact) -> int:
    return int(artifact.outputs[0].shape[-1])


def _save(model: Any, path: Path, vocabulary: bytes, labels: tuple[str, ...], *, name: str) -> None:
    """Write a model of MediaPipe's three inputs with its metadata and files."""
    metadata = tflite_metadata.classifier_metadata(
        name, list(_INPUTS.values()), labels=bool(labels)
    )
    tflite_file.set_metadata(model, metadata)
    path.write_bytes(tflite_file.write_model(model))
    files = {tflite_metadata.VOCABULARY_FILE: vocabulary}
    if labels:
        files[tflite_metadata.LABELS_FILE] = ("\n".join(labels) + "\n").encode()
    tflite_metadata.append_files(path, files)


def _in_litert(
    bundle: Bundle, artifact: Artifact, path: Path, length: int, samples: list[Sample]
) -> Verification:
    """The pack's numbers in LiteRT, held against the artifact's own and the checkpoint's."""
    engine, task = get_engine("litert"), bundle_task(bundle)
    tokenizer = bundle_tokenizer(bundle)
    encodings = [sample.encoding for sample in samples]
    tally = Tally()
    with Runner(bundle, artifact, engine) as runner, engine.open(path) as session:
        artifact_logits = runner.infer(encodings, length=length)
        for sample, own in zip(samples, artifact_logits, strict=True):
            inputs = tokenizer.pad([sample.encoding], length)
            # Read by no operator where the model has no segments.
            inputs.setdefault("token_type_ids", np.zeros_like(inputs["input_ids"]))
            scores = session.run(inputs)[_OUTPUT][0]
            difference = float(np.abs(scores - _probabilities(task, own["logits"])).max())
            if not difference < _SAME:
                raise VerificationError(
                    f"the mediapipe pack differs from {artifact.name} by {difference:.2g} in "
                    f"LiteRT on {sample.text[:60]!r}"
                )
            _count(tally, task, sample, scores, length)
    gate = Precision(artifact.precision).gate
    return tally.verification(engine.name, engine.availability().version, gate)


def _wrong_texts(
    bundle: Bundle, path: Path, length: int, texts: list[tuple[str, str | None]]
) -> tuple[TextDifference, ...]:
    """The texts that MediaPipe's own tokenizer splits in another way than the bundle's."""
    probe = path.with_name("probe.tflite")
    _save(_probe(length), probe, _vocabulary(bundle), (), name="ids as scores")
    with TextClassifier(probe) as classifier:

        def tokenise(text: str, pair: str | None) -> list[int]:
            # The last id is [SEP], never 0, and padding is 0.
            return [int(score) for score in np.trim_zeros(classifier.scores(text), "b")]

        found = differences(bundle_tokenizer(bundle), tokenise, texts, max_length=length)
    require_tokenizer(ENGINE, bundle, found)
    return found


def _probe(length: int) -> Any:
    """A model whose scores are the ids: MediaPipe tells in no other way how it splits a text."""
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, kind: int) -> Any:
        made = schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name, kind, [1, length], 0
        return made

    graph = schema.SubGraphT()
    graph.tensors = [tensor(name, schema.TensorType.INT32) for name in _INPUTS.values()]
    graph.tensors.append(tensor(_OUTPUT, schema.TensorType.FLOAT32))
    graph.inputs, graph.outputs = [0, 1, 2], [3]
    cast = schema.OperatorT()
    cast.inputs, cast.outputs = [0], [3]
    graph.operators = [cast]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [], [graph]
    model.buffers = [schema.BufferT()]
    cast.opcodeIndex = tflite_file.operator_code(model, schema.BuiltinOperator.CAST)
    return model


def _in_mediapipe(
    bundle: Bundle,
    artifact: Artifact,
    path: Path,
    length: int,
    samples: list[Sample],
    version: str | None,
) -> Verification:
    """MediaPipe's scores of whole texts against the checkpoint's."""
    task, tally = bundle_task(bundle), Tally()
    try:
        with TextClassifier(path) as classifier:
            for sample in samples:
                _count(tally, task, sample, classifier.scores(sample.text), length)
    except EngineError as error:
        return Verification(
            status="failed", engine=ENGINE, engine_version=version, reason=str(error)
        )
    return tally.verification(ENGINE, version, Precision(artifact.precision).gate)


def _count(tally: Tally, task: Task, sample: Sample, scores: Array, length: int) -> None:
    """Add one sample's probabilities to the tally."""
    expected = _probabilities(task, sample.outputs["logits"])
    # A tally takes several labels for those above 0, which is half in probabilities.
    middle = 0.5 if task.activation == "sigmoid" else 0.0
    pair: tuple[Outputs, Outputs] = {"logits": scores - middle}, {"logits": expected - middle}
    tally.add(task, sample.encoding, *pair, length)


def _probabilities(task: Task, logits: Array) -> Array:
    return softmax(logits) if task.activation == "softmax" else stable_sigmoid(logits)
