"""`edge pack ort-text`: one .onnx that takes a text, with the tokenizer as operators in front.

It runs in ONNX Runtime with the library of onnxruntime-extensions registered. A tokenizer whose
ids the operators cannot give exactly is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from converters.packs.config import PackConfig
from converters.packs.onnx_nodes import Nodes, model_of
from converters.packs.report import Proof
from converters.packs.text_graph import text_nodes
from converters.packs.texts import (
    Sample,
    Tokenise,
    differences,
    golden_cases,
    inputs_to_try,
    require_same,
    samples_at,
    tokenizer_errors,
)
from edge.bundle import Artifact, Bundle, Verification
from edge.console import hush, step
from edge.engines import Array, get_engine
from edge.engines.base import installed
from edge.engines.onnxruntime import load
from edge.engines.runner import Runner, bundle_task, bundle_tokenizer
from edge.errors import ConfigError, EngineError
from edge.inspection.contents import damaged
from edge.precision import Precision
from edge.verify import Tally

ENGINE = "onnxruntime with onnxruntime-extensions"
_TASKS = ("text-classification", "feature-extraction")


class OrtTextPacker:
    """Tokenizer nodes in front of an .onnx artifact."""

    format = "onnx"
    engine = "onnxruntime"

    def check(self, bundle: Bundle, *, pair: bool) -> None:
        """Raise ConfigError for what the operators cannot do."""
        with tokenizer_errors(bundle):
            reason = _refusal(bundle, pair=pair)
        if reason:
            raise ConfigError(f"{bundle.path} cannot be packed with its tokenizer: {reason}")
        found = installed("onnxruntime_extensions", "onnxruntime-extensions")
        if not found.available:
            raise EngineError(f"{found.reason}: {found.remedy}")

    def write(self, bundle: Bundle, artifact: Artifact, config: PackConfig, path: Path) -> Proof:
        """Write and run the pack; raises VerificationError or EngineError."""
        pair = bool(config.pair)
        length = _length(bundle, artifact, config.seq_length)
        with step(f"ort-text pack of {artifact.name}"), hush():
            try:
                with tokenizer_errors(bundle):
                    nodes = text_nodes(bundle, pair=pair, max_length=length)
            except ConfigError as error:
                raise ConfigError(
                    f"{bundle.path} cannot be packed with its tokenizer: {error}"
                ) from None
            _save(bundle, artifact, nodes, pair, path)
        with step(f"verify {path.name} in {ENGINE}"), hush():
            cases = golden_cases(bundle, pair=pair)
            inputs = inputs_to_try(cases, pair=pair)
            tokenizer = bundle_tokenizer(bundle)
            probe = path.with_name("probe.onnx")
            _save_tokenizer(bundle, nodes, pair, probe)
            wrong = differences(tokenizer, _tokeniser(probe), inputs, max_length=length)
            require_same("ort-text", wrong)
            runner = Runner(bundle, artifact, get_engine(self.engine))
            samples = samples_at(runner, cases, length)
            result = _verified(bundle, artifact, path, samples)
        names = ("text", "text_pair") if pair else ("text",)
        outputs = tuple(spec.name for spec in artifact.outputs)
        return Proof(length, names, outputs, (result,), len(inputs), wrong)


def _refusal(bundle: Bundle, *, pair: bool) -> str | None:
    """Why not, or None."""
    task = bundle_task(bundle)
    if task.name not in _TASKS:
        return (
            f"{task.name} answers for places in the text, which the operators do not tell: "
            f"only {' and '.join(_TASKS)} can be packed"
        )
    if pair and not task.takes_pairs:
        return f"{task.name} takes one text"
    info = bundle.manifest.tokenizer
    values = json.loads(bundle.file(info.file).read_text(encoding="utf-8"))
    kind = values["model"].get("type")
    if kind not in ("WordPiece", "BPE"):
        return f"its tokenizer is {kind}, the operators give WordPiece and byte-level BPE"
    return _word_piece_refusal(values) if kind == "WordPiece" else _byte_pair_refusal(values)


def _word_piece_refusal(values: dict[str, Any]) -> str | None:
    normalizer = (values.get("normalizer") or {}).get("type")
    pre_tokenizer = (values.get("pre_tokenizer") or {}).get("type")
    if normalizer != "BertNormalizer" or pre_tokenizer != "BertPreTokenizer":
        return f"its tokenizer prepares texts by {normalizer} and {pre_tokenizer}, not as BERT's"
    return None


def _byte_pair_refusal(values: dict[str, Any]) -> str | None:
    model, splitter = values["model"], values.get("pre_tokenizer") or {}
    plain = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
    if not plain or splitter.get("add_prefix_space") or values.get("normalizer"):
        return "its tokenizer is BPE, but does not prepare texts as RoBERTa's"
    marks = ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "ignore_merges")
    named = [name for name in marks if model.get(name)]
    if named:
        return f"its tokenizer is BPE with {named[0]}, which the operators lack"
    return None


def _length(bundle: Bundle, artifact: Artifact, asked: int | None) -> int:
    longest = min(bundle.manifest.max_length, artifact.sequence_lengths[-1])
    if asked is not None and asked > longest:
        raise ConfigError(
            f"{artifact.name} takes up to {longest} tokens: use --seq-length {longest} or less"
        )
    return asked or longest


def _save(bundle: Bundle, artifact: Artifact, nodes: Nodes, pair: bool, path: Path) -> None:
    """Write the artifact with the tokenizer's nodes before its own."""
    import onnx

    file = bundle.artifact_path(artifact)
    try:
        model = onnx.load(str(file))
    except Exception as error:  # protobuf raises several classes, all about this file
        raise damaged(file, "ONNX", error) from None
    front = _tokenizer_model(bundle, nodes, pair, model)
    graph = model.graph
    own = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*front.graph.node, *own])
    graph.input.extend(front.graph.input)
    del model.opset_import[:]
    model.opset_import.extend(front.opset_import)
    onnx.save(model, str(path))


