"""Results appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from edge.errors import StorageError, UserError
from edge.storage import (
    require_space,
    sha256,
    size_bytes,
    staged_folder,
    storage_errors,
    write_text,
)
from tests.children import process


def never(folder: Path) -> bool:
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result"
    with staged_folder(target, replaces=never) as stage:
        (stage / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["result"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_block_leaves_what_was_there(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").write_text("kept")
    with pytest.raises(problem), staged_folder(target, replaces=lambda _: True) as stage:
        (stage / "new").write_text("lost")
        raise problem
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert (target / "old").read_text() == "kept"


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").write_text("1")
    with staged_folder(target, replaces=lambda _: True) as stage:
        (stage / "new").write_text("2")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and was not written by this command"):
        with staged_folder(target, replaces=never):
            raise AssertionError("the block must not run")
    assert (target / "thesis.txt").read_text() == "precious"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "x", replaces=never) as stage:
        (stage / "a").write_text("1")
    (tmp_path / "empty").mkdir()
    with staged_folder(tmp_path / "empty", replaces=never) as stage:
        (stage / "a").write_text("1")
    assert (tmp_path / "empty" / "a").is_file()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with pytest.raises(StorageError, match="no space left while writing .*result: free some"):
        with staged_folder(target, replaces=never) as stage:
            (stage / "half").write_text("x")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "é"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_death_after_the_text_is_in_place_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing has to be written again, nobody would remove it."""
    left: list[list[str]] = []

    def look(path: Path) -> None:
        if path == tmp_path:
            left.append([entry.name for entry in path.iterdir()])

    monkeypatch.setattr("edge.storage.system.flush_entry", look)
    write_text(tmp_path / "run.json", "{}")
    assert left == [["run.json"]]
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_folder_hash_depends_on_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a").write_text("1")
    (tmp_path / "two" / "b").write_text("1")
    (tmp_path / "three" / "a").write_text("1")
    assert sha256(tmp_path / "one") == sha256(tmp_path / "three")
    assert sha256(tmp_path / "one") != sha256(tmp_path / "two")
    assert size_bytes(tmp_path) == 3


@pytest.mark.parametrize("name", [".result.partial-{0}-abc", ".result.partial-abcdefgh"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, name: str) -> None:
    """A process id says nothing: it may be another process's by now."""
    abandoned = tmp_path / name.format(os.getppid())
    other = tmp_path / ".result.partial-x.partial-abcdefgh"
    for folder in (abandoned, other):
        folder.mkdir()
        (folder / "half").write_text("x")
    with staged_folder(tmp_path / "result", replaces=never):
        assert not abandoned.exists()
        assert other.exists()


def test_a_stage_that_a_living_process_holds_stays(tmp_path: Path) -> None:
    code = "with stage_of(path) as stage: print(stage, flush=True); input()"
    with process(
        f"from edge.storage.staging import stage_of\n{code}", tmp_path / "result"
    ) as alive:
        stage = Path(alive.stdout.readline().strip())
        with staged_folder(tmp_path / "result", replaces=never):
            assert stage.is_dir()
        alive.kill()
        alive.wait()
        with staged_folder(tmp_path / "result", replaces=lambda _: True):
            assert not stage.exists()


def test_errors_that_wrap_a_full_disk_are_recognised(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no space left while writing"):
        with staged_folder(tmp_path / "result", replaces=never):
            raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "probed", "words"),
    [
        ("Error while serializing: I/O error: (os error 28)", None, "no space left"),
        ("Error while serializing: I/O error: (os error 30)", None, "cannot be written: Read-only"),
        # As torch says it, whatever it was.
        ("basic_ios::clear: iostream error", errno.ENOSPC, "no space left"),
        ("basic_ios::clear: iostream error", errno.EROFS, "cannot be written: Read-only"),
        ("[enforce fail at inline_container.cc:672]", errno.EROFS, "cannot be written: Read-only"),
        ("[enforce fail at inline_container.cc:672]", None, "no space left"),
    ],
)
def test_what_libraries_make_of_the_system_s_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, probed: int | None, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(probed, "")

    if probed is not None:
        monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(StorageError, match=words), storage_errors(tmp_path / "result"):
        raise RuntimeError(message)


def test_an_error_that_is_not_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), storage_errors(tmp_path / "result"):
        raise RuntimeError("shapes do not fit")


def test_too_little_space_is_found_out_before_work_starts(tmp_path: Path) -> None:
    require_space(tmp_path / "new" / "result", 1)
    with pytest.raises(StorageError, match=r"about 1,000,000,000 GB are needed and [\d.]+ [GM]B "):
        require_space(tmp_path / "new" / "result", 10**18)


@pytest.mark.parametrize(
    ("needed", "free", "words"),
    [
        (900, 2, "about 900 B are needed and 2 B are free: free 898 B"),
        (40_000, 0, "about 40.0 kB are needed and 0 B are free: free 40.0 kB"),
        (10**9, 10**9 - 1000, "are needed and 1.00 GB are free: free 1.00 kB"),
    ],
)
def test_sizes_are_told_in_units_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, free: int, words: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    with pytest.raises(StorageError, match=re.escape(words)):
        require_space(tmp_path / "result", needed)
