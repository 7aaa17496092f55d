"""Several processes that train one student: who speaks and writes, and what all of them agree on.

A launcher such as `accelerate launch` or `torchrun` starts the same command several times and
says in the environment which one each is. Without a launcher everything here costs nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from edge.console import set_silent
from edge.errors import ConfigError, EdgeError

if TYPE_CHECKING:
    from distill.recipe.config import Stage

T = TypeVar("T")
# Nobody is given up while the main process asks a teacher or evaluates; one that dies is noticed
# at once, since its connections close.
_PATIENCE = timedelta(days=7)
_SHARDERS = {"ACCELERATE_USE_FSDP": "fsdp", "ACCELERATE_USE_DEEPSPEED": "deepspeed"}
_sharders: list[str] = []


def count() -> int:
    """How many processes train together."""
    # A scheduler may set WORLD_SIZE alone; what each process is, only a launcher says.
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def index() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_main() -> bool:
    """Whether this process speaks, writes and evaluates for all."""
    return index() == 0


def join(*, bf16: bool = False) -> None:
    """Meet the other processes and let only the main one be heard; before models are loaded."""
    if count() == 1:
        return
    # Read when torch is loaded; it warns in every process of what is as it should be.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    from accelerate import PartialState

    set_silent(not is_main())
    for name in _SHARDERS:
        # Transformers and accelerate would shard the student; teachers are what is too large.
        if os.environ.pop(name, "").lower() == "true":
            _sharders.append(_SHARDERS[name])
    if not torch.distributed.is_initialized():
        slow = not torch.accelerator.is_available() or (bf16 and not torch.cuda.is_available())
        if slow:
            # Trainer and accelerate look here; without it they train apart from each other.
            os.environ["ACCELERATE_USE_CPU"] = "true"
        PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU") == "true", timeout=_PATIENCE)
    assert torch.distributed.get_world_size() == count()


def sharder() -> str | None:
    """What the launcher was told to divide large models with: fsdp, deepspeed, or nothing."""
    return _sharders[0] if _sharders else None


def raise_once(error: EdgeError) -> NoReturn:
    """Fail in every process, all of which call this, and tell it in one."""
    if is_main():
        raise error
    raise SystemExit(error.exit_code) from error


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """A block that fails everywhere when it fails anywhere, and of which one process tells.

    Without it the others would wait for one that is gone, or all would print the same line.
    """
    if count() == 1:
        yield
        return
    failure: Exception | SystemExit | None = None
    try:
        yield
    except (Exception, SystemExit) as error:
        failure = error
    codes = _gather(_exit_code(failure))
    first = next((who for who, code in enumerate(codes) if code), None)
    if first == index():
        assert failure is not None
        raise failure
    if first is not None:
        raise SystemExit(codes[first]) from failure


def main_first(make: Callable[[], T]) -> T:
    """What `make` gives, in the main process before the others: it fills caches they read."""
    made: list[T] = []
    for mine in (is_main(), not is_main()):
        with shared_fate():
            if mine:
                made.append(make())
    return made[0]


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, which alone runs it."""
    found: list[Any] = [None]
    with shared_fate():
        if is_main():
            found[0] = make()
    return agreed(found[0])


def agreed(value: Any) -> Any:
    """The main process's value, in all processes."""
    if count() == 1:
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def share_of(stage: Stage) -> int:
    """The rows of a stage's batch that each process takes.

    Raises ConfigError when batches, or questions with candidates, cannot be divided.
    """
    from distill.recipe.terms import MarginTerm

    rows, left = divmod(stage.batch_size, count())
    if left or not rows:
        near = max(1, rows) * count()
        raise ConfigError(
            f"batch_size {stage.batch_size} of stage '{stage.name}' cannot be divided among "
            f"{count()} processes: use --batch-size {near}"
        )
    for term in stage.terms:
        if isinstance(term, MarginTerm) and rows % (term.candidates or 1):
            raise ConfigError(
                f"batch_size {stage.batch_size} of stage '{stage.name}' cuts questions of "
                f"{term.candidates} candidates when {count()} processes share it: use "
                f"--batch-size {(term.candidates or 1) * count()}"
            )
    return rows


def _exit_code(failure: Exception | SystemExit | None) -> int:
    """What a process ends with that fails so; 0 when it does not."""
    if isinstance(failure, EdgeError):
        return failure.exit_code
    return 0 if failure is None else 1


def _gather(value: int) -> list[int]:
    """Every process's value, in order."""
    import torch

    values: list[Any] = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values
