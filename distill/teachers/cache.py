"""What a teacher said about every row of a data file, kept on disk and read instead of asked."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.data.views import ROWS, View
from distill.signals.capture import Inputs, LiveTeacher, Needs, Signals
from distill.students import Teacher
from distill.teachers.folder import (
    LENGTHS,
    MANIFEST,
    Identity,
    Manifest,
    check_made_from,
    check_sizes,
    disk_order,
    load_lengths,
    read_manifest,
)
from distill.teachers.signals import (
    ATTENDED,
    INPUT_IDS,
    Part,
    names_of,
    parts_of,
    signals_of,
    vocabulary_of,
    wanted,
)
from distill.teachers.store import Column, Reader, Writer
from distill.training.counting import counting
from edge.console import human_bytes, say
from edge.errors import ConfigError, TrainingError
from edge.storage import (
    flush,
    follow,
    remove_all_dead,
    require_space,
    size_bytes,
    storage_errors,
    write_text,
)
from edge.storage.system import flush_entry, remove
from edge.tasks import Task

Array = npt.NDArray[Any]
_DONE = "rows_done.json"
_BATCH_TOKENS = 2048
_BATCH_ROWS = 256
_FLUSH_SECONDS = 10.0


class _Job(NamedTuple):
    """What there is to ask a teacher. held: the names of columns that are there already."""

    model: Any
    rows: View
    task: Task
    needs: Needs
    identity: Identity
    held: frozenset[str] = frozenset()


def cached_teacher(
    folder: Path,
    teacher: Teacher,
    rows: View,
    needs: Needs,
    *,
    identity: Identity,
    keep: Needs = frozenset(),
) -> CachedTeacher:
    """The teacher's signals for `rows` from `folder`, which is filled with what it lacks first.

    rows: as the teacher reads them, those that `identity` is about, in their order. keep: what
    later stages will need of the same folder. A fill that was interrupted is continued; processes
    that ask for the same folder wait for the one that fills it.
    Raises ConfigError when the folder holds something else, names what it was made from when
    that differs, and StorageError when the disk has no room, leaving the folder as it was.
    """
    job = _Job(teacher.model, rows, teacher.checkpoint.task, needs | keep, identity)
    folder = follow(folder)
    while _lacking(folder, job):
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(_stage(folder)) as ours:
                # Another process may have filled it since.
                if ours and (lacking := _lacking(folder, job)):
                    _fill_or_remove(folder, lacking)
                elif ours:
                    shutil.rmtree(_stage(folder))
    return CachedTeacher(folder, needs)


class CachedTeacher:
    """A Source that reads what a teacher said; batches carry their rows' numbers as `rows`.

    Padding is 0 in every signal. Raises ConfigError when a file is damaged.
    """

    def __init__(self, folder: Path, needs: Needs) -> None:
        manifest = read_manifest(folder)
        lengths = load_lengths(folder)
        order = disk_order(lengths)
        self._folder = folder
        # Where each row lies in the files.
        self._positions = np.argsort(order)
        self._vocabulary = manifest.vocabulary
        columns = {column.name: column for column in manifest.columns}
        check_sizes(folder, manifest.columns, lengths)
        self._wanted = wanted(names_of(needs), columns)
        self._readers = {
            name: Reader(folder, columns[name], lengths[order])
            for name in (*self._wanted, INPUT_IDS)
        }

    def __call__(self, inputs: Inputs) -> Signals:
        ids = inputs["input_ids"]
        positions = self._positions[inputs[ROWS].cpu().numpy()]

        def read(name: str) -> Tensor:
            found = torch.from_numpy(self._readers[name].read(positions, ids.shape[1]))
            return found.to(ids.device)

        self._check_inputs(inputs, read(INPUT_IDS))
        return signals_of(read, self._wanted, self._vocabulary)

    def _check_inputs(self, inputs: Inputs, seen: Tensor) -> None:
        """A student that reads something else than the teacher did would learn nonsense."""
        same = (seen == inputs["input_ids"]) | (inputs["attention_mask"] == 0)
        if not bool(same.all()):
            row = int(inputs[ROWS][(~same).any(-1)][0])
            raise TrainingError(
                f"row {row} is not what the teacher of {self._folder} read: texts that change "
                "from epoch to epoch need a live teacher"
            )


def _lacking(folder: Path, job: _Job) -> _Job | None:
    """What is left of a job when what the folder holds is not asked again; None when all is."""
    if not (folder / MANIFEST).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} is not a teacher cache: name a folder that is empty or not there"
            )
        return job
    held = frozenset(column.name for column in check_made_from(folder, job.identity).columns)
    needs = frozenset(need for need in job.needs if not names_of({need}) <= held)
    return job._replace(needs=needs, held=held) if needs else None


def _fill_or_remove(folder: Path, job: _Job) -> None:
    """Keep what was asked so far when a person interrupts, nothing when something fails."""
    stage = _stage(folder)
    try:
        _fill(folder, job)
        flush(stage)
        if job.held:
            _add(stage, folder)
        else:
            stage.rename(folder)
            flush_entry(folder.parent)
    except KeyboardInterrupt:
        say(f"{stage} is kept: the same command continues from there")
        raise
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _add(stage: Path, folder: Path) -> None:
    """Move the columns of a filled stage into a cache of the same identity."""
    old, new = read_manifest(folder), read_manifest(stage)
    for column in new.columns:
        (stage / column.file).replace(folder / column.file)
    # Last: a column that is not in it yet is one that nobody reads.
    manifest = old.model_copy(update={"columns": (*old.columns, *new.columns)})
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    shutil.rmtree(stage)


def _fill(folder: Path, job: _Job) -> None:
    """Ask the teacher about all rows that are not in the stage of `folder`, longest first."""
    stage = _stage(folder)
    lengths = job.rows.lengths
    order = disk_order(lengths)
    manifest = _plan(job, order)
    remove_all_dead(stage)
    done = _rows_done(stage, manifest, lengths[order])
    _start(stage, manifest, lengths, done)
    total_bytes = sum(column.size_bytes(lengths) for column in manifest.columns)
    require_space(folder, total_bytes - size_bytes(stage))
    say(f"teacher cache: {human_bytes(total_bytes)} {'more ' if job.held else ''}in {folder}")
    flushed = time.monotonic()
    with (
        Writer(stage, manifest.columns, lengths[order[:done]]) as writer,
        counting("asking the teacher", len(order), done=done) as advance,
    ):
        for batch in _batches(lengths, order):
            if done > 0 and batch[-1] < done:
                continue
            rows = order[batch]
            writer.append(_arrays(job, rows, manifest.columns), lengths[rows])
            advance(len(rows))
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                _flush(writer, stage, int(batch[-1]) + 1)
                flushed = time.monotonic()
        _flush(writer, stage, len(order))


def _flush(writer: Writer, stage: Path, done: int) -> None:
    writer.flush()
    write_text(stage / _DONE, json.dumps(done))


def _plan(job: _Job, order: Array) -> Manifest:
    """The columns, learned from the teacher's signals for the longest row."""
    signals, parts = _ask(job, order[:1])
    return Manifest(
        identity=job.identity,
        columns=tuple(part.column(name) for name, part in parts.items() if name not in job.held),
        vocabulary=vocabulary_of(signals, job.task),
    )


