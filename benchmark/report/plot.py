"""Scatter plots and strip plots as inline SVG, with labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from benchmark.report.drawing import (
    BOTTOM,
    FONT,
    HEIGHT,
    LEFT,
    RADIUS,
    RIGHT,
    TOP,
    WIDTH,
    Box,
    Form,
    css,
    label,
    marker,
    milliseconds,
    percent,
    plain,
    svg,
    text_width,
    x_axis,
    y_axis,
)
from benchmark.report.scale import Scale
from benchmark.statistics import P99_MIN_RUNS, Array
from edge.console import three_figures

_STRIP = 34
# The axis of strips is _SPANS times as long as the widest box, at least _LEAST_SPAN.
_SPANS, _LEAST_SPAN = 6, 0.25


@dataclass(frozen=True)
class Point:
    """One marker. x: milliseconds. shape: a format or "baseline". color: a precision likewise.

    front: True for a Pareto-optimal artifact.
    """

    x: float
    y: float
    label: str
    shape: str
    color: str
    front: bool = False


@dataclass(frozen=True)
class Strip:
    """The distribution of one model's latencies, in milliseconds."""

    label: str
    values: Sequence[float]
    color: str


def scatter(
    points: Sequence[Point],
    *,
    y_title: str,
    y_form: Form,
    y_log: bool,
    marks: Sequence[tuple[float, str]] = (),
    level: tuple[float, str] | None = None,
) -> str:
    """Draw a scatter plot with latency on the x axis.

    marks: latencies as vertical lines, for models without a y value. level: a horizontal line.
    """
    xs = Scale.fit([p.x for p in points] + [x for x, _ in marks], LEFT, WIDTH - RIGHT, log=True)
    heights = [p.y for p in points] + ([level[0]] if level else [])
    ys = Scale.fit(heights, HEIGHT - BOTTOM, TOP, log=y_log)
    parts = x_axis(xs, HEIGHT - BOTTOM, "median latency, ms", milliseconds)
    parts += y_axis(ys, y_title, y_form)
    occupied: list[Box] = []
    for x, text in marks:
        parts += _vertical(xs.place(x), text, occupied)
    if level is not None:
        parts += _horizontal(ys.place(level[0]), f"{level[1]} {level[0]:.3f}", occupied)
    places = [(xs.place(p.x), ys.place(p.y)) for p in points]
    occupied += [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in places]
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: -pair[1][0]):
        parts += label(point.label, x, y, occupied)
    for point, (x, y) in zip(points, places, strict=True):
        if point.front:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS + 4}" class="front"/>')
        parts.append(marker(point.shape, point.color, point.label, x, y))
    described = "; ".join(
        f"{p.label}: {three_figures(p.x)} ms, {plain(y_form, p.y)}" for p in points
    )
    return svg(parts, HEIGHT, f"Median latency in milliseconds against {y_title}. {described}")


def strips(rows: Sequence[Strip]) -> str:
    """Draw the relative differences of single runs from their model's median, a strip per model."""
    height = TOP + _STRIP * len(rows) + BOTTOM
    shares = [np.asarray(row.values) / np.median(row.values) - 1 for row in rows]
    ends = [(float(share.min()), _upper(share)) for share in shares]
    # On a busy machine a few runs take many times the median; boxes have to stay visible.
    most = max(_LEAST_SPAN, _SPANS * max(float(np.percentile(share, 75)) for share in shares))
    shown = [(low, min(high, most)) for low, high in ends]
    xs = Scale.fit([end for pair in shown for end in pair], 14, WIDTH - RIGHT, log=False)
    title = "difference from the median"
    parts = x_axis(xs, height - BOTTOM, title, percent)
    for index, (row, share) in enumerate(zip(rows, shares, strict=True)):
        top = TOP + index * _STRIP
        parts += _strip(row, share, xs, top, shown[index])
        if shown[index] != ends[index]:
            parts.append(
                f'<text x="{WIDTH - RIGHT}" y="{top + 13:.1f}" text-anchor="end" class="title">'
                f"to {percent(ends[index][1])}</text>"
            )
    described = "; ".join(
        f"{r.label}: {low:+.0%} to {high:+.0%}" for r, (low, high) in zip(rows, ends, strict=True)
    )
    return svg(parts, height, f"Single runs against the median of their model. {described}")


def _strip(row: Strip, share: Array, xs: Scale, top: float, ends: tuple[float, float]) -> list[str]:
    first, median, third = (xs.place(float(v)) for v in np.percentile(share, [25, 50, 75]))
    left, right = (xs.place(end) for end in ends)
    middle = top + 24
    color = css(row.color)
    return [
        f'<text x="14" y="{top + 13:.1f}" class="halo">{escape(row.label)}</text>',
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" '
        f'class="whisker {color}"/>',
        f'<rect x="{first:.1f}" width="{max(1.5, third - first):.1f}" y="{middle - 5}" height="10" '
        f'rx="2" class="box {color}"/>',
        f'<line x1="{median:.1f}" x2="{median:.1f}" y1="{middle - 7}" y2="{middle + 7}" '
        f'class="tick"/>',
    ]


def _upper(values: Array) -> float:
    """Return p99 if there are enough runs, else the slowest run."""
    return float(np.percentile(values, 99) if len(values) >= P99_MIN_RUNS else values.max())


def _vertical(x: float, text: str, occupied: list[Box]) -> list[str]:
    """Draw a vertical reference line with its name beside its lower end, rotated."""
    bottom = HEIGHT - BOTTOM
    side = -5 if x > WIDTH / 2 else 13
    occupied.append((x + side - 12, bottom - text_width(text) - 10, x + side + 4, bottom))
    occupied.append((x - 1, TOP, x + 1, bottom))
    place = f"translate({x + side:.1f} {bottom - 8}) rotate(-90)"
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" class="reference"/>',
        f'<text transform="{place}" class="halo">{escape(text)}</text>',
    ]


def _horizontal(y: float, text: str, occupied: list[Box]) -> list[str]:
    """Draw a horizontal reference line with its name on the left, above it if there is room."""
    above = y - 5 if y - 5 - FONT > TOP - 10 else y + FONT + 2
    occupied.append((LEFT, above - FONT, LEFT + text_width(text) + 4, above + 3))
    return [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="reference"/>',
        f'<text x="{LEFT + 4}" y="{above:.1f}" class="halo">{escape(text)}</text>',
    ]
