"""A layer map that is renewed while training."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from distill.losses.layer_map import transport as plan_of
from distill.objectives.transport import Transport

GENERATOR = torch.Generator().manual_seed(1)


class Distances:
    """Distances between layers that change with the step."""

    def __init__(self, student: int, teacher: int) -> None:
        self.values = torch.rand(student * teacher, generator=GENERATOR)
        self.asked: list[int] = []

    def __call__(self, index: int) -> Tensor:
        self.asked.append(index)
        return self.values[index]


def test_a_dynamic_map_starts_uniform_and_follows_the_distances() -> None:
    transport, distances = Transport(2, 4, every=3), Distances(2, 4)
    uniform = (distances.values[1] + distances.values[7]) / 2  # layers 1 and 2, 2 and 4
    transport.advance(0)
    assert transport(distances).item() == pytest.approx(uniform.item())
    assert len(distances.asked) == 8
    transport.advance(1)
    best = transport(distances).item()
    plan = torch.from_numpy(plan_of(distances.values.view(2, 4).double().numpy()))
    torch.testing.assert_close(transport.flow.detach().double(), plan, rtol=0, atol=1e-7)
    assert best == pytest.approx(float((plan.flatten() * distances.values).sum()))
    for flow, side in ((transport.flow.sum(1), 2), (transport.flow.sum(0), 4)):
        torch.testing.assert_close(flow, torch.full((side,), 1 / side))
    distances.asked.clear()
    transport.advance(2)
    assert transport(distances).item() == best
    assert len(distances.asked) < 8
    distances.values = 1 - distances.values
    transport.advance(3)
    transport(distances)
    before = transport.flow.clone()
    transport.advance(4)
    assert not torch.equal(transport.flow, before)


def test_a_dynamic_map_is_the_same_after_a_restart() -> None:
    """Stopped anywhere, also between observing and renewing."""
    for stop in range(1, 8):
        distances = Distances(2, 3)
        through, stopped = Transport(2, 3, every=3), Transport(2, 3, every=3)
        for step in range(8):
            if step == stop:
                saved = copy.deepcopy(stopped.state_dict())
                stopped = Transport(2, 3, every=3)
                stopped(distances)
                stopped.load_state_dict(saved)
            distances.values = distances.values.roll(1)
            for transport in (through, stopped):
                transport.advance(step)
            assert torch.equal(through(distances), stopped(distances)), (stop, step)
        assert torch.equal(through.flow, stopped.flow)


def test_a_distance_that_is_not_finite_leaves_the_map() -> None:
    transport, distances = Transport(2, 2, every=1), Distances(2, 2)
    before = transport.flow.clone()
    distances.values[0] = math.nan
    transport.advance(0)
    transport(distances)
    transport.advance(1)
    assert torch.equal(transport.flow, before)
