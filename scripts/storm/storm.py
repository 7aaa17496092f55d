"""A storm: a command is killed at each change it makes, checked, and run again."""

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
    """A command that replaces an existing output.

    template: a folder with the old output and files of the user; each attempt gets a copy.
    act: the command, for such a copy. outputs: its output files, each of which has to be the old
    or the new one. comparable: returns a file's content without parts that differ from run to run.
    check: returns the fault of a folder's outputs that are neither old nor new.
    """

    name: str
    template: Path
    act: Callable[[Path], object]
    outputs: tuple[str, ...]
    comparable: Callable[[Path], bytes] = Path.read_bytes
    check: Callable[[Path], str | None] | None = None


@dataclass
class Result:
    """Faults of a storm. changes: of an undisturbed run. points: disturbed changes."""

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
    folder = _fresh_copy(case, work)
    old = {name: _exact_digests(folder, name) for name in case.outputs}
    undisturbed = shim.run(lambda: case.act(folder), folder, log)
    if undisturbed.code:
        raise RuntimeError(f"{case.name} fails undisturbed:\n{undisturbed.output}")
    reference = _snapshot(case, folder)
    result = Result(case.name, undisturbed.changes)
    # On Ctrl-C, return the faults so far.
    with contextlib.suppress(KeyboardInterrupt):
        for at in range(first, undisturbed.changes + 1, stride):
            folder = _fresh_copy(case, work)
            mode_number = shim.MODES[mode]
            disturbed = shim.run(lambda: case.act(folder), folder, log, at=at, mode=mode_number)  # noqa: B023
            result.points += 1
            for fault in _faults(case, folder, old, reference, disturbed, result, mode):
                result.faults.append(f"at {at}: {fault}")
            again = shim.run(lambda: case.act(folder), folder, log)  # noqa: B023
            if again.code:
                result.faults.append(f"at {at}: run again it fails: {again.last_line}")
            else:
                after = _snapshot(case, folder)
                result.faults += [
                    f"at {at}: run again, {line}" for line in _differences(after, reference)
                ]
            if disturbed.code == 0 and disturbed.changes < at:
                break
    return result


def _faults(
    case: Case,
    folder: Path,
    old: Mapping[str, Snapshot],
    reference: Snapshot,
    disturbed: shim.Outcome,
    result: Result,
    mode: str,
) -> Iterator[str]:
    """Yield the faults right after a disturbance."""
    expected_text = {"full": "no space left", "read-only": " cannot be "}.get(mode, "")
    if mode != "kill" and disturbed.code != 0 and expected_text not in disturbed.last_line:
        yield f"told otherwise: {disturbed.last_line}"
    if mode == "kill" and not disturbed.was_killed and disturbed.code != 0:
        yield f"ended with {disturbed.code}: {disturbed.last_line}"
    for name in case.outputs:
        if _exact_digests(folder, name) == old[name]:
            result.old += 1
        elif _digests(folder / name, case.comparable) == _snapshot_part(reference, name):
            result.new += 1
        elif case.check is None or (fault := case.check(folder)) is not None:
            yield f"{name} is neither old nor new" + (f": {fault}" if case.check else "")
        else:
            result.new += 1
    for name, digest in _snapshot(case, case.template).items():
        if "mine" in Path(name).name and _snapshot(case, folder).get(name) != digest:
            yield f"{name} of the user is gone"


def _fresh_copy(case: Case, work: Path) -> Path:
    folder = work / "here"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(case.template, folder, symlinks=True)
    return folder


def _exact_digests(folder: Path, name: str) -> Snapshot:
    return _digests(folder / name, Path.read_bytes)


def _snapshot(case: Case, folder: Path) -> Snapshot:
    """Return the digests of all files in a folder, hidden ones too."""
    return _digests(folder, case.comparable)


def _snapshot_part(reference: Snapshot, name: str) -> Snapshot:
    """Return the part of a snapshot below an output, as `_digests` returns it."""
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


def _differences(after: Snapshot, reference: Snapshot) -> Iterator[str]:
    for name in sorted(after.keys() | reference.keys()):
        if name not in reference:
            yield f"{name} is left over"
        elif name not in after:
            yield f"{name} is missing"
        elif after[name] != reference[name]:
            yield f"{name} is another than undisturbed"
