"""Keys of rows, and every look-up among rows by them.

A bundle can hold several artifacts of one format and precision, a report several runs, devices and
settings: a key that leaves out one of them finds the wrong row.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.schema import Row
from edge.errors import DataError

REFERENCE_ENGINE = "pytorch"
_FULL_PRECISION = "fp32"
Key = tuple[object, ...]
# Threads, tokens, texts per inference, padding.
Setting = tuple[int | None, int | None, int, str]


def setting_of(row: Row) -> Setting:
    """Return the point of the sweep at which a row was timed."""
    return (row.runtime.threads, row.inputs.seq_len, row.inputs.batch, row.inputs.padding)


def model_key(row: Row) -> Key:
    """Return the key of the timed model and its engine."""
    model, runtime = row.model, row.runtime
    kind = (model.format, model.precision, model.target)
    return (row.role, model.id, *kind, model.sha256, runtime.name, runtime.provider)


def place_key(row: Row) -> Key:
    """Return the key of the device; the address separates two devices of one model."""
    device = row.device
    return (device.driver, device.address, device.kind, device.model, device.soc)


def row_key(row: Row) -> Key:
    """Return the unique key of a row among all rows of all runs."""
    return (row.run_id, *place_key(row), *model_key(row), *setting_of(row))


def reference_beside(
    row: Row, rows: Sequence[Row], engine: str, *, baseline: str | None = None
) -> Row | None:
    """Return the baseline's row in `engine` that was timed in turns with a row, or None.

    baseline: its name, any by default.
    """
    references = [
        other
        for other in baselines_beside(row, rows)
        if other.runtime.name == engine and baseline in (None, other.model.id)
    ]
    return references[0] if len(references) == 1 else None


def baselines_beside(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Return the baseline's rows of a row's comparison, one for each engine of the baseline."""
    baselines = [
        other
        for other in rows
        if other.role == "baseline"
        and (other.run_id, *place_key(other)) == (row.run_id, *place_key(row))
        and _setting_without_length(other) == _setting_without_length(row)
    ]
    same = [other for other in baselines if setting_of(other) == setting_of(row)]
    # With texts of their own length, the longest input is as long as each model takes it.
    return same if same or row.inputs.padding == "fixed" else baselines


def _setting_without_length(row: Row) -> Key:
    """Return a row's setting without the length of its longest input."""
    threads, _, batch, padding = setting_of(row)
    return (threads, batch, padding)


def reference_at(row: Row, saved: Sequence[Row], engine: str) -> Row | None:
    """Return the latest saved row in `engine` at the setting and on the device of a row."""
    references = [
        other
        for other in saved
        if other.runtime.name == engine
        and setting_of(other) == setting_of(row)
        and place_key(other) == place_key(row)
    ]
    return max(references, key=lambda other: other.started_utc, default=None)


def saved_references(rows: Sequence[Row], where: str) -> tuple[Row, ...]:
    """Return the rows of a saved report that other models are compared with.

    These are the baseline's if it has one, else the artifact of the highest precision of each
    format. Raises DataError if they are of several models.
    """
    candidates = [row for row in rows if row.role == "baseline"]
    candidates = candidates or [row for row in rows if row.role == "artifact"]
    names = list(
        dict.fromkeys(
            bundle_of(row) if row.role == "artifact" else row.model.id for row in candidates
        )
    )
    if len(names) > 1:
        raise DataError(
            f"{where} holds rows of {len(names)} models ({', '.join(names)}), so which one is the "
            "baseline is not known: name a report of one"
        )
    chosen: dict[str, Row] = {}
    for row in candidates:
        first = chosen.setdefault(row.runtime.name, row)
        if first.model.precision != _FULL_PRECISION == row.model.precision:
            chosen[row.runtime.name] = row
    models = {model_key(row) for row in chosen.values()}
    return tuple(row for row in candidates if model_key(row) in models)


def bundle_of(row: Row) -> str:
    """Return the bundle's name: `Row.model.id` of an artifact is "bundle/format-precision"."""
    return row.model.id.rpartition("/")[0]
