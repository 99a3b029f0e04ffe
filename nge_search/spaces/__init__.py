"""Sets of architectures: what strategies, tables of accuracies and encoders need to know of them."""

from __future__ import annotations

from nge_search.architecture.load import SPACES as _KNOWN
from nge_search.errors import UserError
from nge_search.json_reader import Reader
from nge_search.registry import resolve
from nge_search.spaces.base import Code, EdgeSpace, Space, likely_operations
from nge_search.spaces.darts import DartsSpace
from nge_search.spaces.enas_macro import EnasMacroSpace
from nge_search.spaces.evaluation import TRAININGS, Evaluation, Evaluator, Judge, Queries, Trainings
from nge_search.spaces.nasbench101 import VERTICES, NasBench101Space
from nge_search.spaces.nasbench201 import NasBench201Space

__all__ = [
    "SPACES",
    "TRAININGS",
    "Code",
    "DartsSpace",
    "EdgeSpace",
    "EnasMacroSpace",
    "Evaluation",
    "Evaluator",
    "Judge",
    "NasBench101Space",
    "NasBench201Space",
    "Queries",
    "Space",
    "Trainings",
    "likely_operations",
    "read_space",
]

SPACES: dict[str, type[Space]] = {name: resolve(known.place) for name, known in _KNOWN.items()}

_MOST_VERTICES = 64


def read_space(header: Reader) -> Space:
    """The space that a file is of, by its `space` and the `vertices` of a cell.

    Raises:
        UserError: no such space, or one whose cells have another number of vertices.
    """
    name = header.text("space", tuple(SPACES))
    if name == NasBench101Space.name:
        return NasBench101Space(header.integer("vertices", 2, VERTICES))
    space, vertices = SPACES[name](), header.integer("vertices", 2, _MOST_VERTICES)
    if space.cell_space.vertices != vertices:
        raise UserError(f"{header.source} is damaged: a cell of {name} has {space.cell_space.vertices} vertices")
    return space
