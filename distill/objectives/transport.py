"""A layer map that follows from the distances of layers themselves, renewed while training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from distill.losses.layer_map import Pairs, pair_layers, transport


class Transport(nn.Module):
    """Weighs each pair of layers by the plan of the Earth Mover's Distance between all of them.

    Every `every` steps the distances of all pairs are summed over the batch of that step, and the
    plan of the next one follows from them; in between, only pairs that carry weight are compared.
    Until then the map is uniform. The plan and the distances are part of a training checkpoint,
    so a run that is continued goes on with them. Source: Li et al. 2020, "BERT-EMD", 3.2.
    """

    def __init__(self, student: int, teacher: int, *, every: int) -> None:
        super().__init__()
        self.pairs: Pairs = tuple(
            (s, t) for s in range(1, student + 1) for t in range(1, teacher + 1)
        )
        flow = torch.zeros(student, teacher)
        for s, t in pair_layers("uniform", student, teacher):
            flow[s - 1, t - 1] = 1 / student
        # Parameters and not buffers: those would be overwritten by the first process's.
        self.flow = nn.Parameter(flow, requires_grad=False)
        self.costs = nn.Parameter(torch.zeros_like(flow), requires_grad=False)
        self._every = every
        self._observes = False
        self._active: list[int] | None = None
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def advance(self, step: int) -> None:
        """Renew the plan with what the step before observed; observe in this one if it is time."""
        if step and (step - 1) % self._every == 0:
            self._renew()
        self._observes = step % self._every == 0
        if self._observes:
            self.costs.zero_()

    def forward(self, distance: Callable[[int], Tensor]) -> Tensor:
        """The weighted sum of distances; `distance` takes an index of `pairs`."""
        if self._active is None:
            self._active = self.flow.flatten().nonzero().flatten().tolist()
        indices = range(len(self.pairs)) if self._observes else self._active
        values = torch.stack([distance(index) for index in indices])
        if self._observes:
            self.costs.add_(values.detach().view_as(self.costs))
        return (values * self.flow.flatten()[list(indices)]).sum()

    def _renew(self) -> None:
        costs = self.costs.detach().clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(costs)
        # Distances that are not finite stop the run elsewhere, with the name of the term.
        if bool(torch.isfinite(costs).all()):
            flow = transport(costs.double().cpu().numpy())
            self.flow.copy_(torch.from_numpy(flow))
            self._active = None


def _forget(module: Transport, _: Any) -> None:
    module._active = None
