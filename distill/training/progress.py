"""What a person sees while a student trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from edge.console import is_terminal, printable, say

_LINE_SECONDS = 15.0
_HIDDEN = {"epoch", "learning_rate", "grad_norm"}


class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Steps, the latest value of each term, and the time left."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._terms = ""
        self._bar: Any = None
        self._task: Any = None
        self._start = self._spoken = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = self._spoken = time.perf_counter()
        self._first_step = state.global_step
        if is_terminal():
            self._bar = _bar()
            self._task = self._bar.add_task(
                self._title, total=state.max_steps, completed=state.global_step, terms=""
            )
            self._bar.start()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            terms = {name: value for name, value in logs.items() if name not in _HIDDEN}
            self._terms = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        scores = {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}
        for name, value in scores.items():
            say(f"{self._title}: epoch {logs.get('epoch', 0):.2g}: {name} {value:.4f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, terms=self._terms)
        elif time.perf_counter() - self._spoken > _LINE_SECONDS:
            self._spoken = time.perf_counter()
            say(f"{self._title}: {_position(state, self._start, self._first_step)}  {self._terms}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the terminal, also after an interruption."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    # On a narrow terminal the terms are cut, never the counts.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", table_column=rest),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )


def _position(state: Any, start: float, first_step: int) -> str:
    done = state.global_step - first_step
    left_s = (time.perf_counter() - start) / done * (state.max_steps - state.global_step)
    minutes, seconds = divmod(round(left_s), 60)
    return f"step {state.global_step}/{state.max_steps}, {minutes}:{seconds:02d} left"
