"""Weights are traced to their module by value."""

from __future__ import annotations

import torch
from torch import nn

from converters.weights import Owners


def test_a_weight_is_found_as_it_is_and_transposed() -> None:
    model = nn.ModuleDict({"a": nn.Linear(32, 64), "b": nn.Linear(32, 64), "n": nn.LayerNorm(64)})
    owners = Owners(model)
    second = model["b"].weight.detach().numpy()
    assert owners.of(second) == "b"
    assert owners.of(second.T) == "b"
    assert owners.of(second + 1) is None
    assert owners.sizes == {"a": 2048, "b": 2048}


def test_tied_weights_belong_to_the_first_module() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(64, 32), "head": nn.Linear(32, 64, bias=False)})
    model["head"].weight = model["words"].weight
    owners = Owners(model)
    assert owners.of(model["head"].weight.detach().numpy()) == "words"
    assert owners.sizes == {"words": 2048}


def test_a_kernel_of_width_one_is_a_matrix() -> None:
    kernel = nn.Conv1d(32, 64, 1)
    owners = Owners(nn.ModuleDict({"conv": kernel}))
    assert owners.of(kernel.weight.detach().squeeze(-1).T.contiguous().numpy()) == "conv"
    assert owners.of(torch.zeros(64, 32).numpy()) is None
