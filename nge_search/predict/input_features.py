"""Analytic features that tell the inputs of a cell apart.

The inputs of a DARTS cell are two different things: the output of the cell before, and that of the cell before it,
which makes a network that reads mostly the latter half as deep. Features of a cell as a whole do not see which is
which. Here each cell counts as it is, and once more for each of its inputs, as if that were its only one.

Legend: N architectures, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nge_search.architecture.graph import Graph
from nge_search.predict import analytic


def features_by_input(architectures: Sequence[Mapping[str, Graph]], kinds: Sequence[str]) -> np.ndarray:
    """The features of architectures, cell by cell: float64 [N, F], in the order of `names_by_input`; all finite.

    Args:
        architectures: their cells by kind, with the same number of inputs each.
        kinds: of cells, in their order.
    """
    inputs = len(architectures[0][kinds[0]].inputs)
    parts = []
    for kind in kinds:
        graphs = [cells[kind] for cells in architectures]
        parts.append(analytic.features(graphs))
        parts += [
            analytic.features([reading_only(graph, place) for graph in graphs])
            for place in range(inputs if inputs > 1 else 0)
        ]
    return np.concatenate(parts, axis=1)


def names_by_input(kinds: Sequence[str], inputs: int) -> tuple[str, ...]:
    """Of cells with so many inputs each, as `normal.log_paths` and `normal.1.log_paths`: of the second input."""
    views = ("", *(f".{place}" for place in range(inputs if inputs > 1 else 0)))
    return tuple(f"{kind}{view}.{name}" for kind in kinds for view in views for name in analytic.NAMES)


def reading_only(graph: Graph, place: int) -> Graph:
    """The graph without what is read from other inputs than the one at `place`; it may have no path left."""
    kept = graph.inputs[place]
    others = set(graph.inputs) - {kept}
    return Graph(
        graph.nodes, tuple(edge for edge in graph.edges if edge.source not in others), (kept,), graph.outputs
    )
