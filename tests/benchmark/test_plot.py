"""Axes and labels of the figures."""

from __future__ import annotations

import re

import pytest

from benchmark.report.drawing import WIDTH
from benchmark.report.plot import Point, Strip, scatter, strips
from benchmark.report.scale import Scale
from benchmark.titles import join_names
from edge.console import human_bytes, three_figures


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not() -> None:
    wide = Scale.fit([1, 100], 0, 300, log=True)
    assert wide.log
    assert wide.place(10) == pytest.approx(150)
    assert [t for t in wide.ticks(8) if t in (1, 10, 100)] == [1, 10, 100]
    narrow = Scale.fit([10, 20], 0, 300, log=True)
    assert not narrow.log
    assert narrow.place(15) == pytest.approx(150)
    assert narrow.ticks(6) == [10, 12, 14, 16, 18, 20]


def test_one_value_still_has_an_axis() -> None:
    for log in (True, False):
        scale = Scale.fit([7.0], 0, 100, log=log)
        assert scale.place(7.0) == pytest.approx(50)
        assert scale.ticks(5)


@pytest.mark.parametrize("spread", [1.0, 1.02, 30.0])
def test_labels_do_not_overlap(spread: float) -> None:
    """Nine markers, close to each other or far apart."""
    points = [
        Point(
            x=10 * spread ** (i / 8),
            y=1e7 * (1 + 0.01 * (i % 3)) * (1 + i // 3),
            label=f"TFLite fp3{i} · 0.94{i}",
            shape="onnx",
            color="fp32",
        )
        for i in range(9)
    ]
    drawing = scatter(points, y_title="size", y_form=human_bytes, y_log=True)
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="halo">(TFLite[^<]*)', drawing)
    assert len(found) == 9
    boxes = [(float(x), float(y), float(x) + len(text) * 5.5) for x, y, text in found]
    assert all(left >= 0 and right <= WIDTH + 12 for left, _, right in boxes)
    for i, (left, y, right) in enumerate(boxes):
        for other_left, other_y, other_right in boxes[i + 1 :]:
            apart = right <= other_left or other_right <= left or abs(y - other_y) >= 11
            assert apart, (found[i], y, other_y)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (3_149_000, "3.15 MB"), (437e6, "437 MB")],
)
def test_bytes_in_three_figures(count: float, text: str) -> None:
    assert human_bytes(int(count)) == text


def test_figures_and_lists_in_words() -> None:
    assert [three_figures(v) for v in (0.01234, 1.0, 12.34, 259.4, 12345)] == [
        "0.0123",
        "1.00",
        "12.3",
        "259",
        "12,345",
    ]
    assert [join_names(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_few_slow_runs_leave_the_boxes_visible() -> None:
    quiet = Strip("quiet", [1.0, 1.01, 0.99, 1.02, 0.98] * 4, "fp32")
    loud = Strip("loud", [*quiet.values, 60.0], "int8")
    drawing = strips([quiet, loud])
    assert drawing.count(">to +5900%<") == 1
    boxes = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', drawing)]
    assert len(boxes) == 2 and min(boxes) > 5
    ends = [float(x) for x in re.findall(r'x2="([\d.]+)"', drawing)]
    assert max(ends) <= WIDTH
