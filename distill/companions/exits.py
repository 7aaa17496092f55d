"""Exits: answers that the student gives before its last layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from distill.companions.base import Cast, Companion, Scene
from distill.recipe.companions import Exits
from distill.recipe.terms import STUDENT, Name
from distill.signals.capture import FEATURES, HIDDEN_STATES, Need, Needs, Signals, capture
from distill.signals.shapes import Shape
from edge.console import say
from edge.errors import ConfigError
from edge.models.exits import ExitsConfig, check_exits, new_head, write_exits

# What a head itself has to give, where a term asks for it.
_READ = Need(FEATURES, 0)


class ExitHeads(Companion):
    """Heads of the student's own kind after some of its layers, written with its checkpoint.

    An exit is the student up to its layer: it has its layers' states and attention.
    """

    def __init__(self, config: Exits, cast: Cast) -> None:
        super().__init__()
        shape = cast.setting.student
        check_exits(cast.student, cast.setting.task)
        self.layers = exit_layers(config.layers, shape.layers)
        self.heads = nn.ModuleList(new_head(cast.student) for _ in self.layers)
        self._members = config.members
        self.shapes: Mapping[Name, Shape | None] = {
            name: replace(shape, layers=layer)
            for name, layer in zip(config.members, self.layers, strict=True)
        }
        self._threshold, self._detach = config.threshold, config.detach

    def answer_for(self, needs: Mapping[Name, Needs]) -> None:
        super().answer_for(needs)
        inside = frozenset().union(*needs.values()) - {_READ}
        self.asks = {STUDENT: inside | {Need(HIDDEN_STATES, layer) for layer in self.layers}}

    def forward(self, scene: Scene) -> dict[Name, Signals]:
        said = scene.said[STUDENT]
        trunk = said.detach() if self._detach else said
        found = {}
        for name, layer, head in zip(self._members, self.layers, self.heads, strict=True):
            inputs = {
                "inputs_embeds": trunk.hidden_states[layer],
                "attention_mask": scene.inputs["attention_mask"],
            }
            own = capture(head, inputs, self.needs_of(name) & {_READ})
            found[name] = trunk._replace(outputs=own.outputs, features=own.features)
        return found

    def write(self, folder: Path) -> None:
        config = ExitsConfig(exit_layers=self.layers, threshold=self._threshold)
        write_exits(folder, list(self.heads), config)
        layers = ", ".join(map(str, self.layers))
        say(f"exits after layers {layers}: edge exits measures them, and cuts a model at one")


def exit_layers(layers: int | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """After which layers of `depth`, from 1, there are exits; a number of them lies evenly.

    Raises ConfigError for a layer that is not before the last one.
    """
    if isinstance(layers, int):
        if layers >= depth:
            raise ConfigError(
                f"{layers} exits before the last layer need a student of {layers + 1} layers or "
                f"more, it has {depth}: give it more with --student, or fewer exits with layers:"
            )
        return tuple(round((i + 1) * depth / (layers + 1)) for i in range(layers))
    for layer in layers:
        if layer >= depth:
            raise ConfigError(
                f"an exit after layer {layer} is not before the last of the student's {depth}"
            )
    return layers
