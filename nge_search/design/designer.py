"""What a search asks for cells: a generator that is taught anew by the answers so far.

Legend: N architectures with values, K of the best and of the worst.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from nge_search.design.generator import DrawSettings
from nge_search.design.protocol import DesignSettings, build_generator
from nge_search.design.samples import distinct_cells
from nge_search.design.spaces import rules_of
from nge_search.spaces import Code, Space

#: Draws for each cell that is asked for, after which there is taken to be no other.
_DRAWS_EACH = 40
#: Link models that judge together.
_MEMBERS = 1


class Designer:
    """Draws cells after the best and against the worst of those with values.

    Args:
        space: of the cells.
        method: "links" or "frequencies", as in `protocol.METHODS`.
        best: K, or half of the different cells if these are fewer than 2 K.
        temperature: of link models' draws.

    Raises:
        UserError: a space whose cells do not grow link by link.
    """

    def __init__(self, space: Space, method: str, best: int, temperature: float):
        self._rules, self._best = rules_of(space), best
        self._settings = DesignSettings(
            method, members=_MEMBERS, together=True, draw=DrawSettings(temperature=temperature)
        )

    def propose(
        self, codes: Sequence[Code], values: Sequence[float], count: int, known: Collection[Code], seed: int
    ) -> list[Code]:
        """Up to `count` different cells in the order in which they are drawn, none of which computes what one of
        `known` does; none where the values teach nothing, and fewer where draws repeat themselves.
        """
        good, bad = self._teachers(codes, values)
        if not good:
            return []
        generator = build_generator(self._rules, good, bad, self._settings, seed)
        seen, found = {self._rules.key(code) for code in known}, list[Code]()
        for first in range(0, _DRAWS_EACH * count, count):
            for code in generator.draw(count, first):
                key = self._rules.key(code)
                if key not in seen and len(found) < count:
                    seen.add(key)
                    found.append(code)
            if len(found) == count:
                break
        return found

    def _teachers(self, codes: Sequence[Code], values: Sequence[float]) -> tuple[list[Code], list[Code]]:
        """The K best and the K worst cells, each of the best better than each of the worst."""
        rows = distinct_cells(self._rules, codes, np.argsort(-np.array(values), kind="stable").tolist())
        count = min(self._best, len(rows) // 2)
        while count and values[rows[count - 1]] <= values[rows[-count]]:
            count -= 1
        return [codes[row] for row in rows[:count]], [codes[row] for row in rows[len(rows) - count :]]
