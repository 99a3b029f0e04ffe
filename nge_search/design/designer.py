"""What a search asks for cells: a generator that is taught anew by the answers so far.

Legend: N architectures with values, K of the best and of the worst.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from nge_search.design.generator import DrawSettings, Generator
from nge_search.design.link_model import TrainingSettings
from nge_search.design.protocol import DesignSettings, build_generator
from nge_search.design.samples import distinct_cells
from nge_search.design.spaces import rules_of
from nge_search.spaces import Code, Space

#: Draws at once, and for each cell that is asked for, after which there is taken to be no other.
_AT_ONCE, _DRAWS_EACH = 32, 40
#: Link models that judge together.
_MEMBERS = 1
#: Fewer and larger steps than for a model that is kept: there are a few dozen cells, and many trainings.
_TRAINING = TrainingSettings(epochs=30, batch_size=0, learning_rate=1e-2)


class Designer:
    """Draws cells after the best and against the worst of those with values.

    Args:
        space: of the cells.
        method: "links" or "frequencies", as in `DesignSettings`.
        best: K, or half of the different cells if these are fewer than 2 K.
        temperature: of link models' draws.

    Raises:
        UserError: a space whose cells do not grow link by link.
    """

    def __init__(self, space: Space, method: str, best: int, temperature: float):
        self._rules, self._best = rules_of(space), best
        draw = DrawSettings(temperature)
        self._settings = DesignSettings(method, members=_MEMBERS, together=True, training=_TRAINING, draw=draw)

    def draw(self, codes: Sequence[Code], values: Sequence[float], count: int, seed: int) -> list[Code]:
        """`count` draws, repeats among them; none where the values teach nothing."""
        generator = self._taught(codes, values, seed)
        return generator.draw(count) if generator else []

    def propose(
        self, codes: Sequence[Code], values: Sequence[float], count: int, known: Collection[Code], seed: int
    ) -> list[Code]:
        """Up to `count` different cells in the order of their draws, none of which computes what `known` ones do.

        None where the values teach nothing, and fewer where draws repeat what is known.
        """
        generator, found = self._taught(codes, values, seed), list[Code]()
        if generator is None:
            return found
        seen = {self._rules.key(code) for code in known}
        for first in range(0, _DRAWS_EACH * count, _AT_ONCE):
            for code in generator.draw(_AT_ONCE, first):
                key = self._rules.key(code)
                if key not in seen and len(found) < count:
                    seen.add(key)
                    found.append(code)
            if len(found) == count:
                break
        return found

    def _taught(self, codes: Sequence[Code], values: Sequence[float], seed: int) -> Generator | None:
        """What draws after the K best and against the K worst cells; None if none is better than another."""
        rows = distinct_cells(self._rules, codes, np.argsort(-np.array(values), kind="stable").tolist())
        count = min(self._best, len(rows) // 2)
        while count and values[rows[count - 1]] <= values[rows[-count]]:
            count -= 1
        if not count:
            return None
        good, bad = ([codes[row] for row in some] for some in (rows[:count], rows[-count:]))
        return build_generator(self._rules, good, bad, self._settings, seed)
