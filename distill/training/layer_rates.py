"""At what share of a stage's learning rate each part of a student learns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from distill.recipe.config import Stage
from distill.recipe.parts import EVERYTHING, Part
from edge.errors import ConfigError
from edge.models.layers import layer_prefix

_EMBEDDINGS, _LAYERS, _HEAD = "embeddings", "layers", "head"
_STILL = "_still_for_a_stage"
Group = dict[str, Any]
# An optimiser step to a share of the learning rate.
Lambda = Callable[[int], float]


class Pace:
    """Decides which weights move at a step; what never moves in a stage does not drop out either.

    Everything follows from the step, so that a run that is continued goes on alike. Weights that
    do not move have no gradient: they are not clipped, not decayed, and have no momentum.
    even: whether all weights learn at the stage's own rate.
    """

    def __init__(self, student: Any, stage: Stage) -> None:
        self._student = student
        self._unfreeze, self._decay = stage.unfreeze, stage.layer_decay
        self.even = stage.train == EVERYTHING and stage.unfreeze is None and stage.layer_decay == 1
        for parameter in student.parameters():
            # Of an earlier stage of the same student.
            if getattr(parameter, _STILL, False):
                parameter.requires_grad_(True)
                delattr(parameter, _STILL)
        self._parts: list[list[nn.Parameter]] = []
        self._depths: list[int] = []
        if not self.even:
            self._take(_parts_of(student) if _speaks_of_parts(stage) else {}, stage)
        self._resting = list(_resting(student)) if not self.even else []

    def _take(self, parts: Mapping[Part, list[nn.Parameter]], stage: Stage) -> None:
        chosen = _chosen(self._student, parts, stage)
        order = list(parts)
        self._parts = list(chosen.values())
        top = len(order) - 1
        self._depths = [top - order.index(part) if part in order else 0 for part in chosen]
        moving = {id(parameter) for group in self._parts for parameter in group}
        for parameter in self._student.parameters():
            if id(parameter) not in moving and parameter.requires_grad:
                _hold(parameter)

    def share(self, part: int | None, progress: float) -> float:
        """Of the learning rate, for a part as `split` numbers them; all of it for the rest."""
        if part is None:
            return 1.0
        share = self._decay ** self._depths[part]
        if self._unfreeze is not None:
            count = len(self._parts)
            place = part if self._unfreeze.order == "up" else count - 1 - part
            share *= self._unfreeze.share(place, count, progress)
        return share

    def advance(self, progress: float) -> None:
        """Called before each optimiser step."""
        if self._unfreeze is None:
            return
        for index, parameters in enumerate(self._parts):
            moves = self.share(index, progress) > 0
            for parameter in parameters:
                if moves and getattr(parameter, _STILL, False):
                    parameter.requires_grad_(True)
                    delattr(parameter, _STILL)
                elif not moves and parameter.requires_grad:
                    _hold(parameter)

    def rest(self) -> None:
        """Put what never moves in this stage into eval mode."""
        for module in self._resting:
            module.eval()

    def split(self, groups: Sequence[Group]) -> list[Group]:
        """An optimiser's groups, taken apart so that each is of one `part`, topmost part first."""
        part_of = {id(p): index for index, part in enumerate(self._parts) for p in part}
        found = []
        for group in groups:
            for part in (None, *reversed(range(len(self._parts)))):
                own = [p for p in group["params"] if part_of.get(id(p)) == part]
                if own:
                    found.append({**group, "params": own, "part": part})
        return found

    def set_rates(self, scheduler: Any, steps: int) -> None:
        """Let a LambdaLR over groups of `split` give each its part's share of the rate."""
        groups, rates = scheduler.optimizer.param_groups, scheduler.base_lrs
        scheduler.lr_lambdas = [
            self._paced(schedule, group["part"], steps)
            for schedule, group in zip(scheduler.lr_lambdas, groups, strict=True)
        ]
        for group, rate, schedule in zip(groups, rates, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate * schedule(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in groups]

    def _paced(self, schedule: Lambda, part: int | None, steps: int) -> Lambda:
        def at(step: int) -> float:
            return schedule(step) * self.share(part, step / max(steps, 1))

        return at


def _speaks_of_parts(stage: Stage) -> bool:
    """Whether anything but modules is named, which needs to know where the layers are."""
    named = stage.train if isinstance(stage.train, tuple) else (stage.train,)
    known = {EVERYTHING, _EMBEDDINGS, _LAYERS, _HEAD}
    return any(isinstance(part, int) or part in known for part in named)


def _hold(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(False)
    setattr(parameter, _STILL, True)


def _parts_of(student: Any) -> dict[Part, list[nn.Parameter]]:
    """From the bottom up: embeddings, layers from 1, and what comes after them."""
    prefix = layer_prefix(student)
    if prefix is None:
        raise ConfigError(
            f"{student.config.model_type} keeps no list of its layers, so it can only train as a "
            "whole: leave train, unfreeze and layer_decay out of the recipe"
        )
    depth = student.config.num_hidden_layers
    parts: dict[Part, list[nn.Parameter]] = {_EMBEDDINGS: []}
    parts |= {layer: [] for layer in range(1, depth + 1)} | {_HEAD: []}
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    for name, parameter in student.named_parameters():
        layer = pattern.match(name)
        if layer:
            parts[int(layer[1]) + 1].append(parameter)
        else:
            parts[_EMBEDDINGS if "embedding" in name else _HEAD].append(parameter)
    return parts


def _chosen(
    student: Any, parts: Mapping[Part, list[nn.Parameter]], stage: Stage
) -> dict[Part, list[nn.Parameter]]:
    """What `train` names, from the bottom up; modules by name come last.

    Raises ConfigError for a part that the student does not have.
    """
    named = stage.train if isinstance(stage.train, tuple) else (stage.train,)
    depth = student.config.num_hidden_layers
    wanted: set[Part] = set()
    modules: dict[Part, list[nn.Parameter]] = {}
    for part in named:
        if part == EVERYTHING:
            wanted |= set(parts)
        elif part == _LAYERS:
            wanted |= set(range(1, depth + 1))
        elif isinstance(part, int):
            wanted.add(_layer(part, depth, stage))
        elif part in parts:
            wanted.add(part)
        else:
            modules[part] = _module(student, part, stage)
    return {part: own for part, own in parts.items() if part in wanted} | modules


def _layer(part: int, depth: int, stage: Stage) -> int:
    found = part + depth + 1 if part < 0 else part
    if not 1 <= found <= depth:
        raise ConfigError(
            f"stage '{stage.name}' trains layer {part}, and the student has layers 1 to {depth}"
        )
    return found


def _module(student: Any, name: str, stage: Stage) -> list[nn.Parameter]:
    try:
        return list(student.get_submodule(name).parameters())
    except AttributeError:
        children = ", ".join(dict(student.named_children()))
        raise ConfigError(
            f"stage '{stage.name}' trains '{name}', and the student has no such part: use all, "
            f"embeddings, layers, head, a layer's number, or a module ({children})"
        ) from None


def _resting(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that have weights, none of which ever moves."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
    else:
        for child in module.children():
            yield from _resting(child)
