"""Figures as inline SVG: scatter plots with labels that keep clear of each other, and strips.

Colours are CSS classes of the page, so that a figure follows its light and dark themes. One unit is
one CSS pixel at the width of a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from benchmark.scale import Scale
from benchmark.statistics import P99_MIN_RUNS, Array
from edge.console import three_figures

WIDTH = 360
_HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 16, 42
_FONT = 12
# Mean advance of a character of a sans-serif font, in parts of its size; labels are placed by it.
_ADVANCE = 0.56
_RADIUS = 5.5
_STRIP = 34

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """One marker. x: milliseconds. shape: a format or "baseline". colour: a precision likewise."""

    x: float
    y: float
    label: str
    shape: str
    colour: str


@dataclass(frozen=True)
class Strip:
    """The distribution of one model's latencies, in milliseconds."""

    label: str
    values: Sequence[float]
    colour: str


def scatter(
    points: Sequence[Point],
    *,
    y_title: str,
    y_form: Callable[[float], str] | Callable[[int], str],
    y_log: bool,
    marks: Sequence[tuple[float, str]] = (),
    level: tuple[float, str] | None = None,
) -> str:
    """Latency to the right, something else upwards.

    marks: latencies drawn as vertical lines, for what has no height. level: a horizontal line.
    """
    xs = Scale.fit([p.x for p in points] + [x for x, _ in marks], _LEFT, WIDTH - _RIGHT, log=True)
    heights = [p.y for p in points] + ([level[0]] if level else [])
    ys = Scale.fit(heights, _HEIGHT - _BOTTOM, _TOP, log=y_log)
    parts = _x_axis(xs, _HEIGHT - _BOTTOM, "median latency, ms", _milliseconds)
    parts += _y_axis(ys, y_title, y_form)
    taken: list[Box] = []
    for x, text in marks:
        parts += _vertical(xs.place(x), text, taken)
    if level is not None:
        parts += _horizontal(ys.place(level[0]), f"{level[1]} {level[0]:.3f}", taken)
    places = [(xs.place(p.x), ys.place(p.y)) for p in points]
    taken += [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: -pair[1][0]):
        parts += _label(point.label, x, y, taken)
    parts += [_marker(p, x, y) for p, (x, y) in zip(points, places, strict=True)]
    described = "; ".join(
        f"{p.label}: {three_figures(p.x)} ms, {_plain(y_form, p.y)}" for p in points
    )
    return _svg(parts, _HEIGHT, f"Median latency in milliseconds against {y_title}. {described}")


def strips(rows: Sequence[Strip]) -> str:
    """How far single runs are from their model's median: one strip a model, one axis."""
    height = _TOP + _STRIP * len(rows) + _BOTTOM
    shares = [np.asarray(row.values) / np.median(row.values) - 1 for row in rows]
    ends = [(float(share.min()), _upper(share)) for share in shares]
    xs = Scale.fit([end for pair in ends for end in pair], 14, WIDTH - _RIGHT, log=False)
    title = "difference from the median"
    parts = _x_axis(xs, height - _BOTTOM, title, _percent)
    for index, (row, share) in enumerate(zip(rows, shares, strict=True)):
        parts += _strip(row, share, xs, _TOP + index * _STRIP, ends[index])
    described = "; ".join(
        f"{r.label}: {low:+.0%} to {high:+.0%}" for r, (low, high) in zip(rows, ends, strict=True)
    )
    return _svg(parts, height, f"Single runs against the median of their model. {described}")


def _strip(row: Strip, share: Array, xs: Scale, top: float, ends: tuple[float, float]) -> list[str]:
    first, median, third = (xs.place(float(v)) for v in np.percentile(share, [25, 50, 75]))
    left, right = (xs.place(end) for end in ends)
    middle = top + 24
    colour = _css(row.colour)
    return [
        f'<text x="14" y="{top + 13:.1f}" class="halo">{escape(row.label)}</text>',
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" '
        f'class="whisker {colour}"/>',
        f'<rect x="{first:.1f}" width="{max(1.5, third - first):.1f}" y="{middle - 5}" height="10" '
        f'rx="2" class="box {colour}"/>',
        f'<line x1="{median:.1f}" x2="{median:.1f}" y1="{middle - 7}" y2="{middle + 7}" '
        f'class="tick"/>',
    ]


def _upper(values: Array) -> float:
    """p99 where there are runs enough for one, else the slowest run."""
    return float(np.percentile(values, 99) if len(values) >= P99_MIN_RUNS else values.max())


def _percent(value: float) -> str:
    return f"{value:+.0%}" if value else "0"


