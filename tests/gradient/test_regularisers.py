"""Gradients of regularisers against autograd of what they are of, and what beta-decay must not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from nge_search.gradient.regularisers import anchor_gradient, beta_decay_gradient, entropy_gradient


def beta_decay(logits_EO: torch.Tensor) -> torch.Tensor:
    """By its definition."""
    return torch.logsumexp(logits_EO - logits_EO.mean(dim=1, keepdim=True), dim=1).mean()


def draw(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def test_beta_decay_is_the_mean_logsumexp_of_centred_logits():
    logits_EO = draw(5, 4)
    by_hand = 0.0
    for row in logits_EO.tolist():
        centre = sum(row) / len(row)
        by_hand += math.log(sum(math.exp(x - centre) for x in row)) / 5
    assert float(beta_decay(logits_EO)) == pytest.approx(by_hand, rel=1e-12)
    p_EO = torch.softmax(logits_EO, dim=1)
    from_uniform = (-(p_EO * 4).log() / 4).sum(dim=1).mean()  # KL(uniform || P)
    assert float(beta_decay(logits_EO)) == pytest.approx(float(from_uniform) + math.log(4), rel=1e-12)


def test_beta_decay_does_not_see_shifts_and_is_least_where_p_is_uniform():
    logits_EO = draw(6, 3)
    shifted_EO = logits_EO + draw(6, 1)
    assert float(beta_decay(shifted_EO)) == pytest.approx(float(beta_decay(logits_EO)), rel=1e-12)
    raw = [float(torch.logsumexp(x_EO, dim=1).mean()) for x_EO in (logits_EO, shifted_EO)]
    assert abs(raw[0] - raw[1]) > 0.1  # the original's
    torch.testing.assert_close(beta_decay_gradient(shifted_EO), beta_decay_gradient(logits_EO))
    assert float(beta_decay(logits_EO)) > math.log(3) == pytest.approx(float(beta_decay(0 * logits_EO)), rel=1e-12)


def test_gradients_are_autograd_s():
    logits_EO = draw(7, 5).requires_grad_()
    (expected_EO,) = torch.autograd.grad(beta_decay(logits_EO), logits_EO)
    torch.testing.assert_close(beta_decay_gradient(logits_EO.detach()), expected_EO, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(expected_EO.sum(dim=1), torch.zeros(7).double(), rtol=0, atol=1e-15)
    p_EO = torch.softmax(draw(7, 5), dim=1).requires_grad_()
    (expected_EO,) = torch.autograd.grad(-torch.special.entr(p_EO).sum(dim=1).mean(), p_EO)
    torch.testing.assert_close(entropy_gradient(p_EO.detach()), expected_EO, rtol=1e-12, atol=1e-15)
    c_EO = draw(7, 5).exp().requires_grad_()
    divergence = kl_divergence(Dirichlet(c_EO), Dirichlet(torch.ones_like(c_EO))).sum()
    (expected_EO,) = torch.autograd.grad(divergence, c_EO)
    torch.testing.assert_close(anchor_gradient(c_EO.detach()), expected_EO, rtol=1e-9, atol=1e-12)


def test_an_even_distribution_is_not_pulled():
    assert anchor_gradient(torch.ones(4, 3, dtype=torch.float64)).abs().max() < 1e-12
