"""Kill commands at every change of the file system, or fill the disk there; check the output.

    python -m scripts.storm report pack convert distill benchmark run --work /tmp/storm

After each disturbance the output has to be complete, either old or new; the same command run again
has to succeed, give the output of an undisturbed run, and leave no other files. Needs gcc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from scripts.storm import shim


def main() -> int:
    """Run the requested storms; return 1 if one finds a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names of scripts/storm/cases.py, all by default")
    parser.add_argument("--work", type=Path, help="folder for inputs and attempts")
    parser.add_argument("--mode", choices=list(shim.MODES), default="kill")
    parser.add_argument("--stride", type=int, default=1, help="disturb every so many changes")
    parser.add_argument("--first", type=int, default=1, help="the first change to disturb")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="storm-"))
    work.mkdir(parents=True, exist_ok=True)
    shim.restart_preloaded(work)

    from scripts.storm import cases
    from scripts.storm.storm import storm

    names = options.cases or list(cases.CASES)
    cases.warm(names)
    inputs = cases.Inputs(work)
    faults = 0
    for name in names:
        start = time.monotonic()
        case = cases.CASES[name](inputs)
        result = storm(
            case, work / "attempt", mode=options.mode, stride=options.stride, first=options.first
        )
        faults += len(result.faults)
        print(
            f"{name}, {options.mode}: {result.points} of {result.changes} changes, left old "
            f"{result.old} and new {result.new}, {len(result.faults)} faults, "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )
        for fault in result.faults:
            print(f"  {fault}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
