"""tflite-runtime in its own process: right answers, clear failures, nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edge.engines import get_engine
from edge.engines.tflite_runtime import ENVIRONMENT, TfliteRuntimeSession
from edge.errors import EngineError
from edge.process import wire

LENGTHS = (8, 16)


@pytest.fixture(scope="module", autouse=True)
def legacy_python() -> Path:
    python = ENVIRONMENT.find_python()
    if python is None or ENVIRONMENT.version(python) is None:
        pytest.skip("tflite-runtime is not set up (make setup, with Python 3.9-3.11 on Linux)")
    return python


@pytest.fixture(scope="module")
def tflite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean of word vectors and a linear head, with one signature for each length."""
    import litert_torch
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(32, 8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            mask = attention_mask.unsqueeze(-1).float()
            words = self.words(input_ids) + 0.1 * token_type_ids.unsqueeze(-1).float()
            return {"logits": self.head((words * mask).sum(1) / mask.sum(1))}

    torch.manual_seed(0)
    model = Encoder().eval()
    kwargs = [
        {name: torch.from_numpy(value) for name, value in _inputs(length).items()}
        for length in LENGTHS
    ]
    builder = litert_torch.signature("seq_8", model, sample_kwargs=kwargs[0])
    converted = builder.signature("seq_16", model, sample_kwargs=kwargs[1]).convert()
    path = tmp_path_factory.mktemp("tflite") / "two lengths.tflite"
    converted.export(str(path))
    return path


@pytest.fixture
def session(tflite_file: Path) -> Iterator[TfliteRuntimeSession]:
    with TfliteRuntimeSession(tflite_file, timeout_s=60) as opened:
        yield opened


def _inputs(length: int) -> dict[str, Any]:
    rng = np.random.default_rng(length)
    mask = np.ones((1, length), np.int32)
    mask[0, length // 2 :] = 0
    return {
        "token_type_ids": rng.integers(0, 2, (1, length), dtype=np.int32),
        "input_ids": rng.integers(0, 32, (1, length), dtype=np.int32),
        "attention_mask": mask,
    }


def _running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("length", LENGTHS)
def test_agrees_with_litert_in_every_signature(
    session: TfliteRuntimeSession, tflite_file: Path, length: int
) -> None:
    inputs = _inputs(length)
    outputs = session.run(inputs)
    with get_engine("litert").open(tflite_file) as other:
        expected = other.run(inputs)
    assert outputs.keys() == {"logits"}
    assert outputs["logits"].shape == (1, 3)
    np.testing.assert_allclose(outputs["logits"], expected["logits"], rtol=1e-5, atol=1e-6)


def test_one_session_switches_between_lengths(session: TfliteRuntimeSession) -> None:
    first = session.run(_inputs(8))["logits"]
    session.run(_inputs(16))
    np.testing.assert_array_equal(session.run(_inputs(8))["logits"], first)


def test_a_refused_run_leaves_the_session_usable(session: TfliteRuntimeSession) -> None:
    with pytest.raises(EngineError, match=r"takes .* of \(1, 16\); .* of \(1, 8\); not .*\(1, 9\)"):
        session.run(_inputs(9))
    missing = _inputs(8)
    del missing["attention_mask"]
    with pytest.raises(EngineError, match=r"not input_ids, token_type_ids of \(1, 8\)"):
        session.run(missing)
    as_float = {name: value.astype(np.float32) for name, value in _inputs(8).items()}
    with pytest.raises(EngineError, match="FLOAT32 but expected type INT32"):
        session.run(as_float)
    assert np.isfinite(session.run(_inputs(8))["logits"]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a model at all", "could not load .*model identifier"), (None, "No such file")],
)
def test_a_file_that_cannot_be_loaded_is_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "broken.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=message) as caught:
        get_engine("tflite-runtime").open(path)
    assert "\n" not in str(caught.value)


def test_closing_ends_the_process(tflite_file: Path) -> None:
    session = TfliteRuntimeSession(tflite_file)
    pid = session.pid
    assert pid is not None and _running(pid)
    session.close()
    session.close()
    assert not _running(pid)
    with pytest.raises(EngineError, match="has ended: open another"):
        session.run(_inputs(8))


def test_a_crash_is_an_error_that_names_the_signal(session: TfliteRuntimeSession) -> None:
    pid = session.pid
    assert pid is not None
    psutil.Process(pid).send_signal(signal.SIGSEGV)
    with pytest.raises(EngineError, match="its process ended with SIGSEGV"):
        session.run(_inputs(8))
    assert session.pid is None
    assert not _running(pid)


def test_no_answer_in_time_stops_the_process(tflite_file: Path) -> None:
    with TfliteRuntimeSession(tflite_file, timeout_s=30) as session:
        session.run(_inputs(8))
        session._timeout_s = 0.2
        pid = session.pid
        assert pid is not None
        psutil.Process(pid).suspend()
        with pytest.raises(EngineError, match=r"could not run .* within 0\.2 s"):
            session.run(_inputs(8))
    assert not _running(pid)


def test_an_interrupt_in_a_run_stops_the_process(session: TfliteRuntimeSession) -> None:
    pid = session.pid
    assert pid is not None
    psutil.Process(pid).suspend()
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            session.run(_inputs(8))
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert session.pid is None
    assert not _running(pid)


def test_ctrl_c_to_the_group_is_left_to_the_parent(session: TfliteRuntimeSession) -> None:
    assert session.pid is not None
    psutil.Process(session.pid).send_signal(signal.SIGINT)
    assert session.run(_inputs(8))["logits"].shape == (1, 3)


@pytest.mark.parametrize("pipe_kept_open", [False, True])
def test_the_process_ends_when_its_parent_is_killed(
    tflite_file: Path, pipe_kept_open: bool
) -> None:
    """Also when a fork of the parent still holds the pipe, so that its end is never seen."""
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from edge.engines.tflite_runtime import TfliteRuntimeSession
        session = TfliteRuntimeSession(Path(sys.argv[1]))
        fork = os.fork() if sys.argv[2] == "True" else 0
        if fork or sys.argv[2] == "False":
            print(session.pid, fork, flush=True)
        time.sleep(120)
        """
    )
    command = [sys.executable, "-c", script, str(tflite_file), str(pipe_kept_open)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, fork = map(int, parent.stdout.readline().split())
        try:
            assert _running(pid)
            parent.kill()
            assert _wait_until(lambda: not _running(pid))
        finally:
            if fork:
                psutil.Process(fork).kill()


def test_messages_carry_names_dtypes_and_shapes() -> None:
    arrays = {
        "ids": np.arange(6, dtype=np.int32).reshape(2, 3),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "flag": np.array(True),
        "empty": np.zeros((0, 4), np.float16),
    }
    message = wire.pack({"op": "run"}, arrays)
    rest = bytearray(message)

    def read(size: int) -> bytes:
        data = bytes(rest[:size])
        del rest[:size]
        return data

    header, decoded = wire.unpack(read)
    assert header == {"op": "run"}
    assert not rest
    assert list(decoded) == list(arrays)
    for name, value in arrays.items():
        assert decoded[name].dtype == value.dtype
        np.testing.assert_array_equal(decoded[name], value)


def test_the_environment_is_named_or_found_beside_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_LEGACY_PYTHON", "/named/python")
    assert ENVIRONMENT.find_python() == Path("/named/python")
    monkeypatch.delenv("EDGE_LEGACY_PYTHON")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert ENVIRONMENT.find_python() is None
    python = tmp_path / ".venv-legacy" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert ENVIRONMENT.find_python() == python


def test_availability_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, legacy_python: Path
) -> None:
    engine = get_engine("tflite-runtime")
    monkeypatch.setenv("EDGE_LEGACY_PYTHON", str(legacy_python))
    assert engine.availability().version == "2.14.0"
    monkeypatch.setenv("EDGE_LEGACY_PYTHON", sys.executable)
    assert "cannot import tflite_runtime" in str(engine.availability().reason)
    monkeypatch.delenv("EDGE_LEGACY_PYTHON")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    found = engine.availability()
    assert not found.available
    assert "make setup" in str(found.remedy)


def test_a_python_that_cannot_be_started_or_lacks_the_runtime(tflite_file: Path) -> None:
    with pytest.raises(EngineError, match=r"/absent cannot be started .* correct EDGE_LEGACY"):
        TfliteRuntimeSession(tflite_file, python=Path("/absent"))
    with pytest.raises(EngineError, match="cannot import it"):
        TfliteRuntimeSession(tflite_file, python=Path(sys.executable))
