"""`edge`: puts the commands together, and turns errors into one line and an exit code."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

import typer

from edge.cli import (
    benchmark,
    compare,
    convert,
    demo,
    devices,
    distill,
    doctor,
    evaluate,
    exits,
    pack,
    predict,
    recipes,
    report,
    run,
    verify,
)
from edge.cli import inspect as inspect_command
from edge.console import set_verbose
from edge.errors import EdgeError

_INTERRUPTED = 130

app = typer.Typer(
    name="edge",
    help="Distil, convert, verify and measure Transformer encoders for phones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _command(function: Callable[..., None], name: str) -> None:
    """Register a command with the options that every command has."""
    signature = inspect.signature(function, eval_str=True)
    debug = inspect.Parameter(
        "debug",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--debug", help="Show tracebacks and the engines' own output.")
        ],
    )

    @functools.wraps(function)
    def wrapper(*args: Any, debug: bool, **values: Any) -> None:
        set_verbose(debug)
        function(*args, **values)

    parameters = [*signature.parameters.values(), debug]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(name)(wrapper)


_COMMANDS: dict[str, Callable[..., None]] = {
    "distill": distill.distill,
    "convert": convert.convert,
    "verify": verify.verify,
    "pack": pack.pack,
    "evaluate": evaluate.evaluate,
    "exits": exits.exits,
    "benchmark": benchmark.benchmark,
    "devices": devices.devices,
    "report": report.report,
    "compare": compare.compare,
    "predict": predict.predict,
    "inspect": inspect_command.inspect,
    "recipes": recipes.recipes,
    "run": run.run,
    "demo": demo.demo,
    "doctor": doctor.doctor,
}
for _name, _function in _COMMANDS.items():
    _command(_function, _name)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 failure, 2 a user's mistake, 130 Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminated)
    # Libraries look at these when they are imported, which no command has done yet.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait make small models several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(_exit_code(arguments, debug="--debug" in arguments))


def _exit_code(arguments: list[str], *, debug: bool) -> int:
    try:
        # Typer prints its own usage errors and exits with 2; it takes Ctrl-C in silence.
        app(arguments)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            return _report("interrupted", _INTERRUPTED)
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except KeyboardInterrupt:
        # Outside of what Typer watches: while it is built, or while it reports an interruption.
        return _report("interrupted", _INTERRUPTED)
    except EdgeError as error:
        if debug:
            raise
        return _report(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away; that is its right, and closing must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        line = " ".join(str(error).split())[:300]
        return _report(
            f"unexpected {type(error).__name__}: {line} (run again with --debug for details)", 1
        )
    return 0


def _report(message: str, code: int) -> int:
    print(f"edge: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _terminated(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C, so that the same clean-up runs.
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
