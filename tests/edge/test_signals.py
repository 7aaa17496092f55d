"""Ctrl-C and SIGTERM: one line and one exit code, whenever they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = [
    (signal.SIGINT, 130, "edge: interrupted"),
    (signal.SIGTERM, 143, "edge: terminated"),
    (signal.SIGHUP, 129, "edge: terminated: the terminal was closed"),
]


def _as_in_a_terminal() -> None:
    """Undo that what a script starts in the background, or nohup starts, ignores some signals."""
    for number, _, _ in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def start(*arguments: object, path: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        preexec_fn=_as_in_a_terminal,
    )


def handled(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.6, 1.5])
@pytest.mark.parametrize(("number", "code", "line"), SIGNALS[:2])
def test_a_signal_while_a_command_starts(
    number: int, code: int, line: str, delay_s: float, bert_checkpoint: Path, tmp_path: Path
) -> None:
    process = start("-m", "edge.cli.main", "convert", bert_checkpoint, "-o", tmp_path / "bundle")
    while process.poll() is None and not handled(process, signal.SIGTERM):
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert [text for text in errors.splitlines() if text.startswith("edge: ")] == [line]
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert list(tmp_path.iterdir()) == []


def run(code: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a program whose command `edge doctor` is replaced by `code`."""
    (folder / "slow_import.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(1000): pass\n"
        "except BaseException as error:\n    raise ImportError('half imported') from error\n",
        encoding="utf-8",
    )
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import os, signal\nimport edge.cli.main as cli\nimport edge.cli.app as app\n"
        f"def command() -> None:\n{textwrap.indent(textwrap.dedent(code), '    ')}\n"
        "app.app.registered_commands.pop()\napp._command(command, 'doctor')\n"
        "cli.main(['doctor'])\n"
    )
    (folder / "program.py").write_text(program, encoding="utf-8")
    # As a module, after which Python may end itself by SIGINT: see `signals.finish`.
    process = start("-m", "program", path=folder)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize(
    "code",
    [
        # As soon as there is a command.
        "os.kill(os.getpid(), signal.SIGINT)",
        # While a module is imported, which answers with an error of its own.
        "import slow_import\nimport time\ntime.sleep(20)",
        # While code from a string runs, as that of dataclasses.
        'exec("os.kill(os.getpid(), signal.SIGINT)")',
        # A library turns it into something else.
        """
        try:
            os.kill(os.getpid(), signal.SIGINT)
            sys.stdin.read(0)
        except BaseException:
            raise ValueError("wrong")
        """,
        # It comes where nothing can be raised.
        """
        import time
        class Late:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
        late = Late()
        del late
        time.sleep(20)
        """,
        # It comes while the streams are redirected, before anything is there to put them back.
        """
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.kill(os.getpid(), signal.SIGINT)
        """,
        # A clean-up fails because of it.
        """
        try:
            os.kill(os.getpid(), signal.SIGINT)
            sys.stdin.read(0)
        finally:
            raise OSError("clean-up failed")
        """,
    ],
)
def test_whatever_an_interruption_turns_into_is_told_as_one(code: str, tmp_path: Path) -> None:
    started = time.monotonic()
    assert run(code, tmp_path) == (130, "edge: interrupted\n")
    assert time.monotonic() - started < 20


def test_no_moment_of_a_command_s_beginning_and_end_is_without_an_answer(tmp_path: Path) -> None:
    """A signal at each line of the two modules that surround a command, one after the other."""
    program = """
import os, signal, sys
import edge.cli.main as cli
import edge.cli.app as app
from edge.cli import signals
files, left = {cli.__file__, signals.__file__}, int(sys.argv[1])
def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename not in files or signals._received:
        return None
    if event == "line" and signal.getsignal(signal.SIGTERM) is signals._interrupt:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
    return trace
sys.settrace(trace)
cli.main(["--help"])
"""
    codes = set()
    for line in range(1, 100):
        process = start("-c", program, line)
        _, errors = process.communicate(timeout=60)
        codes.add(process.returncode)
        if process.returncode == 0:
            break
        assert (process.returncode, errors) == (130, "edge: interrupted\n"), line
    assert codes == {0, 130} and line > 15


def test_a_terminal_that_goes_away_ends_the_command(tmp_path: Path) -> None:
    number, code, line = SIGNALS[2]
    assert run(f"os.kill(os.getpid(), {number})", tmp_path) == (code, f"{line}\n")


def test_the_third_signal_ends_a_command_that_does_not_stop(tmp_path: Path) -> None:
    code = """
    while True:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
    """
    assert run(code, tmp_path) == (130, "edge: interrupted\n")


def test_an_end_of_file_is_no_interruption(tmp_path: Path) -> None:
    code, errors = run("raise EOFError('truncated')", tmp_path)
    assert code == 1
    assert errors.startswith("edge: unexpected EOFError: truncated")


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    refused = run("open('a' * 300)", tmp_path)
    assert refused == (2, f"edge: {'a' * 300}: File name too long: check the path\n")
    refused = run("raise OSError(28, os.strerror(28), 'a/b')", tmp_path)
    assert refused == (1, "edge: a/b: No space left on device\n")


def test_a_signal_that_was_ignored_stays_so(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import edge.cli.main as cli\n"
        "try: cli.main(['recipes', 'show', 'kd'])\n"
        "finally: assert signal.getsignal(1) is signal.SIG_IGN\n"
    )
    process = start("-c", program)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "match: logits" in output


def test_an_export_leaves_nothing_where_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    # What torch.export imports at its first operator.
    assert run("import torch._inductor.compiler_bisector", tmp_path) == (0, "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_nothing_is_left_where_temporary_files_go(bert_bundle: Path, tmp_path: Path) -> None:
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    arguments = ["-m", "edge.cli.main", "verify", str(bert_bundle)]
    subprocess.run([sys.executable, *arguments], env=variables, cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []
