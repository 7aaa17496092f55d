"""Progress of a comparison: a bar on a terminal, a line each quarter elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from edge.console import say

_LINES = 4


@contextlib.contextmanager
def rounds_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of finished rounds."""
    if not sys.stderr.isatty():
        yield lambda done: _line(title, done, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    # Redrawn rarely: drawing takes processor time from what is being measured.
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=1) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _line(title: str, done: int, total: int) -> None:
    if done == total or done * _LINES // total > (done - 1) * _LINES // total:
        say(f"{title}: round {done} of {total}")
