"""Ratios of rows: the quotient of the medians shown beside it, of the right rows."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import numpy as np
import pytest

from benchmark import Report, Row
from benchmark.keys import saved_references
from benchmark.ratios import ratio_of, with_current_ratios, with_ratios
from benchmark.report import summary
from benchmark.report.render import render
from benchmark.schema import Validity
from edge.cli.benchmark import _line
from edge.errors import DataError
from tests.benchmark.row_factory import made_latency, made_row


def _rows(seed: int) -> tuple[Row, ...]:
    """Two artifacts beside a baseline that sits out rounds, on a machine that changes."""
    random = np.random.default_rng(seed)
    speed = np.exp(0.5 * random.normal(size=32))
    held = [
        made_row(precision=precision, ms=10 * random.uniform(0.5, 2), speed=speed, seed=seed)
        for precision in ("fp32", "int8")
    ]
    baselines = [
        made_row("bert-base", form, ms=200.0, role="baseline", rounds=rounds, speed=speed[:rounds])
        for form, rounds in (("checkpoint", int(random.integers(1, 33))), ("onnx", 32))
    ]
    return with_ratios([*held, *baselines])


def _shown(text: str) -> float:
    return float(text.replace("×", "").replace(",", ""))


@pytest.mark.parametrize("seed", range(5))
def test_a_shown_ratio_is_the_quotient_of_the_shown_medians(seed: int) -> None:
    rows = _rows(seed)
    files = render(Report.merged(rows))
    cells = csv.DictReader(io.StringIO(files["rows.csv"]))
    for line in cells:
        row = next(
            r for r in rows if (r.model.id, r.model.format) == (line["model"], line["format"])
        )
        for name, engine in (("ratio_to_baseline", "pytorch"), ("ratio_same_engine", "")):
            wanted = engine or row.runtime.name
            (above,) = [r for r in rows if r.role == "baseline" and r.runtime.name == wanted]
            assert above.latency_ms is not None and row.latency_ms is not None
            expected = (above.latency_ms.p50 or 0) / (row.latency_ms.p50 or 1)
            assert float(line[name]) == pytest.approx(expected, rel=1e-9)
            if line[f"{name}_low"]:
                low, high = float(line[f"{name}_low"]), float(line[f"{name}_high"])
                assert low <= float(line[name]) <= high
    p50 = {line[1]: _shown(line[6]) for line in map(_line, rows) if line[0] == "bert-base"}
    for line in map(_line, rows):
        value, *ends = re.findall(r"[\d.,]+", line[8])
        # Three figures each.
        assert _shown(value) == pytest.approx(p50["PyTorch"] / _shown(line[6]), rel=0.016)
        assert not ends or _shown(ends[0]) <= _shown(value) <= _shown(ends[1])


def test_artifacts_of_one_median_have_one_ratio() -> None:
    """As it was seen: 5.78 and 5.80 ms stood at 23.2 and 34.0 times."""
    busy = np.where(np.arange(32) % 4 == 0, 1.5, 1.0)
    rows = with_ratios(
        [
            made_row(precision="fp32", ms=5.78, seed=1),
            made_row(precision="int8", ms=5.78, speed=busy, seed=1),
            made_row("bert-base", "checkpoint", ms=134.0, role="baseline", rounds=1),
        ]
    )
    values = [row.ratio_to_baseline.value for row in rows[:2] if row.ratio_to_baseline]
    assert values[1] == pytest.approx(values[0], rel=0.02)


def _ratio(value: float) -> Any:
    return ratio_of((value, None), baseline="bert-base", engine="pytorch")


def test_saved_rows_of_an_older_version_are_put_right() -> None:
    baseline = made_row("bert-base", "checkpoint", ms=200.0, role="baseline")
    old = [made_row(ms=10.0, ratio_to_baseline=_ratio(34.0)), baseline]
    row, _ = Report.merged(old).rows
    assert row.ratio_to_baseline is not None and row.ratio_to_baseline.ci95 is not None
    assert row.ratio_to_baseline.value == pytest.approx(20, rel=0.01)
    # The engine of a format's other target is not the same one.
    other = made_row(form="tflite", ratio_same_engine=_ratio(3.0))
    assert with_current_ratios([other])[0].ratio_same_engine is None
    # Another run, setting or device is not what it was divided by.
    for changes in ({"run": "b"}, {"threads": 2}, {"length": 32}, {"batch": 8}, {"device": "x"}):
        other = made_row("bert-base", "checkpoint", ms=200.0, role="baseline", **changes)
        assert with_current_ratios([old[0], other])[0] == old[0]


def test_the_same_engine_is_the_engine_and_not_the_format() -> None:
    legacy = made_row(form="tflite", ms=10.0)
    runtime = legacy.runtime.model_copy(update={"name": "tflite-runtime"})
    legacy = legacy.model_copy(update={"runtime": runtime})
    baseline = made_row("bert-base", "tflite", ms=50.0, role="baseline")
    assert with_ratios([legacy, baseline])[0].ratio_same_engine is None
    other = baseline.model_copy(update={"runtime": runtime, "latency_ms": made_latency(100.0)})
    ratio = with_ratios([legacy, baseline, other])[0].ratio_same_engine
    assert ratio is not None and ratio.engine == "tflite-runtime"
    assert ratio.value == pytest.approx(10, rel=0.01)


def test_a_saved_report_gives_its_baseline_and_not_its_artifacts() -> None:
    saved = [
        made_row(ms=1.0, run="old"),
        made_row("bert-base", "onnx", ms=100.0, role="baseline", run="old"),
        made_row("bert-base", "onnx", ms=300.0, role="baseline", run="old", length=32),
        made_row("bert-base", "onnx", ms=500.0, role="baseline", run="old", device="Other"),
    ]
    chosen = saved_references(saved, "old")
    (row,) = with_ratios([made_row(ms=10.0)], saved=chosen)
    assert row.ratio_same_engine is not None and not row.ratio_same_engine.paired
    assert row.ratio_same_engine.value == pytest.approx(10, rel=0.01)
    alone = [made_row(precision="int8", ms=1.0), made_row(ms=40.0)]
    (row,) = with_ratios([made_row(ms=10.0)], saved=saved_references(alone, "old"))
    assert row.ratio_same_engine is not None
    assert row.ratio_same_engine.value == pytest.approx(4, rel=0.01)
    with pytest.raises(DataError, match=r"old holds rows of 2 models \(a, b\), so which one is"):
        saved_references([made_row("a"), made_row("b")], "old")


def test_the_headline_says_when_its_latency_is_limited() -> None:
    limited = Validity(status="limited", reasons=("40% slower in the last quarter", "hot"))
    baseline = made_row("bert-base", "checkpoint", ms=200.0, role="baseline")
    row = made_row(ms=10.0)

    def headline(*rows: Row) -> str:
        return summary.headline(Report.merged(with_ratios(rows)))

    assert headline(row, baseline).endswith("1.00 MB.")
    text = headline(row.model_copy(update={"validity": limited}), baseline)
    assert text.endswith(" Its latency is limited: 40% slower in the last quarter, and 1 more.")
    text = headline(row, baseline.model_copy(update={"validity": limited}))
    assert " The baseline's latency is limited: 40% slower" in text


def test_the_headline_names_the_bundle_where_there_are_several() -> None:
    fast, slow = made_row("small", ms=1.0), made_row("large", ms=9.0)
    text = summary.headline(Report.merged([slow, fast]))
    assert text.startswith("The fp32 ONNX artifact of small takes 1.00 ms")
    text = summary.headline(Report.merged([fast]))
    assert text.startswith("The fp32 ONNX artifact takes 1.00 ms")
