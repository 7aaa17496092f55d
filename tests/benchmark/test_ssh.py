"""Boards over ssh: a real sshd on this machine's loopback stands for one.

It is another process tree with a folder of its own for temporary files, reached through real
connections; what it cannot show is another processor, which tests/benchmark/test_qemu.py does.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import benchmark
from benchmark.config import Block, DeviceOptions
from benchmark.devices import Device, Job, Turn, get_device
from benchmark.devices.remote import foreign, wheels
from benchmark.devices.remote.shell import Shell
from benchmark.devices.remote.ssh import SshDevice
from edge.errors import ConfigError, MeasurementError, StorageError
from tests.benchmark.board import SSHD, Board, running_sshd

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = DeviceOptions(python=sys.executable, timeout_s=60)
FEEDS = [
    {name: np.ones((1, 8), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
]
needs_sshd = pytest.mark.skipif(
    not SSHD.exists() or shutil.which("ssh") is None,
    reason="needs sshd and ssh (Debian: apt-get install openssh-server openssh-client)",
)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running_sshd(tmp_path_factory.mktemp("board")) as found:
        yield found


@pytest.fixture
def board(sshd: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """The sshd, and an `ssh` that reads its own configuration, as nothing else can make it."""
    ssh = shutil.which("ssh")
    shim = tmp_path / "bin" / "ssh"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {ssh} -F {sshd.config} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    yield sshd
    for tool in sshd.tools.iterdir():
        tool.unlink()


def _device(host: str = "board", options: DeviceOptions = OPTIONS) -> Device:
    return get_device(f"ssh:{host}", options)


def _tool(board: Board, name: str, script: str) -> Path:
    path = board.tools / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@needs_sshd
def test_a_benchmark_over_ssh_answers_as_here_and_leaves_nothing(
    board: Board, bundle: Path, protocol: benchmark.Protocol
) -> None:
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,), format=("onnx",), protocol=protocol, device="ssh:board", options=OPTIONS
    )
    there = benchmark.benchmark(config)
    here = benchmark.benchmark(config.model_copy(update={"device": "local"}))
    assert there.failure is None and len(there.rows) == 2
    for row, local in zip(there.rows, here.rows, strict=True):
        assert row.latency_ms is not None and row.latency_ms.n >= protocol.min_runs
        assert row.check is not None and row.check.status == "passed"
        assert row.check == local.check
        assert row.stages is not None and row.stages.e2e.n > 0
        assert (row.device.driver, row.device.address) == ("ssh", "board")
        assert (row.device.kind, row.device.model) == (local.device.kind, local.device.model)
        assert row.runtime.version == local.runtime.version
        assert row.memory is not None and row.memory.peak_rss_mb
    assert board.leftovers() == []


@needs_sshd
def test_outputs_are_those_of_this_machine(board: Board, bundle: Path) -> None:
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    found = []
    for device in (_device(), get_device("local")):
        with device, device.open(job) as timer:
            timer.load()
            answers = timer.answers(FEEDS)
            assert answers is not None
            found.append(next(iter(answers))["logits"])
    np.testing.assert_array_equal(found[0], found[1])


@needs_sshd
def test_artifacts_are_carried_once_and_taken_away(board: Board, bundle: Path) -> None:
    with _device() as device:
        assert isinstance(device, SshDevice)
        one = device.upload(bundle / "model-fp32.onnx")
        # The other precision of the tiny bundle is a copy of the same file.
        assert device.upload(bundle / "model-int8.onnx") == one
        assert Path(one).read_bytes() == (bundle / "model-fp32.onnx").read_bytes()
    assert not Path(one).exists()
    assert board.leftovers() == []
    device.close()


@needs_sshd
def test_a_lost_connection_in_the_middle_keeps_what_was_measured(
    board: Board,
    bundle: Path,
    protocol: benchmark.Protocol,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmark.devices.messages import MessageTimer

    turns, turn = 0, MessageTimer.turn

    def counted(self: MessageTimer, block: Block) -> Turn:
        nonlocal turns
        turns += 1
        if turns == 6:
            board.cut()
        return turn(self, block)

    monkeypatch.setattr(MessageTimer, "turn", counted)
    config = benchmark.BenchmarkConfig(
        bundles=(bundle,), format=("onnx",), protocol=protocol, device="ssh:board", options=OPTIONS
    )
    journal = tmp_path / "journal.jsonl"
    result = benchmark.benchmark(config, journal=journal)
    assert result.failure is not None
    assert "the connection to board was lost: check its power" in result.failure
    assert "\n" not in result.failure
    assert all(row.latency_ms is not None for row in result.rows)
    assert board.leftovers() == []
    again = benchmark.benchmark(config, journal=journal)
    assert again.failure is None
    # Of 8 rounds of 2 models 5 turns were known.
    assert turns == 6 + 11
    assert all(row.protocol.interruptions == 1 for row in again.rows)


@needs_sshd
def test_a_silent_board_is_given_up_after_the_timeout(board: Board, bundle: Path) -> None:
    options = OPTIONS.model_copy(update={"timeout_s": 20})
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    with _device(options=options) as device, device.open(job) as timer:
        timer.load()
        assert isinstance(device, SshDevice)
        device._timeout_s = 0.5
        stopped = [p for p in board.process.children(recursive=True) if "python" in p.name()]
        assert stopped
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(MeasurementError, match=r"no answer to 'turn' within 0\.5 s"):
            timer.turn(Block(runs=1, min_s=0, max_s=1))
        for process in stopped:
            process.kill()
    assert board.leftovers() == []


@needs_sshd
def test_a_worker_killed_on_the_board_is_not_taken_for_a_lost_connection(
    board: Board, bundle: Path
) -> None:
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    with _device() as device, device.open(job) as timer:
        timer.load()
        for process in board.process.children(recursive=True):
            if "python" in process.name():
                process.kill()
        with pytest.raises(MeasurementError, match=r"SIGKILL on board \(out of memory there\?"):
            timer.turn(Block(runs=1, min_s=0, max_s=1))


@needs_sshd
def test_a_killed_program_leaves_nothing_on_the_board(board: Board, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom benchmark.config import DeviceOptions\n"
        "from benchmark.devices import get_device\n"
        "device = get_device('ssh:board', DeviceOptions(python=sys.executable))\n"
        "print(device._shell.folder, flush=True)\ntime.sleep(600)\n"
    )
    # Its own folder for sockets stays behind on this side: nobody is left to remove it.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        assert folder.is_dir() and folder.parent == board.temporary
        process.kill()
    assert board.leftovers() == []


@needs_sshd
def test_an_interrupt_while_connecting_leaves_no_process(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SshDevice, "_probe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _device()
    assert board.leftovers() == []
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert "ssh" not in names


@needs_sshd
@pytest.mark.parametrize(
    ("host", "error", "words"),
    [
        ("stranger", ConfigError, "stranger: it does not accept your key: run `ssh-copy-id str"),
        ("unknown", ConfigError, "unknown: its key is not known here: run `ssh unknown` once"),
        ("no-such-foreign.invalid", ConfigError, "no such host: check the name"),
        ("off", MeasurementError, "off cannot be reached .*Connection refused.*switched on"),
    ],
)
def test_hosts_that_cannot_be_used_say_what_to_do(
    board: Board, host: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        _device(host)
    assert "\n" not in str(caught.value)


@needs_sshd
def test_a_full_board_is_refused_before_anything_is_carried(board: Board, bundle: Path) -> None:
    # Stands for a small disk: what `df` of such a board prints.
    _tool(
        board, "df", "printf 'Filesystem 1024-blocks Used Available\\n/dev/x 100 99 12 99%% /\\n'"
    )
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    with _device() as device, device.open(job) as timer:
        with pytest.raises(
            StorageError, match=r"board: 16\.\d MB are needed in .* 12.3 kB are free"
        ):
            timer.load()
    assert board.leftovers() == []


@needs_sshd
def test_a_board_that_cannot_write_is_refused(board: Board, tmp_path: Path) -> None:
    with contextlib.closing(Shell("board", timeout_s=60)) as shell:
        shutil.rmtree(shell.folder)
        Path(shell.folder).write_text("in the way")
        with pytest.raises(StorageError, match="board: code.zip cannot be written to"):
            shell.put(b"x", "code.zip")


@needs_sshd
@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("python-none", "board has no 'python-none': install Python 3.9 or newer there"),
        ("broken", "board has a 'broken' that does not answer"),
        ("old", "old is CPython 3.7.3, and CPython 3.9 or newer is needed"),
        ("small", "a 32-bit armv7l Python cannot run what is timed"),
    ],
)
def test_pythons_that_cannot_be_used_say_what_to_do(board: Board, python: str, words: str) -> None:
    # Each stands for a board's Python: it says what such a one would.
    output = '{{"version": [{}], "bits": {}, "machine": "{}", "implementation": "CPython", '
    output += '"libc": ["glibc", "2.28"], "packages": {{}}}}'
    _tool(board, "broken", "exit 1")
    _tool(board, "old", f"echo '@@python {output.format('3, 7, 3', 64, 'aarch64')}'")
    _tool(board, "small", f"echo '@@python {output.format('3, 11, 2', 32, 'armv7l')}'")
    with pytest.raises(ConfigError, match=words) as caught:
        _device(options=DeviceOptions(python=python))
    assert "\n" not in str(caught.value)
    assert board.leftovers() == []


@needs_sshd
def test_runtimes_that_a_board_lacks_are_carried(
    board: Board, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))

    def download(needs: list[str], foreign: foreign.Foreign, folder: Path) -> None:
        folder.mkdir(parents=True)
        for package in needs:
            _wheel_of(package.partition("==")[0], folder)

    # In place of PyPI: wheels made of what is installed here.
    monkeypatch.setattr(wheels, "_download", download)
    options = DeviceOptions(python=str(tmp_path / "bare" / "bin" / "python"), timeout_s=120)
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    with _device(options=options) as device:
        assert isinstance(device, SshDevice)
        assert device._foreign.packages == {}
        found = device.availability("onnxruntime")
        assert found.available and found.version == device.describe().versions["onnxruntime"]
        with device.open(job) as timer:
            assert timer.load().load_ms > 0
            assert timer.memory() is not None
    assert board.leftovers() == []


def _wheel_of(package: str, folder: Path) -> None:
    import importlib.metadata

    held = importlib.metadata.distribution(package)
    name = folder / f"{package.replace('-', '_')}-{held.version}-cp3-none-any.whl"
    with zipfile.ZipFile(name, "w") as archive:
        for file in held.files or ():
            inside = not file.as_posix().startswith("..") and "tests" not in file.parts
            if inside and Path(str(file.locate())).is_file():
                archive.write(str(file.locate()), file.as_posix())


@needs_sshd
def test_a_python_for_another_processor_is_emulated(board: Board) -> None:
    # Stands for a board with an emulator: its Python says that it is Arm's, or Intel's.
    other = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    output = {"version": [3, 11, 2], "bits": 64, "machine": other, "implementation": "CPython"}
    output |= {"libc": ["glibc", "2.36"], "packages": {}}
    _tool(board, "other", f"echo '@@python {json.dumps(output)}'")
    with _device(options=DeviceOptions(python="other")) as device:
        assert device.describe().kind == "emulated"


@needs_sshd
def test_other_engines_are_not_carried(board: Board) -> None:
    with _device() as device:
        assert device.engine("tflite", ("tflite-runtime", "litert")) == "litert"
        found = device.availability("pytorch")
        assert found.reason == "pytorch is not carried to other machines"


@needs_sshd
def test_threads_go_to_the_fastest_cores(board: Board, bundle: Path) -> None:
    from benchmark.devices.facts import Facts

    # Only this core may then be used: what the worker does with it is looked at from outside.
    core = max(os.sched_getaffinity(0))
    sections = {"status": "Cpus_allowed_list: 0-9"}
    sections |= {f"cpu{n} cpuinfo_max_freq": "1800000" for n in range(10)}
    sections[f"cpu{core} cpuinfo_max_freq"] = "2400000"
    job = Job("fp32", "onnxruntime", bundle / "model-fp32.onnx", 1, FEEDS)
    with _device() as device:
        assert isinstance(device, SshDevice)
        device._facts = Facts(sections)
        assert device.affinity(1) == (core,)
        assert device.affinity(2) is None
        with device.open(job) as timer:
            timer.load()
            workers = [p for p in board.process.children(recursive=True) if "python" in p.name()]
            assert [p.cpu_affinity() for p in workers] == [[core]]


@needs_sshd
def test_a_shell_that_talks_is_found_out(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for a start-up file that prints: ssh's output begins with it.
    shim = tmp_path / "bin" / "ssh"
    shim.write_text(f"#!/bin/sh\necho Welcome\n{shim.read_text().splitlines()[1]}\n")
    with pytest.raises(ConfigError, match="board prints 'Welcome' before any command"):
        _device()
    assert board.leftovers() == []
