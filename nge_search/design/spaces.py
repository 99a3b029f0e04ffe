"""Rules of growth by the space of the cells."""

from __future__ import annotations

from nge_search.design.darts import DartsRules
from nge_search.design.growth import Rules
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.errors import UserError
from nge_search.spaces import DartsSpace, NasBench101Space, NasBench201Space, Space

#: Spaces whose cells can grow.
GROWING = (NasBench101Space.name, NasBench201Space.name, DartsSpace.name)


def rules_of(space: Space, vertices: int = 0, dangling: bool = False) -> Rules:
    """The rules by which a space's cells grow.

    Args:
        vertices: the largest number of a NAS-Bench-101 cell, with input and output; 0: as the space has them.
        dangling: NAS-Bench-101's cells may be left with nodes that lead nowhere, and are cut off at the end.

    Raises:
        UserError: a space without such rules, or a number of vertices that it cannot have.
    """
    if vertices and not isinstance(space, NasBench101Space):
        raise UserError(f"cells of {space.name} have no limit of vertices; leave it at 0")
    if isinstance(space, NasBench101Space):
        return NasBench101Rules(vertices or space.cell_space.vertices, dangling)
    if dangling:
        raise UserError(f"nodes of cells of {space.name} always lead on; leave dangling nodes out")
    if isinstance(space, NasBench201Space):
        return NasBench201Rules()
    if isinstance(space, DartsSpace):
        return DartsRules(space.cell_space)
    raise UserError(f"cells of {space.name} cannot be drawn link by link; those of {', '.join(GROWING)} can")


def code_in(rules: Rules, space: Space, code: tuple[int, ...]) -> tuple[int, ...] | None:
    """A code of `space` as one of the rules' space, which may have fewer vertices; None for a cell too large."""
    if space.length == rules.space.length:
        return code
    try:
        return rules.space.code(space.graphs(code))
    except UserError:
        return None
