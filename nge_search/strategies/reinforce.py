"""REINFORCE as it is, and with P from an embedding that learns from all architectures seen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.base import Seen, Strategy, draw_until_free
from nge_search.strategies.policy import Learner, Policy


class Reinforce(Strategy):
    """REINFORCE (Williams, 1992): each architecture is drawn from P, which takes one step of (R - b) grad log P.

    P is of free parameters whatever `embedding.kind` says. R is the accuracy as a share, b its moving average.
    Where many values are pending at a time, P has moved since their architectures were drawn.
    """

    name = "reinforce"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._policy = Policy(space, dataclasses.replace(policy, kind="direct"), seed)
        self._baseline: float | None = None

    def _propose(self) -> Code:
        return self._not_pending(draw_until_free(self._sample, self._is_pending))

    def _sample(self) -> Code:
        return self.space.sample(self._policy.matrices(), self._random)

    def _learn(self, code: Code, value: float) -> None:
        reward = value / 100
        baseline = reward if self._baseline is None else self._baseline
        self._policy.ascend([code], np.array([reward - baseline]))
        self._baseline = baseline + (1 - self.settings.baseline_decay) * (reward - baseline)

    def _own_state(self) -> dict[str, Any]:
        return {"baseline": self._baseline, "policy": self._policy.state_dict()}

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        absent = reader.any("baseline") is None
        baseline = None if absent else reader.number("baseline", -math.inf, math.inf)
        self._policy.load_state_dict(reader.section("policy").document, reader.source)
        self._baseline = baseline


class NgeReinforce(Strategy):
    """P is the policy; after each value it moves towards the best architectures seen so far, and off the others.

    The step is REINFORCE's sum_i w_i grad log P(a_i) over all architectures seen, with weights by rank
    (`rank_weights`) in the place of rewards: few queries are used often, and the reward's scale does not matter.
    Architectures that were not seen before are drawn from (1 - explore) P + explore / options, so that a policy
    which has settled goes on with the neighbours of what it settled on.
    """

    name = "nge_reinforce"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._learner, self._seen = Learner(space, settings, policy, seed), Seen(space)

    def _propose(self) -> Code:
        code = self._not_pending(self._unseen())
        self._seen.add(code)
        return code

    def _unseen(self) -> Code:
        if len(self._learner.codes) >= self.settings.warmup:
            code = draw_until_free(lambda: self._learner.sample(self._random), self._seen.__contains__)
            if code not in self._seen:
                return code
        return draw_until_free(self._uniform, self._seen.__contains__)

    def _learn(self, code: Code, value: float) -> None:
        self._learner.learn(code, value)

    def _own_state(self) -> dict[str, Any]:
        return self._learner.state_dict()

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        self._learner.load(reader, self._codes(reader, "learned"))
        self._seen = Seen(self.space, [*self._learner.codes, *pending])
