"""The figures of a report, each a caption and an SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmark.keys import setting_of
from benchmark.report import summary
from benchmark.report.curves import Line, curves
from benchmark.report.drawing import milliseconds
from benchmark.report.labels import Labels, device_of, length_words
from benchmark.report.model import Report
from benchmark.report.plot import Point, Strip, scatter, strips
from benchmark.report.summary import is_rankable, p50_of, threads_words
from benchmark.schema import Row, Stretch
from benchmark.titles import baseline_title, engine_title
from edge.console import human_bytes

Figure = dict[str, str]
# Parameters of a sweep: title of the axis, words for the caption, index in the setting.
_SWEEPS = (
    ("tokens per input", "input length", 1),
    ("threads", "the number of threads", 0),
    ("texts per inference", "batch size", 2),
)


def figures(report: Report, labels: Labels) -> list[Figure]:
    """Return all figures that have rows; rows of emulated devices are left out."""
    known = [row for row in report.rows if row.role != "imported" and is_rankable(row)]
    shown = summary.comparable(known)
    note = _place_words(shown, known)
    drawn = list(_trade_offs(report, shown, labels, note))
    drawn += _spread(shown, labels, note)
    for axis, words, place in _SWEEPS:
        drawn += _sweep(known, shown, labels, axis, words, place)
    return drawn + list(_sustained(report.rows))


def front(rows: Sequence[Row]) -> set[int]:
    """Return the indices of the Pareto-optimal artifacts in size, latency and accuracy.

    An artifact is dominated if another one is at least as good in all measures known of both and
    better in one. Baselines and invalid rows do not take part.
    """
    taking = [
        (place, row)
        for place, row in enumerate(rows)
        if row.role == "artifact" and row.validity.status != "invalid" and is_rankable(row)
    ]
    return {
        place
        for place, row in taking
        if not any(_dominates(other, row) for at, other in taking if at != place)
    }


def _dominates(row: Row, other: Row) -> bool:
    costs, other_costs = _costs(row), _costs(other)
    pairs = [
        (a, b) for a, b in zip(costs, other_costs, strict=True) if a is not None and b is not None
    ]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _costs(row: Row) -> tuple[float | None, ...]:
    return (p50_of(row), row.model.bytes, -row.accuracy.value if row.accuracy else None)


def _place_words(shown: Sequence[Row], known: Sequence[Row]) -> str:
    """Return a sentence about setting and device, if there are several."""
    if len(shown) == len(known) or not shown:
        return ""
    threads, length, batch, _ = setting_of(shown[0])
    texts = f", {batch} texts at a time" if batch > 1 else ""
    return (
        f" At {length_words(length)} on {threads_words(threads)}{texts}, on {device_of(shown[0])}."
    )


def _trade_offs(report: Report, rows: list[Row], labels: Labels, note: str) -> Iterator[Figure]:
    best = front(rows)
    ringed = " Ringed: what no other artifact beats in everything." if best else ""
    sizes = [
        _point(row, row.model.bytes, labels, place in best)
        for place, row in enumerate(rows)
        if row.model.bytes
    ]
    if sizes:
        yield {
            "caption": f"Size and median latency; lower left is better.{ringed}{note}",
            "svg": scatter(sizes, y_title="size", y_form=human_bytes, y_log=True),
        }
    known = [(place, row) for place, row in enumerate(rows) if row.accuracy is not None]
    if not known:
        return
    points = [
        _point(r, r.accuracy.value, labels, place in best) for place, r in known if r.accuracy
    ]
    marks = [(p50_of(r) or 0.0, _mark(r)) for r in summary.baselines(rows)[:1]]
    level = None
    if report.distillation is not None:
        level = (report.distillation.teacher_value, "teacher")
    metric = next(r.accuracy.metric for _, r in known if r.accuracy)
    yield {
        "caption": f"{metric.capitalize()} and median latency; upper left is better.{ringed}{note}",
        "svg": scatter(
            points, y_title=metric, y_form="{:.3f}".format, y_log=False, marks=marks, level=level
        ),
    }


def _point(row: Row, value: float, labels: Labels, on_front: bool) -> Point:
    label = labels.name(row) if row.role == "artifact" else _mark(row)
    if row.accuracy is not None:
        label += f" · {row.accuracy.value:.3f}"
    shape, color = _style(row)
    return Point(
        x=p50_of(row) or 0.0, y=value, label=label, shape=shape, color=color, front=on_front
    )


def _mark(row: Row) -> str:
    return f"{baseline_title(row.model.id)} in {engine_title(row.runtime.name)}"


def _style(row: Row) -> tuple[str, str]:
    """Return shape and color of a row's marker."""
    if row.role == "baseline":
        return "baseline", "baseline"
    return row.model.format, row.model.precision


