"""Random search."""

from __future__ import annotations

from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space
from nge_search.strategies.base import Seen, Strategy, draw_until_free


class RandomSearch(Strategy):
    """Architectures whose decisions are all equally likely (Li and Talwalkar, 2019), each once."""

    name = "random"

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        super().__init__(space, settings, policy, seed)
        self._seen = Seen(space)

    def _propose(self) -> Code:
        code = self._not_pending(draw_until_free(self._uniform, self._seen.__contains__))
        self._seen.add(code)
        return code

    def _own_state(self) -> dict[str, Any]:
        return {"seen": sorted(key.hex() for key in self._seen.keys)}

    def _load_own(self, reader: Reader, pending: list[Code]) -> None:
        given = reader.any("seen")
        try:
            self._seen.keys = {bytes.fromhex(key) for key in given}
        except (TypeError, ValueError):
            raise UserError(f"{reader.source} is damaged: 'seen' has no keys: {shorten(given)}") from None