def _save_tokenizer(bundle: Bundle, nodes: Nodes, pair: bool, path: Path) -> None:
    """Write the tokenizer's nodes alone, so that its ids can be seen."""
    import onnx

    onnx.save(_tokenizer_model(bundle, nodes, pair, None), str(path))


def _tokenizer_model(bundle: Bundle, nodes: Nodes, pair: bool, like: Any) -> Any:
    """A model of the tokenizer's nodes; opsets as in the model it goes in front of."""
    from onnx import TensorProto, helper

    texts = ("text", "text_pair") if pair else ("text",)
    inputs = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in texts]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, [1, "sequence"])
        for name in bundle.manifest.tokenizer.inputs
    ]
    opsets = {"": 18} if like is None else {o.domain: o.version for o in like.opset_import}
    ir_version = 9 if like is None else like.ir_version
    return model_of(nodes.nodes, inputs, outputs, opsets, ir_version=ir_version)


class _Session:
    """ONNX Runtime with the extensions' operators, for string inputs."""

    def __init__(self, path: Path) -> None:
        import onnxruntime_extensions

        onnxruntime = load()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
        try:
            self._inner: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind raises a dozen unrelated classes
            raise EngineError(f"{ENGINE} cannot load {path.name}: {_line(error)}") from None

    def run(self, text: str, pair: str | None) -> dict[str, Array]:
        """Outputs by name, batch dimension included; raises EngineError."""
        feeds = {"text": np.array([text], object)}
        if pair is not None:
            feeds["text_pair"] = np.array([pair], object)
        names = [output.name for output in self._inner.get_outputs()]
        try:
            return dict(zip(names, self._inner.run(names, feeds), strict=True))
        except Exception as error:
            raise EngineError(f"{ENGINE} failed on {text[:60]!r}: {_line(error)}") from None


def _tokeniser(path: Path) -> Tokenise:
    session = _Session(path)

    def tokenise(text: str, pair: str | None) -> list[int]:
        found = session.run(text, pair)
        count = int(found["attention_mask"].sum())
        return [int(index) for index in found["input_ids"][0, :count]]

    return tokenise


def _verified(
    bundle: Bundle, artifact: Artifact, path: Path, samples: list[Sample]
) -> Verification:
    """The pack's outputs for texts against the checkpoint's."""
    task, tally = bundle_task(bundle), Tally()
    version = f"{installed('onnxruntime', 'onnxruntime').version}"
    version += f", {installed('onnxruntime_extensions', 'onnxruntime-extensions').version}"
    session = _Session(path)
    for sample in samples:
        count = len(sample.encoding)
        outputs = task.trim(session.run(sample.text, sample.pair), 0, count)
        tally.add(task, sample.encoding, outputs, sample.outputs, count)
    return tally.verification(ENGINE, version, Precision(artifact.precision).gate)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
