"""Regularised evolution, and its mutations by a policy."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.base import DRAWS, Seen, Strategy, as_lists, draw_until_free
from nge_search.strategies.policy import Learner


class Evolution(Strategy):
    """Regularised evolution (Real et al., 2019): the winner of a tournament is mutated, the oldest dies.

    A mutation changes one decision. Architectures are random until as many were told as are alive.
    """

    name = "evolution"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._population: deque[tuple[Code, float]] = deque(maxlen=settings.population)

    def _propose(self) -> Code:
        return self._not_pending(draw_until_free(self._child, self._is_pending))

    def _child(self) -> Code:
        if len(self._population) < self.settings.population:
            return self._uniform()
        drawn = self._random.choice(len(self._population), self.settings.tournament, replace=False)
        winner, _ = max((self._population[place] for place in drawn), key=lambda member: member[1])
        return self._mutate(winner)

    def _mutate(self, parent: Code) -> Code:
        neighbours = self.space.neighbours(parent)
        return neighbours[self._random.integers(len(neighbours))]

    def _learn(self, code: Code, value: float) -> None:
        self._population.append((code, value))

    def _own_state(self) -> dict[str, Any]:
        return {
            "population": as_lists(code for code, _ in self._population),
            "values": [value for _, value in self._population],
        }

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        codes = self._codes(reader, "population")
        members = list(zip(codes, reader.numbers("values", len(codes))))
        self._population = deque(members, maxlen=self.settings.population)


class NgeEvolution(Evolution):
    """Regularised evolution whose mutations follow P: a new neighbour's chance is in proportion to its P.

    Where all neighbours of the parent are known, a mutation goes on from one of them. P learns from all
    architectures seen, as in `NgeReinforce`.
    """

    name = "nge_evolution"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._learner, self._seen = Learner(space, settings, policy, seed), Seen(space)

    def _propose(self) -> Code:
        code = self._not_pending(self._child())
        self._seen.add(code)
        return code

    def _mutate(self, parent: Code) -> Code:
        for _ in range(DRAWS):
            neighbours = self.space.neighbours(parent)
            fresh = [code for code in neighbours if code not in self._seen]
            if fresh:
                break
            parent = neighbours[self._random.integers(len(neighbours))]
        else:
            return parent
        if self._random.random() < self.settings.explore:
            return fresh[self._random.integers(len(fresh))]
        with torch.no_grad():
            log_N = self._learner.policy.log_probability(fresh)
            chance_N = torch.softmax(log_N.double(), dim=0).numpy()
        return fresh[self._random.choice(len(fresh), p=chance_N)]

    def _learn(self, code: Code, value: float) -> None:
        self._learner.learn(code, value)
        super()._learn(code, value)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), **self._learner.state_dict()}

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        self._learner.load(reader, self._codes(reader, "learned"))
        self._seen = Seen(self.space, [*self._learner.codes, *pending])
        super()._load_own(reader, pending)
