"""Lengths, inputs and baselines: what is timed, and on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark import Baseline, BenchmarkConfig, common_length, timed_formats
from benchmark.inputs import InputSet, adapted, prepare
from benchmark.plan import make_plan
from edge.bundle import Bundle
from edge.data import Columns
from edge.errors import ConfigError, DataError


def test_the_default_length_is_128_or_what_the_bundle_accepts(
    make_bundle: Callable[..., Path],
) -> None:
    short, long = make_bundle("short", max_length=32), make_bundle("long", max_length=512)
    assert common_length(BenchmarkConfig(bundles=(short,))) == 32
    assert common_length(BenchmarkConfig(bundles=(long,))) == 128
    assert common_length(BenchmarkConfig(bundles=(long, short))) == 32


def test_fixed_lengths_decide_for_artifacts_of_any_length(make_bundle: Callable[..., Path]) -> None:
    fixed = make_bundle("fixed", lengths=(16, 48), max_length=48)
    free = make_bundle("free", max_length=512)
    assert common_length(BenchmarkConfig(bundles=(free, fixed))) == 48
    assert common_length(BenchmarkConfig(bundles=(free, fixed), seq_length=16)) == 16
    long = make_bundle("only-long", lengths=(256, 384), max_length=384)
    assert common_length(BenchmarkConfig(bundles=(long,))) == 256


def test_lengths_that_cannot_be_run_are_refused(make_bundle: Callable[..., Path]) -> None:
    fixed = make_bundle("fixed", lengths=(16, 32))
    free = make_bundle("free", max_length=12)
    with pytest.raises(ConfigError, match="onnx-fp32 does not accept 20 tokens, it accepts 16 or"):
        common_length(BenchmarkConfig(bundles=(fixed,), seq_length=20))
    with pytest.raises(ConfigError, match="does not accept 13 tokens, it accepts up to 12"):
        common_length(BenchmarkConfig(bundles=(free,), seq_length=13))
    with pytest.raises(ConfigError, match="no sequence length fits all artifacts"):
        common_length(BenchmarkConfig(bundles=(fixed, free)))


def test_formats_that_can_be_timed_here(bundle: Path) -> None:
    config = BenchmarkConfig(bundles=(bundle,))
    # A Mac times Core ML as well.
    assert timed_formats(config) in {("onnx",), ("onnx", "coreml")}


def test_a_precision_that_is_not_in_the_bundle_is_refused(bundle: Path) -> None:
    config = BenchmarkConfig(bundles=(bundle,), format=("coreml",), precision=("int8",))
    with pytest.raises(ConfigError, match=r"holds no artifact with coreml and int8"):
        make_plan(config)


def test_baselines_get_ids_within_their_vocabularies(bundle: Path, baseline: Baseline) -> None:
    cells = make_plan(BenchmarkConfig(bundles=(bundle,), baseline=baseline)).timed
    largest = {cell.label: int(cell.inputs.arrays["input_ids"].max()) for cell in cells}
    assert largest["onnx-fp32"] >= 30
    assert largest["bert-base in PyTorch"] < 30
    assert largest["bert-base in ONNX Runtime"] < 20
    for cell in cells:
        arrays = cell.inputs.arrays
        assert {a.dtype for a in arrays.values()} == {np.dtype(np.int32)}
        assert {a.shape for a in arrays.values()} == {(5, 32)}
        np.testing.assert_array_equal(
            arrays["attention_mask"], cells[0].inputs.arrays["attention_mask"]
        )
    reference = next(cell for cell in cells if cell.engine == "pytorch")
    assert reference.model.params is not None and reference.model.params > 20_000
    assert reference.model.bytes > 4 * reference.model.params


def test_a_length_beyond_the_baseline_is_refused(
    make_bundle: Callable[..., Path], baseline: Baseline
) -> None:
    config = BenchmarkConfig(bundles=(make_bundle(max_length=128),), baseline=baseline)
    expected = (
        "the baseline bert-base accepts up to 64 tokens, not 128: use --seq-length 64 or less"
    )
    with pytest.raises(ConfigError, match=expected):
        make_plan(config)


def test_golden_texts_are_inputs_without_the_empty_one(bundle: Path) -> None:
    found = prepare(Bundle.open(bundle), 16, data=None, columns=Columns(), seed=0)
    assert found.info.dataset == "golden"
    ids, mask = found.arrays["input_ids"], found.arrays["attention_mask"]
    assert ids.shape == mask.shape == (5, 16)
    # [CLS] o ##k [SEP], then padding; longer texts are cut and keep their [SEP].
    assert ids[0, :5].tolist() == [2, 18, 40, 3, 0]
    assert mask[0].tolist() == [1] * 4 + [0] * 12
    assert ids[1].tolist()[-1] == 3


def test_texts_of_a_data_file_are_drawn_by_seed(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    words = [f"{letter} day" for letter in "abcdefghijklmnopqrstuvwxyz"]
    file.write_text("sentence_text\n" + "\n".join(["  ", *words]) + "\n")
    columns = Columns(text="sentence_text")
    opened = Bundle.open(bundle)

    def draw(seed: int) -> InputSet:
        return prepare(opened, 32, data=file, columns=columns, seed=seed)

    first, again, other = draw(0), draw(0), draw(1)
    assert first.info == again.info
    assert first.info.sha256 != other.info.sha256
    assert (first.info.dataset, first.info.samples) == ("texts.tsv", 16)
    # No empty text was drawn: every row has a letter between [CLS] and [SEP].
    assert first.arrays["attention_mask"].sum(axis=1).min() > 2


def test_a_missing_data_file_is_refused(bundle: Path) -> None:
    with pytest.raises(DataError, match=r"data file .*none\.tsv does not exist"):
        prepare(Bundle.open(bundle), 32, data="/x/none.tsv", columns=Columns(), seed=0)


def test_inputs_are_adapted_by_name() -> None:
    ids = np.asarray([[2, 50, 3]], np.int32)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    found = adapted(InputSet("x", arrays), ["token_type_ids", "input_ids"], vocabulary=40)
    assert list(found.arrays) == ["token_type_ids", "input_ids"]
    assert found.arrays["input_ids"].tolist() == [[2, 10, 3]]
    assert found.arrays["token_type_ids"].tolist() == [[0, 0, 0]]
    typed = InputSet("x", arrays | {"token_type_ids": np.ones_like(ids)})
    assert adapted(typed, ["token_type_ids"], types=1).arrays["token_type_ids"].sum() == 0
    with pytest.raises(ConfigError, match="an input called 'pixel_values'"):
        adapted(typed, ["pixel_values"])
