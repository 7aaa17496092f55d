"""One storm: a command killed at each change it makes, checked, and run again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.storm import shim

Snapshot = Mapping[str, str]


@dataclass(frozen=True)
class Case:
    """A command with an output that is there before it.

    template: a folder with the old output and files of the user; each attempt gets a copy.
    act: the command, for such a copy. outputs: what it writes, each whole as it was before or as
    it is after an undisturbed run. comparable: the content of a file without what differs from run
    to run. judge: says what is wrong with the outputs of a folder that are neither.
    """

    name: str
    template: Path
    act: Callable[[Path], object]
    outputs: tuple[str, ...]
    comparable: Callable[[Path], bytes] = Path.read_bytes
    judge: Callable[[Path], str | None] | None = None


@dataclass
class Result:
    """What a storm found. changes: of an undisturbed run."""

    name: str
    changes: int
    points: int = 0
    old: int = 0
    new: int = 0
    faults: list[str] = field(default_factory=list)


def storm(case: Case, work: Path, *, mode: str, stride: int, first: int = 1) -> Result:
    """Disturb the command at every `stride`-th change; work: an empty folder."""
    work.mkdir(exist_ok=True)
    log = work / "log"
    folder = _fresh(case, work)
    old = {name: _exact(folder, name) for name in case.outputs}
    undisturbed = shim.run(lambda: case.act(folder), folder, log)
    if undisturbed.code:
        raise RuntimeError(f"{case.name} fails undisturbed:\n{undisturbed.output}")
    reference = _snapshot(case, folder)
    result = Result(case.name, undisturbed.changes)
    # Interrupted, it tells what it found until then.
    with contextlib.suppress(KeyboardInterrupt):
        for at in range(first, undisturbed.changes + 1, stride):
            folder = _fresh(case, work)
            how = shim.MODES[mode]
            found = shim.run(lambda: case.act(folder), folder, log, at=at, mode=how)  # noqa: B023
            result.points += 1
            for fault in _faults(case, folder, old, reference, found, result, mode):
                result.faults.append(f"at {at}: {fault}")
            again = shim.run(lambda: case.act(folder), folder, log)  # noqa: B023
            if again.code:
                result.faults.append(f"at {at}: run again it fails: {again.last_line}")
            else:
                after = _snapshot(case, folder)
                result.faults += [
                    f"at {at}: run again, {what}" for what in _other(after, reference)
                ]
            if found.code == 0 and found.changes < at:
                break
    return result


def _faults(
    case: Case,
    folder: Path,
    old: Mapping[str, Snapshot],
    reference: Snapshot,
    found: shim.Outcome,
    result: Result,
    mode: str,
) -> Iterator[str]:
    """What is wrong right after a disturbance."""
    told = {"full": "no space left", "read-only": " cannot be "}.get(mode, "")
    if mode != "kill" and found.code != 0 and told not in found.last_line:
        yield f"told otherwise: {found.last_line}"
    if mode == "kill" and not found.was_killed and found.code != 0:
        yield f"ended with {found.code}: {found.last_line}"
    for name in case.outputs:
        if _exact(folder, name) == old[name]:
            result.old += 1
        elif _digests(folder / name, case.comparable) == _part(reference, name):
            result.new += 1
        elif case.judge is None or (fault := case.judge(folder)) is not None:
            yield f"{name} is neither old nor new" + (f": {fault}" if case.judge else "")
        else:
            result.new += 1
    for name, digest in _snapshot(case, case.template).items():
        if "mine" in Path(name).name and _snapshot(case, folder).get(name) != digest:
            yield f"{name} of the user is gone"


def _fresh(case: Case, work: Path) -> Path:
    folder = work / "here"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case.template, folder, symlinks=True)
    return folder


def _exact(folder: Path, name: str) -> Snapshot:
    return _digests(folder / name, Path.read_bytes)


def _snapshot(case: Case, folder: Path) -> Snapshot:
    """Everything in a folder, hidden files too."""
    return _digests(folder, case.comparable)


def _part(reference: Snapshot, name: str) -> Snapshot:
    """An output in the snapshot of everything, as `_digests` gives it."""
    return {
        key.removeprefix(name).removeprefix("/"): value
        for key, value in reference.items()
        if f"{key}/".startswith(f"{name}/") and (key != name or value != "folder")
    }


def _digests(path: Path, read: Callable[[Path], bytes]) -> dict[str, str]:
    if path.is_file():
        return {"": hashlib.sha256(read(path)).hexdigest()}
    digests = {}
    for entry in sorted(path.rglob("*")):
        name = str(entry.relative_to(path))
        digests[name] = "folder" if entry.is_dir() else hashlib.sha256(read(entry)).hexdigest()
    return digests


def _other(after: Snapshot, reference: Snapshot) -> Iterator[str]:
    for name in sorted(after.keys() | reference.keys()):
        if name not in reference:
            yield f"{name} is left over"
        elif name not in after:
            yield f"{name} is missing"
        elif after[name] != reference[name]:
            yield f"{name} is another than undisturbed"
