"""Progress of work whose amount is known: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from edge.console import is_terminal, printable, say

_LINE_SECONDS = 15.0


@contextlib.contextmanager
def counting(title: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how many more are done; the bar goes whatever happens.

    done: how many of `total` were done before, by a run that was interrupted.
    """
    start = time.perf_counter()
    with _bar(title, total, done) if is_terminal() else _lines(title, total, done) as add:
        yield add
    say(f"{title}: {total:,} in {time.perf_counter() - start:.1f} s")


@contextlib.contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeLeft(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(title), total=total, completed=done)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def _lines(title: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    start = spoken = time.perf_counter()
    first = done

    def add(count: int) -> None:
        nonlocal done, spoken
        done += count
        now = time.perf_counter()
        if now - spoken > _LINE_SECONDS and done > first:
            spoken = now
            left_s = (now - start) / (done - first) * (total - done)
            say(f"{title}: {done:,} of {total:,}, {left_s / 60:.0f} min left")

    yield add
