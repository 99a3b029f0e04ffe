"""Regularised evolution, and its mutations by a policy, against their definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.stats import chisquare

from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.strategies import build_strategy
from nge_search.strategies.policy import Learner

SPACE = NasBench201Space()


def children(rewards: tuple[float, float, float], seed: int, count: int, tournament: int) -> list[Code]:
    """Three first architectures, then mutants that are all worth nothing."""
    settings = StrategySection(name="evolution", population=3, tournament=tournament)
    strategy = build_strategy(SPACE, settings, seed=seed)
    codes = strategy.ask()
    for reward in (*rewards, *[-1.0] * (count - 1)):
        strategy.tell(codes[-1], reward)
        codes += strategy.ask()
    return codes


def test_evolution_draws_tournaments_and_mutates_one_decision_uniformly() -> None:
    """Of three the tournament of two is won by the best in 2 of 3, by the second in 1 of 3, by the last never."""
    parents: Counter[int] = Counter()
    mutations: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        *population, child = children((2.0, 3.0, 1.0), seed, 1, tournament=2)
        near = [place for place, code in enumerate(population) if sum(map(int.__ne__, code, child)) == 1]
        if len(near) != 1:
            continue  # first architectures that happen to be close
        parents[near[0]] += 1
        parent = population[near[0]]
        edge = next(edge for edge in range(6) if parent[edge] != child[edge])
        mutations[edge, (child[edge] - parent[edge]) % 5] += 1
    count = sum(parents.values())
    assert parents[2] == 0
    assert count > 2700
    assert chisquare([parents[0], parents[1]], [count / 3, 2 * count / 3]).pvalue > 1e-3
    assert len(mutations) == 24
    assert chisquare(list(mutations.values())).pvalue > 1e-3


def test_evolution_lets_the_oldest_die_however_good() -> None:
    first, second, _, child, grandchild = children((3.0, 2.0, 1.0), 0, 2, tournament=3)
    assert child in SPACE.neighbours(first)
    assert grandchild in SPACE.neighbours(second)
    assert grandchild not in SPACE.neighbours(first)


def test_nge_evolution_mutates_by_the_probabilities_of_what_is_new(
    made_signal: Callable[[Code], float],
) -> None:
    """Replayed: the same policy, taught the same, gives the chances from which the same generator draws."""
    settings = StrategySection(name="nge_evolution", population=4, tournament=4, explore=0.0)
    config = PolicySection(learning_rate=1e-3)
    strategy = build_strategy(SPACE, settings, config, 7)
    codes, rewards = strategy.ask(), []
    learner, random = Learner(SPACE, settings, config, 7), np.random.default_rng(7)
    assert [SPACE.random(random)] == codes
    for step in range(30):
        reward = made_signal(codes[-1])
        rewards.append(reward)
        learner.learn(codes[-1], reward)
        strategy.tell(codes[-1], reward)
        codes += strategy.ask()
        if step < 3:
            assert codes[-1] == SPACE.random(random)
            continue
        drawn = random.choice(4, 4, replace=False)
        alive = list(zip(codes[-5:-1], rewards[-4:]))
        parent, _ = max((alive[place] for place in drawn), key=lambda member: member[1])
        fresh = [code for code in SPACE.neighbours(parent) if code not in codes[:-1]]
        p_EO = learner.policy.matrices()[0]
        chance_N = np.array([math.prod(p_EO[edge, code[edge]] for edge in range(6)) for code in fresh])
        random.random()  # whether to explore
        assert codes[-1] == fresh[random.choice(len(fresh), p=chance_N / chance_N.sum())]
    assert abs(p_EO - 0.2).max() > 0.05  # it has learned
