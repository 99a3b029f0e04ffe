"""Losses against loops in float64, by hand where they have a floor, and what counts as a false negative."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nge_search.retrieve.contrast import context_loss, family_loss, pair_loss


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def slow_contexts(motif_MF: Tensor, context_MF: Tensor, content: list[int], temperature: float) -> float:
    losses = []
    for i in range(len(content)):
        own = math.exp(cosine(motif_MF[i], context_MF[i]) / temperature)
        others = sum(
            math.exp(cosine(motif_MF[i], context_MF[j]) / temperature)
            for j in range(len(content))
            if content[j] != content[i]
        )
        losses.append(-math.log(own / (own + others)))
    return sum(losses) / len(losses)


def slow_families(h_BF: Tensor, family: list[int], temperature: float) -> float:
    losses = []
    for i in range(len(family)):
        power = [math.exp(cosine(h_BF[i], h_BF[j]) / temperature) for j in range(len(family))]
        members = [power[j] for j in range(len(family)) if j != i and family[j] == family[i]]
        strangers = [power[j] for j in range(len(family)) if family[j] != family[i]]
        if members and strangers:
            losses.append(-math.log(sum(members) / (sum(members) + sum(strangers))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_against_loops(temperature: float) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 9, 4, dtype=torch.float64)
    content = [0, 1, 2, 1, 3, 4, 5, 1, 6]
    found = context_loss(first, second, torch.tensor(content), temperature)
    assert float(found) == pytest.approx(slow_contexts(first, second, content, temperature))
    family = [0, 0, 1, 1, 1, 2, 0, 3, 3]
    found = family_loss(first, torch.tensor(family), temperature)
    assert float(found) == pytest.approx(slow_families(first, family, temperature))
    pairs = torch.cat([first, second]), [*range(9), *range(9)]
    assert float(pair_loss(first, second, temperature)) == pytest.approx(slow_families(*pairs, temperature))


def test_contexts_of_the_same_motif_are_no_negatives() -> None:
    """Two motifs that are the same, whose contexts are alike, lose nothing to each other."""
    h_MF = torch.eye(3, dtype=torch.float64)[[0, 0, 1]]
    apart = context_loss(h_MF, h_MF, torch.tensor([7, 7, 8]))
    floor = math.log(1 + math.exp(-1))
    assert float(apart) == pytest.approx((2 * floor + math.log(1 + 2 * math.exp(-1))) / 3)
    assert float(context_loss(h_MF, h_MF, torch.tensor([6, 7, 8]))) > float(apart)


def test_the_floor_of_ten_families() -> None:
    """At temperature 1 families that lie along ten axes still lose log(1 + 9 n / ((n - 1) e))."""
    family = torch.arange(10).repeat(6)
    h_BF = torch.eye(10, dtype=torch.float64)[family]
    expected = math.log(1 + 9 * 6 / (5 * math.e))
    assert float(family_loss(h_BF, family)) == pytest.approx(expected)


def test_nothing_to_contrast() -> None:
    """One family, or members alone: a loss of 0, with gradients of 0."""
    h_BF = torch.randn(3, 2, requires_grad=True)
    for family in ([0, 0, 0], [0, 1, 2]):
        loss = family_loss(h_BF, torch.tensor(family))
        (gradient,) = torch.autograd.grad(loss, h_BF)
        assert (loss.item(), gradient.abs().sum().item()) == (0, 0)
