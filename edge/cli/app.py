"""The commands of `edge` put together, and their errors as one line and an exit code."""

from __future__ import annotations

import copy
import errno
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer
from typer.exceptions import TyperException

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
    signals,
    verify,
)
from edge.cli import inspect as inspect_command
from edge.cli.defaults import DEFAULTS
from edge.cli.values import checked
from edge.console import printable, set_verbose
from edge.errors import EdgeError

app = typer.Typer(
    name="edge",
    help="Distill, convert, verify and measure Transformer encoders for phones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# A path that no file can have.
_WRONG_PATHS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}


class _EndOfFile(Exception):
    """An EOFError of a command; typer takes the plain one for a person who closed the terminal."""


def _command(function: Callable[..., None], name: str) -> None:
    """Register a command with the options that every command has."""
    defaults = DEFAULTS.get(name, {})
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
        try:
            function(*args, **values)
        except EOFError as error:
            raise _EndOfFile from error

    asked = [checked(parameter) for parameter in signature.parameters.values()]
    shown = [_with_default(parameter, defaults.get(parameter.name)) for parameter in asked]
    parameters = [*shown, debug]
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


def _with_default(parameter: inspect.Parameter, default: str | None) -> inspect.Parameter:
    """The same option, whose help shows `default`."""
    if default is None or parameter.default is not None:
        return parameter
    kind, option = get_args(parameter.annotation)
    option = copy.copy(option)
    option.show_default = default
    return parameter.replace(annotation=Annotated[kind, option])


for _name, _function in _COMMANDS.items():
    _command(_function, _name)


def run_command(arguments: list[str], *, debug: bool) -> int:
    """Run the command line and return its exit code; KeyboardInterrupt passes through."""
    try:
        # Not standalone: there typer prints foreign text as it is.
        status = app(arguments, prog_name="edge", standalone_mode=False)
    except TyperException as error:
        return _usage(error)
    except _EndOfFile as wrapped:
        return _unexpected(wrapped.__cause__ or wrapped, debug=debug)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except EdgeError as error:
        if debug:
            traceback.print_exc()
        return _report(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away; that is its right, and closing must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _system(error, debug=debug)
    except Exception as error:
        return _unexpected(error, debug=debug)
    return status if isinstance(status, int) else 0


def _usage(error: TyperException) -> int:
    """Report a command line that cannot be read; without any argument, its help was printed."""
    message = error.format_message().strip().removesuffix(".")
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return _report(f"{message[:1].lower()}{message[1:]}{hint}", 2) if message else 2


def _system(error: OSError, *, debug: bool) -> int:
    """Report what the operating system refuses, by the name of the file where there is one."""
    if error.filename is None or error.strerror is None:
        return _unexpected(error, debug=debug)
    if debug:
        traceback.print_exception(error)
    wrong = error.errno in _WRONG_PATHS
    remedy = ": check the path" if wrong else ""
    return _report(f"{error.filename}: {error.strerror}{remedy}", 2 if wrong else 1)


def _unexpected(error: BaseException, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    line = " ".join(str(error).split())[:300]
    return _report(
        f"unexpected {type(error).__name__}: {line} (run again with --debug for details)", 1
    )


def _report(message: str, code: int) -> int:
    # After a signal, whatever else goes wrong is a consequence of it.
    if signals.received() is None:
        print(f"edge: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return code
