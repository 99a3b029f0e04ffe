"""Dirichlet and tempered mixtures: distributions, exact expectations and their gradients, recorded noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.gradient import dirichlet
from nge_search.gradient.dirichlet import DirichletMixture, concentrations, mean, mean_backward
from nge_search.gradient.mixture import Tempered
from nge_search.gradient.regularisers import anchor_gradient

SPACE = CellSpace(nodes=2, operations=("skip_connect", "max_pool_3x3", "sep_conv_3x3"))
CPU = torch.device("cpu")


def test_concentrations_are_an_elu_and_one_and_never_zero():
    logits_EO = torch.tensor([[-30.0, -11.0, -1.0], [0.0, 0.5, 7.0]], dtype=torch.float64, requires_grad=True)
    found_EO = concentrations(logits_EO)
    exact_EO = functional.elu(logits_EO) + 1
    torch.testing.assert_close(found_EO.flatten()[1:], exact_EO.flatten()[1:], rtol=1e-9, atol=1e-12)
    assert found_EO[0, 0] > 1e-6
    (slope_EO,) = torch.autograd.grad(found_EO.sum(), logits_EO)
    (exact_slope_EO,) = torch.autograd.grad(exact_EO.sum(), logits_EO)
    torch.testing.assert_close(slope_EO.flatten()[1:], exact_slope_EO.flatten()[1:], rtol=1e-9, atol=1e-12)


def test_draws_are_of_the_distribution():
    """Each weight is Beta(c, total - c): against its distribution function, by Kolmogorov and Smirnov's test."""
    count = 4000
    c_1O = torch.tensor([[0.3, 1.0, 4.5]], dtype=torch.float64)
    wide = CellSpace(nodes=2, operations=SPACE.operations)
    mixture = DirichletMixture(wide, 5, CPU, torch.float64)
    rows = []
    while len(rows) * len(wide.edges) * 2 < count:
        mixture.draw(0, 0, len(rows))
        rows.append(torch.cat(mixture([c_1O.expand(len(wide.edges), -1)] * 2)))
    theta_NO = torch.cat(rows).numpy()
    np.testing.assert_allclose(theta_NO.sum(axis=1), 1, rtol=1e-12)
    for column, c in enumerate(c_1O[0].tolist()):
        assert stats.kstest(theta_NO[:, column], stats.beta(c, 5.8 - c).cdf).pvalue > 1e-3
    correlation = np.corrcoef(theta_NO.T)[0, 2]  # of a Dirichlet distribution: -sqrt(a b / ((A - a) (A - b)))
    assert correlation == pytest.approx(-math.sqrt(0.3 * 4.5 / (5.5 * 1.3)), abs=4 / math.sqrt(count))


def test_the_gradient_along_the_path_is_that_of_the_quantile():
    """With two operations a draw is the quantile of a Beta distribution at a fixed level: finite differences."""
    step = 1e-4
    for a, b, u in ((0.4, 0.9, 0.3), (1.0, 1.0, 0.7), (2.5, 0.7, 0.5), (6.0, 3.0, 0.1)):
        theta = float(stats.beta.ppf(u, a, b))
        c_1O = torch.tensor([[a, b]], dtype=torch.float64, requires_grad=True)
        draw_1O = dirichlet._Path.apply(c_1O, torch.tensor([[theta, 1 - theta]], dtype=torch.float64))
        (found_1O,) = torch.autograd.grad(draw_1O[0, 0], c_1O)
        ups = [stats.beta.ppf(u, a + step, b), stats.beta.ppf(u, a, b + step)]
        downs = [stats.beta.ppf(u, a - step, b), stats.beta.ppf(u, a, b - step)]
        exact = (np.array(ups) - np.array(downs)) / (2 * step)
        np.testing.assert_allclose(found_1O[0].numpy(), exact, rtol=2e-3)  # PyTorch's approximation


