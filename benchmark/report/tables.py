"""Further tables of a report, as strings for its templates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.keys import REFERENCE_ENGINE, reference_beside, setting_of
from benchmark.report.labels import Labels, device_of, length_words
from benchmark.report.summary import at_main_setting, is_rankable, p50_of
from benchmark.schema import Operator, Row, Stage
from benchmark.titles import engine_title, join_names
from edge.console import counted, three_figures

NONE = "–"
# Operators shown of each artifact; the others are summed in one line.
_OPERATORS = 6
_PAPER = (
    "The paper: Sanh et al. 2019, DistilBERT, table 3, a pass over the development file of STS-B "
    "at batch 1 on a Xeon E5-2690 v3, in PyTorch."
)
# A smaller change of latency is reported as none.
_STEADY = 0.03


@dataclass(frozen=True)
class Table:
    """A table with a title. rows: name of the row, then its cells. notes: sentences below.

    small: True if it fits on a phone's screen.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    small: bool = False


def tables(rows: Sequence[Row], labels: Labels) -> list[Table]:
    """Return all tables that have rows."""
    optional = (_devices(rows), _full_pass(rows, labels), _stages(rows, labels))
    return [table for table in (*optional, *_operators(rows, labels)) if table is not None]


def _devices(rows: Sequence[Row]) -> Table | None:
    """Return the table of models by devices: median latency, and speed-up over the baseline."""
    measured = [row for row in rows if row.role != "imported"]
    devices = list(dict.fromkeys(device_of(row) for row in measured))
    if len(devices) < 2:
        return None
    labels = Labels([row.model_copy(update={"device": measured[0].device}) for row in measured])
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in measured:
        if row.latency_ms is not None or row.instructions is not None:
            group = groups.setdefault(labels.full(row), {})
            group.setdefault(device_of(row), []).append(row)
    lines = [
        (name, *(_matrix_cells(group.get(device, ())) for device in devices))
        for name, group in groups.items()
        if len(group) > 1
    ]
    if not lines:
        return None
    note = "Milliseconds (p50), then how many times faster than the baseline on that device."
    notes = [note]
    if any(row.instructions is not None for row in measured):
        notes.append("On emulated processors: instructions.")
    if any(len(group_rows) > 1 for group in groups.values() for group_rows in group.values()):
        notes.append("Several runs on one device follow each other.")
    return Table("Devices", ("model", *devices), tuple(lines), tuple(notes))


def _matrix_cells(rows: Sequence[Row]) -> str:
    return "; ".join(map(_matrix_cell, rows)) or NONE


def _matrix_cell(row: Row) -> str:
    if not is_rankable(row):
        return NONE if row.instructions is None else f"{millions(row.instructions)} instructions"
    ratio = row.ratio_to_baseline or row.ratio_same_engine
    value = three_figures(p50_of(row) or 0.0)
    return value if ratio is None or row.role == "baseline" else f"{value} · {times(ratio.value)}"


def _full_pass(rows: Sequence[Row], labels: Labels) -> Table | None:
    """Return the table of the DistilBERT paper's measure: seconds for all texts of a data file."""
    totals = [(row, row.latency_ms.total_s) for row in rows if row.latency_ms and is_rankable(row)]
    timed = [(row, total_s) for row, total_s in totals if total_s is not None]
    if not timed:
        return None
    lines = [
        (labels.full(row), total(row), three_figures(s), _faster(row, timed)) for row, s in timed
    ]
    paper = (
        ("BERT-base in PyTorch, the paper", "", "668", ""),
        ("DistilBERT in PyTorch, the paper", "", "410", "1.63×"),
    )
    head = ("model", "runs", "seconds in all", "times faster than the baseline in PyTorch")
    notes = (_PAPER, _differences(timed[0][0]))
    return Table("A full pass over a data file", head, (*lines, *paper), notes)


def _differences(row: Row) -> str:
    """Return the differences from the paper's setup."""
    versions = row.device.versions
    known = [f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions]
    engine = ", ".join(known) or engine_title(row.runtime.name)
    padding = (
        "every text at its own length"
        if row.inputs.padding == "shortest"
        else f"texts padded to {length_words(row.inputs.seq_len)}"
    )
    return (
        f"What differs here: {device_of(row)} instead of that Xeon; {engine} instead of PyTorch of "
        f"2019; {_runs(row)} of texts from {row.inputs.dataset or 'an unknown file'}; "
        f"{padding}; models take turns in rounds. Only ratios can be compared, and only of the "
        "same two models in the same engine."
    )


def _runs(row: Row) -> str:
    return (
        "an unknown number of runs" if row.latency_ms is None else counted(row.latency_ms.n, "run")
    )


def total(row: Row) -> str:
    """Return the number of recorded runs."""
    return f"{row.latency_ms.n:,}" if row.latency_ms and row.latency_ms.n else NONE


def _faster(row: Row, timed: Sequence[tuple[Row, float]]) -> str:
    """Return seconds of the baseline in PyTorch / seconds of a row, both of one comparison."""
    reference = reference_beside(row, [other for other, _ in timed], REFERENCE_ENGINE)
    if reference is None or reference is row:
        return NONE
    spent = {id(other): total_s for other, total_s in timed}
    return times(spent[id(reference)] / spent[id(row)])


