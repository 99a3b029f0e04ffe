"""A policy: its gradient against that of the expected reward, its steps, weights by rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from nge_search.settings.strategies import PolicySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.strategies.policy import Policy, rank_weights

SPACE = NasBench201Space()
TINY = list(itertools.product(range(3), repeat=3))
REWARDS = np.random.default_rng(3).random(27)


def expected_reward(policy: Policy) -> torch.Tensor:
    """J = sum over all architectures of P(a) R(a), by its definition."""
    (p_EO,) = policy.embedding()
    chances = [torch.stack([p_EO[edge, code[edge]] for edge in range(3)]).prod() for code in TINY]
    return (torch.stack(chances) * torch.as_tensor(REWARDS)).sum()


@pytest.mark.parametrize("kind", ["nge", "direct", "plain", "rnn"])
def test_reinforce_s_gradient_is_that_of_the_expected_reward(
    kind: str, tiny: NasBench201Space, small_policy: Callable[[str], PolicySection]
) -> None:
    """Its expectation, over all 27 architectures, for any baseline; and its mean over draws, within its error."""
    policy = Policy(tiny, small_policy(kind), 0)
    policy.embedding.double()
    exact = torch.cat(
        [g.flatten() for g in torch.autograd.grad(expected_reward(policy), list(policy.embedding.parameters()))]
    )
    assert exact.abs().max() > 1e-3
    chance_N = policy.log_probability(TINY).exp().detach().numpy()
    assert chance_N.sum() == pytest.approx(1)

    def estimate(code: Code, baseline: float) -> torch.Tensor:
        reward = REWARDS[TINY.index(code)]
        return torch.cat([g.flatten() for g in policy.gradients([code], np.array([reward - baseline]))])

    for baseline in (0.0, 0.7):
        estimates = torch.stack([estimate(code, baseline) for code in TINY])
        mean = (torch.as_tensor(chance_N)[:, None] * estimates).sum(dim=0)
        torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)
    random = np.random.default_rng(0)
    drawn_N = np.zeros(27)
    for _ in range(4000):
        drawn_N[TINY.index(tiny.sample(policy.matrices(), random))] += 1
    share_N = torch.as_tensor(drawn_N / 4000)
    mean = (share_N[:, None] * estimates).sum(dim=0)
    error = ((share_N[:, None] * (estimates - mean) ** 2).sum(dim=0) / 4000).sqrt()
    assert ((mean - exact).abs() <= 5 * error + 1e-9).all()


def test_a_policy_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Policy(SPACE, PolicySection(), 5)
    assert torch.equal(torch.rand(3), expected)


def test_ascending_raises_the_chance_of_what_weighs_positively(best: Code) -> None:
    policy = Policy(SPACE, PolicySection(), 0)
    before = policy.log_probability([best, (0,) * 6]).detach()
    policy.ascend([best, (0,) * 6], np.array([1.0, -1.0]), steps=5)
    after = policy.log_probability([best, (0,) * 6]).detach()
    assert after[0] > before[0]
    assert after[1] < before[1]


@pytest.mark.parametrize("rewards", [[3.0], [1.0, 2.0], [5.0, 5.0, 1.0, 7.0, 5.0], [2.0] * 4])
def test_rank_weights(rewards: list[float]) -> None:
    rank_N = rankdata(-np.array(rewards), method="average") - 1
    weight_N = np.array([math.exp(-rank / 1.5) for rank in rank_N])
    expected_N = weight_N / weight_N.sum() - 0.3 / len(rewards)
    np.testing.assert_allclose(rank_weights(rewards, 1.5, 0.3), expected_N, rtol=1e-12)
    np.testing.assert_allclose(rank_weights([math.exp(r) for r in rewards], 1.5, 0.3), expected_N, rtol=1e-12)
