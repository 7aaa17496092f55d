"""Template variables of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.keys import Key, place_key, setting_of
from benchmark.report import summary
from benchmark.report.figures import figures, front
from benchmark.report.labels import Labels, device_of, length_words
from benchmark.report.model import Report
from benchmark.report.tables import (
    NONE,
    as_dicts,
    emulated_words,
    imported_words,
    millions,
    sustained_words,
    tables,
)
from benchmark.schema import Conditions, Ratio, Row
from benchmark.titles import baseline_title, engine_title, join_names
from edge.bundle import Verification
from edge.console import counted, human_bytes, three_figures

_STYLE = Path(__file__).parent / "templates" / "style.css"
_STATUS = {
    "valid": "valid",
    "limited": "limited",
    "invalid": "invalid",
    "not_measured": "not timed",
}
# Rows that a reservation lists by name.
_NAMED = 4
_LATENCIES = ("p50", "p90", "p99", "mad", "load", "first")


def template_variables(report: Report) -> dict[str, Any]:
    """Return the variables of both templates."""
    rows, labels = report.rows, Labels(report.rows)
    artifacts = [row for row in rows if row.role == "artifact"]
    lines = [_line(row, report.verifications.get(row.model.id), labels) for row in rows]
    _mark_front(rows, lines)
    return {
        "title": report.title,
        "style": _STYLE.read_text(encoding="utf-8"),
        "headline": summary.headline(report),
        "details": summary.details(report),
        "notes": [note for note in _notes(report) if note],
        "baseline": baseline_title(report.baseline) if report.baseline else None,
        "metric": next((row.accuracy.metric for row in rows if row.accuracy), None),
        "counted": any(row.instructions is not None for row in rows),
        "groups": _groups(rows, lines, labels),
        "lines": lines,
        "front": any(line["front"] for line in lines),
        "reservations": _reservations(lines),
        "figures": figures(report, labels),
        "sustained": sustained_words(rows),
        "tables": as_dicts(tables(rows, labels)),
        "distillation": _distillation(report),
        "environments": _environments(rows),
        "method": _method(rows),
        "not_measured": _not_measured(report, artifacts),
        "started": _started(rows),
    }


def _notes(report: Report) -> tuple[str | None, ...]:
    rows = report.rows
    return (summary.baseline_note(report), emulated_words(rows), imported_words(rows))


def _mark_front(rows: Sequence[Row], lines: Sequence[dict[str, Any]]) -> None:
    shown = summary.comparable(rows)
    best = {id(shown[place]) for place in front(shown)}
    for row, line in zip(rows, lines, strict=True):
        line["front"] = id(row) in best


def _groups(
    rows: Sequence[Row], lines: Sequence[dict[str, Any]], labels: Labels
) -> list[dict[str, Any]]:
    """Group the lines by setting and device, the group of the headline first.

    aside: True for other settings of a sweep, which the page folds away.
    """
    shown = summary.comparable(rows)
    main = shown[0] if shown else None
    groups: dict[str, dict[str, Any]] = {}
    for row, line in zip(rows, lines, strict=True):
        imported = row.role == "imported"
        title = "Imported" if imported else labels.place(row)
        aside = main is not None and not imported and setting_of(row) != setting_of(main)
        group = groups.setdefault(title, {"title": title, "aside": aside, "lines": []})
        group["lines"].append(line)
    first = "" if main is None else labels.place(main)
    return sorted(groups.values(), key=lambda group: (group["aside"], group["title"] != first))


def _line(row: Row, proof: Verification | None, labels: Labels) -> dict[str, Any]:
    latency, memory, accuracy = row.latency_ms, row.memory, row.accuracy
    delta = None if memory is None else memory.delta_mb
    verified = proof or row.check
    return {
        "name": labels.name(row),
        "full": labels.full(row),
        "engine": labels.engine(row),
        "device": device_of(row) if row.role != "imported" else None,
        "place": labels.place(row) if row.role != "imported" else None,
        "role": row.role,
        "size": human_bytes(row.model.bytes) if row.model.bytes else NONE,
        "bytes": f"{row.model.bytes:,} bytes" if row.model.bytes else None,
        "zipped": human_bytes(row.model.bytes_zip) if row.model.bytes_zip else NONE,
        "accuracy": f"{accuracy.value:.4f}" if accuracy else NONE,
        "accuracy_note": _accuracy_note(row),
        "agreement": _agreement(verified),
        "error": _error(verified),
        "checked": f"{proof.status} in {engine_title(proof.engine)}" if proof else NONE,
        "on_device": _on_device(row),
        **{name: _figure(row, name) for name in _LATENCIES},
        "interval": _interval(row),
        "runs": f"{latency.n:,}" if latency and latency.n else NONE,
        "runtime": human_bytes(row.runtime.bytes) if row.runtime.bytes else NONE,
        "memory": f"{delta:,.0f} MB" if delta is not None else NONE,
        "peak": f"{memory.peak_rss_mb:,.0f} MB" if memory and memory.peak_rss_mb else NONE,
        "instructions": NONE if row.instructions is None else millions(row.instructions),
        "ratio": _ratio(row, row.ratio_to_baseline),
        "same": _ratio(row, row.ratio_same_engine),
        "status": _STATUS[row.validity.status],
        "status_class": row.validity.status,
        "reasons": list(row.validity.reasons),
    }


def _figure(row: Row, name: str) -> str:
    """Return a latency; an emulator's says nothing and is not shown."""
    if row.latency_ms is None or row.device.kind != "real":
        return NONE
    value = getattr(row.latency_ms, name)
    return NONE if value is None else three_figures(value)


