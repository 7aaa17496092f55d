"""A child process and its messages: every way to end, and nothing left running."""

from __future__ import annotations

import ast
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.process import wire
from edge.process.link import Ended, Link, NoAnswer, Refused

WIRE = Path(wire.__file__)
# Loads the file by its path, as a Python does that has nothing of this project.
CHILD = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("wire", {str(WIRE)!r})
wire = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wire)
assert not any(name.split(".")[0] == "edge" for name in sys.modules)

def answer(message, arrays):
    if message["do"] == "fail":
        raise ValueError("first line\\n  second line")
    if message["do"] == "exit":
        print("printed last", flush=True)
        os._exit(3)
    return {{"was": message["do"]}}, {{name: value + 1 for name, value in arrays.items()}}

wire.serve(answer, explain=str)
"""


@pytest.fixture
def link() -> Iterator[Link]:
    with Link([sys.executable, "-I", "-c", CHILD]) as opened:
        yield opened


def _gone(link: Link) -> bool:
    return link.closed and not psutil.pid_exists(link.pid)


def test_a_reply_brings_arrays_that_can_be_written_to(link: Link) -> None:
    sent = np.arange(6, dtype=np.int32).reshape(2, 3)
    # Larger than a pipe holds, so that neither side gets it in one piece.
    large = np.zeros(1 << 20, np.float32)
    reply, arrays = link.request({"do": "add"}, {"a": sent, "b": large}, timeout_s=60)
    assert reply == {"was": "add"}
    np.testing.assert_array_equal(arrays["a"], sent + 1)
    assert arrays["b"].shape == large.shape and (arrays["b"] == 1).all()
    arrays["a"][0, 0] = 7


def test_a_refused_request_is_one_line_and_leaves_the_link_usable(link: Link) -> None:
    with pytest.raises(Refused) as caught:
        link.request({"do": "fail"}, timeout_s=60)
    assert str(caught.value) == "first line second line"
    assert link.request({"do": "go on"}, timeout_s=60) == ({"was": "go on"}, {})


def test_objects_are_refused_before_anything_is_sent(link: Link) -> None:
    with pytest.raises(ValueError, match="array 'a' holds Python objects"):
        link.request({"do": "add"}, {"a": np.asarray([{}], object)}, timeout_s=60)
    assert link.request({"do": "go on"}, timeout_s=60) == ({"was": "go on"}, {})


def test_a_child_that_exits_leaves_its_code_and_its_last_line(link: Link) -> None:
    with pytest.raises(Ended) as caught:
        link.request({"do": "exit"}, timeout_s=60)
    end = caught.value
    assert (end.code, end.signal_name, end.last_line) == (3, None, "printed last")
    assert _gone(link)
    with pytest.raises(Ended):
        link.request({"do": "add"}, timeout_s=60)


def test_a_child_killed_by_a_signal_leaves_its_name(link: Link) -> None:
    link.request({"do": "add"}, timeout_s=60)
    os.kill(link.pid, signal.SIGSEGV)
    with pytest.raises(Ended) as caught:
        link.request({"do": "add"}, timeout_s=60)
    assert (caught.value.code, caught.value.signal_name) == (None, "SIGSEGV")
    assert _gone(link)


def test_a_child_that_stops_reading_meets_the_deadline(link: Link) -> None:
    """The request is larger than the pipe: it is the write that waits."""
    link.request({"do": "add"}, timeout_s=60)
    psutil.Process(link.pid).suspend()
    with pytest.raises(NoAnswer):
        link.request({"do": "add"}, {"a": np.zeros(1 << 20)}, timeout_s=0.2)
    assert _gone(link)


def test_an_interrupt_ends_the_child(link: Link) -> None:
    link.request({"do": "add"}, timeout_s=60)
    psutil.Process(link.pid).suspend()
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            link.request({"do": "add"}, timeout_s=60)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert _gone(link)


def test_a_child_that_closes_its_output_is_ended() -> None:
    script = "import os, time; os.close(1); time.sleep(600)"
    with Link([sys.executable, "-c", script]) as link:
        with pytest.raises(Ended) as caught:
            link.request({"do": "add"}, timeout_s=60)
        assert (caught.value.code, caught.value.signal_name) == (None, None)
        assert _gone(link)


def test_closing_ends_the_child_and_may_be_repeated(link: Link) -> None:
    link.close()
    link.close()
    assert _gone(link)


def test_a_command_that_is_not_there_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        Link(["/absent/python"])


def test_a_message_that_is_cut_off_is_an_end() -> None:
    data = wire.pack({"do": "add"}, {"a": np.zeros(4)})
    with pytest.raises(EOFError):
        wire.unpack(io.BytesIO(data[:-1]).read)


def test_messages_keep_the_shape_of_a_scalar() -> None:
    _, arrays = wire.unpack(io.BytesIO(wire.pack({}, {"a": np.float32(2.5)})).read)
    assert arrays["a"].shape == () and arrays["a"] == np.float32(2.5)


def test_the_codec_is_for_python_3_9_with_numpy_alone() -> None:
    tree = ast.parse(WIRE.read_text(), feature_version=(3, 9))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name) or ""
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    tops = {name.partition(".")[0] for name in names}
    assert tops - set(sys.stdlib_module_names) == {"numpy"}