def test_the_mean_gradient_is_that_of_the_expected_loss():
    """Of a quadratic loss, whose expectation under Dir(c) is known in closed form; within 4.5 standard errors."""
    generator = torch.Generator().manual_seed(0)
    g_O, h_OO = (torch.randn(*shape, generator=generator).double() for shape in ((3,), (3, 3)))
    c_O = torch.tensor([0.5, 1.3, 2.0], dtype=torch.float64, requires_grad=True)

    total = c_O.sum()
    m_O = c_O / total
    second_OO = m_O[:, None] * m_O + (torch.diag(m_O) - m_O[:, None] * m_O) / (total + 1)
    (exact_O,) = torch.autograd.grad((g_O * m_O).sum() + (h_OO * second_OO).sum(), c_O)
    mixture, gradients = DirichletMixture(SPACE, 1, CPU, torch.float64), []
    for step in range(400):
        mixture.draw(1, 2, step)
        c_EO = c_O.detach().expand(5, 3).clone().requires_grad_()
        for theta_EO in mixture([c_EO, c_EO]):
            loss = (theta_EO @ g_O + ((theta_EO @ h_OO) * theta_EO).sum(dim=1)).sum()
            gradients.append(torch.autograd.grad(loss, c_EO)[0])
    found_NO = torch.cat(gradients)
    error_O = found_NO.std(dim=0) / math.sqrt(len(found_NO))
    assert ((found_NO.mean(dim=0) - exact_O).abs() < 4.5 * error_O).all()
    assert (error_O < 0.2 * exact_O.abs().max()).all()


def test_the_position_decides_and_settled_it_is_the_mean():
    mixture = DirichletMixture(SPACE, 3, CPU, torch.float32)
    matrices = [torch.rand(SPACE.shape) + 0.1 for _ in range(2)]
    mixture.draw(0, 1, 2)
    first = mixture(matrices)
    mixture.draw(0, 1, 3)
    assert not torch.equal(mixture(matrices)[0], first[0])
    mixture.settle()
    for own_EO, c_EO in zip(mixture(matrices), matrices):
        torch.testing.assert_close(own_EO, c_EO / c_EO.sum(dim=1, keepdim=True))
    again = DirichletMixture(SPACE, 3, CPU, torch.float32)
    again.draw(0, 1, 2)
    assert all(torch.equal(one, other) for one, other in zip(first, again(matrices)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_draws_and_gradients(dtype):
    mixture = DirichletMixture(SPACE, 0, CPU, dtype)
    logits_EO = torch.tensor([[-50, 0, 50], [-50, -50, -50], [90, 90, 90], [-12, 3, -12], [0, 0, 0]], dtype=dtype)
    logits_EO.requires_grad_()
    for step in range(50):
        mixture.draw(0, 0, step)
        c_EO = concentrations(logits_EO)
        draws = mixture([c_EO, c_EO])
        loss = sum((theta_EO * torch.arange(3.0).to(dtype)).sum() for theta_EO in draws)
        (d_EO,) = torch.autograd.grad(loss, c_EO, retain_graph=True)
        (gradient_EO,) = torch.autograd.grad(c_EO, logits_EO, d_EO + 1e-3 * anchor_gradient(c_EO.detach()))
        assert gradient_EO.isfinite().all()
        assert all(theta_EO.isfinite().all() for theta_EO in draws)


def test_the_gradient_of_the_mean_is_autograd_s():
    generator = torch.Generator().manual_seed(0)
    c_EO, owed_EO = (torch.rand(4, 3, generator=generator).double() + 0.1 for _ in range(2))
    leaf_EO = c_EO.clone().requires_grad_()
    (expected_EO,) = torch.autograd.grad(mean(leaf_EO), leaf_EO, owed_EO)
    torch.testing.assert_close(mean_backward(c_EO, owed_EO), expected_EO, rtol=1e-12, atol=1e-15)


def test_a_tempered_mixture_is_the_softmax_of_divided_logits():
    logits_EO = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    mixture = Tempered(0.25)
    (found_EO,) = mixture([torch.softmax(logits_EO, dim=1)])
    torch.testing.assert_close(found_EO, torch.softmax(4 * logits_EO, dim=1), rtol=1e-12, atol=1e-14)
    certain_EO = torch.eye(3)[:1].requires_grad_()
    (settled_EO,) = mixture([certain_EO])
    assert torch.autograd.grad(settled_EO[0, 0], certain_EO)[0].isfinite().all()
    torch.testing.assert_close(mean(2 * certain_EO.detach()), certain_EO.detach())
