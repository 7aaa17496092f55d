"""Packs: right answers from one file, clear refusals, and nothing written that was not proven."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.packs import PackConfig, TextDifference, mediapipe_process, pack
from converters.packs.mediapipe import MediapipePacker
from converters.packs.ort_text import OrtTextPacker
from converters.packs.texts import require_tokenizer
from edge.bundle import Bundle, Manifest, write_manifest
from edge.engines import get_engine
from edge.engines.runner import bundle_tokenizer
from edge.errors import BundleError, ConfigError, ConversionError, EngineError, VerificationError
from edge.tasks.base import softmax

LENGTHS = (16, 32)
DEFAULTS = {"precision": "fp32"}


def _convert(source: Path, output: Path, **values: Any) -> Path:
    from converters import ConvertConfig, convert

    values = {"source": str(source), "output": output, "seq_length": LENGTHS, **values}
    convert(ConvertConfig.build(values))
    return output


@pytest.fixture(scope="module")
def bundle(bert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a BERT for three labels, ONNX and TFLite in fp32 and int8; read only."""
    folder = tmp_path_factory.mktemp("packs")
    kinds = {"format": ("onnx", "tflite"), "precision": ("fp32", "int8")}
    return _convert(bert_checkpoint, folder / "bundle", **kinds)


