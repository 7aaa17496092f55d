"""What is said stays visible while libraries are hushed, in any thread."""

from __future__ import annotations

import os
import threading

import pytest

from edge.console import hush, say


def test_hush_holds_back_what_libraries_write(capfd: pytest.CaptureFixture[str]) -> None:
    with hush():
        os.write(1, b"noise\n")
        with hush():
            os.write(2, b"noise\n")
        os.write(2, b"noise\n")
        say("progress")
    os.write(2, b"after\n")
    found = capfd.readouterr()
    assert found.out == ""
    assert found.err == "progress\nafter\n"


def test_threads_that_hush_do_not_disturb_what_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with hush():
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        say(str(number))
    stop.set()
    for thread in threads:
        thread.join()
    found = capfd.readouterr()
    assert found.err.split() == [str(number) for number in range(300)]
