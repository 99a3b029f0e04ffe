"""From operation probabilities to a cell (DARTS' rule)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import EDGES_PER_NODE, Cell, Genotype


def derive_cell(p_EO: Tensor, space: CellSpace) -> Cell:
    """Per inner node the two incoming edges with the largest max_o P, each with its argmax operation.

    P is compared as it is, after the softmax. Ties go to the lower edge and the lower operation. The two
    pairs of a node are listed by source.
    """
    rows = p_EO.tolist()
    genes = []
    for node in space.inner:
        ranked = sorted(space.incoming(node), key=lambda edge: (-max(rows[edge]), edge))
        for edge in sorted(ranked[:EDGES_PER_NODE]):
            best = rows[edge].index(max(rows[edge]))
            genes.append((space.operations[best], space.edges[edge][0]))
    return Cell(tuple(genes), tuple(space.inner))


def derive_genotype(
    p_normal_EO: Tensor, p_reduce_EO: Tensor, space: CellSpace, provenance: Mapping[str, Any] | None = None
) -> Genotype:
    """The genotype whose cells `derive_cell` reads off the two matrices."""
    return Genotype(derive_cell(p_normal_EO, space), derive_cell(p_reduce_EO, space), dict(provenance or {}))
