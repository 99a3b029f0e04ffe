"""Cells as graphs, and where they reduce: which edges the space has, in which order, and how a matrix names them.

Matrices over a cell's edges and operations (P and everything like it) are [edges x operations], written
p_EO; rows follow `CellSpace.edges`, columns `CellSpace.operations`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nge_search.genotype import INPUT_NODES, SEARCH_OPERATIONS


@dataclass(frozen=True)
class CellSpace:
    """All cells with `nodes` inner nodes whose edges carry one of `operations`."""

    nodes: int = 4
    operations: tuple[str, ...] = SEARCH_OPERATIONS

    @property
    def vertices(self) -> int:
        """Nodes of the graph: two inputs and the inner nodes (the output only concatenates)."""
        return INPUT_NODES + self.nodes

    @property
    def inner(self) -> range:
        return range(INPUT_NODES, self.vertices)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, by target and then by source: (0,2) (1,2) (0,3) (1,3) (2,3) ..."""
        return tuple((source, target) for target in self.inner for source in range(target))

    @property
    def shape(self) -> tuple[int, int]:
        """(edges, operations): the shape of P."""
        return len(self.edges), len(self.operations)

    def incoming(self, target: int) -> range:
        """The positions in `edges` of the edges into `target`, in order of their source."""
        first = sum(range(INPUT_NODES, target))
        return range(first, first + target)


def reduction_positions(cells: int) -> tuple[int, ...]:
    """Which cells reduce: those at 1/3 and 2/3 of the depth, as in DARTS."""
    return tuple(sorted({cells // 3, 2 * cells // 3}))