def _stages(rows: Sequence[Row], labels: Labels) -> Table | None:
    lines = [
        (
            labels.full(row),
            _stage(row.stages.tokenize),
            _stage(row.stages.infer),
            _stage(row.stages.e2e),
            f"{row.stages.e2e.n:,}",
        )
        for row in rows
        if row.stages is not None and row.device.kind == "real"
    ]
    if not lines:
        return None
    head = ("model", "tokenization, ms", "inference, ms", "text to output, ms", "texts")
    note = "p50, with p90 in brackets, in runs of their own: each text at its length, at batch 1."
    return Table("From text to output", head, tuple(lines), (note,))


def _stage(stage: Stage) -> str:
    return f"{three_figures(stage.p50)} ({three_figures(stage.p90)})"


def _operators(rows: Sequence[Row], labels: Labels) -> Iterator[Table]:
    head = ("operator", "in an inference", "ms", "share")
    for row in at_main_setting([row for row in rows if row.operators], rows):
        yield Table(
            f"Operators of {labels.full(row)}",
            head,
            tuple(_operator_rows(row.operators)),
            small=True,
        )


def _operator_rows(operators: Sequence[Operator]) -> Iterator[tuple[str, ...]]:
    shown, rest = operators[:_OPERATORS], operators[_OPERATORS:]
    for operator in shown:
        yield (
            operator.type,
            f"{operator.count:,}",
            three_figures(operator.total_ms),
            f"{operator.share:.0%}",
        )
    if rest:
        spent, count = (
            sum(operator.total_ms for operator in rest),
            sum(operator.count for operator in rest),
        )
        share = sum(operator.share for operator in rest)
        yield counted(len(rest), "other"), f"{count:,}", three_figures(spent), f"{share:.0%}"


def sustained_words(rows: Sequence[Row]) -> list[str]:
    """Return sentences about sustained runs: changes of latency, and of the models' order."""
    sustained_rows = [row for row in rows if len(row.sustained) > 1 and row.device.kind == "real"]
    sustained_rows = at_main_setting(sustained_rows, rows)
    sentences = []
    for place in dict.fromkeys((device_of(row), setting_of(row)) for row in sustained_rows):
        rivals = [row for row in sustained_rows if (device_of(row), setting_of(row)) == place]
        labels = Labels(rivals)
        sentences += [_slowed(row, labels) for row in rivals]
        if len(rivals) > 1:
            sentences.append(_ranks(rivals, labels))
    return sentences


def _slowed(row: Row, labels: Labels) -> str:
    first, last = row.sustained[0], row.sustained[-1]
    span = f"{last.end_s / 60:.3g} minutes" if last.end_s >= 120 else f"{last.end_s:.3g} s"
    change = last.p50 / first.p50 - 1
    if abs(change) < _STEADY:
        words = f"kept its {three_figures(first.p50)} ms"
    else:
        words = (
            f"went from {three_figures(first.p50)} to {three_figures(last.p50)} ms, "
            f"{abs(change):.0%} {'slower' if change > 0 else 'faster'},"
        )
    sentence = f"On {device_of(row)}, {labels.full(row)} {words} over {span} without a rest"
    if first.temperature_c is not None and last.temperature_c is not None:
        sentence += f", from {first.temperature_c:.0f} to {last.temperature_c:.0f} °C"
    throttled = {s.thermal_status for s in row.sustained} - {None, "none", "nominal"}
    if throttled:
        sentence += f"; the system said {', '.join(sorted(map(str, throttled)))}"
    return f"{sentence}."


def _ranks(rows: Sequence[Row], labels: Labels) -> str:
    begin = sorted(rows, key=lambda row: row.sustained[0].p50)
    end = sorted(rows, key=lambda row: row.sustained[-1].p50)
    if begin == end:
        return f"The order stayed the same: {join_names([labels.full(row) for row in begin])}."
    before, after = (", ".join(labels.full(row) for row in order) for order in (begin, end))
    return f"The order changed. Fastest first, at the begin: {before}; at the end: {after}."


def millions(count: int) -> str:
    """Return a count in millions."""
    return f"{three_figures(count / 1e6)} million"


def times(value: float) -> str:
    """Return a factor: "2.10×"."""
    return f"{three_figures(value)}×"


def imported_words(rows: Sequence[Row]) -> str | None:
    """Return a note on imported rows; None without any."""
    names = list(dict.fromkeys(row.tool.name for row in rows if row.role == "imported"))
    if not names:
        return None
    return (
        f"Rows of {join_names(names)} were imported: what went in, what else the machine did and "
        "whether the answers were right is not in those files, so they never count as valid and "
        "take part in no ranking."
    )


def emulated_words(rows: Sequence[Row]) -> str | None:
    """Return a note on the missing latency of emulated processors; None without any."""
    emulated_rows = [row for row in rows if row.device.kind != "real"]
    if not emulated_rows:
        return None
    names = join_names(list(dict.fromkeys(device_of(row) for row in emulated_rows)))
    return (
        f"On {names} no latency is shown: how long an emulator takes says nothing about the "
        "processor that it stands for. Instructions of one inference are counted instead; they do "
        "not know of caches and of several instructions at once."
    )


def as_dicts(shown_tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return tables as dicts for the templates."""
    return [vars(table) for table in shown_tables]
