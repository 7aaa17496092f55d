"""Which texts become golden vectors, and which of them are the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from converters import ConvertConfig
from converters.calibration import read_calibration
from converters.golden import choose_texts, read_samples
from converters.packs.pack import takes_pairs
from edge.bundle import Bundle
from edge.engines.runner import bundle_tokenizer
from edge.tasks import get_task

PAIRS = "sentence1\tsentence2\tscore\na film\ta plot\t4.0\ngood\tbad\t1.0\na film\tgreat\t2.0\n"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.tsv"
    file.write_text(PAIRS)
    return file


def config(tmp_path: Path, **values: object) -> ConvertConfig:
    return ConvertConfig.build({"source": "x", "output": tmp_path / "bundle", **values})


def test_pairs_of_an_embedding_are_taken_one_by_one(
    bert_bundle: Path, tmp_path: Path, pairs: Path
) -> None:
    task, tokenizer = get_task("feature-extraction"), bundle_tokenizer(Bundle.open(bert_bundle))
    found = read_samples(config(tmp_path, samples=str(pairs)), task, tokenizer, max_length=32)
    assert found == [(text, None) for text in ("a film", "a plot", "good", "bad", "great")]
    few = read_samples(
        config(tmp_path, samples=str(pairs), sample_count=3), task, tokenizer, max_length=32
    )
    assert few == found[:3]


def test_pairs_of_a_classifier_stay_together(
    bert_bundle: Path, tmp_path: Path, pairs: Path
) -> None:
    tokenizer = bundle_tokenizer(Bundle.open(bert_bundle))
    task = get_task("text-classification", labels=("a", "b"))
    found = read_samples(config(tmp_path, samples=str(pairs)), task, tokenizer, max_length=32)
    assert found == [("a film", "a plot"), ("good", "bad"), ("a film", "great")]


def test_calibration_of_an_embedding_reads_texts_one_by_one(
    bert_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("sentence1\tsentence2\na film\ta plot\n")
    asked = config(tmp_path, calibration=str(file))
    tokenizer = bundle_tokenizer(Bundle.open(bert_bundle))
    found = read_calibration(asked, get_task("feature-extraction"), tokenizer, max_length=16)
    assert found is not None
    expected = tokenizer.encode(["a film", "a plot"], max_length=16)
    assert [e.input_ids for e in found.encodings] == [e.input_ids for e in expected]


def test_golden_texts_are_samples_then_built_in_then_the_tokenizer_s(
    bert_bundle: Path, tmp_path: Path
) -> None:
    tokenizer = bundle_tokenizer(Bundle.open(bert_bundle))
    task = get_task("text-classification", labels=("a", "b"))
    texts = choose_texts(config(tmp_path), task, tokenizer, [("own", None)], length=32)
    assert texts[:2] == [("own", None), ("", None)]
    assert any("[MASK]" in text for text, _ in texts)
    asked = config(tmp_path, golden_texts=2)
    assert len(choose_texts(asked, task, tokenizer, [("own", None)], length=32)) == 3


def test_golden_texts_of_a_masked_model_are_few_and_short(
    bert_bundle: Path, tmp_path: Path
) -> None:
    tokenizer = bundle_tokenizer(Bundle.open(bert_bundle))
    texts = choose_texts(config(tmp_path), get_task("fill-mask"), tokenizer, [], length=32)
    assert len(texts) <= 11
    assert any("[PAD]" in text and "[UNK]" in text for text, _ in texts)


def test_only_the_user_s_own_pairs_make_a_pack_of_pairs(bert_bundle: Path) -> None:
    opened = Bundle.open(bert_bundle)
    cases = opened.golden_cases()
    assert any(case.text_pair for case in cases), "built-in ones"
    assert not takes_pairs(opened)
    golden = opened.manifest.golden.model_copy(update={"from_data": len(cases)})
    manifest = opened.manifest.model_copy(update={"golden": golden})
    assert takes_pairs(dataclasses.replace(opened, manifest=manifest))