def _spread(rows: Sequence[Row], labels: Labels, note: str) -> Iterator[Figure]:
    bars = []
    for row in rows:
        latency = row.latency_ms
        if latency is not None and latency.recorded == "runs" and len(latency.raw_ns) > 1:
            values = [value / 1e6 for value in latency.raw_ns]
            bars.append(Strip(labels.model(row), values, _style(row)[1]))
    if bars:
        yield {
            "caption": "How much single runs differ from the median of their model: line from the "
            f"fastest to p99, box from p25 to p75. A line that leaves the figure says how far it "
            f"goes.{note}",
            "svg": strips(bars),
        }


def _sweep(
    rows: Sequence[Row], shown: Sequence[Row], labels: Labels, axis: str, words: str, place: int
) -> Iterator[Figure]:
    """Draw latency against one parameter; the others as in the other figures if possible."""
    rest = [_fixed_settings(row, place) for row in rows]
    values = {
        setting: {_part(r, place) for r in rows if _fixed_settings(r, place) == setting}
        for setting in rest
    }
    first = [_fixed_settings(row, place) for row in shown[:1]]
    usual = max([*first, *values], key=lambda setting: len(values[setting]), default=None)
    if usual is None or len(values[usual]) < 2:
        return
    chosen = [
        row
        for row in rows
        if _fixed_settings(row, place) == usual and _part(row, place) is not None
    ]
    lines = [_line(model, group, place, labels) for model, group in _by_model(chosen, labels)]
    lines = [line for line in lines if len(line.points) > 1]
    if not lines:
        return
    place_words = _others(chosen[0], place)
    yield {
        "caption": f"Median latency against {words}, with 95% intervals.{place_words}",
        "svg": curves(lines, x_title=axis),
    }


def _part(row: Row, place: int) -> float | None:
    value = setting_of(row)[place]
    return value if isinstance(value, int) else None


def _fixed_settings(row: Row, place: int) -> tuple[object, ...]:
    """Return the parameters that are fixed along a line, the device included."""
    setting = setting_of(row)
    return (*setting[:place], *setting[place + 1 :], device_of(row))


def _others(row: Row, place: int) -> str:
    threads, length, batch, _ = setting_of(row)
    parts = [
        length_words(length) if place != 1 else "",
        threads_words(threads) if place != 0 else "",
        f"batch {batch}" if place != 2 else "",
    ]
    return f" At {', '.join(part for part in parts if part)}, on {device_of(row)}."


def _by_model(rows: Sequence[Row], labels: Labels) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(labels.model(row), []).append(row)
    return list(groups.items())


def _line(name: str, rows: Sequence[Row], place: int, labels: Labels) -> Line:
    ordered = sorted(rows, key=lambda row: _part(row, place) or 0)
    shape, color = _style(ordered[0])
    return Line(
        label=name,
        points=[(_part(row, place) or 0, p50_of(row) or 0.0) for row in ordered],
        ends=[row.latency_ms.ci95 if row.latency_ms else None for row in ordered],
        shape=shape,
        color=color,
    )


def _sustained(rows: Sequence[Row]) -> Iterator[Figure]:
    """Draw latency, temperature and clock frequency over minutes."""
    sustained_rows = [row for row in rows if row.sustained and row.device.kind == "real"]
    sustained_rows = summary.at_main_setting(sustained_rows, rows)
    if not sustained_rows:
        return
    labels = Labels(sustained_rows)

    def figure(caption: str, title: str, value: Callable[[Stretch], float | None]) -> Figure | None:
        lines = [line for row in sustained_rows if (line := _minutes(row, labels, value)).points]
        if not lines:
            return None
        svg = curves(
            lines,
            x_title="minutes",
            y_title=title,
            x_form="{:.3g}".format,
            y_form=milliseconds,
            log=False,
        )
        return {"caption": caption, "svg": svg}

    drawn = (
        figure(
            "Sustained load: median latency of each stretch, every model alone and without a rest.",
            "median latency, ms",
            lambda stretch: stretch.p50,
        ),
        figure("Temperature meanwhile.", "temperature, °C", lambda stretch: stretch.temperature_c),
        figure(
            "Clock frequency meanwhile, the fastest core's.",
            "frequency, MHz",
            lambda stretch: stretch.frequency_mhz[1] if stretch.frequency_mhz else None,
        ),
    )
    yield from (drawing for drawing in drawn if drawing is not None)


def _minutes(row: Row, labels: Labels, value: Callable[[Stretch], float | None]) -> Line:
    shape, color = _style(row)
    points = [
        ((stretch.start_s + stretch.end_s) / 120, y)
        for stretch in row.sustained
        if (y := value(stretch)) is not None
    ]
    return Line(label=labels.full(row), points=points, shape=shape, color=color)