def _x_axis(xs: Scale, bottom: float, title: str, form: Callable[[float], str]) -> list[str]:
    parts = []
    for value in xs.ticks(WIDTH // 60):
        x = xs.place(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" class="grid"/>')
        text = escape(form(value))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    middle = (xs.start + xs.end) / 2
    note = " (logarithmic)" if xs.log else ""
    parts.append(
        f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle" class="title">'
        f"{escape(title)}{note}</text>"
    )
    return parts


def _milliseconds(value: float) -> str:
    return _short(three_figures(value))


def _short(figure: str) -> str:
    """Without zeros behind the point: a tick is exact anyway."""
    number, space, unit = figure.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def _y_axis(
    ys: Scale, title: str, form: Callable[[float], str] | Callable[[int], str]
) -> list[str]:
    parts = []
    for value in ys.ticks(5):
        y = ys.place(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        )
        text = escape(_short(_plain(form, value)))
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text x="4" y="{_TOP - 4}" class="title">{escape(title)}</text>')
    return parts


def _plain(form: Callable[[float], str] | Callable[[int], str], value: float) -> str:
    return form(value)  # type: ignore[arg-type]


def _vertical(x: float, text: str, taken: list[Box]) -> list[str]:
    """A reference line with its name beside it at the foot, read upwards."""
    bottom = _HEIGHT - _BOTTOM
    side = -5 if x > WIDTH / 2 else 13
    taken.append((x + side - 12, bottom - _width(text) - 10, x + side + 4, bottom))
    taken.append((x - 1, _TOP, x + 1, bottom))
    place = f"translate({x + side:.1f} {bottom - 8}) rotate(-90)"
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" class="reference"/>',
        f'<text transform="{place}" class="halo">{escape(text)}</text>',
    ]


def _horizontal(y: float, text: str, taken: list[Box]) -> list[str]:
    """A reference line with its name on the left, above it where there is room."""
    above = y - 5 if y - 5 - _FONT > _TOP - 10 else y + _FONT + 2
    taken.append((_LEFT, above - _FONT, _LEFT + _width(text) + 4, above + 3))
    return [
        f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="reference"/>',
        f'<text x="{_LEFT + 4}" y="{above:.1f}" class="halo">{escape(text)}</text>',
    ]


def _label(text: str, x: float, y: float, taken: list[Box]) -> list[str]:
    """A label near its marker, where it covers least of what is there already."""
    width, half = _width(text), (_FONT + 2) / 2
    candidates = []
    for shift in (0, -14, 14, -28, 28, -42, 42, -56, 56, -70, 70):
        for left in (x + 10, x - 10 - width, x - width / 2):
            if left == x - width / 2 and shift == 0:
                continue
            candidates.append((left, y + shift - half, left + width, y + shift + half))
    costs = [sum(_overlap(box, other) for other in taken) + _outside(box) for box in candidates]
    best = candidates[min(range(len(costs)), key=lambda i: costs[i])]
    taken.append(best)
    parts = []
    if abs((best[1] + best[3]) / 2 - y) > 20:
        near = min(max(x, best[0]), best[2])
        edge = best[3] if best[3] < y else best[1]
        parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{near:.1f}" y2="{edge:.1f}" class="leader"/>'
        )
    base = best[3] - 3.5
    parts.append(f'<text x="{best[0]:.1f}" y="{base:.1f}" class="halo">{escape(text)}</text>')
    return parts


def _overlap(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _outside(box: Box) -> float:
    """Area beyond the frame, counted dear: cut letters are worse than covered ones."""
    inside = _overlap(box, (_LEFT - 2, 0, WIDTH, _HEIGHT - _BOTTOM + 4))
    return 10 * ((box[2] - box[0]) * (box[3] - box[1]) - inside)


def _marker(point: Point, x: float, y: float) -> str:
    r = _RADIUS
    shapes = {
        "onnx": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        "tflite": f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" '
        f'height="{2 * r - 1}"',
        "coreml": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}-{r + 1} {r + 1}'
        f'-{r + 1}-{r + 1}z"',
        "baseline": f'<path d="M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}'
        f'm0-{2 * r}l-{2 * r} {2 * r}"',
    }
    shape = shapes.get(point.shape, shapes["onnx"])
    return f'{shape} class="marker {_css(point.colour)}"><title>{escape(point.label)}</title>' + (
        f"</{shape[1:].split(' ', 1)[0]}>"
    )


def _css(colour: str) -> str:
    """The class of a precision; unknown ones share the last."""
    return colour if colour in {"baseline", "fp32", "fp16", "int8"} else "other"


def _width(text: str) -> float:
    return len(text) * _FONT * _ADVANCE


def _svg(parts: Sequence[str], height: float, description: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )
