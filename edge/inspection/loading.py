"""Which engines open a file here: each tries in a process of its own.

A damaged file can make an engine crash or never answer; it must not take the inspection with it.
As a program, `python -m edge.inspection.loading ENGINE FILE` is such a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from edge.console import hush
from edge.engines import ENGINES, Engine, get_engine
from edge.errors import EdgeError
from edge.inspection.records import RuntimeCheck

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
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__, engine, str(path.resolve())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired:
        return f"it did not open the file within {limit_s:g} s"
    if done.returncode < 0:
        return f"its process ended with {signal.Signals(-done.returncode).name}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else "it gave no reason")


def main(engine: str, path: str) -> int:
    """Open a file in an engine; 0, or 1 with the reason as one line on stdout."""
    try:
        with hush():
            get_engine(engine).open(Path(path)).close()
    except EdgeError as error:
        print(error)
        return 1
    except Exception as error:
        print(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
