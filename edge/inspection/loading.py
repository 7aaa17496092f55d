"""Loading of a model file in every engine, each in a separate process.

A damaged file can make an engine crash or hang, which must not end the inspection.
`python -m edge.inspection.loading` is the program of the process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.console import hush
from edge.engines import ENGINES, Engine, get_engine
from edge.inspection.records import RuntimeCheck
from edge.process.link import Ended, Link, NoAnswer, Refused, explain
from edge.process.wire import Arrays, Message, serve

_TIMEOUT_S = 120.0
_ROOT = Path(__file__).resolve().parents[2]


def try_engines(path: Path, format_name: str) -> tuple[RuntimeCheck, ...]:
    """Load `path` in every engine of its format; failures are part of the result."""
    engines = [engine for engine in map(get_engine, ENGINES) if engine.format == format_name]
    return tuple(_try(engine, path) for engine in engines)


def _try(engine: Engine, path: Path) -> RuntimeCheck:
    availability = engine.availability()
    if not availability.available:
        missing = f"{availability.reason} ({availability.remedy})"
        return RuntimeCheck(
            engine=engine.name, kind=engine.kind, status="unavailable", reason=missing
        )
    reason = _load_failure(engine.name, path)
    return RuntimeCheck(
        engine=engine.name,
        kind=engine.kind,
        status="fails" if reason else "loads",
        version=availability.version,
        reason=reason,
    )


def _load_failure(engine: str, path: Path, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Return the reason an engine cannot load a file, or None if it can."""
    argv = [sys.executable, "-W", "ignore", "-m", __name__]
    request = {"engine": engine, "path": str(path.resolve())}
    try:
        # `-m` searches `cwd` first; files in the user's folder could shadow modules.
        with Link(argv, cwd=_ROOT) as link:
            link.request(request, timeout_s=timeout_s)
    except Refused as refused:
        return str(refused)
    except NoAnswer:
        return f"it did not open the file within {timeout_s:g} s"
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