def _interval(row: Row) -> str | None:
    """Return the interval of p50."""
    if row.latency_ms is None or row.latency_ms.ci95 is None or row.device.kind != "real":
        return None
    low, high = row.latency_ms.ci95
    return f"{three_figures(low)}–{three_figures(high)}"


def _error(proof: Verification | None) -> str:
    value = None if proof is None else proof.max_relative_error
    return f"{value:.1e}" if value else NONE


def _on_device(row: Row) -> str:
    """Return the verification of the golden texts on the timed device."""
    if row.check is None:
        return NONE
    samples = f", {counted(row.check.samples, 'text')}" if row.check.samples else ""
    return f"{row.check.status}{samples}"


def _accuracy_note(row: Row) -> str | None:
    """Return the engine of the accuracy if it is not the timed one, and its place."""
    accuracy = row.accuracy
    if accuracy is None:
        return None
    parts = []
    if accuracy.engine != row.runtime.name:
        parts.append(f"in {engine_title(accuracy.engine)}")
    if accuracy.on_device:
        parts.append("on the device")
    return ", ".join(parts) or None


def _ratio(row: Row, ratio: Ratio | None) -> dict[str, str | None] | None:
    if ratio is None or row.device.kind != "real":
        return None
    interval = None
    if ratio.ci95 is not None and ratio.ci95[0] != ratio.ci95[1]:
        interval = f"{three_figures(ratio.ci95[0])}–{three_figures(ratio.ci95[1])}"
    note = None
    if ratio.ci95 is None:
        note = "too few rounds"
    elif ratio.indistinguishable and ratio.ci95 != (1.0, 1.0):
        note = f"{interval}, indistinguishable"
    if not ratio.paired:
        note = f"{note or interval}, of another run"
    return {"value": f"{three_figures(ratio.value)}×", "interval": interval, "note": note}


