"""The teacher with some of its blocks of layers replaced by the student's layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from distill.companions.base import Cast, Companion, Scene
from distill.recipe.companions import Hybrid
from distill.recipe.parts import turns
from distill.recipe.terms import Name, at
from distill.signals.capture import HIDDEN_STATES, Needs, Signals, capture
from distill.signals.shapes import Shape
from edge.errors import ConfigError
from edge.models.layers import layer_prefix, states_of


class HybridModel(Companion):
    """A block is the teacher's layers that one student layer stands for, as in `layers: uniform`.

    All else is the teacher's and stands still. The hybrid's layers are its blocks.
    """

    def __init__(self, config: Hybrid, cast: Cast) -> None:
        super().__init__()
        teacher, student = cast.teacher, cast.student
        if not cast.setting.same_words:
            raise ConfigError(
                f"companion {config.name} runs student and teacher on the same tokens: leave "
                "vocabulary out of --student"
            )
        prefix = _check(config, teacher, student)
        # Not the hybrid's own: neither saved nor trained with it.
        self._teacher = (teacher.requires_grad_(False),)
        self._parent, _, self._list = prefix.rpartition(".")
        self._ours = tuple(student.get_submodule(prefix))
        theirs = tuple(teacher.get_submodule(prefix))
        count = len(self._ours)
        ends = [round(i * len(theirs) / count) for i in range(count + 1)]
        self._theirs = [theirs[start:end] for start, end in pairwise(ends)]
        self._config = config
        self._share = at(config.share, 0.0)
        shape = cast.setting.student
        own = replace(shape, attention=None, architecture=f"{shape.architecture} as a hybrid")
        self.shapes: Mapping[Name, Shape | None] = {config.name: own}
        self._states: tuple[int, ...] = ()

    def answer_for(self, needs: Mapping[Name, Needs]) -> None:
        wanted = needs.get(self._config.name, frozenset())
        other = sorted({need.field for need in wanted} - {HIDDEN_STATES})
        if other:
            raise ConfigError(
                f"companion {self._config.name} has answers and hidden states, no {other[0]}: "
                "use match: logits, labels or hidden_states"
            )
        self._states = tuple(sorted(need.layer for need in wanted))

    def advance(self, step: int, progress: float) -> None:
        self._share = at(self._config.share, progress)

    def forward(self, scene: Scene) -> dict[str, Signals]:
        (teacher,) = self._teacher
        if teacher.device != scene.inputs["input_ids"].device:
            teacher.to(scene.inputs["input_ids"].device)
        teacher.eval()
        with self._grafted() as states:
            said = capture(teacher, scene.inputs, frozenset())
        kept = {layer: states[layer] for layer in self._states}
        return {self._config.name: said._replace(hidden_states=kept)}

    def replaced(self) -> list[bool]:
        """Whether each block is the student's in this forward pass; at least one is."""
        count = len(self._ours)
        if self._config.order == "up":
            ours = turns(self._share, count)
            return [block < ours for block in range(count)]
        # The state of this generator is part of a training checkpoint.
        drawn: list[bool] = (torch.rand(count) < self._share).tolist()
        one = int(torch.randint(count, ()))
        return drawn if any(drawn) else [block == one for block in range(count)]

    @contextlib.contextmanager
    def _grafted(self) -> Iterator[dict[int, Tensor]]:
        """The teacher runs through the blocks meanwhile; gives each block's states, from 0."""
        (teacher,) = self._teacher
        parent = teacher.get_submodule(self._parent)
        before = getattr(parent, self._list)
        blocks: list[tuple[nn.Module, ...]] = [
            (ours,) if mine else theirs
            for ours, theirs, mine in zip(self._ours, self._theirs, self.replaced(), strict=True)
        ]
        states: dict[int, Tensor] = {}
        hooks = [blocks[0][0].register_forward_pre_hook(_keep_input(states), with_kwargs=True)]
        for layer, block in enumerate(blocks, start=1):
            hooks.append(block[-1].register_forward_hook(_keep_output(states, layer)))
        setattr(parent, self._list, nn.ModuleList(one for block in blocks for one in block))
        try:
            yield states
        finally:
            setattr(parent, self._list, before)
            for hook in hooks:
                hook.remove()


def _check(config: Hybrid, teacher: Any, student: Any) -> str:
    """The name of the list of layers; raises ConfigError where layers cannot take their place."""
    name = config.name
    if teacher is None:
        raise ConfigError(f"companion {name} is made of a teacher: name it with --teacher")
    kinds = teacher.config.model_type, student.config.model_type
    if kinds[0] != kinds[1] or teacher.config.hidden_size != student.config.hidden_size:
        raise ConfigError(
            f"companion {name} puts the student's layers into its teacher: both must be of one "
            "architecture and width, so give --student layers=N alone"
        )
    prefix = layer_prefix(student)
    if prefix is None:
        raise ConfigError(f"{kinds[0]} keeps no list of its layers, so none can be replaced")
    if student.config.num_hidden_layers > teacher.config.num_hidden_layers:
        raise ConfigError(
            f"companion {name} replaces the teacher's {teacher.config.num_hidden_layers} layers by "
            f"fewer: the student has {student.config.num_hidden_layers}"
        )
    return prefix


def _keep_input(states: dict[int, Tensor]) -> Any:
    def keep(_: nn.Module, args: Any, options: dict[str, Any]) -> None:
        states[0] = args[0] if args else options["hidden_states"]

    return keep


def _keep_output(states: dict[int, Tensor], layer: int) -> Any:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        states[layer] = states_of(output)

    return keep
