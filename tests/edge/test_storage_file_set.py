"""Files of one folder that are updated together, also after interruptions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.errors import StorageError, UserError
from edge.storage import check_target, file_set, output_lock, system, write_together

OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "b": "new", "c": "new"}


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): file.read_text() for file in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two old files, and others beside them."""
    folder = tmp_path / "report"
    write_together(folder, OLD)
    (folder / "notes.txt").write_text("mine")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "data").write_text("mine")
    (folder / "deep" / "link").symlink_to("er/data")
    return folder


OTHERS = {"deep/er/data": "mine", "deep/link": "mine", "notes.txt": "mine"}


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    write_together(tmp_path / "deep" / "report", NEW)
    assert contents(tmp_path) == {f"deep/report/{name}": "new" for name in NEW}


def test_other_files_stay(folder: Path) -> None:
    folder.chmod(0o750)
    before = (folder / "deep" / "er" / "data").stat().st_ino
    write_together(folder, NEW)
    assert contents(folder.parent) == {f"report/{k}": v for k, v in (NEW | OTHERS).items()}
    assert (folder / "deep" / "er" / "data").stat().st_ino == before
    assert (folder / "deep" / "link").readlink() == Path("er/data")
    assert folder.stat().st_mode & 0o777 == 0o750


def _no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "exchange", lambda *_: False)


def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("without", [_no_exchange, _no_links])
def test_file_by_file_where_a_folder_cannot_be_exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, without: object
) -> None:
    assert callable(without)
    without(monkeypatch)
    write_together(folder, NEW)
    assert contents(folder.parent) == {f"report/{k}": v for k, v in (NEW | OTHERS).items()}


def test_the_folder_one_is_in_stays_the_same_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = folder.stat().st_ino
    write_together(Path(), NEW)
    assert folder.stat().st_ino == before
    assert contents(folder.parent) == {f"report/{k}": v for k, v in (NEW | OTHERS).items()}


@pytest.mark.parametrize("call", ["ismount", "access"])
def test_a_folder_that_cannot_be_moved_is_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A mount point, or a folder of the user in one that is not the user's: nothing goes beside."""
    folder = tmp_path / "volume"
    folder.mkdir()
    if call == "ismount":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    else:
        monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    before, seen = folder.stat().st_ino, set(tmp_path.iterdir())
    for texts in (OLD, NEW):
        with output_lock(folder):
            seen |= set(tmp_path.iterdir())
            check_target(folder, replaces=lambda path: (path / "a").exists(), as_whole=False)
            write_together(folder, texts)
        assert contents(folder) == texts
    assert (folder.stat().st_ino, seen) == (before, {folder})
    with pytest.raises(UserError, match="name a folder inside it"):
        check_target(folder, replaces=lambda _: True)


def test_a_death_between_two_files_is_mended_by_the_next_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_exchange(monkeypatch)

    def dies(ready: Path, target: Path) -> None:
        (ready / "a").replace(target / "a")
        raise KeyboardInterrupt

    monkeypatch.setattr(file_set, "move_into", dies)
    with pytest.raises(KeyboardInterrupt):
        write_together(folder, NEW)
    with output_lock(folder):
        pass
    assert contents(folder.parent) == {f"report/{k}": v for k, v in (NEW | OTHERS).items()}


def test_what_others_write_meanwhile_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = system.exchange

    def late(stage: Path, path: Path) -> bool:
        (path / "deep" / "new.txt").write_text("mine")
        (path / "notes.txt").unlink()
        (path / "notes.txt").write_text("edited")
        return exchange(stage, path)

    monkeypatch.setattr(system, "exchange", late)
    write_together(folder, NEW)
    assert contents(folder) == NEW | OTHERS | {"deep/new.txt": "mine", "notes.txt": "edited"}


def test_a_link_in_place_of_a_file_stays(folder: Path) -> None:
    (folder.parent / "elsewhere").write_text("old")
    (folder / "a").unlink()
    (folder / "a").symlink_to("../elsewhere")
    write_together(folder, NEW)
    assert (folder / "a").is_symlink()
    assert (folder.parent / "elsewhere").read_text() == "new"
    assert contents(folder) == NEW | OTHERS


def test_a_folder_in_place_of_a_file_is_told(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "thesis").write_text("precious")
    with pytest.raises(StorageError, match="c is a folder: move it"):
        write_together(folder, NEW)
    assert contents(folder) == OLD | OTHERS | {"c/thesis": "precious"}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_full_disk_leaves_the_old_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write = Path.write_text

    def full(path: Path, *values: object, **named: object) -> int:
        if path.name == name:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *values, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="no space left"):
        patch.setattr(Path, "write_text", full)
        write_together(folder, NEW)
    assert contents(folder.parent) == {f"report/{k}": v for k, v in (OLD | OTHERS).items()}
