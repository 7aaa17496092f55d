"""The worker under an emulator that counts instructions; see `scripts/qemu_count.c`.

Runs on the device: of this project it imports only modules that `benchmark.devices.remote.foreign`
packs.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
from pathlib import Path

from benchmark.worker.worker import Worker
from edge.process.link import explain
from edge.process.wire import Arrays, Message, serve

# A system call that no kernel has: the emulator then writes down its count.
_MARK = 7777
_PAIRS = 5


class CountingWorker(Worker):
    """A worker that also counts the instructions of an inference."""

    def answer(self, message: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """Return the reply to one request."""
        if message["do"] == "instructions":
            return {"instructions": self._instructions(Path(message["marks"]))}, {}
        return super().answer(message, arrays)

    def _instructions(self, marks: Path) -> int:
        """Return the instructions of the first input's inference.

        This is the difference between two inferences and one, the median of several pairs, which
        cancels start-up and the code around an inference.
        """
        call, run, feed = ctypes.CDLL(None).syscall, self._run, self._feeds[0]
        plan = [1, 2] * _PAIRS
        before = len(_counts(marks))
        gc.disable()
        for runs in plan:
            call(_MARK)
            for _ in range(runs):
                run(feed)
        call(_MARK)
        gc.enable()
        counts = _counts(marks)[before:]
        spent = [after - before for before, after in zip(counts, counts[1:])]  # noqa: B905, RUF007
        pairs = zip(spent[::2], spent[1::2])  # noqa: B905
        return int(statistics.median(double - single for single, double in pairs))


def _counts(marks: Path) -> list[int]:
    return [int(line) for line in marks.read_text(encoding="ascii").split()]


if __name__ == "__main__":
    serve(CountingWorker().answer, explain=explain, orphan_check_s=None)
