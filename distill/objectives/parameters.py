"""The term on weights: a student's are its teacher's, but for projections that all layers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.losses.layer_map import pair_layers
from distill.objectives.base import Batch, Objective, least_squares
from distill.recipe.terms import Name, ParametersTerm
from distill.signals.shapes import Setting
from edge.errors import ConfigError
from edge.models.layers import layer_prefix

# The sizes of an axis in student and teacher.
Sizes = tuple[int, int]


class _Pair(NamedTuple):
    """A weight of the student and one of the teacher, of as many axes."""

    ours: Tensor
    theirs: Tensor

    @property
    def sizes(self) -> list[Sizes]:
        return list(zip(self.ours.shape, self.theirs.shape, strict=True))


class Parameters(Objective):
    """The squared distance of weights, mean over their entries and over directions.

    Down it is |D theta_t D'^T - theta_s|^2, up |theta_t - U theta_s U'^T|^2. There is one D and one
    U for each two sizes of an axis that differ, in whatever layer; they start where least squares
    put them, are trained with the student and thrown away.
    Source: Zhao et al. 2019, "Extreme Language Model Compression with Optimal Subwords and Shared
    Projections" (the first version of arXiv 1909.11687), shared variable projections.
    """

    def __init__(self, term: ParametersTerm, setting: Setting) -> None:
        super().__init__()
        # No source: weights are there without asking the teacher anything.
        self.learner = term.learner
        ours, theirs = _model(term.learner, setting), _model(term.teacher, setting)
        # Not its own: neither saved nor trained twice.
        self._pairs = tuple(_pairs(term, ours, theirs, same_words=setting.same_words))
        if not self._pairs:
            raise ConfigError(
                f"match: parameters compares weights of one name and form, and {term.learner} "
                f"({ours.config.model_type}) and {term.teacher} ({theirs.config.model_type}) have "
                "none: use match: hidden_states"
            )
        directions = ("down", "up") if term.direction == "both" else (term.direction,)
        self.projections = nn.ModuleDict({name: _Projections(name) for name in directions})
        for name, projections in self.projections.items():
            assert isinstance(projections, _Projections)
            with torch.no_grad():
                projections.fit([_turned(pair, name) for pair in self._pairs])

    def forward(self, batch: Batch) -> Tensor:
        return torch.stack([self._distance(name) for name in self.projections]).mean()

    def _distance(self, direction: str) -> Tensor:
        project = self.projections[direction]
        total, count = [], 0
        for pair in self._pairs:
            device = pair.ours.device
            here = _Pair(pair.ours, pair.theirs.detach().to(device))
            wanted, given = _turned(here, direction)
            total.append((project(given, wanted.shape) - wanted).float().square().sum())
            count += wanted.numel()
        return torch.stack(total).sum() / count


class _Projections(nn.Module):
    """From each size of an axis to another: (to, from), by `TOxFROM`; nothing where they agree."""

    def __init__(self, direction: str) -> None:
        super().__init__()
        self.direction = direction
        self.matrices = nn.ParameterDict()

    def forward(self, given: Tensor, shape: Sequence[int]) -> Tensor:
        """`given` with every axis projected to that of `shape`."""
        for axis, (wide, old) in enumerate(zip(shape, given.shape, strict=True)):
            if wide != old:
                found = torch.tensordot(self.matrices[_key(wide, old)], given, ([1], [axis]))
                given = found.movedim(0, axis)
        return given

    def fit(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Make a matrix for every two sizes, of (wanted, given) weights.

        Each is the least-squares answer for the weights of which it is the only one missing.
        """
        missing = {
            _key(wide, old): (wide, old)
            for wanted, given in pairs
            for wide, old in zip(wanted.shape, given.shape, strict=True)
            if wide != old
        }
        while missing:
            known = {key: self._solved(pairs, key, set(missing)) for key in missing}
            key = max(missing, key=lambda one: len(known[one][0]))
            wide, old = missing.pop(key)
            y, x = known[key]
            if len(x):
                matrix = least_squares(x.T @ x, x.T @ y).float()
            else:
                matrix = torch.randn(wide, old) / old**0.5
            self.matrices[key] = nn.Parameter(matrix)

    def _solved(
        self, pairs: Sequence[tuple[Tensor, Tensor]], key: str, missing: set[str]
    ) -> tuple[Tensor, Tensor]:
        """Rows (wanted, given) of all weights where one axis waits for `key`, the others not."""
        wide, old = (int(size) for size in key.split("x"))
        rows_y, rows_x = [torch.empty(0, wide).double()], [torch.empty(0, old).double()]
        for wanted, given in pairs:
            waits = [
                axis
                for axis, sizes in enumerate(zip(wanted.shape, given.shape, strict=True))
                if sizes[0] != sizes[1] and _key(*sizes) in missing
            ]
            if len(waits) != 1 or (wanted.shape[waits[0]], given.shape[waits[0]]) != (wide, old):
                continue
            shape = list(wanted.shape)
            shape[waits[0]] = old
            done = self(given, shape)
            rows_y.append(wanted.movedim(waits[0], -1).reshape(-1, wide).double().cpu())
            rows_x.append(done.movedim(waits[0], -1).reshape(-1, old).double().cpu())
        return torch.cat(rows_y), torch.cat(rows_x)


def _key(wide: int, old: int) -> str:
    return f"{wide}x{old}"


def _turned(pair: _Pair, direction: str) -> tuple[Tensor, Tensor]:
    """(wanted, given): what is compared, and what is projected on it."""
    return (pair.ours, pair.theirs) if direction == "down" else (pair.theirs, pair.ours)


def _model(name: Name, setting: Setting) -> Any:
    """Raises ConfigError for one that is no model of its own, or whose weights are not here."""
    if name not in setting.models:
        raise ConfigError(
            f"match: parameters compares the weights of two models, and {name} has none here: "
            f"name {' or '.join(setting.models)}"
        )
    return setting.models[name]


def _pairs(term: ParametersTerm, ours: Any, theirs: Any, *, same_words: bool) -> Iterator[_Pair]:
    """The weights of mapped layers, and those outside layers that both have."""
    prefix, other = layer_prefix(ours), layer_prefix(theirs)
    if prefix is None or other is None:
        kind = (ours if prefix is None else theirs).config.model_type
        raise ConfigError(
            f"{kind} keeps no list of layers whose weights could be compared: use match: "
            "hidden_states"
        )
    depths = ours.config.num_hidden_layers, theirs.config.num_hidden_layers
    mapped = {
        f"{prefix}.{s - 1}.": f"{other}.{t - 1}." for s, t in pair_layers(term.layers, *depths)
    }
    known = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        layer = next((one for one in mapped if name.startswith(one)), None)
        if layer is None and name.startswith(f"{prefix}."):
            continue
        found = known.get(name if layer is None else name.replace(layer, mapped[layer], 1))
        if found is None or found.ndim != value.ndim:
            continue
        # Rows of other tokens have nothing to do with each other.
        if same_words or value.shape[:1] != (ours.config.vocab_size,):
            yield _Pair(value, found)