def _rows_done(stage: Path, manifest: Manifest, lengths: Array) -> int:
    """How many rows an interrupted fill of the very same cache left, 0 if it was another.

    lengths: of all rows in the order of the files. A file that holds less than it should was
    damaged, or is one of those that were moved into the cache already.
    """
    try:
        if read_manifest(stage) != manifest:
            return 0
        done = int(json.loads((stage / _DONE).read_text(encoding="utf-8")))
        sizes = {column: (stage / column.file).stat().st_size for column in manifest.columns}
    except (OSError, ValueError, TypeError, ConfigError):
        return 0
    whole = all(size >= column.size_bytes(lengths[:done]) for column, size in sizes.items())
    return done if whole and 0 <= done <= len(lengths) else 0


def _start(stage: Path, manifest: Manifest, lengths: Array, done: int) -> None:
    if done:
        say(f"continuing the teacher cache kept in {stage}")
        return
    # The folder itself stays: it is locked.
    for entry in list(stage.iterdir()):
        remove(entry)
    np.save(stage / LENGTHS, lengths.astype(np.int32))
    write_text(stage / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def _arrays(job: _Job, rows: Array, columns: tuple[Column, ...]) -> dict[str, Array]:
    """The signals of some rows in the dtypes they are kept in; raises TrainingError at a NaN."""
    found = {}
    for name, part in _ask(job, rows)[1].items():
        values = part.values.cpu()
        # NumPy knows no bfloat16.
        kept = (values.float() if values.is_floating_point() else values).numpy()
        with np.errstate(over="ignore"):
            kept = kept.astype(part.dtype, copy=False)
        if part.dtype.startswith("float") and not np.isfinite(kept).all():
            hint = "keep it in float32" if part.dtype == "float16" else "check its weights"
            raise TrainingError(
                f"the teacher's {name} is not finite in {part.dtype} for row {int(rows[0])} or "
                f"one after it: {hint}"
            )
        found[name] = kept
    for column in columns:
        if column.name not in found:
            # A batch no longer than a layer's window: it sees all of each text.
            assert column.name.startswith(ATTENDED), column.name
            length = int(job.rows.lengths[rows].max())
            found[column.name] = np.ones((len(rows), length, length, 1), bool)
    return found


def _ask(job: _Job, rows: Array) -> tuple[Signals, dict[str, Part]]:
    device = torch.device("cuda") if torch.cuda.is_available() else job.model.device
    batch = job.rows.batch(rows.tolist())
    inputs = {name: value.to(device) for name, value in batch.items() if name != ROWS}
    low = job.identity.compute == "bfloat16"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
        signals = LiveTeacher(job.model, job.needs)(inputs)
    parts = parts_of(signals, job.task, dtype=job.identity.dtype, top_k=job.identity.top_k)
    return signals, {INPUT_IDS: Part("token", "int32", inputs["input_ids"]), **parts}


def _batches(lengths: Array, order: Array) -> Iterator[Array]:
    """Positions in `order`, batch by batch, the same ones in every run."""
    start = 0
    while start < len(order):
        fit = max(1, _BATCH_TOKENS // max(1, int(lengths[order[start]])))
        end = min(len(order), start + min(fit, _BATCH_ROWS))
        yield np.arange(start, end)
        start = end


def _stage(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.filling")


@contextlib.contextmanager
def _locked(stage: Path) -> Iterator[bool]:
    """Hold `stage` for this process alone; false when another finished or removed it meanwhile.

    The lock goes with its process, however that ends.
    """
    stage.mkdir(exist_ok=True)
    handle = os.open(stage, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield stage.exists() and os.fstat(handle).st_ino == stage.stat().st_ino
    finally:
        os.close(handle)
