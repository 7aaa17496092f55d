"""A report as the strings its templates show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import summary
from benchmark.plot import Point, Strip, scatter, strips
from benchmark.report import Report
from benchmark.schema import Conditions, Latency, Ratio, Row
from benchmark.wording import baseline_title, engine_title, format_title
from edge.bundle import Verification
from edge.console import human_bytes, three_figures

NONE = "–"
_STYLE = Path(__file__).parent / "templates" / "style.css"
_STATUS = {
    "valid": "valid",
    "limited": "limited",
    "invalid": "invalid",
    "not_measured": "not timed",
}


def view(report: Report) -> dict[str, Any]:
    """The variables of both templates."""
    artifacts = [row for row in report.rows if row.role == "artifact"]
    several = len({_owner(row) for row in artifacts}) > 1
    lines = [_line(row, report.verifications.get(row.model.id), several) for row in report.rows]
    return {
        "title": report.title,
        "style": _STYLE.read_text(encoding="utf-8"),
        "headline": summary.headline(report),
        "details": summary.details(report),
        "baseline_note": summary.baseline_note(report),
        "baseline": baseline_title(report.baseline) if report.baseline else None,
        "metric": next((row.accuracy.metric for row in artifacts if row.accuracy), None),
        "lines": lines,
        "reservations": _reservations(lines),
        "figures": _figures(report, several),
        "distillation": _distillation(report),
        "environment": _environment(report.rows),
        "method": _method(report.rows),
        "not_measured": _not_measured(report, artifacts),
        "started": report.rows[0].started_utc if report.rows else None,
    }


def _line(row: Row, proof: Verification | None, several: bool) -> dict[str, Any]:
    latency, memory, accuracy = row.latency_ms, row.memory, row.accuracy
    return {
        "name": name_of(row, several),
        "role": row.role,
        "format": format_title(row.model.format) if row.role == "artifact" else "",
        "precision": row.model.precision,
        "engine": engine_title(row.runtime.name),
        "size": human_bytes(row.model.bytes) if row.model.bytes else NONE,
        "bytes": f"{row.model.bytes:,}" if row.model.bytes else NONE,
        "zipped": human_bytes(row.model.bytes_zip) if row.model.bytes_zip else NONE,
        "accuracy": f"{accuracy.value:.4f}" if accuracy else NONE,
        "accuracy_engine": _other_engine(row),
        "agreement": _share(proof.label_agreement if proof else None),
        "error": f"{proof.max_relative_error:.1e}" if proof and proof.max_relative_error else NONE,
        "checked": f"{proof.status} in {engine_title(proof.engine)}" if proof else NONE,
        **{name: _figure(latency, name) for name in ("p50", "p90", "p99", "mad", "load", "first")},
        "runs": f"{latency.n:,}" if latency else NONE,
        "memory": f"{memory.delta_mb:,.0f} MB" if memory else NONE,
        "ratio": _ratio(row.ratio_to_baseline),
        "same": _ratio(row.ratio_same_engine),
        "status": _STATUS[row.validity.status],
        "status_class": row.validity.status,
        "reasons": list(row.validity.reasons),
    }


def _figure(latency: Latency | None, name: str) -> str:
    value = None if latency is None else getattr(latency, name)
    return NONE if value is None else three_figures(value)


def name_of(row: Row, several: bool) -> str:
    """What a row is called: "TFLite int8", with its bundle in front where there are several."""
    if row.role == "baseline":
        return f"{baseline_title(row.model.id)} {row.model.precision}"
    name = f"{format_title(row.model.format)} {row.model.precision}"
    return f"{_owner(row)} {name}" if several else name


def _owner(row: Row) -> str:
    """The bundle's name: `Row.model.id` is "bundle/format-precision"."""
    return row.model.id.rpartition("/")[0]


def _other_engine(row: Row) -> str | None:
    """The engine of the accuracy, where it is not the one that was timed."""
    if row.accuracy is None or row.accuracy.engine == row.runtime.name:
        return None
    return engine_title(row.accuracy.engine)


def _ratio(ratio: Ratio | None) -> dict[str, str | None] | None:
    if ratio is None:
        return None
    interval = None
    if ratio.ci95 is not None and ratio.ci95[0] != ratio.ci95[1]:
        interval = f"{three_figures(ratio.ci95[0])}–{three_figures(ratio.ci95[1])}"
    note = None
    if ratio.ci95 is None:
        note = "too few rounds"
    elif ratio.indistinguishable and ratio.ci95 != (1.0, 1.0):
        note = f"{interval}, indistinguishable"
    return {"value": f"{three_figures(ratio.value)}×", "interval": interval, "note": note}