def _reservations(lines: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return reservations: those common to all timed rows, then the others, grouped by text."""
    timed = [line for line in lines if line["status_class"] != "not_measured"]
    common = [
        r
        for r in dict.fromkeys(r for line in timed for r in line["reasons"])
        if len(timed) > 1 and all(r in line["reasons"] for line in timed)
    ]
    notes = [{"rows": "all rows", "reasons": "; ".join(common)}] if common else []
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in timed:
        specific = "; ".join(reason for reason in line["reasons"] if reason not in common)
        if specific:
            groups.setdefault(specific, []).append(line)
    return notes + [
        {"rows": _rows_words(group, timed), "reasons": specific}
        for specific, group in groups.items()
    ]


def _rows_words(group: Sequence[dict[str, Any]], timed: Sequence[dict[str, Any]]) -> str:
    """Return row names; all rows of a device or of a setting under one name."""
    names, rest = [], list(group)
    for key, words in (("device", "all rows on"), ("place", "all rows at")):
        for value in dict.fromkeys(line[key] for line in rest if line[key]):
            there = [line for line in timed if line[key] == value]
            if len(there) > 1 and all(line in rest for line in there):
                names.append(f"{words} {value}")
                rest = [line for line in rest if line[key] != value]
    names += [line["full"] for line in rest]
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return join_names(names[:_NAMED] + more)


def _distillation(report: Report) -> dict[str, Any] | None:
    """Return recipe, teacher, and table rows of (measure, teacher, student)."""
    distillation = report.distillation
    if distillation is None:
        return None
    table = [
        (
            "parameters",
            f"{distillation.teacher_parameters:,}",
            f"{distillation.student_parameters:,}",
        ),
        (
            distillation.metric,
            f"{distillation.teacher_value:.4f}",
            f"{distillation.student_value:.4f}",
        ),
    ]
    return {
        "recipe": distillation.recipe,
        "teacher": Path(distillation.teacher).name,
        "table": table,
    }


def _started(rows: Sequence[Row]) -> str | None:
    """Return the time of measurement; for several runs from the first to the last."""
    known = sorted({row.started_utc for row in rows if row.role != "imported"})
    if not known:
        return None
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _environments(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the facts of each device and run, with its name if there are several."""
    groups: dict[Key, Row] = {}
    for row in rows:
        groups.setdefault((row.run_id, *place_key(row)), row)
    groups_first = list(groups.values())
    several = len(groups_first) > 1
    return [
        {"name": f"{device_of(row)}, {_run_words(row)}" if several else None, "facts": _facts(row)}
        for row in groups_first
    ]


def _run_words(row: Row) -> str:
    if row.role == "imported":
        return f"from {row.tool.name}"
    return row.started_utc


def _facts(row: Row) -> list[tuple[str, str]]:
    device = row.device
    facts = [
        ("processor", device.model),
        ("system on chip", device.soc),
        ("kind of device", device.kind if row.role != "imported" else None),
        ("architecture", device.abi),
        ("cores", str(device.cores) if device.cores else None),
        ("instructions", ", ".join(device.cpu_features) or None),
        ("memory", f"{device.ram_mb:,} MB" if device.ram_mb else None),
        ("system", device.os),
        *device.versions.items(),
    ]
    known = [(name, value) for name, value in facts if value]
    missing = [name for name, value in facts if not value and name not in {"system on chip"}]
    if missing:
        known.append(("not known", ", ".join(missing)))
    return known + _conditions(row)


def _conditions(row: Row) -> list[tuple[str, str]]:
    conditions = row.conditions
    nothing = Conditions(at_utc=row.started_utc)
    before, after = conditions.before or nothing, conditions.after or nothing
    facts = []
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
    if after.thermal_status:
        facts.append(("throttling after", after.thermal_status))
    if before.battery_percent is not None:
        charging = {True: ", charging", False: ", not charging", None: ""}[before.charging]
        facts.append(("battery", f"{before.battery_percent:.0f} %{charging}"))
    return facts


def _method(rows: Sequence[Row]) -> list[str]:
    """Describe the method of the runs, each distinct description once."""
    measured = [row for row in rows if row.role != "imported" and row.latency_ms is not None]
    if not measured:
        return []
    sentences = list(dict.fromkeys(_inputs_words(row) for row in measured))
    sentences += list(dict.fromkeys(_protocol_words(row) for row in measured))
    sentences.append(
        "A ratio is the median latency of the baseline divided by that of the artifact, both as "
        "shown. Its 95% interval comes from resampling rounds, paired; where one sat out rounds, "
        "it also covers the ratio of the rounds in which both were timed."
    )
    return sentences


def _inputs_words(row: Row) -> str:
    inputs = row.inputs
    source = "the golden texts" if inputs.dataset == "golden" else inputs.dataset or "unknown texts"
    at_once = "one text" if inputs.batch == 1 else f"{inputs.batch} texts"
    padded = (
        f"padded to {length_words(inputs.seq_len)}"
        if inputs.padding == "fixed"
        else "each padded to the shortest length its model accepts, "
        f"{length_words(inputs.seq_len)} at most"
    )
    real = inputs.real_len_p50
    median = "" if real is None else f" (median without padding: {real:g})"
    return (
        f"Every model ran in a fresh process on {summary.threads_words(row.runtime.threads)}, "
        f"{at_once} at a time. Inputs: {_texts(inputs.samples)} from {source}, "
        f"{padded}{median}, the same for every model."
    )


def _texts(count: int | None) -> str:
    return counted(count, "text") if count else "some texts"


def _protocol_words(row: Row) -> str:
    protocol = row.protocol
    if protocol.passes:
        demand = f"{protocol.passes} pass{'es' * (protocol.passes > 1)} over all texts"
    else:
        limits = [
            f"at least {counted(protocol.min_runs, 'run')}" if protocol.min_runs else "",
            f"at least {protocol.min_s:g} s" if protocol.min_s else "",
        ]
        demand = f"{' and '.join(x for x in limits if x) or 'one run'} for each model"
    most = f", at most {protocol.max_s:g} s" if protocol.max_s else ""
    rests = (
        f" Each round began with {protocol.cooldown_s:g} s of rest." if protocol.cooldown_s else ""
    )
    again = (
        f" The measurement was interrupted and resumed {counted(protocol.interruptions, 'time')}."
        if protocol.interruptions
        else ""
    )
    turns = ""
    if protocol.rounds:
        turns = (
            f" Models took turns in {counted(protocol.rounds, 'round')}, in random order (seed "
            f"{protocol.seed}), so that a change of speed meets all."
        )
    return f"Preset {protocol.preset}: {demand}{most}.{turns}{rests}{again}"


def _not_measured(report: Report, artifacts: Sequence[Row]) -> list[str]:
    sentences = list(report.not_measured)
    if artifacts and all(row.accuracy is None for row in artifacts):
        sentences.append(
            "Accuracy was not measured: edge evaluate does, on a data file with labels."
        )
    return sentences


def _agreement(verified: Verification | None) -> str:
    """Return the agreement with the checkpoint's labels; the cosine for outputs without labels."""
    if verified is None or verified.label_agreement is None:
        return verified.agreement_text if verified and verified.cosine is not None else NONE
    return f"{verified.label_agreement:.1%}"
