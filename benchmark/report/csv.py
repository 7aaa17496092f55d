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


def _nested(*path: str) -> Callable[[Row], Any]:
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
        pair = _nested(*path)(row)
        return None if pair is None else pair[place]

    return value


# Column -> getter of its value; docs/benchmark.md describes each column.
COLUMNS: dict[str, Callable[[Row], Any]] = {
    "run_id": _nested("run_id"),
    "started_utc": _nested("started_utc"),
    "role": _nested("role"),
    "model": _nested("model", "id"),
    "format": _nested("model", "format"),
    "precision": _nested("model", "precision"),
    "target": _nested("model", "target"),
    "sha256": _nested("model", "sha256"),
    "size_bytes": _nested("model", "bytes"),
    "zipped_bytes": _nested("model", "bytes_zip"),
    "engine_bytes": _nested("runtime", "bytes"),
    "parameters": _nested("model", "params"),
    "engine": _nested("runtime", "name"),
    "engine_version": _nested("runtime", "version"),
    "provider": _nested("runtime", "provider"),
    "threads": _nested("runtime", "threads"),
    "device": device_of,
    "device_driver": _nested("device", "driver"),
    "device_kind": _nested("device", "kind"),
    "device_abi": _nested("device", "abi"),
    "dataset": _nested("inputs", "dataset"),
    "length_tokens": _nested("inputs", "seq_len"),
    "length_unpadded_p50_tokens": _nested("inputs", "real_len_p50"),
    "padding": _nested("inputs", "padding"),
    "batch": _nested("inputs", "batch"),
    "preset": _nested("protocol", "preset"),
    "validity": _nested("validity", "status"),
    "reasons": lambda row: "; ".join(row.validity.reasons),
    "runs": _nested("latency_ms", "n"),
    **{f"latency_{name}_ms": _nested("latency_ms", name) for name in _LATENCIES},
    "latency_p50_low_ms": _end(("latency_ms", "ci95"), 0),
    "latency_p50_high_ms": _end(("latency_ms", "ci95"), 1),
    "latency_p90_early_stopping_ms": _nested("latency_ms", "p90_early_stopping"),
    "latency_drift": _nested("latency_ms", "drift"),
    "latency_total_s": _nested("latency_ms", "total_s"),
    "tokenize_p50_ms": _nested("stages", "tokenize", "p50"),
    "infer_p50_ms": _nested("stages", "infer", "p50"),
    "end_to_end_p50_ms": _nested("stages", "e2e", "p50"),
    "instructions": _nested("instructions"),
    "memory_peak_mb": _nested("memory", "peak_rss_mb"),
    "memory_added_mb": _nested("memory", "delta_mb"),
    "memory_pss_mb": _nested("memory", "pss_mb"),
    "check_status": _nested("check", "status"),
    "check_relative_error": _nested("check", "max_relative_error"),
    "check_agreement": _nested("check", "label_agreement"),
    "metric": _nested("accuracy", "metric"),
    "metric_value": _nested("accuracy", "value"),
    "metric_samples": _nested("accuracy", "samples"),
    "metric_on_device": _nested("accuracy", "on_device"),
}
for _name in _RATIOS:
    COLUMNS |= {
        f"{_name}": _nested(_name, "value"),
        f"{_name}_low": _end((_name, "ci95"), 0),
        f"{_name}_high": _end((_name, "ci95"), 1),
        f"{_name}_of": _nested(_name, "baseline"),
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
