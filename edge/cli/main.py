"""`edge`: runs a command, and turns how it ended into one line and an exit code.

Commands are imported once signals are dealt with: see `edge.cli.signals`.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from edge.cli import signals


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0: success. 1: failure. 2: a user's mistake. 130: Ctrl-C. 143: SIGTERM. 129: SIGHUP.
    """
    signals.install()
    arguments = sys.argv[1:] if arguments is None else arguments
    # Libraries look at these when they are imported, which no command has done yet.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait make small models several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # torch makes this folder in TMPDIR as soon as a model is exported, and leaves it there. Nothing
    # is compiled here, so a folder that exists will do; one that only its owner may write.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).parent))
    # In every process that this one starts, too; see `edge.engines.onnxruntime`.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows an escape where it lacks a character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = signals.interruptible(lambda: _exit_code(arguments), otherwise=1)
    signals.finish()
    number = signals.received()
    if number is not None:
        # Whatever else went wrong was a consequence.
        code = 128 + number
        signals.tell(number)
    sys.exit(code)


def _exit_code(arguments: list[str]) -> int:
    from edge.cli.app import run_command

    return run_command(arguments, debug="--debug" in arguments)


if __name__ == "__main__":
    main()
