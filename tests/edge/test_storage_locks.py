"""One writer an output, mended after a death, and links that stay links."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from edge.errors import StorageError, UserError
from edge.storage import (
    cache_folder,
    check_target,
    made_once,
    output_lock,
    staged_folder,
    system,
    write_text,
    write_together,
)
from tests.children import process

HOLD = (
    "from edge.storage import output_lock\n"
    "with output_lock(path): print('held', flush=True); input()\n"
)


def always(folder: Path) -> bool:
    return True


def never(folder: Path) -> bool:
    return False


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_told_in_a_line_and_touches_nothing(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with process(HOLD, target) as first:
        assert first.stdout.readline() == "held\n"
        line = rf"{re.escape(str(target))} is being written by another edge .*process {first.pid}\)"
        with pytest.raises(UserError, match=line), staged_folder(target, replaces=always):
            raise AssertionError("the block must not run")
        with pytest.raises(UserError, match="is being written"):
            write_together(target, {"a": "1"})
        assert names(tmp_path) == [".result.lock"]
        first.stdin.write("\n")
        first.stdin.flush()
        first.wait()
    assert names(tmp_path) == []


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "result") as first:
        assert first.stdout.readline() == "held\n"
        first.kill()
        first.wait()
    assert names(tmp_path) == [".result.lock"]
    with output_lock(tmp_path / "result"), output_lock(tmp_path / "result"):
        pass
    assert names(tmp_path) == []


def test_what_lies_in_an_output_that_is_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with process(HOLD, tmp_path / "run") as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="run is being written by another edge command"):
            with output_lock(tmp_path / "run" / "deep" / "student"):
                raise AssertionError("the block must not run")
    with output_lock(tmp_path / "run"), output_lock(tmp_path / "run" / "student"):
        pass
    assert names(tmp_path / "run") == []


def test_two_names_of_one_output_are_one(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "link").symlink_to("result")
    with process(HOLD, tmp_path / "link") as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is being written"), output_lock(tmp_path / "result"):
            raise AssertionError("the block must not run")


def test_one_process_makes_what_several_want(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".older.partial-abcdefgh").mkdir()
    made = []

    def make() -> None:
        made.append(1)

    looked = threading.Event()

    def is_whole(path: Path) -> bool:
        whole = path.exists()
        looked.set()
        return whole

    with process(HOLD, target) as first:
        assert first.stdout.readline() == "held\n"
        waiting = threading.Thread(
            target=made_once, args=(target, make), kwargs={"is_whole": is_whole}
        )
        waiting.start()
        looked.wait()
        target.mkdir()
        first.stdin.write("\n")
        first.stdin.flush()
        waiting.join()
    assert not made
    assert names(tmp_path / "cache") == ["model"]


def test_a_failed_command_leaves_no_folders(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), output_lock(tmp_path / "a" / "b" / "result"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_there_is_no_moment_without_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "result"
    write_text(target / "old", "1")
    seen = []
    exchange = system.exchange

    def watched(one: Path, other: Path) -> bool:
        before = names(other)
        done = exchange(one, other)
        seen.append((done, before, names(other)))
        return done

    monkeypatch.setattr(system, "exchange", watched)
    with staged_folder(target, replaces=always) as stage:
        (stage / "new").write_text("2")
    if not seen[0][0]:
        pytest.skip("this file system cannot exchange folders")
    assert seen == [(True, ["old"], ["new"])]
    assert names(tmp_path) == ["result"]


def test_everything_is_flushed_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a name in place whose content never reached the disk."""
    events: list[str] = []

    def watch(owner: object, name: str) -> None:
        call = getattr(owner, name)

        def watched(first: Path, *others: Path) -> object:
            events.append(name if others else first.name)
            return call(first, *others)

        monkeypatch.setattr(owner, name, watched)

    watch(system, "flush_entry")
    watch(system, "exchange")
    write_text(tmp_path / "result" / "a", "1")
    assert [event.partition(".partial-")[0] for event in events] == [".a", "result"]
    events.clear()
    with staged_folder(tmp_path / "result", replaces=always) as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / "b").write_text("2")
        stage_name = stage.name
    assert events == ["b", "deep", stage_name, "exchange", tmp_path.name]


@pytest.mark.parametrize("whole", [True, False])
def test_a_swap_in_two_steps_is_mended_at_the_next_start(tmp_path: Path, whole: bool) -> None:
    """What a process leaves that dies between its two renames, or right after them."""
    target, old = tmp_path / "result", tmp_path / ".result.replaced-abcdefgh"
    old.mkdir()
    (old / "a").write_text("old")
    if whole:
        target.mkdir()
        (target / "a").write_text("new")
    else:
        (tmp_path / ".result.partial-abcdefgh").mkdir()
    with output_lock(target):
        assert names(tmp_path) == [".result.lock", "result"]
    assert (target / "a").read_text() == ("new" if whole else "old")


def test_a_system_without_exchange_swaps_in_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "exchange", lambda *_: False)
    target = tmp_path / "result"
    write_text(target / "old", "1")
    with staged_folder(target, replaces=always) as stage:
        (stage / "new").write_text("2")
    assert names(tmp_path) == ["result"]
    assert names(target) == ["new"]


def test_a_link_to_an_output_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    write_text(tmp_path / "disk" / "result" / "old", "1")
    (tmp_path / "result").symlink_to("disk/result")
    with staged_folder(tmp_path / "result", replaces=always) as stage:
        (stage / "new").write_text("2")
    assert (tmp_path / "result").readlink() == Path("disk/result")
    assert names(tmp_path / "disk" / "result") == ["new"]
    assert names(tmp_path) == ["disk", "result"]
    assert names(tmp_path / "disk") == ["result"]
    (tmp_path / "text").symlink_to("disk/text")
    write_text(tmp_path / "text", "1")
    write_text(tmp_path / "text", "2")
    assert (tmp_path / "text").is_symlink()
    assert (tmp_path / "disk" / "text").read_text() == "2"


@pytest.mark.parametrize("deep", ["result", "a/b/result"])
def test_a_path_below_a_file_is_refused(tmp_path: Path, deep: str) -> None:
    (tmp_path / "file").write_text("x")
    for use in (
        lambda path: check_target(path, replaces=never),
        lambda path: output_lock(path).__enter__(),
        lambda path: write_text(path, "x"),
    ):
        with pytest.raises(UserError, match=f"{tmp_path}/file is a file, not a folder"):
            use(tmp_path / "file" / deep)


@pytest.mark.parametrize("name", ["n" * 240, "ü" * 120, "n" * 300])
def test_a_name_too_long_is_told_before_any_work(tmp_path: Path, name: str) -> None:
    for use in (
        lambda path: check_target(path, replaces=never),
        lambda path: output_lock(path).__enter__(),
    ):
        with pytest.raises(UserError, match=r"bytes is too long for an output .* at most \d+"):
            use(tmp_path / name)
    with output_lock(tmp_path / ("n" * 200)):
        pass
    assert names(tmp_path) == []


def test_a_circle_of_links_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="a link that leads back to itself"):
        check_target(tmp_path / "a", replaces=never)


def test_a_mount_point_and_the_working_folder_are_not_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "result").mkdir()
    monkeypatch.chdir(tmp_path / "result")
    with pytest.raises(UserError, match="is the folder you are in"):
        with staged_folder(Path(), replaces=never):
            raise AssertionError("the block must not run")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match="is a mount point"):
        with staged_folder(tmp_path / "result", replaces=never):
            raise AssertionError("the block must not run")


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    """As on a read-only disk; a test that runs as root may write anywhere but here."""
    with pytest.raises(StorageError, match=r"/proc/edge/result cannot be written: "):
        with staged_folder(Path("/proc/edge/result"), replaces=never):
            raise AssertionError("the block must not run")


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_cache_that_is_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("EDGE_CACHE", f"{tmp_path}/file{below}")
    with pytest.raises(UserError, match="file is no folder: set EDGE_CACHE to another"):
        cache_folder()
