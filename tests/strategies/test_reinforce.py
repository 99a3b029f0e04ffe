"""REINFORCE and NGE's form of it against their definitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.strategies import build_strategy
from nge_search.strategies.policy import Policy

SPACE = NasBench201Space()


def test_nge_reinforce_draws_from_the_policy_mixed_with_all_equally_likely(
    made_signal: Callable[[Code], float],
) -> None:
    settings = StrategySection(name="nge_reinforce", warmup=3, explore=0.25, temperature=2.0, contrast=0.3, steps=2)
    config = PolicySection(learning_rate=3e-3)
    strategy = build_strategy(SPACE, settings, config, 5)
    policy, random = Policy(SPACE, config, 5), np.random.default_rng(5)
    codes, rewards = [], []
    for step in range(40):
        codes += strategy.ask()
        p_EO = policy.matrices()[0] * 0.75 + 0.25 / 5 if step >= 3 else SPACE.uniform()[0]
        expected = SPACE.draw([p_EO], random)
        while expected in codes[:-1]:
            expected = SPACE.draw([p_EO], random)
        assert codes[-1] == expected
        rewards.append(made_signal(codes[-1]))
        strategy.tell(codes[-1], rewards[-1])
        if step:
            weight_N = np.exp(-(rankdata(-np.array(rewards)) - 1) / 2.0)
            policy.ascend(codes, weight_N / weight_N.sum() - 0.3 / len(codes), steps=2)
    assert abs(p_EO - 0.2).max() > 0.1


def test_reinforce_is_the_textbook_s(made_signal: Callable[[Code], float]) -> None:
    """Free logits, a softmax, Adam, (R - b) (one-hot - P), b a moving average: in NumPy."""
    settings = StrategySection(name="reinforce", baseline_decay=0.8)
    config = PolicySection(learning_rate=0.2)
    strategy = build_strategy(SPACE, settings, config, 11)
    direct = Policy(SPACE, dataclasses.replace(config, kind="direct"), 11)
    logits_EO = next(direct.embedding.parameters()).detach().double().numpy().copy()
    first_EO, second_EO = np.zeros((6, 5)), np.zeros((6, 5))
    random, baseline = np.random.default_rng(11), None
    for step in range(1, 61):
        p_EO = np.exp(logits_EO - logits_EO.max(axis=1, keepdims=True))
        p_EO /= p_EO.sum(axis=1, keepdims=True)
        (code,) = strategy.ask()
        assert code == SPACE.draw([p_EO], random)
        reward = made_signal(code)
        strategy.tell(code, reward)
        baseline = reward / 100 if baseline is None else baseline
        gradient_EO = (np.eye(5)[list(code)] - p_EO) * (reward / 100 - baseline)
        first_EO = config.beta1 * first_EO - (1 - config.beta1) * gradient_EO
        second_EO = config.beta2 * second_EO + (1 - config.beta2) * gradient_EO**2
        scale_EO = np.sqrt(second_EO / (1 - config.beta2**step)) + 1e-8
        logits_EO -= 0.2 * first_EO / (1 - config.beta1**step) / scale_EO
        baseline += 0.2 * (reward / 100 - baseline)
    assert abs(p_EO - 0.2).max() > 0.1
