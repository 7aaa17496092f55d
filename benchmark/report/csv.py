"""Rows as CSV: one line per row, one value per column, units in the names."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from typing import Any

from benchmark.report.labels import device_of
from benchmark.schema import Row

_LATENCIES = ("load", "first", "mean", "p50", "p90", "p95", "p99", "min", "max", "mad")
_RATIOS = ("ratio_to_baseline", "ratio_same_engine")


def _dug(*path: str) -> Callable[[Row], Any]:
    """Return a getter of a nested value of a row; None if a value on the path is None."""

    def value(row: Row) -> Any:
        attribute: Any = row
        for name in path:
            attribute = None if attribute is None else getattr(attribute, name)
        return attribute

    return value


def _end(path: tuple[str, ...], place: int) -> Callable[[Row], float | None]:
    """Return a getter of one end of an interval."""

    def value(row: Row) -> float | None:
        pair = _dug(*path)(row)
        return None if pair is None else pair[place]

    return value


# Column -> getter of its value; docs/benchmark.md describes each column.
COLUMNS: dict[str, Callable[[Row], Any]] = {
    "run_id": _dug("run_id"),
    "started_utc": _dug("started_utc"),
    "role": _dug("role"),
    "model": _dug("model", "id"),
    "format": _dug("model", "format"),
    "precision": _dug("model", "precision"),
    "target": _dug("model", "target"),
    "sha256": _dug("model", "sha256"),
    "size_bytes": _dug("model", "bytes"),
    "zipped_bytes": _dug("model", "bytes_zip"),
    "engine_bytes": _dug("runtime", "bytes"),
    "parameters": _dug("model", "params"),
    "engine": _dug("runtime", "name"),
    "engine_version": _dug("runtime", "version"),
    "provider": _dug("runtime", "provider"),
    "threads": _dug("runtime", "threads"),
    "device": device_of,
    "device_driver": _dug("device", "driver"),
    "device_kind": _dug("device", "kind"),
    "device_abi": _dug("device", "abi"),
    "dataset": _dug("inputs", "dataset"),
    "length_tokens": _dug("inputs", "seq_len"),
    "length_unpadded_p50_tokens": _dug("inputs", "real_len_p50"),
    "padding": _dug("inputs", "padding"),
    "batch": _dug("inputs", "batch"),
    "preset": _dug("protocol", "preset"),
    "validity": _dug("validity", "status"),
    "reasons": lambda row: "; ".join(row.validity.reasons),
    "runs": _dug("latency_ms", "n"),
    **{f"latency_{name}_ms": _dug("latency_ms", name) for name in _LATENCIES},
    "latency_p50_low_ms": _end(("latency_ms", "ci95"), 0),
    "latency_p50_high_ms": _end(("latency_ms", "ci95"), 1),
    "latency_p90_early_stopping_ms": _dug("latency_ms", "p90_early_stopping"),
    "latency_drift": _dug("latency_ms", "drift"),
    "latency_total_s": _dug("latency_ms", "total_s"),
    "tokenize_p50_ms": _dug("stages", "tokenize", "p50"),
    "infer_p50_ms": _dug("stages", "infer", "p50"),
    "end_to_end_p50_ms": _dug("stages", "e2e", "p50"),
    "instructions": _dug("instructions"),
    "memory_peak_mb": _dug("memory", "peak_rss_mb"),
    "memory_added_mb": _dug("memory", "delta_mb"),
    "memory_pss_mb": _dug("memory", "pss_mb"),
    "check_status": _dug("check", "status"),
    "check_relative_error": _dug("check", "max_relative_error"),
    "check_agreement": _dug("check", "label_agreement"),
    "metric": _dug("accuracy", "metric"),
    "metric_value": _dug("accuracy", "value"),
    "metric_samples": _dug("accuracy", "samples"),
    "metric_on_device": _dug("accuracy", "on_device"),
}
for _name in _RATIOS:
    COLUMNS |= {
        f"{_name}": _dug(_name, "value"),
        f"{_name}_low": _end((_name, "ci95"), 0),
        f"{_name}_high": _end((_name, "ci95"), 1),
        f"{_name}_of": _dug(_name, "baseline"),
    }

# Of an emulator: they say nothing about the processor it stands for.
_TIMES = {name for name in COLUMNS if name.startswith(("latency_", "ratio_"))} | {
    "tokenize_p50_ms",
    "infer_p50_ms",
    "end_to_end_p50_ms",
}


def dump_csv(rows: Iterable[Row]) -> str:
    """Return the text of a CSV file with a header; unknown values are empty cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(name, value, row) for name, value in COLUMNS.items()])
    return text.getvalue()


def _cell(name: str, value: Callable[[Row], Any], row: Row) -> Any:
    if name in _TIMES and row.device.kind != "real":
        return None
    content = value(row)
    if isinstance(content, str):
        content = " ".join(content.split())
        # A spreadsheet takes such a cell for a formula.
        return f"'{content}" if content[:1] in {"=", "+", "-", "@"} else content
    return content
