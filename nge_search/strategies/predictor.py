"""Search by a predictor that is trained on the answers so far.

Legend: N architectures with values, M candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from nge_search.architecture.graph import Graph
from nge_search.json_reader import Reader
from nge_search.registry import resolve
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.acquisition import ACQUISITIONS
from nge_search.strategies.base import Seen, Strategy, as_lists, draw_until_free
from nge_search.strategies.policy import Learner

#: What opens a predictor by its name.
_OPEN = "nge_search.predict.predictors:open_predictor"
#: To which forecasts are rounded, so that they are equal for architectures which a predictor does not tell apart.
_DECIMALS = 6

Cells = Mapping[str, Graph]


class Surrogate(Protocol):
    """What is asked of a predictor (`nge_search.predict.base`)."""

    def require_installed(self) -> None: ...

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int, /) -> None: ...

    def scores(self, asked: Sequence[Cells], /) -> Tensor: ...


class ProbabilisticSurrogate(Surrogate, Protocol):
    """And of one that says how sure it is."""

    def posterior(self, asked: Sequence[Cells], /) -> tuple[Tensor, Tensor]: ...

    def target(self, label: Tensor, /) -> Tensor: ...


class PredictorSearch(Strategy):
    """Bayesian optimisation (Jones et al., 1998), or a search by any other predictor, in batches.

    The first `warmup` architectures are uniform. Then, whenever a batch has been asked for, the predictor is
    trained anew on all values told, and the next batch is the best of a pool by the acquisition. The pool holds
    what was not asked for yet: neighbours of the best architectures, draws from P, which learns as in
    `NgeReinforce`, and uniform draws. Of candidates with the same forecast, as isomorphic cells have it, a batch
    takes one; nor does it take one with the forecast of a pending architecture.

    Improvements are expected, and samples drawn, in the space of the predictor's targets.

    Raises:
        UserError: a predictor that has no settings for the space, or is not installed.
    """

    name = "predictor"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._learner, self._seen = Learner(space, settings, policy, seed), Seen(space)
        self._planned: list[Code] = []
        self._predictor: ProbabilisticSurrogate = resolve(_OPEN)(settings.predictor, space)
        self._predictor.require_installed()

    def _propose(self) -> Code:
        if not self._planned and len(self._learner.codes) >= max(self.settings.warmup, 2):
            self._planned = self._batch(self._pool())
        if self._planned:
            code = self._planned.pop(0)
        else:
            code = self._not_pending(draw_until_free(self._uniform, self._seen.__contains__))
        self._seen.add(code)
        return code

    def _pool(self) -> list[Code]:
        """Candidates, each once; fewer than `pool` where draws repeat what is known."""
        found: dict[bytes, Code] = {}
        share = -(-self.settings.pool // 3)

        def take(code: Code) -> None:
            key = self.space.key(code)
            if key not in self._seen.keys:
                found.setdefault(key, code)

        codes = self._learner.codes
        for place in np.argsort(-np.array(self._learner.values), kind="stable").tolist():
            if len(found) == share:
                break
            neighbours = self.space.neighbours(codes[place])
            for other in self._random.permutation(len(neighbours)).tolist():
                if len(found) < share:
                    take(neighbours[other])
        for draw in (lambda: self._learner.sample(self._random), self._uniform):
            for _ in range(share):
                take(draw())
        return list(found.values())

    def _batch(self, pool: Sequence[Code]) -> list[Code]:
        """The best of a pool, the best first."""
        if not pool:
            return []
        seed = int(self._random.integers(2**31))
        label_N = torch.tensor(self._learner.values, dtype=torch.float64)
        self._predictor.fit(list(map(self.space.graphs, self._learner.codes)), label_N, seed)
        forecasts, best = self._forecasts([*self.pending, *pool], label_N.max())
        taken = set(forecasts[: len(self.pending)])
        mean_M, deviation_M = torch.tensor(forecasts[len(self.pending) :], dtype=torch.float64).T
        worth_M = ACQUISITIONS[self.settings.acquisition](mean_M, deviation_M, best, self._random)
        batch: list[Code] = []
        for place in worth_M.argsort(descending=True, stable=True).tolist():
            forecast = forecasts[len(self.pending) + place]
            if len(batch) < self.settings.batch and forecast not in taken:
                taken.add(forecast)
                batch.append(pool[place])
        return batch

    def _forecasts(self, codes: Sequence[Code], best: Tensor) -> tuple[list[tuple[float, float]], float]:
        """Mean and deviation of each architecture's target, and the target of the best label; or scores alone."""
        cells = list(map(self.space.graphs, codes))
        if self.settings.acquisition == "greedy":
            mean_M = self._predictor.scores(cells)
            deviation_M, target = torch.zeros_like(mean_M), 0.0
        else:
            mean_M, deviation_M = self._predictor.posterior(cells)
            target = float(self._predictor.target(best))
        least = 10.0**-_DECIMALS
        rounded = mean_M.round(decimals=_DECIMALS), deviation_M.round(decimals=_DECIMALS).clamp(min=least)
        return list(zip(*(part.tolist() for part in rounded))), target

    def _learn(self, code: Code, value: float) -> None:
        self._learner.learn(code, value)

    def _own_state(self) -> dict[str, Any]:
        return {"planned": as_lists(self._planned), **self._learner.state_dict()}

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        planned, learned = self._codes(reader, "planned"), self._codes(reader, "learned")
        self._learner.load(reader, learned)
        self._planned, self._seen = planned, Seen(self.space, [*learned, *pending])
