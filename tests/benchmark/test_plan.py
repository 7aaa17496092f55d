"""Lengths, inputs and baselines: what is timed, and on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark import Baseline, BenchmarkConfig
from benchmark.devices import get_device
from benchmark.measure.inputs import InputSet, Texts, make_inputs, read_texts
from benchmark.measure.plan import Cell, Plan, Planner
from edge.bundle import Bundle
from edge.data import Columns
from edge.errors import ConfigError, DataError
from edge.tokenization import Encoding


def _planner(*bundles: Path, **values: Any) -> Planner:
    return Planner(BenchmarkConfig(bundles=bundles, **values), get_device("local"))


def _plan(config: BenchmarkConfig) -> Plan:
    planner = Planner(config, get_device("local"))
    (setting,) = planner.settings
    return planner.plan(setting, config.baseline)


def test_the_default_length_is_128_or_what_the_bundle_accepts(
    make_bundle: Callable[..., Path],
) -> None:
    short, long = make_bundle("short", max_length=32), make_bundle("long", max_length=512)
    assert _planner(short).lengths == (32,)
    assert _planner(long).lengths == (128,)
    assert _planner(long, short).lengths == (32,)


def test_fixed_lengths_decide_for_artifacts_of_any_length(make_bundle: Callable[..., Path]) -> None:
    fixed = make_bundle("fixed", lengths=(16, 48), max_length=48)
    free = make_bundle("free", max_length=512)
    assert _planner(free, fixed).lengths == (48,)
    assert _planner(free, fixed, seq_length=16).lengths == (16,)
    long = make_bundle("only-long", lengths=(256, 384), max_length=384)
    assert _planner(long).lengths == (256,)


def test_lengths_that_cannot_be_run_are_refused(make_bundle: Callable[..., Path]) -> None:
    fixed = make_bundle("fixed", lengths=(16, 32))
    free = make_bundle("free", max_length=12)
    with pytest.raises(ConfigError, match="onnx-fp32 does not accept 20 tokens, it accepts 16 or"):
        _planner(fixed, seq_length=20)
    with pytest.raises(ConfigError, match="does not accept 13 tokens, it accepts up to 12"):
        _planner(free, seq_length=13)
    with pytest.raises(ConfigError, match="no sequence length fits all artifacts"):
        _planner(fixed, free)


def test_a_sweep_is_every_combination(make_bundle: Callable[..., Path]) -> None:
    fixed = make_bundle("fixed", lengths=(16, 32), max_length=32)
    free = make_bundle("free", max_length=64)
    planner = _planner(fixed, free, seq_length=(16, 64), threads=(1, 2), batch=(1, 3))
    points = [(s.threads, s.seq_length, s.batch) for s in planner.settings]
    assert points == [(t, n, b) for t in (1, 2) for n in (16, 64) for b in (1, 3)]
    for setting in planner.settings:
        plan = planner.plan(setting, None)
        shapes = {f["input_ids"].shape for c in plan.timed for f in c.inputs.feeds}
        assert shapes == {(setting.batch, setting.seq_length)}
        reasons = [cell.reason for cell in plan.cells]
        # The bundle of fixed lengths takes part where it can, and has a row where it cannot.
        unfit = "it accepts 16 or 32 tokens, not 64" if setting.seq_length == 64 else None
        assert reasons == [unfit, None]
    with pytest.raises(ConfigError, match="does not accept 65 tokens"):
        _planner(fixed, free, seq_length=(16, 65))


def test_texts_can_be_as_short_as_the_artifact_accepts(
    make_bundle: Callable[..., Path], baseline: Baseline
) -> None:
    fixed = make_bundle("fixed", lengths=(8, 16, 32), max_length=32)
    free = make_bundle("free", max_length=32)
    config = BenchmarkConfig(bundles=(fixed, free), padding="shortest", seq_length=32)
    planner = Planner(config, get_device("local"))
    assert planner.baseline_lengths == (8, 16, 32)
    fixed_cell, free_cell, *baselines = planner.plan(planner.settings[0], baseline).timed
    lengths = free_cell.inputs.lengths
    assert {one.inputs.lengths for one in baselines} == {lengths}

    def sizes(cell: Cell) -> list[int]:
        return [feed["input_ids"].shape[1] for feed in cell.inputs.feeds]

    assert sizes(free_cell) == [max(4, n) for n in lengths]
    assert sizes(fixed_cell) == [min(m for m in (8, 16, 32) if m >= n) for n in lengths]
    assert free_cell.inputs.info.padding == "shortest"
    assert free_cell.inputs.info.seq_len == max(sizes(free_cell))


def test_formats_that_can_be_timed_here(bundle: Path) -> None:
    # A Mac times Core ML as well.
    assert _planner(bundle).formats in {("onnx",), ("onnx", "coreml")}


def test_a_precision_that_is_not_in_the_bundle_is_refused(bundle: Path) -> None:
    config = BenchmarkConfig(bundles=(bundle,), format=("coreml",), precision=("int8",))
    with pytest.raises(ConfigError, match=r"holds no artifact with coreml and int8"):
        _plan(config)


def test_baselines_get_ids_within_their_vocabularies(bundle: Path, baseline: Baseline) -> None:
    cells = _plan(BenchmarkConfig(bundles=(bundle,), baseline=baseline)).timed
    largest = {
        cell.label: max(int(feed["input_ids"].max()) for feed in cell.inputs.feeds)
        for cell in cells
    }
    assert largest["onnx-fp32"] >= 30
    assert largest["bert-base in PyTorch"] < 30
    assert largest["bert-base in ONNX Runtime"] < 20
    for cell in cells:
        assert len(cell.inputs.feeds) == 5
        for feed, first in zip(cell.inputs.feeds, cells[0].inputs.feeds, strict=True):
            assert {(a.dtype, a.shape) for a in feed.values()} == {(np.dtype(np.int32), (1, 32))}
            np.testing.assert_array_equal(feed["attention_mask"], first["attention_mask"])
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
        _plan(config)


def _read(bundle: Path, length: int, data: Path | str | None = None, seed: int = 0) -> Texts:
    columns = Columns(text="sentence_text") if data else Columns()
    return read_texts(Bundle.open(bundle), length, data=data, columns=columns, seed=seed)


def test_golden_texts_are_inputs_without_the_empty_one(bundle: Path) -> None:
    found = make_inputs(_read(bundle, 16), ("input_ids", "attention_mask"), length=16)
    assert found.info.dataset == "golden"
    assert (found.info.samples, found.info.batch, found.info.seq_len) == (5, 1, 16)
    first, second = found.feeds[:2]
    assert first["input_ids"].shape == first["attention_mask"].shape == (1, 16)
    # [CLS] o ##k [SEP], then padding; longer texts are cut and keep their [SEP].
    assert first["input_ids"][0, :5].tolist() == [2, 18, 40, 3, 0]
    assert first["attention_mask"][0].tolist() == [1] * 4 + [0] * 12
    assert second["input_ids"][0].tolist()[-1] == 3


def test_texts_of_a_data_file_are_drawn_by_seed(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    words = [f"{letter} day" for letter in "abcdefghijklmnopqrstuvwxyz"]
    file.write_text("sentence_text\n" + "\n".join(["  ", *words]) + "\n")

    def draw(seed: int) -> InputSet:
        return make_inputs(_read(bundle, 32, file, seed), ("input_ids",), length=32)

    first, again, other = draw(0), draw(0), draw(1)
    assert first.info == again.info
    assert first.info.sha256 != other.info.sha256
    assert (first.info.dataset, first.info.samples) == ("texts.tsv", 16)
    # No empty text was drawn: every row has a letter between [CLS] and [SEP].
    assert min(first.lengths) > 2
    columns = Columns(text="sentence_text")
    whole = read_texts(Bundle.open(bundle), 32, data=file, columns=columns, seed=0, count=None)
    assert whole.texts != tuple(words) and sorted(whole.texts) == words


def test_the_last_batch_is_filled_up(bundle: Path) -> None:
    texts = _read(bundle, 32)
    found = make_inputs(texts, ("input_ids",), length=32, batch=2)
    assert [feed["input_ids"].shape for feed in found.feeds] == [(2, 32)] * 3
    np.testing.assert_array_equal(found.feeds[2]["input_ids"][1], found.feeds[0]["input_ids"][0])
    assert found.info.batch == 2 and found.info.samples == 5


def test_a_missing_data_file_is_refused(bundle: Path) -> None:
    with pytest.raises(DataError, match=r"data file .*none\.tsv does not exist"):
        _read(bundle, 32, "/x/none.tsv")


def test_inputs_are_made_by_name() -> None:
    texts = Texts("x", ("a",), None, (Encoding([2, 50, 3], [0, 1, 1]),), 0)
    found = make_inputs(texts, ["token_type_ids", "input_ids"], length=4, vocabulary=40)
    assert list(found.feeds[0]) == ["token_type_ids", "input_ids"]
    assert found.feeds[0]["input_ids"].tolist() == [[2, 10, 3, 0]]
    assert found.feeds[0]["token_type_ids"].tolist() == [[0, 1, 1, 0]]
    typed = make_inputs(texts, ["input_ids", "token_type_ids"], length=4, types=1)
    assert typed.feeds[0]["token_type_ids"].sum() == 0
    with pytest.raises(ConfigError, match="an input called 'pixel_values'"):
        make_inputs(texts, ["pixel_values"], length=4)


def test_a_journal_is_of_one_configuration_one_machine_and_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.config import DeviceOptions
    from benchmark.run import _fingerprint
    from tests.benchmark.row_factory import made_device

    data = tmp_path / "data.tsv"
    data.write_text("text\nfilm\n")
    config = BenchmarkConfig(bundles=(tmp_path,), data=str(data))
    here = made_device("Board")
    before = _fingerprint(config, [], here)

    def other(**changes: object) -> bool:
        return _fingerprint(config.model_copy(update=changes), [], here) != before

    assert not other(options=DeviceOptions(timeout_s=1, port=8000))
    assert not other(bundles=(tmp_path / "elsewhere",))  # its cells tell what it holds
    assert other(seed=1) and other(padding="shortest") and other(profile=True)
    assert other(options=DeviceOptions(python="python3.9"))
    assert _fingerprint(config, [], made_device("Board", cores=8)) != before
    with monkeypatch.context() as patch:
        patch.setattr("edge.provenance.__version__", "99")
        assert other()
    data.write_text("text\nplot\n")
    assert other()
