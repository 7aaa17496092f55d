"""Line charts as inline SVG: latency against length, threads, batch size, or time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from benchmark.report.drawing import (
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Form,
    css,
    marker,
    milliseconds,
    plain,
    svg,
    x_axis,
    y_axis,
)
from benchmark.report.scale import Scale
from edge.console import three_figures

_PLOT = 220
_AXIS = 62
_ENTRY = 18
# With more points, a tick for each does not fit.
_TICKS = 8


@dataclass(frozen=True)
class Line:
    """The line of one model. points: (x, y); ends: the interval of each y, or None.

    shape: a format or "baseline". color: a precision likewise.
    """

    label: str
    points: Sequence[tuple[float, float]]
    shape: str
    color: str
    ends: Sequence[tuple[float, float] | None] = ()


def curves(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str = "median latency, ms",
    x_form: Callable[[float], str] = "{:g}".format,
    y_form: Form = milliseconds,
    log: bool = True,
) -> str:
    """Draw lines from left to right, their names below. log: axes may be logarithmic."""
    places = sorted({x for line in lines for x, _ in line.points})
    heights = [y for line in lines for _, y in line.points]
    heights += [end for line in lines for pair in line.ends if pair for end in pair]
    bottom = TOP + _PLOT
    xs = Scale.fit(places, LEFT, WIDTH - RIGHT, log=log and min(places) > 0)
    ys = Scale.fit(heights, bottom, TOP, log=log and min(heights) > 0)
    at = places if len(places) <= _TICKS and _labels_fit(xs, places) else None
    parts = x_axis(xs, bottom, x_title, x_form, at=at) + y_axis(ys, y_title, y_form)
    for number, line in enumerate(lines):
        parts += _draw_line(line, xs, ys, number)
        parts += _legend_entry(line, bottom + _AXIS + number * _ENTRY, number)
    described = "; ".join(_describe(line, x_form, y_form) for line in lines)
    height = bottom + _AXIS + _ENTRY * len(lines)
    return svg(parts, height, f"{y_title} against {x_title}. {described}")


def _labels_fit(xs: Scale, places: Sequence[float]) -> bool:
    """Return True if the tick labels of all values fit beside each other."""
    positions = [xs.place(x) for x in places]
    return all(right - left > 24 for left, right in itertools.pairwise(positions))


def _draw_line(line: Line, xs: Scale, ys: Scale, number: int) -> list[str]:
    places = [(xs.place(x), ys.place(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" class="curve {css(line.color)} dash{number % 4}"/>']
    for (x, _), ends in zip(places, line.ends, strict=False):
        if ends is not None:
            low, high = (ys.place(end) for end in ends)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" '
                f'class="whisker {css(line.color)}"/>'
            )
    if len(places) <= _TICKS:
        parts += [marker(line.shape, line.color, line.label, x, y) for x, y in places]
    return parts


def _legend_entry(line: Line, y: float, number: int) -> list[str]:
    return [
        f'<line x1="14" x2="44" y1="{y - 4:.1f}" y2="{y - 4:.1f}" '
        f'class="curve {css(line.color)} dash{number % 4}"/>',
        marker(line.shape, line.color, line.label, 29, y - 4),
        f'<text x="52" y="{y:.1f}">{escape(line.label)}</text>',
    ]


def _describe(line: Line, x_form: Callable[[float], str], y_form: Form) -> str:
    form = three_figures if y_form is milliseconds else y_form
    values = ", ".join(f"{plain(form, y)} at {x_form(x)}" for x, y in line.points)
    return f"{line.label}: {values}"
