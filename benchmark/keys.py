"""What a row is of, and which rows belong together: every look-up among rows goes through here.

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
# Threads, tokens, texts an inference, padding.
Setting = tuple[int | None, int | None, int, str]


def setting_of(row: Row) -> Setting:
    """The point of a sweep that a row was timed at."""
    return (row.runtime.threads, row.inputs.seq_len, row.inputs.batch, row.inputs.padding)


def model_key(row: Row) -> Key:
    """What was timed, in which engine."""
    model, runtime = row.model, row.runtime
    kind = (model.format, model.precision, model.target)
    return (row.role, model.id, *kind, model.sha256, runtime.name, runtime.provider)


def place_key(row: Row) -> Key:
    """Where it was timed. Of two devices of one model the address tells."""
    device = row.device
    return (device.driver, device.address, device.kind, device.model, device.soc)


def row_key(row: Row) -> Key:
    """What tells a row from every other row of every run."""
    return (row.run_id, *place_key(row), *model_key(row), *setting_of(row))


def reference_beside(
    row: Row, rows: Sequence[Row], engine: str, *, baseline: str | None = None
) -> Row | None:
    """The baseline in `engine` that was timed in turns with a row; None where there is none.

    baseline: its name, any by default.
    """
    found = [
        other
        for other in baselines_beside(row, rows)
        if other.runtime.name == engine and baseline in (None, other.model.id)
    ]
    return found[0] if len(found) == 1 else None


def baselines_beside(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The baseline's rows of the comparison that a row is part of, one for each of its engines."""
    found = [
        other
        for other in rows
        if other.role == "baseline"
        and (other.run_id, *place_key(other)) == (row.run_id, *place_key(row))
        and _loose(other) == _loose(row)
    ]
    same = [other for other in found if setting_of(other) == setting_of(row)]
    # With texts of their own length, the longest input is as long as each model takes it.
    return same if same or row.inputs.padding == "fixed" else found


def _loose(row: Row) -> Key:
    """A setting without the length of its longest input."""
    threads, _, batch, padding = setting_of(row)
    return (threads, batch, padding)


def reference_at(row: Row, saved: Sequence[Row], engine: str) -> Row | None:
    """The saved row in `engine` at the setting and on the device of a row: the latest one."""
    found = [
        other
        for other in saved
        if other.runtime.name == engine
        and setting_of(other) == setting_of(row)
        and place_key(other) == place_key(row)
    ]
    return max(found, key=lambda other: other.started_utc, default=None)


def saved_references(rows: Sequence[Row], where: str) -> tuple[Row, ...]:
    """The rows of a saved report that other models are compared with.

    The baseline's if it has one, else the widest artifact of each format. Raises DataError where
    that is not one model.
    """
    held = [row for row in rows if row.role == "baseline"]
    held = held or [row for row in rows if row.role == "artifact"]
    names = list(
        dict.fromkeys(owner_of(row) if row.role == "artifact" else row.model.id for row in held)
    )
    if len(names) > 1:
        raise DataError(
            f"{where} holds rows of {len(names)} models ({', '.join(names)}), so which one is the "
            "baseline is not known: name a report of one"
        )
    chosen: dict[str, Row] = {}
    for row in held:
        first = chosen.setdefault(row.runtime.name, row)
        if first.model.precision != _FULL_PRECISION == row.model.precision:
            chosen[row.runtime.name] = row
    models = {model_key(row) for row in chosen.values()}
    return tuple(row for row in held if model_key(row) in models)


def owner_of(row: Row) -> str:
    """The bundle's name: `Row.model.id` of an artifact is "bundle/format-precision"."""
    return row.model.id.rpartition("/")[0]
