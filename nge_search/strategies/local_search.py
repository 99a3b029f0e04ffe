"""Local search."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.base import Strategy, as_lists, draw_until_free


@dataclass(eq=False)
class _Climb:
    """A way up from a random architecture.

    Attributes:
        pending: asked for on this way.
        best: the best value on it; None while that of its start is pending.
        left: neighbours of where that was found which were not asked for, in the order in which they will be.
    """

    pending: list[Code]
    best: float | None = None
    left: list[Code] = field(default_factory=list)


class LocalSearch(Strategy):
    """From a random architecture to the first neighbour that is better, in random order; anew where none is.

    The variant that White et al. (2021), "Local search is state of the art for neural architecture search
    benchmarks", call query_until_lower. While all neighbours are pending, another climb begins.
    """

    name = "local_search"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._climbs: list[_Climb] = []

    def _propose(self) -> Code:
        for climb in self._climbs:
            for place, code in enumerate(climb.left):
                if not self._is_pending(code):
                    climb.pending.append(climb.left.pop(place))
                    return code
        start = draw_until_free(self._uniform, self._is_pending)
        self._climbs.append(_Climb([start]))
        return start

    def _learn(self, code: Code, value: float) -> None:
        climb = next(climb for climb in self._climbs if code in climb.pending)
        climb.pending.remove(code)
        if climb.best is None or value > climb.best:
            neighbours = self.space.neighbours(code)
            climb.best = value
            climb.left = [neighbours[place] for place in self._random.permutation(len(neighbours))]
        if not climb.left and not climb.pending:
            self._climbs.remove(climb)

    def _own_state(self) -> dict[str, Any]:
        return {
            "climbs": [
                {"pending": as_lists(climb.pending), "best": climb.best, "left": as_lists(climb.left)}
                for climb in self._climbs
            ]
        }

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        given = reader.any("climbs")
        if not isinstance(given, list) or not all(isinstance(climb, dict) for climb in given):
            raise UserError(f"{reader.source} is damaged: 'climbs' must be objects, not {shorten(given)}")
        climbs = []
        for part in (Reader(reader.source, climb) for climb in given):
            best = None if part.any("best") is None else part.number("best", -math.inf, math.inf)
            climbs.append(_Climb(self._codes(part, "pending"), best, self._codes(part, "left")))
        if Counter(code for climb in climbs for code in climb.pending) != Counter(pending):
            raise UserError(f"{reader.source} is damaged: what is pending is not what its 'climbs' wait for")
        self._climbs = climbs