@pytest.fixture(scope="module")
def bundle_without_segments(
    distilbert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of a DistilBERT for two labels, TFLite in fp32; read only."""
    folder = tmp_path_factory.mktemp("packs")
    kinds = {"format": ("tflite",), "precision": ("fp32",), "seq_length": (32,)}
    return _convert(distilbert_checkpoint, folder / "bundle", **kinds)


@pytest.fixture
def no_mediapipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MEDIAPIPE_PYTHON", "/absent/python")


@pytest.fixture(scope="module")
def mediapipe() -> None:
    found = mediapipe_process.ENVIRONMENT.availability()
    if not found.available:
        pytest.skip(f"{found.reason}: {found.remedy}")


@pytest.fixture(scope="module")
def tokenise(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, bool], Callable[[str, str | None], dict[str, Any]]]:
    """The operators of an ort-text pack alone: inputs of a model for a text, or for two."""
    from converters.packs import ort_text
    from converters.packs.text_graph import text_nodes

    folder = tmp_path_factory.mktemp("tokenizer")

    def make(max_length: int, pair: bool) -> Callable[[str, str | None], dict[str, Any]]:
        opened = Bundle.open(bundle)
        path = folder / f"{max_length}-{pair}.onnx"
        nodes = text_nodes(opened, pair=pair, max_length=max_length)
        ort_text._save_tokenizer(opened, nodes, pair, path)
        return ort_text._Session(path).run

    return make


def _pack(kind: str, bundle: Path, output: Path, **values: Any) -> Any:
    values = {**DEFAULTS, **values, "kind": kind, "bundle": bundle, "output": output}
    return pack(PackConfig.build(values))


def _inputs(bundle: Path, text: str, length: int) -> dict[str, Any]:
    tokenizer = bundle_tokenizer(Bundle.open(bundle))
    inputs = tokenizer.pad(tokenizer.encode([text], max_length=length), length)
    inputs.setdefault("token_type_ids", np.zeros_like(inputs["input_ids"]))
    return inputs


# MediaPipe


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.usefixtures("no_mediapipe")
def test_a_mediapipe_pack_gives_the_probabilities_of_one_length(
    bundle: Path, tmp_path: Path, precision: str
) -> None:
    report = _pack("mediapipe", bundle, tmp_path / "m.tflite", precision=precision, seq_length=16)
    assert (report.sequence_length, report.inputs) == (16, ("ids", "segment_ids", "mask"))
    assert [v.status for v in report.verifications] == ["passed", "unavailable"]
    assert "/absent/python cannot import mediapipe" in str(report.verifications[1].reason)
    assert (report.texts, report.bytes) == (0, (tmp_path / "m.tflite").stat().st_size)
    case = next(c for c in Bundle.open(bundle).golden_cases() if 8 < len(c.input_ids) <= 16)
    with get_engine("litert").open(tmp_path / "m.tflite") as session:
        scores = session.run(_inputs(bundle, case.text, 16))["probabilities"][0]
        with pytest.raises(EngineError, match=r"accepts lengths \[16\], not 32"):
            session.run(_inputs(bundle, case.text, 32))
    tolerance = 1e-5 if precision == "fp32" else 0.1
    np.testing.assert_allclose(scores, softmax(case.outputs["logits"]), atol=tolerance)


@pytest.mark.usefixtures("no_mediapipe")
def test_a_mediapipe_pack_holds_one_graph_the_vocabulary_and_the_labels(
    bundle: Path, tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    output = tmp_path / "m.tflite"
    _pack("mediapipe", bundle, output, precision="int8")
    data = output.read_bytes()
    model = schema.Model.GetRootAs(data)
    assert (model.SubgraphsLength(), model.SignatureDefsLength()) == (1, 1)
    graph = model.Subgraphs(0)
    named = [graph.Tensors(graph.Inputs(i)).Name() for i in range(graph.InputsLength())]
    assert named == [b"ids", b"segment_ids", b"mask"]
    note = model.Metadata(model.MetadataLength() - 1)
    assert note.Name() == b"TFLITE_METADATA"
    assert bytes(model.Buffers(note.Buffer()).DataAsNumpy()[4:8]) == b"M001"
    start = np.frombuffer(data, np.uint8).ctypes.data
    for index in range(model.BuffersLength()):
        content = model.Buffers(index).DataAsNumpy()
        if model.Buffers(index).DataLength():
            assert (content.ctypes.data - start) % 16 == 0
    with zipfile.ZipFile(output) as archive:
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("vocab.txt") == (bundle / "vocab.txt").read_bytes()
        assert archive.read("labels.txt") == b"negative\nneutral\npositive\n"


@pytest.mark.usefixtures("no_mediapipe")
def test_packing_twice_gives_the_same_file(bundle: Path, tmp_path: Path) -> None:
    first, second = (_pack("mediapipe", bundle, tmp_path / f"{n}.tflite") for n in "ab")
    assert first.sha256 == second.sha256


@pytest.mark.usefixtures("mediapipe")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_mediapipe_itself_gives_the_checkpoint_s_scores(
    bundle: Path, tmp_path: Path, precision: str
) -> None:
    report = _pack("mediapipe", bundle, tmp_path / "m.tflite", precision=precision)
    _, result = report.verifications
    assert (result.engine, result.status) == ("mediapipe", "passed")
    assert result.samples >= 10
    assert result.max_relative_error is not None
    assert result.max_relative_error < (1e-4 if precision == "fp32" else 0.5)
    different = {difference.text for difference in report.different}
    # MediaPipe keeps accents and invisible characters, the bundle's tokenizer drops them.
    assert any("Crème" in text for text in different)
    assert any("\u200b" in text for text in different)
    assert not any(text.isascii() and text.isalpha() for text in different)


@pytest.mark.usefixtures("mediapipe")
def test_mediapipe_reports_a_file_it_cannot_load_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"MediaPipe could not load broken\.tflite") as caught:
        mediapipe_process.TextClassifier(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(params=[False, True], ids=["litert", "mediapipe"])
def engines(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether MediaPipe runs too."""
    request.getfixturevalue("mediapipe" if request.param else "no_mediapipe")
    yield request.param


def test_a_model_without_segments_gets_an_input_that_nothing_reads(
    bundle_without_segments: Path, tmp_path: Path, engines: bool
) -> None:
    source = bundle_without_segments
    report = _pack("mediapipe", source, tmp_path / "m.tflite")
    assert report.verifications[-1].status == ("passed" if engines else "unavailable")
    inputs = _inputs(source, "the film was great", 32)
    with get_engine("litert").open(tmp_path / "m.tflite") as session:
        first = session.run(inputs)["probabilities"]
        inputs["token_type_ids"] = inputs["token_type_ids"] + 1
        np.testing.assert_array_equal(session.run(inputs)["probabilities"], first)


def test_several_labels_get_a_probability_each(bundle: Path, tmp_path: Path, engines: bool) -> None:
    source = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    manifest = json.loads((source / "edge.json").read_text())
    manifest |= {"problem_type": "multi_label_classification", "activation": "sigmoid"}
    write_manifest(source, Manifest.build(manifest))
    report = _pack("mediapipe", source, tmp_path / "m.tflite")
    assert report.verifications[-1].status == ("passed" if engines else "unavailable")
    logits = Bundle.open(source).golden_cases()[1].outputs["logits"]
    with get_engine("litert").open(tmp_path / "m.tflite") as session:
        scores = session.run(_inputs(source, "ok", 32))["probabilities"][0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "token-classification"}, "this bundle is for token-classification"),
        ({"activation": "none"}, "this bundle is a regression"),
        ({"labels": ("a", "b\nc", "d")}, "a label of this bundle is not a line"),
        ({"labels": ("a", "b\rc", "d")}, "a label of this bundle is not a line"),
        ({"labels": ("a", "b\0c", "d")}, "a label of this bundle is not a line"),
        ({"tokenizer": {"vocabulary": None}}, "WordPiece with a vocab.txt"),
        ({"tokenizer": {"lowercase": False}}, "this bundle's tells capitals apart"),
        ({"tokenizer": {"pad_token_id": 1}}, "it pads with token 0, this bundle with token 1"),
    ],
)
def test_what_mediapipe_cannot_do_is_refused(
    bundle: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"cannot be packed for MediaPipe: .*{message}"):
        MediapipePacker().check(_changed(bundle, **change), pair=False)


