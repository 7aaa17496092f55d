"""Summary of a report in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.keys import bundle_of, reference_beside, setting_of
from benchmark.report.labels import device_of, length_words
from benchmark.report.model import Report
from benchmark.schema import Ratio, Row
from benchmark.titles import baseline_title, engine_title, format_title, join_names
from edge.console import counted, human_bytes, three_figures

# Artifacts within this distance of the best accuracy count as equally accurate.
ACCURACY_TOLERANCE = 0.01
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def best(rows: Sequence[Row]) -> Row | None:
    """Return the fastest of the most accurate artifacts; None if none was timed.

    Without accuracies, the fastest. Invalid rows do not take part. Of a sweep and of several
    devices only `comparable` rows.
    """
    timed = [r for r in comparable(rows) if r.role == "artifact"]
    timed = [r for r in timed if r.validity.status != "invalid"]
    known = [r.accuracy.value for r in timed if r.accuracy is not None]
    if known:
        floor = max(known) - ACCURACY_TOLERANCE
        timed = [r for r in timed if r.accuracy is not None and r.accuracy.value >= floor]
    return min(timed, key=lambda row: p50_of(row) or 0.0, default=None)


def comparable(rows: Sequence[Row]) -> list[Row]:
    """Return rows with a latency at one setting on one device, without imported ones.

    Only such rows can be ranked. The device is the most frequent one; the setting has the fewest
    threads, the smallest batch and the longest input.
    """
    rankable_rows = [row for row in rows if row.role != "imported" and is_rankable(row)]
    if not rankable_rows:
        return []
    devices = [device_of(row) for row in rankable_rows if row.role == "artifact"] or [
        device_of(rankable_rows[0])
    ]
    device = max(dict.fromkeys(devices), key=devices.count)
    rankable_rows = [row for row in rankable_rows if device_of(row) == device]
    setting = setting_of(min(rankable_rows, key=_simplicity))
    return [row for row in rankable_rows if setting_of(row) == setting]


def at_main_setting(rows: Sequence[Row], report_rows: Sequence[Row]) -> list[Row]:
    """Return those of `rows` at the setting of the headline, on any device; else all rows."""
    main = [setting_of(row) for row in comparable(report_rows)[:1]]
    selected = [row for row in rows if setting_of(row) in main]
    return selected or list(rows)


def _simplicity(row: Row) -> tuple[int, int, int, str]:
    threads, length, batch, padding = setting_of(row)
    return (batch, threads or 0, -(length or 0), padding)


def headline(report: Report) -> str:
    """Return one sentence about the best artifact: speed, size, accuracy."""
    row = best(report.rows)
    if row is None or row.latency_ms is None:
        return _no_best_words(report.rows)
    noun = "student" if report.distillation else "artifact"
    name = f"The {row.model.precision} {format_title(row.model.format)} {noun}"
    if len({bundle_of(r) for r in report.rows if r.role == "artifact"}) > 1:
        name += f" of {bundle_of(row)}"
    facts = [f"{name} {_speed(row)}"]
    if row.model.bytes is not None:
        facts.append(human_bytes(row.model.bytes))
    if row.accuracy is not None:
        facts.append(_accuracy(row, report))
    return " ".join([", ".join(facts) + ".", *_limits(report, row)])


def _limits(report: Report, row: Row) -> list[str]:
    """Return a sentence if the latency of the best artifact, or of its baseline, is limited."""
    reference = reference_of(report, row)
    limited = [
        (whose, limited_row.validity.reasons)
        for whose, limited_row in (("Its latency", row), ("The baseline's latency", reference))
        if limited_row is not None and limited_row.validity.status == "limited"
    ]
    if not limited:
        return []
    whose = join_names(
        [name if place == 0 else name.lower() for place, (name, _) in enumerate(limited)]
    )
    reasons = list(dict.fromkeys(reason for _, row_reasons in limited for reason in row_reasons))
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    because = f": {reasons[0]}{more}" if reasons else ""
    return [f"{whose} {'is' if len(limited) == 1 else 'are'} limited{because}."]


def details(report: Report) -> list[str]:
    """Return sentences after the headline: latency, size, and the choice of the artifact."""
    row = best(report.rows)
    if row is None or row.latency_ms is None:
        return []
    most = "texts of up to " if row.inputs.padding == "shortest" else ""
    sentences = [
        f"It takes {_p50_words(row)} (median) for {most}"
        f"{length_words(row.inputs.seq_len)} on {threads_words(row.runtime.threads)} with "
        f"{engine_title(row.runtime.name)}{_against(report, row)}."
    ]
    sentences += _size(report, row)
    others = [r for r in comparable(report.rows) if r.role == "artifact"]
    if len(others) > 1:
        reason = f"Of the {len(others)} artifacts that were timed, it is the fastest"
        if row.accuracy is not None:
            reason += f" whose {row.accuracy.metric} is within {ACCURACY_TOLERANCE} of the best"
        sentences.append(f"{reason}.")
    return sentences


def baseline_note(report: Report) -> str | None:
    """Return a note on the use of a baseline with random weights; None for trained weights."""
    if report.baseline is None or not report.random_weights:
        return None
    return (
        f"{baseline_title(report.baseline)} here has its true architecture and random weights. "
        "That is right for latency and size, which do not depend on the values of the weights. "
        "It has learnt nothing, so no accuracy is given for it."
    )


def ratio_words(ratio: Ratio) -> str:
    """Return a ratio as a verb phrase: "is 2.1x faster than BERT-base in PyTorch"."""
    against = f"{baseline_title(ratio.baseline)} in {engine_title(ratio.engine)}"
    if ratio.indistinguishable:
        return f"cannot be told apart in speed from {against}"
    if ratio.value < 1:
        return f"is {three_figures(1 / ratio.value)}x slower than {against}"
    return f"is {three_figures(ratio.value)}x faster than {against}"


def interval_words(ratio: Ratio) -> str | None:
    """Return the interval of the factor in `ratio_words`; None if there is none."""
    if ratio.ci95 is None or ratio.indistinguishable:
        return None
    low, high = ratio.ci95 if ratio.value >= 1 else (1 / ratio.ci95[1], 1 / ratio.ci95[0])
    return f"{three_figures(low)}-{three_figures(high)}"


def _speed(row: Row) -> str:
    ratio = row.ratio_to_baseline or row.ratio_same_engine
    if ratio is None:
        return f"takes {_p50_words(row)} in {engine_title(row.runtime.name)}"
    interval = interval_words(ratio)
    return ratio_words(ratio) + (f" (95% interval {interval})" if interval else "")


def _accuracy(row: Row, report: Report) -> str:
    assert row.accuracy is not None
    text = f"{row.accuracy.metric} {row.accuracy.value:.3f}"
    if report.distillation is not None and report.distillation.metric == row.accuracy.metric:
        return f"{text} (teacher {report.distillation.teacher_value:.3f})"
    if row.accuracy.ref is not None:
        return f"{text} (checkpoint {row.accuracy.ref:.3f})"
    return text


def _against(report: Report, row: Row) -> str:
    reference = reference_of(report, row)
    if reference is None:
        return ""
    where = f"{baseline_title(reference.model.id)} in {engine_title(reference.runtime.name)}"
    return f"; {where} takes {_p50_words(reference)}"


def reference_of(report: Report, row: Row) -> Row | None:
    """Return the baseline's row in a row's ratio; None if none was timed beside it."""
    ratio = row.ratio_to_baseline or row.ratio_same_engine
    if ratio is None or not ratio.paired:
        return None
    reference = reference_beside(row, report.rows, ratio.engine, baseline=ratio.baseline)
    return reference if reference is not None and is_rankable(reference) else None


def _size(report: Report, row: Row) -> list[str]:
    reference = next((r for r in baselines(report.rows) if r.run_id == row.run_id), None)
    above = None if reference is None else reference.model.bytes
    if reference is None or not above or not row.model.bytes or above <= row.model.bytes:
        return []
    times = three_figures(above / row.model.bytes)
    return [
        f"It is {times}x smaller than {baseline_title(reference.model.id)} ({human_bytes(above)})."
    ]


def baselines(rows: Sequence[Row]) -> list[Row]:
    """Return the baseline's rows, PyTorch first."""
    return [row for row in rows if row.role == "baseline"]


def threads_words(count: int | None) -> str:
    """Return a number of threads in words: "one thread"."""
    if count is None:
        return "an unknown number of threads"
    word = _COUNTS[count] if count < len(_COUNTS) else str(count)
    return f"{word} thread{'s' if count != 1 else ''}"


def _p50_words(row: Row) -> str:
    return f"{three_figures(p50_of(row) or 0.0)} ms"


def p50_of(row: Row) -> float | None:
    """Return the median latency in milliseconds; None without one."""
    return None if row.latency_ms is None else row.latency_ms.p50


def is_rankable(row: Row) -> bool:
    """Return True if a row has a median latency on a real device, which can be ranked."""
    return p50_of(row) is not None and row.device.kind == "real"


def _no_best_words(rows: Sequence[Row]) -> str:
    """Return the reason for naming no artifact."""
    if rows and all(row.role == "imported" for row in rows):
        return f"{counted(len(rows), 'imported result')}; nothing was measured here."
    if any(row.device.kind != "real" and row.role == "artifact" for row in rows):
        return "Emulated processors only: answers and instruction counts, but no latency."
    if any(row.role == "artifact" and is_rankable(row) for row in rows):
        return "No artifact has a latency that may be quoted."
    return "No artifact could be timed on this machine."
