"""The edges' operation probabilities P over the epochs of a search, checked and ready to show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.architecture.load import read_architecture
from nge_search.engine.run_reader import Row
from nge_search.errors import UserError
from nge_search.report.parts.numbers import number
from nge_search.report.parts.run import Run
from nge_search.settings.names import INPUT_NODES, SEARCH_OPERATIONS

Matrix = tuple[tuple[float, ...], ...]
Kept = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Trace:
    """P of one cell. `matrices` holds, per epoch of `epochs`, a [edges][operations] matrix with NaN for gaps.

    `edges` are (source, target) pairs in the genotype's numbering, or None where unknown; `kept` holds, per
    epoch, the (edge, operation) positions that the derivation kept.
    """

    kind: str
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int] | None, ...]
    epochs: tuple[float, ...]
    matrices: tuple[Matrix, ...]
    kept: tuple[Kept, ...]

    def label(self, edge: int) -> str:
        """`0→2`: source and target in the genotype's numbering."""
        pair = self.edges[edge]
        return f"{pair[0]}→{pair[1]}" if pair else f"edge {edge}"

    @property
    def largest(self) -> float:
        """The largest probability of all epochs; 1 if there is none."""
        values = [value for matrix in self.matrices for row in matrix for value in row if math.isfinite(value)]
        return max(values, default=0.0) or 1.0


def read_trace(run: Run, kind: str) -> Trace | None:
    """The trace of the cells of a kind; None if no row holds one.

    Rows whose operations or edges differ from the last row's are left out: they can't share its axes.
    """
    found = [(row, axes) for row in run.rows if (axes := _axes(row, f"p_{kind}"))]
    if not found:
        return None
    operations, edges = found[-1][1]
    rows = [row for row, axes in found if axes == (operations, edges)]
    kept = []
    for row in rows:
        graphs = _graphs(row)
        if graphs is None and row is run.rows[-1]:
            graphs = run.graphs
        kept.append(_kept((graphs or {}).get(kind), operations, edges))
    matrices = tuple(tuple(tuple(map(number, values)) for values in row[f"p_{kind}"]) for row in rows)
    return Trace(kind, operations, edges, tuple(row["epoch"] for row in rows), matrices, tuple(kept))


def _axes(row: Row, key: str) -> tuple[tuple[str, ...], tuple[tuple[int, int] | None, ...]] | None:
    """The operations and edges of a row's matrix, or None if the row has no well-formed one."""
    matrix = row.get(key)
    if not isinstance(matrix, list) or not matrix or not all(isinstance(values, list) for values in matrix):
        return None
    width = len(matrix[0])
    if width == 0 or any(len(values) != width for values in matrix):
        return None
    names = row.get("operations")
    if not (isinstance(names, list) and len(names) == width and all(isinstance(name, str) for name in names)):
        names = SEARCH_OPERATIONS if width == len(SEARCH_OPERATIONS) else [f"op {i}" for i in range(width)]
    return tuple(names), _edges(row.get("edges"), len(matrix))


def _edges(given: Any, count: int) -> tuple[tuple[int, int] | None, ...]:
    if isinstance(given, list) and len(given) == count and all(map(_is_pair, given)):
        return tuple((source, target) for source, target in given)
    every: list[tuple[int, int] | None] = []
    target = INPUT_NODES
    while len(every) < count:
        every += [(source, target) for source in range(target)]
        target += 1
    return tuple(every) if len(every) == count else (None,) * count


def _is_pair(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) == 2 and all(type(node) is int for node in value)
    return whole and 0 <= value[0] < value[1]


def _graphs(row: Row) -> dict[str, Graph] | None:
    try:
        return read_architecture(row["genotype"]).graphs if "genotype" in row else None
    except UserError:
        return None  # the row's curves still count; Run.notes tells of the architecture that is drawn


def _kept(graph: Graph | None, operations: tuple[str, ...], edges: tuple) -> Kept:
    """Positions (edge, operation) of what a cell holds; an edge that it lacks holds `none`, if that is a choice."""
    if graph is None:
        return frozenset()
    chosen = {(edge.source, edge.target): edge.label.name for edge in graph.edges}
    missing = "none" if "none" in operations else ""
    names = [chosen.get(edge, missing) for edge in edges]
    return frozenset((at, operations.index(name)) for at, name in enumerate(names) if name in operations)


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` positions of a list of `count`, evenly spread, the last one always among them."""
    if count <= limit:
        return list(range(count))
    return sorted({round(step * (count - 1) / (limit - 1)) for step in range(limit)})
