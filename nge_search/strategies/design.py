"""Search by drawing cells link by link, after what the answers so far teach."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from nge_search.json_reader import Reader
from nge_search.registry import resolve
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.base import Seen, Strategy, as_lists, draw_until_free

#: What draws cells.
_OPEN = "nge_search.design.designer:Designer"


class Designer(Protocol):
    """What is asked of it (`nge_search.design.designer`)."""

    def draw(self, codes: Sequence[Code], values: Sequence[float], count: int, seed: int, /) -> list[Code]: ...

    def propose(
        self, codes: Sequence[Code], values: Sequence[float], count: int, known: Collection[Code], seed: int, /
    ) -> list[Code]: ...


def open_designer(space: Space, settings: StrategySection) -> Designer:
    """What draws cells as settings say.

    Raises:
        UserError: a space whose cells do not grow link by link.
    """
    designer: Designer = resolve(_OPEN)(space, settings.drawn_by, settings.teachers, settings.link_temperature)
    return designer


class DesignSearch(Strategy):
    """NAL made a search: links that good cells have and bad ones lack are learnt on the way.

    The first `warmup` architectures, at least two for each of the `teachers`, are uniform. Then, whenever a batch
    has been asked for, a link model is trained anew on the best and the worst of all values told, and the next
    batch is drawn from it: cells that compute what none did so far. Where draws repeat what is known, the rest is
    uniform.

    Raises:
        UserError: a space whose cells do not grow link by link.
    """

    name = "design"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._designer, self._seen = open_designer(space, settings), Seen(space)
        self._learned: list[Code] = []
        self._values: list[float] = []
        self._planned: list[Code] = []

    def _propose(self) -> Code:
        if not self._planned and len(self._learned) >= max(self.settings.warmup, 2 * self.settings.teachers):
            known, seed = [*self._learned, *self.pending], int(self._random.integers(2**31))
            batch = self.settings.batch
            self._planned = self._designer.propose(self._learned, self._values, batch, known, seed)
        if self._planned:
            code = self._planned.pop(0)
        else:
            code = self._not_pending(draw_until_free(self._uniform, self._seen.__contains__))
        self._seen.add(code)
        return code

    def _learn(self, code: Code, value: float) -> None:
        self._learned.append(code)
        self._values.append(value)

    def _own_state(self) -> dict[str, Any]:
        return {
            "planned": as_lists(self._planned),
            "learned": as_lists(self._learned),
            "learned_values": list(self._values),
        }

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        planned, learned = self._codes(reader, "planned"), self._codes(reader, "learned")
        values = reader.numbers("learned_values", len(learned))
        self._planned, self._learned, self._values = planned, learned, list(values)
        self._seen = Seen(self.space, [*learned, *pending])
