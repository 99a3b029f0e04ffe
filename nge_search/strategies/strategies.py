"""Strategies that ask for one architecture after the other: random, local search, evolution, policies.

A strategy is a generator: it yields an architecture and is sent its reward. It may yield one that it has yielded
before; the reward is the same and costs nothing. All its chance comes from one NumPy generator, so the same seed
and rewards give the same architectures.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Generator

import numpy as np
import torch

from nge_search.settings import names
from nge_search.settings.names import require_names
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.policy import Policy, rank_weights

Proposals = Generator[Code, float, None]

#: Draws, or mutations, of architectures that were all seen before, after which there is taken to be no new one.
_DRAWS = 1000


class _Seen:
    """Architectures that were asked for, and draws of others."""

    def __init__(self, space: Space, random: np.random.Generator):
        self.space, self.random = space, random
        self.keys: set[bytes] = set()

    def add(self, code: Code) -> None:
        self.keys.add(self.space.key(code))

    def __contains__(self, code: Code) -> bool:
        return self.space.key(code) in self.keys

    def new(self, draw: Callable[[], Code]) -> Code:
        """A drawn architecture that is new; the last one drawn if `_DRAWS` are not."""
        for _ in range(_DRAWS):
            code = draw()
            if code not in self:
                break
        return code

    def uniform(self) -> Code:
        return self.new(lambda: self.space.random(self.random))


def random_search(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """Architectures whose decisions are all equally likely (Li and Talwalkar, 2019), each once."""
    seen = _Seen(space, np.random.default_rng(seed))
    while True:
        code = seen.uniform()
        seen.add(code)
        yield code


def local_search(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """From a random architecture to the first neighbour that is better, in random order; anew where none is.

    The variant that White et al. (2021), "Local search is state of the art for neural architecture search
    benchmarks", call query_until_lower.
    """
    random = np.random.default_rng(seed)
    while True:
        here = space.random(random)
        best = yield here
        improved = True
        while improved:
            improved = False
            neighbours = space.neighbours(here)
            for position in random.permutation(len(neighbours)):
                reward = yield neighbours[position]
                if reward > best:
                    here, best, improved = neighbours[position], reward, True
                    break


def evolution(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """Regularised evolution (Real et al., 2019): the winner of a tournament is mutated, the oldest dies.

    A mutation changes one decision.
    """
    random = np.random.default_rng(seed)

    def mutate(parent: Code) -> Code:
        neighbours = space.neighbours(parent)
        return neighbours[random.integers(len(neighbours))]

    yield from _evolve(space, settings, random, mutate, lambda code, reward: None)


def nge_evolution(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """Regularised evolution whose mutations follow P: a new neighbour's chance is in proportion to its P.

    Where all neighbours of the parent are known, a mutation goes on from one of them. P learns from all
    architectures seen, as in `nge_reinforce`.
    """
    random = np.random.default_rng(seed)
    learner = _Learner(space, settings, policy, seed)
    seen = _Seen(space, random)

    def mutate(parent: Code) -> Code:
        for _ in range(_DRAWS):
            neighbours = space.neighbours(parent)
            fresh = [code for code in neighbours if code not in seen]
            if fresh:
                break
            parent = neighbours[random.integers(len(neighbours))]
        else:
            return parent
        if random.random() < settings.explore:
            return fresh[random.integers(len(fresh))]
        with torch.no_grad():
            chance_N = torch.softmax(learner.policy.log_probability(fresh).double(), dim=0).numpy()
        return fresh[random.choice(len(fresh), p=chance_N)]

    def learn(code: Code, reward: float) -> None:
        seen.add(code)
        learner.learn(code, reward)

    yield from _evolve(space, settings, random, mutate, learn)


def _evolve(
    space: Space,
    settings: StrategySection,
    random: np.random.Generator,
    mutate: Callable[[Code], Code],
    learn: Callable[[Code, float], None],
) -> Proposals:
    population: deque[tuple[Code, float]] = deque(maxlen=settings.population)
    while True:
        if len(population) < settings.population:
            code = space.random(random)
        else:
            drawn = random.choice(len(population), settings.tournament, replace=False)
            code = mutate(max((population[i] for i in drawn), key=lambda member: member[1])[0])
        reward = yield code
        learn(code, reward)
        population.append((code, reward))


class _Learner:
    """A policy that takes up every architecture seen, weighted by its rank."""

    def __init__(self, space: Space, settings: StrategySection, config: PolicySection, seed: int):
        self.settings = settings
        self.policy = Policy(space, config, seed)
        self.codes: list[Code] = []
        self.rewards: list[float] = []

    def learn(self, code: Code, reward: float) -> None:
        self.codes.append(code)
        self.rewards.append(reward)
        if len(self.codes) > 1:
            weights_N = rank_weights(self.rewards, self.settings.temperature, self.settings.contrast)
            self.policy.ascend(self.codes, weights_N, self.settings.steps)


def nge_reinforce(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """P is the policy; after each query it moves towards the best architectures seen so far, and off the others.

    The step is REINFORCE's sum_i w_i grad log P(a_i) over all architectures seen, with weights by rank
    (`rank_weights`) in the place of rewards: few queries are used often, and the reward's scale does not matter.
    Architectures that were not seen before are drawn from (1 - explore) P + explore / options, so that a policy
    which has settled goes on with the neighbours of what it settled on.
    """
    random = np.random.default_rng(seed)
    learner, seen = _Learner(space, settings, policy, seed), _Seen(space, random)
    while True:
        if len(learner.codes) < settings.warmup:
            code = seen.uniform()
        else:
            mixed = [
                (1 - settings.explore) * p_EO + settings.explore * u_EO
                for p_EO, u_EO in zip(learner.policy.matrices(), space.uniform())
            ]
            code = seen.new(lambda: space.sample(mixed, random))  # noqa: B023 - drawn at once
            code = seen.uniform() if code in seen else code
        seen.add(code)
        reward = yield code
        learner.learn(code, reward)


def reinforce(space: Space, settings: StrategySection, policy: PolicySection, seed: int) -> Proposals:
    """REINFORCE (Williams, 1992): each architecture is drawn from P, which takes one step of (R - b) grad log P.

    P is of free parameters whatever `policy.kind` says. R is the accuracy as a share, b its moving average.
    """
    random = np.random.default_rng(seed)
    learner = Policy(space, dataclasses.replace(policy, kind="direct"), seed)
    baseline = None
    while True:
        code = space.sample(learner.matrices(), random)
        reward = (yield code) / 100
        baseline = reward if baseline is None else baseline
        learner.ascend([code], np.array([reward - baseline]))
        baseline += (1 - settings.baseline_decay) * (reward - baseline)


STRATEGIES: dict[str, Callable[[Space, StrategySection, PolicySection, int], Proposals]] = {
    "random": random_search,
    "local_search": local_search,
    "evolution": evolution,
    "reinforce": reinforce,
    "nge_reinforce": nge_reinforce,
    "nge_evolution": nge_evolution,
}
require_names(STRATEGIES, names.STRATEGIES)
