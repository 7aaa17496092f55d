"""Programs of LiteRT and ONNX Runtime that time a model on an Android device.

Each turn is a process of its own there, and so are its memory, its operators and its answers: these
programs open a model, run it, print what they found and end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from benchmark.devices.adb.link import quoted
from benchmark.devices.adb.programs import PROGRAMS, Tool
from benchmark.devices.adb.staging import Staging
from benchmark.devices.base import Job, Loaded, ModelRefused, Timer
from edge.errors import MeasurementError

# A new process on a processor that has slept: so long it runs before anything is recorded.
UNRECORDED_S = 0.1
# What is asked for beyond `min_s`, since a tool counts what lies between its runs as well.
MARGIN = 1.05
PROFILED_RUNS = 8
_TIMES = "edge-times:"
# How a shell reports SIGKILL.
_KILLED = 137
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class Ended:
    """A tool that ended well. processor_s: that it used; None where the shell does not tell."""

    log: str
    processor_s: float | None


class ToolFailed(MeasurementError):
    """The device is there, and the tool ended with an error."""


class ToolTimer(Timer):
    """A model in a folder of its own on the device, and a tool that is started for every turn.

    cores: those it is kept on; None for all.
    """

    def __init__(
        self, staging: Staging, job: Job, tool: Tool, cores: tuple[int, ...] | None
    ) -> None:
        self._staging, self.job, self.folder = staging, job, staging.job_folder()
        self.link, self.program = staging.link, PROGRAMS[tool.engine]
        self._tool = staging.place_tool(tool)
        self._libraries = bool(tool.libraries)
        self._cores = cores
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._staging.take_away(self.folder)

    def load(self) -> Loaded:
        try:
            return self.first_run()
        except ToolFailed as failure:
            raise ModelRefused(str(failure)) from None

    @abstractmethod
    def first_run(self) -> Loaded:
        """What `load` tells, from a process that does little else."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """What every call has in common."""

    def run_tool(self, arguments: Sequence[str]) -> Ended:
        """Start the tool in the folder and wait; raises MeasurementError when it fails."""
        done = self.link.shell(
            f"cd {quoted(self.folder)} || exit 1\nexport ORT_DISABLE_TELEMETRY=1\n"
            f"{self.command([*self.arguments(), *arguments])} 2>&1 &\n"
            "pid=$!\necho $pid > pid\nwait $pid\ncode=$?\nrm -f pid\n"
            f"echo; echo {_TIMES}; times\nexit $code"
        )
        log, _, times = done.output.rpartition(_TIMES)
        if done.code != 0:
            raise self.ended(log or done.errors, done.code)
        return Ended(log, _processor_s(times))

    def command(self, arguments: Sequence[str]) -> str:
        """A line of shell that starts the tool, on the fast cores where there are such."""
        words = [self._tool, *arguments]
        if self._cores is not None:
            words = ["taskset", f"{sum(1 << core for core in self._cores):x}", *words]
        if self._libraries:
            words = ["env", f"LD_LIBRARY_PATH={PurePosixPath(self._tool).parent}", *words]
        return quoted(*words)

    def silent(self, what: str) -> MeasurementError:
        """The tool ended well and did not print what was asked for."""
        return MeasurementError(
            f"{self.job.label}: {self.program} on {self.link.serial} did not tell {what}: is it "
            "the tool of docs/android.md?"
        )

    def ended(self, log: str, code: int) -> ToolFailed:
        """The tool failed: its first error, else its last line."""
        lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
        errors = [line for line in lines if line.upper().startswith(("ERROR", "FATAL", "CANNOT"))]
        reason = (errors or lines[-1:] or [f"exit code {code}"])[0][:_LINE_CHARACTERS]
        if code == _KILLED:
            reason = "it was ended by SIGKILL (out of memory? close apps, or time fewer artifacts)"
        return ToolFailed(
            f"{self.job.label}: {self.program} failed on {self.link.serial}: {reason}"
        )


def _processor_s(times: str) -> float | None:
    """Of the children, by the shell's `times`: two lines of "0m0.02s 0m0.01s"."""
    lines = times.strip().splitlines()
    words = lines[1].split() if len(lines) == 2 else []
    try:
        spent = [word.rstrip("s").split("m") for word in words]
        return sum(60 * float(minutes) + float(seconds) for minutes, seconds in spent)
    except ValueError:
        return None


def tenth(value: float | None) -> float | None:
    """Megabytes as a row has them."""
    return None if value is None else round(value, 1)
