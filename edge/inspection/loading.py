"""Which engines open a file here: each tries in a process of its own.

A damaged file can make an engine crash or never answer; it must not take the inspection with it.
As a program, `python -m edge.inspection.loading` is such a process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.console import hush
from edge.engines import ENGINES, Engine, get_engine
from edge.inspection.records import RuntimeCheck
from edge.process.link import Ended, Link, NoAnswer, Refused, explain
from edge.process.wire import Arrays, Message, serve

_LIMIT_S = 120.0
_ROOT = Path(__file__).resolve().parents[2]


def try_engines(path: Path, format_name: str) -> tuple[RuntimeCheck, ...]:
    """Open `path` in every engine of its format; one that fails is reported, not raised."""
    engines = [engine for engine in map(get_engine, ENGINES) if engine.format == format_name]
    return tuple(_try(engine, path) for engine in engines)


def _try(engine: Engine, path: Path) -> RuntimeCheck:
    found = engine.availability()
    if not found.available:
        missing = f"{found.reason} ({found.remedy})"
        return RuntimeCheck(
            engine=engine.name, kind=engine.kind, status="unavailable", reason=missing
        )
    reason = _reason(engine.name, path)
    return RuntimeCheck(
        engine=engine.name,
        kind=engine.kind,
        status="fails" if reason else "loads",
        version=found.version,
        reason=reason,
    )


def _reason(engine: str, path: Path, limit_s: float = _LIMIT_S) -> str | None:
    """Why an engine does not open a file; None when it does."""
    argv = [sys.executable, "-W", "ignore", "-m", __name__]
    request = {"engine": engine, "path": str(path.resolve())}
    try:
        # `-m` looks in this folder first: no file of the user's folder can take a module's place.
        with Link(argv, cwd=_ROOT) as link:
            link.request(request, timeout_s=limit_s)
    except Refused as refused:
        return str(refused)
    except NoAnswer:
        return f"it did not open the file within {limit_s:g} s"
    except Ended as end:
        if end.signal_name:
            return f"its process ended with {end.signal_name}"
        return end.last_line or "it gave no reason"
    return None


def _open(request: Message, arrays: Arrays) -> tuple[Message, Arrays]:
    with hush():
        get_engine(request["engine"]).open(Path(request["path"])).close()
    return {}, {}


if __name__ == "__main__":
    serve(_open, explain=explain)
