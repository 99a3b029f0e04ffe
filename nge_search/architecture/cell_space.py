"""Cells as graphs, and where they reduce: which vertices and edges a space has, in which order.

Matrices of probabilities (P and everything like it) are [rows x options], one for each `Table` of the graph: where
operations are on edges, [edges x operations], written p_EO, with rows in the order of `CellSpace.edges`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nge_search.settings.names import INPUT_NODES, SEARCH_OPERATIONS

#: Options of an edge where operations are on vertices.
PRESENCE = ("absent", "present")


@dataclass(frozen=True)
class Table:
    """One matrix of probabilities: which choice each edge or vertex of a kind of cell leaves.

    Attributes:
        name: what the matrix is called.
        kind: of the cell.
        on: "edges" or "vertices": what its rows are.
        rows: their number.
        options: what is chosen from, in the order of the columns.
    """

    name: str
    kind: str
    on: str
    rows: int
    options: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, len(self.options)


@dataclass(frozen=True)
class CellSpace:
    """All cells with `nodes` inner nodes that read any earlier ones.

    Attributes:
        nodes: vertices behind the inputs.
        operations: what is chosen from.
        inputs: vertices that are given.
        kinds: kinds of cells that a network has, each with choices of its own.
        operations_on: "edges": every edge carries an operation; "vertices": every vertex between the input and the
            output does, and an edge is there or not (NAS-Bench-101).
        chain: every vertex behind the inputs reads the one before it, always, and the output nothing else (ENAS'
            macro networks).
    """

    nodes: int = 4
    operations: tuple[str, ...] = SEARCH_OPERATIONS
    inputs: int = INPUT_NODES
    kinds: tuple[str, ...] = ("normal", "reduce")
    operations_on: str = "edges"
    chain: bool = False

    def __str__(self) -> str:
        return f"inputs={self.inputs}, nodes={self.nodes}, operations=({', '.join(self.operations)})"

    @property
    def vertices(self) -> int:
        """Inputs and inner nodes (a DARTS cell's output only concatenates and is not counted)."""
        return self.inputs + self.nodes

    @property
    def inner(self) -> range:
        return range(self.inputs, self.vertices)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge, by target and then by source: DARTS' (0,2) (1,2) (0,3) (1,3) (2,3) ..."""
        every = ((source, target) for target in self.inner for source in range(target))
        output = self.vertices - 1
        return tuple(edge for edge in every if not self.chain or edge[1] < output or edge[0] == output - 1)

    @property
    def chosen_edges(self) -> tuple[tuple[int, int], ...]:
        """The edges that something is chosen for: the rows of a matrix on edges. All but those of a chain."""
        return tuple(edge for edge in self.edges if not self.chain or edge[0] < edge[1] - 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(edges, operations): the shape of P where operations are on edges."""
        return len(self.edges), len(self.operations)

    @property
    def labelled(self) -> range:
        """The vertices that carry an operation: all but the input and the output, where operations are on them."""
        return self.inner[:-1] if self.operations_on == "vertices" else range(0)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The matrices of probabilities, in the order in which embeddings give them."""
        edges = len(self.chosen_edges)
        if self.operations_on == "edges":
            return tuple(Table(kind, kind, "edges", edges, self.operations) for kind in self.kinds)
        return tuple(
            table
            for kind in self.kinds
            for table in (
                Table(f"{kind}_edges", kind, "edges", edges, PRESENCE),
                Table(f"{kind}_vertices", kind, "vertices", len(self.labelled), self.operations),
            )
        )

    def incoming(self, target: int) -> range:
        """The positions in `edges` of the edges into `target`, in order of their source."""
        first = sum(range(self.inputs, target))
        return range(first, first + target)


def reduction_positions(cells: int) -> tuple[int, ...]:
    """Which cells reduce: those at 1/3 and 2/3 of the depth, as in DARTS."""
    return tuple(sorted({cells // 3, 2 * cells // 3}))
