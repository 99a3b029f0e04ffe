"""Graphs of searched architectures: their cells, the paper's networks of cells, and the networks that are trained.

The paper's graphs (Pei et al., 2024, appendix A.4) have a node for each operation of each cell of a DARTS
network, and say nothing of strides and widths. To compare an architecture with published networks its trained form
is traced like those.
"""

from __future__ import annotations

from nge_search.architecture.cell_space import reduction_positions
from nge_search.architecture.genotype import Cell, Genotype
from nge_search.architecture.graph import CONCAT, INPUT, SUM, Graph
from nge_search.architecture.load import Architecture
from nge_search.errors import UserError, nearest, plain
from nge_search.networks.families import FAMILIES
from nge_search.retrieve.extraction import Traced, images, trace
from nge_search.retrieve.sources import build_hollow
from nge_search.settings.names import INPUT_NODES, SEARCH_OPERATIONS

#: Cells of the paper's networks, and labels of what stands before the first and behind the last of them.
CELLS = 20
STEM, HEAD = "stem", "head"

#: All labels of the paper's networks over the operations of DARTS' space.
DARTS_LABELS = (STEM, HEAD, INPUT, CONCAT, SUM, *SEARCH_OPERATIONS)


def darts_network(genotype: Genotype, cells: int = CELLS) -> Graph:
    """The paper's graph of a stack of cells: with 4 inner nodes and 20 cells 265 nodes and 404 edges.

    An inner node is two operations and their sum. Nodes are numbered cell by cell, and in a cell by inner nodes.
    """
    nodes, edges = [INPUT, STEM, STEM], [(0, 1), (1, 2)]
    before = last = 2
    for position in range(cells):
        cell = genotype.reduce if position in reduction_positions(cells) else genotype.normal
        before, last = last, _append(cell, (before, last), nodes, edges)
    nodes += [HEAD, HEAD]
    edges += [(last, last + 1), (last + 1, last + 2)]
    return Graph.build(nodes, edges, [0], [len(nodes) - 1])


def _append(cell: Cell, given: tuple[int, int], nodes: list[str], edges: list[tuple[int, int]]) -> int:
    """Write a cell behind what stands there; returns its last node."""
    place = list(given)  # of the cell's inputs and sums
    for node in range(INPUT_NODES, INPUT_NODES + cell.nodes):
        genes = cell.incoming(node)
        total = len(nodes) + len(genes)
        for operation, source in genes:
            edges += [(place[source], len(nodes)), (len(nodes), total)]
            nodes.append(operation)
        nodes.append(SUM)
        place.append(total)
    edges += [(place[node], len(nodes)) for node in cell.concat]
    nodes.append(CONCAT)
    return len(nodes) - 1


def cell_graphs(architecture: Architecture) -> dict[str, Graph]:
    """The cells of an architecture of any space, operations on nodes, by kind."""
    return {kind: graph.operations_on_nodes(keep_sums=True) for kind, graph in architecture.graphs.items()}


def trace_architecture(architecture: Architecture, network: str | None = None) -> Traced:
    """The traced network of an architecture, of the published size.

    Args:
        network: a kind of network, as `imagenet`; None: the first one for the architecture's space.

    Raises:
        UserError: the kind is unknown, or of another space.
    """
    kinds = [name for name, family in FAMILIES.items() if family.space == architecture.space]
    name = network or kinds[0]
    if name not in kinds:
        raise UserError(
            f"an architecture of {architecture.space} has no network '{plain(name)}'; "
            f"known are {', '.join(kinds)}{nearest(name, kinds)}"
        )
    family = FAMILIES[name]
    cells = architecture.genotype or architecture.graphs
    built = build_hollow(lambda: family.build(cells, family.channels, family.cells, family.classes))
    return trace(built, images(3, family.image_size, family.image_size))
