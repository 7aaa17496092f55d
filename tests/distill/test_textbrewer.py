"""The same losses in TextBrewer 0.2.1, where it is installed: equal, or different as documented.

docs/distributions.md says why they differ.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill.losses import distributions, relations

LENGTHS = torch.tensor([7, 3, 5, 6])
B, L, HEADS, WIDTH = 4, 7, 3, 15
MASK = (torch.arange(L) < LENGTHS[:, None]).long()
FULL = torch.ones(B, L, dtype=torch.long)


@pytest.fixture(scope="module")
def theirs() -> Any:
    found = pytest.importorskip("textbrewer", reason="TextBrewer is not installed")
    # Its own guess is a type of integer that torch no longer selects by.
    found.distributions.mask_dtype = torch.bool
    return found.losses


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


def entropy(scores: torch.Tensor) -> torch.Tensor:
    p = scores.softmax(-1)
    return -(p * p.log()).sum(-1).mean()


def test_equal_losses(theirs: Any) -> None:
    logits, states, more = pair(B, 6), pair(B, L, WIDTH), pair(B, L, WIDTH - 1)
    first = [x[:, 0] for x in states]
    found = [
        distributions.logits_mse(*logits).mean(),
        distributions.masked_mean(distributions.states_mse(*states), MASK),
        distributions.masked_mean(distributions.states_cosine(*states), MASK),
        distributions.states_normalized_mse(*first).mean(),
        relations.flow_mse(*zip(states, more, strict=True), MASK).mean(),
    ]
    expected = [
        theirs.kd_mse_loss(*logits),
        theirs.hid_mse_loss(*states, MASK),
        theirs.cos_loss(*states, MASK),
        theirs.pkd_loss(*states),
        theirs.fsp_loss(*zip(states, more, strict=True), MASK),
    ]
    torch.testing.assert_close(found, expected)


def test_soft_labels_lack_the_square_of_the_temperature(theirs: Any) -> None:
    student, teacher = pair(B, 6)
    found = distributions.softmax_kl(student, teacher, 4.0).mean()
    expected = 16 * (theirs.kd_ce_loss(student, teacher, 4.0) - entropy(teacher / 4))
    torch.testing.assert_close(found, expected)


def test_attention_scores_are_averaged_over_pairs_of_tokens(theirs: Any) -> None:
    student, teacher = pair(B, HEADS, L, L)
    for row in range(B):
        one = slice(row, row + 1)
        valid = relations.pair_mask(MASK[one])
        values = relations.attention_mse(student[one], teacher[one], valid)
        expected = theirs.att_mse_loss(student[one], teacher[one], MASK[one])
        torch.testing.assert_close(distributions.masked_mean(values, MASK[one]), expected)


def test_attention_probabilities_run_over_padding(theirs: Any) -> None:
    student, teacher = pair(B, HEADS, L, L)
    values = relations.attention_kl(student, teacher, relations.pair_mask(FULL))
    expected = theirs.att_ce_loss(student, teacher, FULL) - entropy(teacher)
    torch.testing.assert_close(distributions.masked_mean(values, FULL), expected)
    values = relations.attention_kl(student, teacher, relations.pair_mask(MASK))
    padded = theirs.att_ce_loss(student, teacher, MASK)
    assert padded > distributions.masked_mean(values, MASK) * 1.5


def test_selectivity_is_of_neurons_that_are_not_normalised(theirs: Any) -> None:
    states = pair(B, L, WIDTH)
    found = relations.selectivity_mmd(*states, FULL).mean()
    neurons = [torch.nn.functional.normalize(x, dim=1) for x in states]
    expected = theirs.mmd_loss(*([x, x] for x in neurons)) * L**2
    torch.testing.assert_close(found, expected)