def _reservations(lines: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """What holds for all rows that were timed, then the rest row by row."""
    timed = [line for line in lines if line["status_class"] != "not_measured"]
    common = [
        r
        for r in dict.fromkeys(r for line in timed for r in line["reasons"])
        if len(timed) > 1 and all(r in line["reasons"] for line in timed)
    ]
    found = [{"rows": "all rows", "reasons": "; ".join(common)}] if common else []
    for line in timed:
        own = [reason for reason in line["reasons"] if reason not in common]
        if own:
            rows = f"{line['name']} in {line['engine']}"
            found.append({"rows": rows, "reasons": "; ".join(own)})
    return found


def _figures(report: Report, several: bool) -> list[dict[str, str]]:
    timed = [row for row in report.rows if row.latency_ms is not None]
    if not timed:
        return []
    sizes = [_point(row, row.model.bytes, several) for row in timed if row.model.bytes]
    figures = [
        {
            "caption": "Size and median latency; lower left is better.",
            "svg": scatter(sizes, y_title="size", y_form=human_bytes, y_log=True),
        }
    ]
    known = [row for row in timed if row.accuracy is not None]
    if known:
        points = [_point(r, r.accuracy.value, several) for r in known if r.accuracy]
        marks = [(r.latency_ms.p50, _mark(r)) for r in summary.baselines(timed)[:1] if r.latency_ms]
        level = None
        if report.distillation is not None:
            level = (report.distillation.teacher_value, "teacher")
        metric = known[0].accuracy.metric if known[0].accuracy else "accuracy"
        svg = scatter(
            points, y_title=metric, y_form="{:.3f}".format, y_log=False, marks=marks, level=level
        )
        caption = f"{metric.capitalize()} and median latency; upper left is better."
        figures.append({"caption": caption, "svg": svg})
    bars = [_strip(row, several) for row in timed]
    figures.append(
        {
            "caption": "How much single runs differ from the median of their model: line from the "
            "fastest to p99, box from p25 to p75.",
            "svg": strips(bars),
        }
    )
    return figures


def _mark(row: Row) -> str:
    return f"{baseline_title(row.model.id)} in {engine_title(row.runtime.name)}"


def _point(row: Row, value: float, several: bool) -> Point:
    assert row.latency_ms is not None
    label = name_of(row, several) if row.role == "artifact" else _mark(row)
    if row.accuracy is not None:
        label += f" · {row.accuracy.value:.3f}"
    return Point(
        x=row.latency_ms.p50,
        y=value,
        label=label,
        shape="baseline" if row.role == "baseline" else row.model.format,
        colour="baseline" if row.role == "baseline" else row.model.precision,
    )


def _strip(row: Row, several: bool) -> Strip:
    assert row.latency_ms is not None
    latency = row.latency_ms
    return Strip(
        label=f"{name_of(row, several)} in {engine_title(row.runtime.name)}",
        values=[value / 1e6 for value in latency.raw_ns],
        colour="baseline" if row.role == "baseline" else row.model.precision,
    )


def _distillation(report: Report) -> dict[str, Any] | None:
    """Recipe, teacher, and rows of (what, teacher, student)."""
    found = report.distillation
    if found is None:
        return None
    table = [
        ("parameters", f"{found.teacher_parameters:,}", f"{found.student_parameters:,}"),
        (found.metric, f"{found.teacher_value:.4f}", f"{found.student_value:.4f}"),
    ]
    return {"recipe": found.recipe, "teacher": Path(found.teacher).name, "table": table}


def _environment(rows: Sequence[Row]) -> list[tuple[str, str]]:
    if not rows:
        return []
    device, conditions = rows[0].device, rows[0].conditions
    facts = [
        ("processor", device.model or "unknown"),
        ("kind of device", device.kind),
        ("architecture", device.abi or "unknown"),
        ("cores", str(device.cores or "unknown")),
        ("instructions", ", ".join(device.cpu_features) or "unknown"),
        ("memory", f"{device.ram_mb:,} MB" if device.ram_mb else "unknown"),
        ("system", device.os or "unknown"),
    ]
    facts += list(device.versions.items())
    nothing = Conditions(at_utc=rows[0].started_utc)
    before, after = conditions.before or nothing, conditions.after or nothing
    if before.load_average and after.load_average:
        averages = (before.load_average[0], after.load_average[0])
        facts.append(("load average", f"{averages[0]:.2f} before, {averages[1]:.2f} after"))
    if conditions.other_cores is not None:
        facts.append(("other programs", f"{conditions.other_cores:.2f} cores busy meanwhile"))
    if before.governor:
        facts.append(("governor", before.governor))
    if after.frequency_mhz:
        facts.append(
            ("clock after", f"{after.frequency_mhz[0]:.0f}-{after.frequency_mhz[1]:.0f} MHz")
        )
    if before.temperature_c is not None and after.temperature_c is not None:
        degrees = f"{before.temperature_c:.0f} °C before, {after.temperature_c:.0f} °C after"
        facts.append(("temperature", degrees))
    return facts


def _method(rows: Sequence[Row]) -> list[str]:
    timed = next((row for row in rows if row.latency_ms is not None), None)
    if timed is None:
        return []
    protocol, inputs = timed.protocol, timed.inputs
    source = "the golden texts" if inputs.dataset == "golden" else inputs.dataset
    return [
        f"Every model ran in a fresh process on {summary.threads_words(timed.runtime.threads)}, "
        f"one text at a time. Inputs: {inputs.samples} texts from {source}, padded to "
        f"{inputs.seq_len} tokens (median without padding: {inputs.real_len_p50:g}), the same for "
        "every model.",
        f"Preset {protocol.preset}: at least {protocol.min_runs} runs and {protocol.min_s:g} s for "
        f"each model, at most {protocol.max_s:g} s. Models took turns in {protocol.rounds} rounds, "
        f"in random order (seed {protocol.seed}), so that a change of speed meets all.",
        "A ratio is the median latency of the baseline divided by that of the artifact. Its 95% "
        "interval comes from resampling rounds, paired.",
    ]


def _not_measured(report: Report, artifacts: Sequence[Row]) -> list[str]:
    found = list(report.not_measured)
    if artifacts and all(row.accuracy is None for row in artifacts):
        found.append("Accuracy was not measured: edge evaluate does, on a data file with labels.")
    return found


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"
