"""Programs of LiteRT and ONNX Runtime that time a model on an Android device.

Each turn is a process of its own there, and so is each measurement of memory, operators or outputs:
these programs open a model, run it, print their results and end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from benchmark.devices.adb.link import quoted
from benchmark.devices.adb.staging import Staging
from benchmark.devices.adb.tools import PROGRAMS, Tool
from benchmark.devices.base import Job, Loaded, ModelRefused, Timer
from edge.errors import MeasurementError

# Unrecorded seconds at the start of a process, since an idle processor has to speed up.
UNRECORDED_S = 0.1
# Factor on `min_s`, since a tool also counts the time between its runs.
MARGIN = 1.05
PROFILED_RUNS = 8
_TIMES = "edge-times:"
# How a shell reports SIGKILL.
_KILLED = 137
_LINE_CHARACTERS = 300


@dataclass(frozen=True)
class ToolOutput:
    """Log of a successful tool. processor_s: its processor time; None if unknown."""

    log: str
    processor_s: float | None


class ToolFailed(MeasurementError):
    """The tool ended with an error on a connected device."""


class ToolTimer(Timer):
    """A model in a folder of its own on the device, and a tool that is started for every turn.

    cores: cores that the tool may use; None for all.
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
            self._staging.remove_job_folder(self.folder)

    def load(self) -> Loaded:
        try:
            return self.first_run()
        except ToolFailed as failure:
            raise ModelRefused(str(failure)) from None

    @abstractmethod
    def first_run(self) -> Loaded:
        """Return the result of `load`, from a short process."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """Return the arguments of every call."""

    def run_tool(self, arguments: Sequence[str]) -> ToolOutput:
        """Run the tool in the folder; raises MeasurementError if it fails."""
        done = self.link.shell(
            f"cd {quoted(self.folder)} || exit 1\nexport ORT_DISABLE_TELEMETRY=1\n"
            f"{self.command([*self.arguments(), *arguments])} 2>&1 &\n"
            "pid=$!\necho $pid > pid\nwait $pid\ncode=$?\nrm -f pid\n"
            f"echo; echo {_TIMES}; times\nexit $code"
        )
        log, _, times = done.output.rpartition(_TIMES)
        if done.code != 0:
            raise self.failure(log or done.errors, done.code)
        return ToolOutput(log, _processor_s(times))

    def command(self, arguments: Sequence[str]) -> str:
        """Return a shell line that starts the tool, on the fast cores if they are known."""
        words = [self._tool, *arguments]
        if self._cores is not None:
            words = ["taskset", f"{sum(1 << core for core in self._cores):x}", *words]
        if self._libraries:
            words = ["env", f"LD_LIBRARY_PATH={PurePosixPath(self._tool).parent}", *words]
        return quoted(*words)

    def missing_value(self, value: str) -> MeasurementError:
        """Return the error for a successful tool whose log lacks a value."""
        return MeasurementError(
            f"{self.job.label}: {self.program} on {self.link.serial} did not print {value}: is it "
            "the tool of docs/android.md?"
        )

    def failure(self, log: str, code: int) -> ToolFailed:
        """Return the error for a failed tool: its first error message, else its last line."""
        lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
        errors = [line for line in lines if line.upper().startswith(("ERROR", "FATAL", "CANNOT"))]
        reason = (errors or lines[-1:] or [f"exit code {code}"])[0][:_LINE_CHARACTERS]
        if code == _KILLED:
            reason = "it was ended by SIGKILL (out of memory? close apps, or time fewer artifacts)"
        return ToolFailed(
            f"{self.job.label}: {self.program} failed on {self.link.serial}: {reason}"
        )


def _processor_s(times: str) -> float | None:
    """Parse the children's processor time from the shell's `times`: "0m0.02s 0m0.01s" lines."""
    lines = times.strip().splitlines()
    words = lines[1].split() if len(lines) == 2 else []
    try:
        spent = [word.rstrip("s").split("m") for word in words]
        return sum(60 * float(minutes) + float(seconds) for minutes, seconds in spent)
    except ValueError:
        return None


def rounded_mb(value: float | None) -> float | None:
    """Round megabytes for a row."""
    return None if value is None else round(value, 1)
