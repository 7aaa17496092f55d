"""A tiny bundle, a tiny baseline, and a preset that takes a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import benchmark
from edge.bundle import (
    Artifact,
    Golden,
    GoldenCase,
    Manifest,
    Source,
    TokenizerInfo,
    Tool,
    Verification,
    golden,
    write_manifest,
)
from edge.formats import FORMATS
from edge.signature import TensorSpec, input_specs
from edge.storage import sha256, size_bytes

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS), ".", ","]
NAMES = ("input_ids", "attention_mask", "token_type_ids")
TEXTS = (
    "",
    "ok",
    "a fine day, and a long one.",
    "dull",
    "good and bad",
    "an even longer text here.",
)
MAX_LENGTH = 32


def tokenizer_json() -> str:
    """Letters as word pieces, [CLS] text [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: index for index, token in enumerate(WORDS)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return str(inner.to_str())


def write_onnx(path: Path, *, width: int, vocabulary: int, seed: int = 0) -> None:
    """A classifier of three inputs: embeddings, their masked mean, one linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    weights = {
        "words": random.normal(size=(vocabulary, width)).astype(np.float32),
        "types": random.normal(size=(2, width)).astype(np.float32),
        "mixing": random.normal(size=(width, width)).astype(np.float32) / width,
        "head": random.normal(size=(width, 3)).astype(np.float32),
        "last": np.asarray([-1], np.int64),
        "middle": np.asarray([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["a"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "mixing"], ["d"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
        helper.make_node("Mul", ["d", "m3"], ["e"]),
        helper.make_node("ReduceSum", ["e", "middle"], ["f"], keepdims=0),
        helper.make_node("MatMul", ["f", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.INT32, ["batch", "sequence"]) for n in NAMES],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def write_bundle(
    folder: Path,
    files: Mapping[tuple[str, str], Path],
    *,
    tokenizer: str | None = None,
    vocabulary: int = len(WORDS),
    max_length: int = MAX_LENGTH,
    cases: list[GoldenCase] | None = None,
    lengths: tuple[int, ...] | None = None,
) -> Path:
    """A bundle of model files by (format, precision), each marked as verified."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer or tokenizer_json(), encoding="utf-8")
    if cases is None:
        models = [path for path in files.values() if path.suffix == ".onnx"]
        cases = _golden_cases(models[0] if models else None, vocabulary)
    (folder / "golden.json").write_text(golden.dump(cases, max_length=max_length))
    artifacts = [
        _artifact(folder, form, precision, path, lengths or (max_length,), not lengths)
        for (form, precision), path in files.items()
    ]
    info = TokenizerInfo(
        file="tokenizer.json",
        sha256=sha256(folder / "tokenizer.json"),
        vocabulary=None,
        vocabulary_size=vocabulary,
        pad_token_id=0,
        mask_token_id=None,
        lowercase=True,
        strip_accents=True,
        inputs=NAMES,
    )
    manifest = Manifest(
        task="text-classification",
        problem_type=None,
        labels=("no", "maybe", "yes"),
        activation="softmax",
        source=Source(checkpoint="tiny", architecture="bert", parameters=1234, sha256="0" * 64),
        tokenizer=info,
        max_length=max_length,
        golden=Golden(
            file="golden.json", sha256=sha256(folder / "golden.json"), samples=len(cases)
        ),
        artifacts=tuple(artifacts),
        tool=Tool(name="tests", version="0"),
        created_utc="2024-01-01T00:00:00Z",
    )
    write_manifest(folder, manifest)
    return folder


def _artifact(
    folder: Path, form: str, precision: str, path: Path, lengths: tuple[int, ...], dynamic: bool
) -> Artifact:
    target = folder / f"model-{precision}{FORMATS[form].suffix}"
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
    engine = "mil-interpreter" if form == "coreml" else FORMATS[form].runtimes[0]
    proof = Verification(
        status="passed",
        engine=engine,
        max_relative_error=1e-6,
        cosine=1.0,
        label_agreement=1.0,
        samples=6,
    )
    return Artifact(
        format=form,
        target=FORMATS[form].default_target.name,
        precision=precision,
        file=target.name,
        bytes=size_bytes(target),
        sha256=sha256(target),
        inputs=input_specs(NAMES),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),),
        sequence_lengths=lengths,
        dynamic_sequence=dynamic,
        runtimes=FORMATS[form].runtimes[:1],
        verification=proof,
        verifications=(proof,),
    )


def _golden_cases(model: Path | None, vocabulary: int) -> list[GoldenCase]:
    """What a model answers; zeros where there is none to ask."""
    import onnxruntime
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(tokenizer_json())
    session = None if model is None else onnxruntime.InferenceSession(str(model))
    cases = []
    for text in TEXTS:
        found = inner.encode(text)
        ids = [index % vocabulary for index in found.ids]
        columns = (ids, found.attention_mask, found.type_ids)
        feed = {n: np.asarray([c], np.int32) for n, c in zip(NAMES, columns, strict=True)}
        logits = np.zeros(3) if session is None else session.run(None, feed)[0][0]
        cases.append(GoldenCase(text, None, found.ids, found.type_ids, {"logits": logits}))
    return cases


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX in two precisions, and a Core ML package that is never loaded on Linux."""
    root = tmp_path_factory.mktemp("made")
    write_onnx(root / "small.onnx", width=32, vocabulary=len(WORDS))
    package = root / "model.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text("{}" * 100)
    files = {
        ("onnx", "fp32"): root / "small.onnx",
        ("onnx", "int8"): root / "small.onnx",
        ("coreml", "fp16"): package,
    }
    return write_bundle(root / "student", files)


@pytest.fixture(scope="session")
def baseline_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wider ONNX model with a smaller vocabulary than the bundle's."""
    root = tmp_path_factory.mktemp("made")
    write_onnx(root / "wide.onnx", width=256, vocabulary=20)
    return write_bundle(root / "wide", {("onnx", "fp32"): root / "wide.onnx"}, vocabulary=20)


@pytest.fixture(scope="session")
def baseline_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, with a smaller vocabulary than the bundle's."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("made") / "bert"
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=3,
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64})
    )
    return folder


@pytest.fixture(scope="session")
def protocol() -> benchmark.Protocol:
    """Short enough for a test, with rounds enough for intervals."""
    return benchmark.Protocol(
        min_runs=24, min_s=0.02, max_s=4, rounds=8, warmup_runs=2, warmup_s=0.0, warmup_max_s=1.0
    )


@pytest.fixture(scope="session")
def baseline(baseline_checkpoint: Path, baseline_bundle: Path) -> benchmark.Baseline:
    return benchmark.Baseline(
        name="bert-base",
        checkpoint=baseline_checkpoint,
        bundle=baseline_bundle,
        random_weights=True,
    )


@pytest.fixture(scope="session")
def measured(
    bundle: Path, baseline: benchmark.Baseline, protocol: benchmark.Protocol
) -> benchmark.BenchmarkResult:
    """Every artifact of the bundle and the baseline in both engines, timed once for all tests."""
    config = benchmark.BenchmarkConfig(bundles=(bundle,), baseline=baseline, protocol=protocol)
    return benchmark.benchmark(config)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """A bundle "NAME" of tiny ONNX models, one for each precision; further values as above."""

    def make(name: str = "student", precisions: Sequence[str] = ("fp32",), **values: Any) -> Path:
        model = tmp_path / f"{name}.onnx"
        write_onnx(model, width=16, vocabulary=len(WORDS))
        files = {("onnx", precision): model for precision in precisions}
        return write_bundle(tmp_path / "bundles" / name, files, **values)

    return make


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the built page."""
    from benchmark.devices.browser import device as browser
    from tests.benchmark import browser_page

    folder = browser_page.built_page(tmp_path / "dist")
    monkeypatch.setattr(browser, "PAGE", folder)
    return folder


def run_command(command: Callable[..., Any], *arguments: object) -> Result:
    """A command as a user calls it; what it raises is raised."""
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found
