"""Models that share the student's lower layers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from distill.companions.base import Cast, Companion, Scene
from distill.losses.layer_map import part_of
from distill.recipe.companions import Branches
from distill.recipe.terms import STUDENT, Name
from distill.signals.capture import HIDDEN_STATES, Need, Needs, Signals, capture
from distill.signals.shapes import Shape
from edge.errors import ConfigError
from edge.models.layers import layer_prefix


class BranchModels(Companion):
    """Each member reads the student's states of the last shared layer, and has the rest its own.

    A shared layer runs once for all, with one dropout, and its gradients are the sum of theirs.
    """

    def __init__(self, config: Branches, cast: Cast) -> None:
        super().__init__()
        assert cast.make_student is not None
        shape = cast.setting.student
        self._shared = part_of(shape.layers, config.shared_layers)
        if self._shared == shape.layers:
            raise ConfigError(
                f"shared_layers: {config.shared_layers} leaves {config.name} no layer of its own: "
                f"the student has {shape.layers}"
            )
        models = [cast.make_student(config.student, i + 1) for i in range(config.count)]
        for model in models:
            _check_fit(Shape.of(model.config), shape, config)
        self._trunks = [_grafted(model, cast.student, self._shared) for model in models]
        self.models = nn.ModuleList(models)
        self._members = config.members
        # Attention of the shared layers is not computed again, and captured all or none.
        own = replace(shape, attention=None, architecture=f"{shape.architecture} as a branch")
        self.shapes: Mapping[Name, Shape | None] = dict.fromkeys(self._members, own)

    def answer_for(self, needs: Mapping[Name, Needs]) -> None:
        super().answer_for(needs)
        below = {need for wanted in needs.values() for need in wanted if self._is_shared(need)}
        self.asks = {STUDENT: frozenset({*below, Need(HIDDEN_STATES, self._shared)})}

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        trunk = scene.said[STUDENT].hidden_states
        said = {}
        for name, model, graft in zip(self._members, self.models, self._trunks, strict=True):
            needs = self.needs_of(name)
            graft.states = trunk[self._shared]
            signals = capture(model, scene.inputs, needs)
            graft.states = None
            below = {need.layer: trunk[need.layer] for need in needs if self._is_shared(need)}
            said[name] = signals._replace(hidden_states={**signals.hidden_states, **below})
        return said

    def _is_shared(self, need: Need) -> bool:
        return need.field == HIDDEN_STATES and need.layer <= self._shared


class _Graft:
    """Gives a branch's first own layer the states of the student, whatever came before it."""

    states: Tensor | None = None

    def __call__(self, _: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        assert self.states is not None
        if args:
            return (self.states, *args[1:]), options
        return args, {**options, "hidden_states": self.states}


def _check_fit(own: Shape, student: Shape, config: Branches) -> None:
    if (own.architecture, own.layers, own.width) != (
        student.architecture,
        student.layers,
        student.width,
    ):
        raise ConfigError(
            f"{config.name} of {config.student} is {own.architecture} of {own.layers} layers and "
            f"{own.width} units, which cannot go on from the student's ({student.architecture}, "
            f"{student.layers}, {student.width}): use kind: peers"
        )


def _grafted(model: Any, student: Any, shared: int) -> _Graft:
    """Take the lower layers from a model, and lend it the student's embeddings.

    Raises ConfigError for an architecture that has no list of layers from states to states.
    """
    layers = _layers(model)
    for layer in layers[:shared]:
        # Kept as objects of their class: Transformers counts them for hidden states.
        layer._modules.clear()
        layer._parameters.clear()
        layer.forward = _pass_on
    for name, _ in list(model.base_model.named_children()):
        if name.startswith("embeddings"):
            setattr(model.base_model, name, getattr(student.base_model, name))
    graft = _Graft()
    layers[shared].register_forward_pre_hook(graft, with_kwargs=True)
    return graft


def _layers(model: Any) -> list[nn.Module]:
    prefix = layer_prefix(model)
    layers = list(model.get_submodule(prefix)) if prefix is not None else []
    returned = [inspect.signature(type(one).forward).return_annotation for one in layers[:1]]
    if not returned or returned[0] not in {Tensor, "torch.Tensor"}:
        raise ConfigError(
            f"{model.config.model_type} has no list of layers that give states alone, so that "
            "branches cannot share some: use kind: peers"
        )
    return layers


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