def test_mediapipe_takes_no_pairs(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes one text, this bundle was made for pairs"):
        _pack("mediapipe", bundle, tmp_path / "m.tflite", pair=True)


@pytest.mark.usefixtures("no_mediapipe")
def test_a_pack_that_answers_otherwise_is_not_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.packs import tflite_file

    right = tflite_file.append_activation
    monkeypatch.setattr(
        tflite_file, "append_activation", lambda m, s, _, name: right(m, s, "sigmoid", name)
    )
    with pytest.raises(VerificationError, match=r"pack differs from tflite-fp32 by 0\.\d+ in"):
        _pack("mediapipe", bundle, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_the_file_lacks_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no signature of 24 tokens: use --seq-length 16, 32"):
        _pack("mediapipe", bundle, tmp_path / "m.tflite", seq_length=24)
    assert list(tmp_path.iterdir()) == []


def test_operators_that_call_other_graphs_are_named(bundle: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    from converters.packs.tflite_file import keep_signature, read_model

    model = read_model((bundle / "model-fp32.tflite").read_bytes())
    with pytest.raises(ConversionError, match="no signature of length 99"):
        keep_signature(model, 99)
    operator = model.subgraphs[model.signatureDefs[0].subgraphIndex].operators[0]
    operator.builtinOptions = schema.WhileOptionsT()
    with pytest.raises(ConversionError, match="uses operators that call other parts of it"):
        keep_signature(model, LENGTHS[0])


# ONNX Runtime with the tokenizer inside


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_ort_text_pack_answers_texts(bundle: Path, tmp_path: Path, precision: str) -> None:
    import onnxruntime
    import onnxruntime_extensions

    report = _pack("ort-text", bundle, tmp_path / "m.onnx", precision=precision)
    (result,) = report.verifications
    assert (result.status, report.inputs, report.outputs) == ("passed", ("text",), ("logits",))
    assert report.texts > 25
    assert report.different == ()
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options)
    for case in Bundle.open(bundle).golden_cases()[:5]:
        (logits,) = session.run(["logits"], {"text": np.array([case.text], object)})
        if precision == "fp32":
            np.testing.assert_allclose(logits[0], case.outputs["logits"], rtol=1e-4, atol=1e-5)


def test_an_ort_text_pack_answers_pairs(bundle: Path, tmp_path: Path) -> None:
    report = _pack("ort-text", bundle, tmp_path / "m.onnx", pair=True)
    assert report.inputs == ("text", "text_pair")
    pairs = [case for case in Bundle.open(bundle).golden_cases() if case.text_pair is not None]
    assert report.verifications[0].samples == len(pairs) > 3
    assert report.different == ()


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("length", [4, 7])
def test_a_pack_that_cuts_every_text_is_verified_on_all(
    bundle: Path, tmp_path: Path, length: int, pair: bool
) -> None:
    report = _pack("ort-text", bundle, tmp_path / "m.onnx", pair=pair, seq_length=length)
    cases = [c for c in Bundle.open(bundle).golden_cases() if (c.text_pair is not None) == pair]
    assert any(len(case.input_ids) > length for case in cases)
    assert report.verifications[0].samples == len(cases)
    assert report.verifications[0].status == "passed"


def test_every_character_is_tokenised_as_in_the_bundle(bundle: Path, tokenise: Any) -> None:
    run, tokenizer = tokenise(32, False), bundle_tokenizer(Bundle.open(bundle))
    sample = [*range(1, 0x600), *range(0x600, 0x30000, 61), *range(0xE0000, 0x110000, 4999)]
    codes = [code for code in sample if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 4):
        text = " ".join(f"a{chr(code)}b {chr(code)}" for code in codes[start : start + 4])
        (expected,) = tokenizer.encode([text], max_length=32)
        found = run(text, None)
        assert found["input_ids"][0, : len(expected)].tolist() == expected.input_ids, ascii(text)
        assert found["attention_mask"].sum() == len(expected)


@pytest.mark.parametrize("max_length", [16, 17])
def test_pairs_are_cut_as_in_the_bundle(bundle: Path, tokenise: Any, max_length: int) -> None:
    run, tokenizer = tokenise(max_length, True), bundle_tokenizer(Bundle.open(bundle))
    rng = random.Random(0)
    for _ in range(150):
        text, pair = (" ".join(["film"] * rng.choice((0, 1, 5, 6, 7, 8, 20, 40))) for _ in "ab")
        (expected,) = tokenizer.encode([text], [pair], max_length=max_length)
        found, count = run(text, pair), len(expected)
        assert found["input_ids"][0, :count].tolist() == expected.input_ids, (text, pair)
        assert found["token_type_ids"][0, :count].tolist() == expected.token_type_ids
        assert found["attention_mask"].sum() == count


def test_short_texts_are_padded_to_what_models_take(tokenise: Any) -> None:
    found = tokenise(32, False)("", None)
    assert found["input_ids"].tolist() == [[2, 3, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Unigram"}, "its tokenizer is Unigram, the operators give WordPiece and byte"),
        ({"type": "BPE"}, "its tokenizer is BPE, but does not prepare texts as RoBERTa's"),
        ({"max_input_chars_per_word": 300}, "split words of up to 200 characters only"),
        ({"vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "ab": 3}}, "lacks 2 of them"),
    ],
)
def test_a_tokenizer_that_operators_cannot_express_is_refused(
    bundle: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    from converters.packs.text_graph import text_nodes

    values = json.loads((bundle / "tokenizer.json").read_text())
    values["model"].update(change)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    opened = dataclasses.replace(Bundle.open(bundle), path=tmp_path)
    with pytest.raises(ConfigError, match=message):
        OrtTextPacker().check(opened, pair=False)
        text_nodes(opened, pair=False, max_length=16)


def test_byte_pairs_are_tokenised_as_in_the_bundle(bundle: Path, tmp_path: Path) -> None:
    from converters.packs import ort_text
    from converters.packs.text_graph import text_nodes
    from converters.packs.texts import PROBES
    from edge.bundle.golden import TEXTS

    opened = _with_byte_pairs(bundle, tmp_path, (*TEXTS, *PROBES))
    assert ort_text._refusal(opened, pair=True) is None
    tokenizer = bundle_tokenizer(opened)
    texts = (*TEXTS, *PROBES, "a <mask> b<mask>", "two  spaces\n\nIt's", "a </s> b")
    for pair in (False, True):
        nodes = text_nodes(opened, pair=pair, max_length=32)
        ort_text._save_tokenizer(opened, nodes, pair, tmp_path / "tokenizer.onnx")
        run = ort_text._Session(tmp_path / "tokenizer.onnx").run
        for text, other in zip(texts, reversed(texts), strict=True):
            pairs = [other] if pair else None
            (expected,) = tokenizer.encode([text], pairs, max_length=32)
            found = run(text, other if pair else None)
            count = int(found["attention_mask"].sum())
            assert found["input_ids"][0, :count].tolist() == expected.input_ids, (text, other)


def _with_byte_pairs(bundle: Path, folder: Path, texts: tuple[str, ...]) -> Bundle:
    """The bundle with a tokenizer as RoBERTa's, trained on the texts."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    mask = tokenizers.AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ("input_ids", "attention_mask")
    changed = _changed(bundle, tokenizer={"pad_token_id": 1, "inputs": inputs})
    return dataclasses.replace(changed, path=folder)


def test_a_task_that_answers_for_places_in_the_text_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="question-answering answers for places in the text"):
        OrtTextPacker().check(_changed(bundle, task="question-answering"), pair=False)


# Both


def _difference(text: str) -> TextDifference:
    return TextDifference(text=text, text_pair=None, expected=("a",), found=("b",))


def test_a_difference_on_plain_text_is_a_failure(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    require_tokenizer("x", opened, [_difference("déjà"), _difference("a [SEP] b\x07")])
    with pytest.raises(VerificationError, match=r"differs from the bundle's on plain text, 'plain"):
        require_tokenizer("x", opened, [_difference("plain text")])


def test_differences_on_most_samples_are_a_failure(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle)
    cases = [
        dataclasses.replace(opened.golden_cases()[0], text=f"é {index}") for index in range(10)
    ]
    monkeypatch.setattr(Bundle, "golden_cases", lambda self: cases)
    golden = opened.manifest.golden.model_copy(update={"from_data": 10})
    opened = _changed(bundle, golden=golden)
    require_tokenizer("x", opened, [_difference("é 1")])
    with pytest.raises(VerificationError, match="on 2 of the 10 samples that the bundle"):
        require_tokenizer("x", opened, [_difference("é 1"), _difference("é 2")])


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"kind": "mediapip"}, ConfigError, "unknown pack 'mediapip': did you mean 'mediapipe'?"),
        ({"precision": "int9"}, ConfigError, "unknown precision 'int9'"),
        ({"precision": "fp16"}, ConfigError, "unknown precision in .* 'fp16'"),
        ({"output": "m.onnx"}, ConfigError, r"mediapipe writes a \.tflite file: name one, not"),
        ({"bundle": "absent"}, BundleError, "absent does not exist"),
        ({"seq_length": 0}, ConfigError, "seq_length"),
    ],
)
def test_impossible_requests_leave_nothing(
    bundle: Path, tmp_path: Path, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    asked = {"kind": "mediapipe", "bundle": bundle, "output": "m.tflite", **DEFAULTS, **values}
    asked["output"] = tmp_path / asked["output"]
    with pytest.raises(error, match=message):
        pack(PackConfig.build(asked))
    assert list(tmp_path.iterdir()) == []


def test_the_bundle_itself_is_not_written_to(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="is inside the bundle"):
        _pack("mediapipe", bundle, bundle / "model-fp32.tflite")


def test_an_artifact_that_was_not_proven_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle)
    artifacts = [a.model_copy(update={"runtimes": ()}) for a in opened.manifest.artifacts]
    manifest = opened.manifest.model_copy(update={"artifacts": tuple(artifacts)})
    monkeypatch.setattr(Bundle, "open", lambda path: dataclasses.replace(opened, manifest=manifest))
    with pytest.raises(ConfigError, match="tflite-fp32 was not proven in litert"):
        _pack("mediapipe", bundle, tmp_path / "m.tflite")


def test_an_interruption_keeps_the_old_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "m.onnx"
    output.write_text("old")
    monkeypatch.setattr("converters.packs.ort_text._verified", stop)
    with pytest.raises(KeyboardInterrupt):
        _pack("ort-text", bundle, output)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert output.read_text() == "old"


def test_the_command_prints_a_report(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    arguments = ["pack", "ort-text", str(bundle), "-o", str(output), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli.main", *arguments, "--precision", "fp32"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["bytes"] == output.stat().st_size
    assert report["artifact"] == "onnx-fp32"
    assert report["verifications"][0]["status"] == "passed"


def _changed(bundle: Path, **change: Any) -> Bundle:
    """The bundle with another manifest."""
    opened = Bundle.open(bundle)
    tokenizer = opened.manifest.tokenizer.model_copy(update=change.pop("tokenizer", {}))
    manifest: Manifest = opened.manifest.model_copy(update={**change, "tokenizer": tokenizer})
    return dataclasses.replace(opened, manifest=manifest)
