"""Parts of all figures: axes, markers, and labels that do not overlap.

Colors are CSS classes of the page, so that a figure follows its light and dark themes. One unit is
one CSS pixel at the width of a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from benchmark.report.scale import Scale
from edge.console import three_figures

WIDTH = 360
HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 16, 42
FONT = 12
# Mean advance of a character of a sans-serif font, in parts of its size; labels are placed by it.
_ADVANCE = 0.56
RADIUS = 5.5

Box = tuple[float, float, float, float]
# Format of a tick's value; integers for bytes.
Form = Callable[[float], str] | Callable[[int], str]


def x_axis(
    xs: Scale,
    bottom: float,
    title: str,
    form: Callable[[float], str],
    *,
    at: Sequence[float] | None = None,
) -> list[str]:
    """Draw grid, values and title below. at: values to mark, round ones by default."""
    parts = []
    for value in xs.ticks(WIDTH // 60) if at is None else at:
        x = xs.place(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" class="grid"/>')
        text = escape(form(value))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    middle = (xs.start + xs.end) / 2
    note = " (logarithmic)" if xs.log else ""
    parts.append(
        f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle" class="title">'
        f"{escape(title)}{note}</text>"
    )
    return parts


def y_axis(ys: Scale, title: str, form: Form) -> list[str]:
    """Draw grid and values on the left, the title above them."""
    parts = []
    for value in ys.ticks(5):
        y = ys.place(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        )
        # Beside the title there is no room for a value.
        if y < TOP + 6:
            continue
        text = escape(_short(plain(form, value)))
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text x="4" y="{TOP - 4}" class="title">{escape(title)}</text>')
    return parts


def milliseconds(value: float) -> str:
    """Return the label of a tick in milliseconds, without its unit."""
    return _short(three_figures(value))


def percent(value: float) -> str:
    """Return the label of a tick of a share, with its sign."""
    return f"{value:+.0%}" if value else "0"


def _short(figure: str) -> str:
    """Remove trailing zeros: ticks are exact."""
    number, space, unit = figure.partition(" ")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + space + unit


def plain(form: Form, value: float) -> str:
    """Format a value with a format that may be made for integers."""
    return form(value)  # type: ignore[arg-type]


def label(text: str, x: float, y: float, occupied: list[Box]) -> list[str]:
    """Draw a label near its marker, where it overlaps least with the boxes in `occupied`."""
    width, half = text_width(text), (FONT + 2) / 2
    candidates = []
    for shift in (0, -14, 14, -28, 28, -42, 42, -56, 56, -70, 70):
        for left in (x + 10, x - 10 - width, x - width / 2):
            if left == x - width / 2 and shift == 0:
                continue
            candidates.append((left, y + shift - half, left + width, y + shift + half))
    costs = [sum(_overlap(box, other) for other in occupied) + _outside(box) for box in candidates]
    best = candidates[min(range(len(costs)), key=lambda i: costs[i])]
    occupied.append(best)
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
    """Return 10 times the area beyond the frame: cut letters are worse than covered ones."""
    inside = _overlap(box, (LEFT - 2, 0, WIDTH, HEIGHT - BOTTOM + 4))
    return 10 * ((box[2] - box[0]) * (box[3] - box[1]) - inside)


def marker(shape: str, color: str, text: str, x: float, y: float) -> str:
    """Draw the marker of a row. shape: a format or "baseline"; color: a precision likewise."""
    r = RADIUS
    shapes = {
        "onnx": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        "tflite": f'<rect x="{x - r + 0.5:.1f}" y="{y - r + 0.5:.1f}" width="{2 * r - 1}" '
        f'height="{2 * r - 1}"',
        "coreml": f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}-{r + 1} {r + 1}'
        f'-{r + 1}-{r + 1}z"',
        "baseline": f'<path d="M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}'
        f'm0-{2 * r}l-{2 * r} {2 * r}"',
    }
    shape_svg = shapes.get(shape, shapes["onnx"])
    return f'{shape_svg} class="marker {css(color)}"><title>{escape(text)}</title>' + (
        f"</{shape_svg[1:].split(' ', 1)[0]}>"
    )


def css(color: str) -> str:
    """Return the CSS class of a precision; unknown ones share "other"."""
    return color if color in {"baseline", "fp32", "fp16", "int8"} else "other"


def text_width(text: str) -> float:
    """Estimate the width of a text."""
    return len(text) * FONT * _ADVANCE


def svg(parts: Sequence[str], height: float, description: str) -> str:
    """Return the SVG of a figure, with a description for screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )
