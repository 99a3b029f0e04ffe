"""How DARTS' cells grow in NAS-Bench-101's terms, so that what was learnt from its cells can draw genotypes.

Each of a node's two operations becomes a chain of NAS-Bench-101's operations with the same receptive field; what
reads a node reads the ends of both. All inner nodes feed the output, as in DARTS. Nodes get their operations in
order, the normal cell first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import EDGES_PER_NODE
from nge_search.architecture.graph import INPUT, SUM, Graph
from nge_search.design.growth import Link, LinkGraph, Move, Rules, Stage, State, found_at, one_hot
from nge_search.design.nasbench101 import LABELS
from nge_search.errors import UserError, nearest
from nge_search.spaces import Code, DartsSpace

_C3, _C1, _POOL = LABELS[1:-1]
#: What stands for DARTS' operations: a receptive field of 3 and 5 for a depthwise and a pointwise convolution, 5
#: and 9 for dilated ones. NAS-Bench-101 has no average pooling. Empty chain: sources feed what reads the node.
REPLACEMENTS: Mapping[str, tuple[str, ...]] = {
    "skip_connect": (),
    "max_pool_3x3": (_POOL,),
    "avg_pool_3x3": (_POOL,),
    "sep_conv_3x3": (_C3, _C1),
    "sep_conv_5x5": (_C3, _C3, _C1),
    "dil_conv_3x3": (_C3, _C3),
    "dil_conv_5x5": (_C3, _C3, _C3, _C3),
}
_OUTPUT = len(LABELS) - 1
_INPUTS = 2


class _Genotype(NamedTuple):
    """(source, operation) of each gene so far, in the order in which they were drawn."""

    genes: tuple[tuple[int, int], ...]


class DartsRules(Rules):
    """Genotypes of a normal and a reduction cell. A step is (source, operation) of the next gene.

    Args:
        cell_space: inner nodes and operations.
        replacements: for each operation the chain that stands for it.

    Raises:
        UserError: an operation without a chain, or a chain of what is no operation of NAS-Bench-101.
    """

    def __init__(
        self, cell_space: CellSpace | None = None, replacements: Mapping[str, tuple[str, ...]] = REPLACEMENTS
    ):
        self.space = DartsSpace(cell_space)
        self.cell_space = self.space.cell_space
        self.labels, self.features_LF = LABELS, one_hot(len(LABELS))
        self.replacements = {name: tuple(replacements.get(name, ())) for name in self.cell_space.operations}
        self._chains = [_chain(name, replacements) for name in self.cell_space.operations]
        self.parts = tuple(
            LinkGraph(chain, tuple((node, node + 1) for node in range(len(chain) - 1)))
            for chain in self._chains
            if chain
        )
        counts = np.cumsum([bool(chain) for chain in self._chains])
        self._part = [int(count) - 1 for count in counts]
        self._per_cell = EDGES_PER_NODE * self.cell_space.nodes
        self._moves_of_all = self._per_cell * len(self.cell_space.kinds)

    def start(self, size: int) -> State:
        """The empty genotype; all have the same size."""
        return _Genotype(())

    def graph(self, state: State) -> LinkGraph:
        """The cell in the making."""
        return self._grow(self._current(state.genes))[0]

    def moves(self, state: State) -> tuple[Move, ...]:
        if len(state.genes) == self._moves_of_all:
            return ()
        genes = self._current(state.genes)
        _, ends = self._grow(genes)
        node, begun = divmod(len(genes), EDGES_PER_NODE)
        taken = {source for source, _ in genes[len(genes) - begun :]}
        return tuple(
            Move(tuple((end, self._target(operation)) for end in ends[source]), (source, operation))
            for source in range(_INPUTS + node)
            if source not in taken
            for operation in range(len(self._chains))
        )

    def _target(self, operation: int) -> int:
        """What a link to an operation is judged by: the first node of its chain, or the output for an empty one."""
        return ~self._part[operation] if self._chains[operation] else _INPUTS

    def moved(self, state: State, move: Move) -> State:
        return _Genotype((*state.genes, move.step))

    def code(self, state: State) -> Code:
        code: list[int] = []
        for first in range(0, len(state.genes), EDGES_PER_NODE):
            sources, operations = zip(*sorted(state.genes[first : first + EDGES_PER_NODE]))
            code += [*sources, *operations]
        return tuple(code)

    def size(self, code: Code) -> int:
        return self._moves_of_all

    def graphs(self, code: Code) -> list[LinkGraph]:
        genes = self._genes(code)
        cells = [genes[at : at + self._per_cell] for at in range(0, len(genes), self._per_cell)]
        return [self._grow(cell)[0] for cell in cells]

    def grown(self, code: Code, random: np.random.Generator) -> list[Stage]:
        genes, state, stages = self._genes(code), self.start(0), []
        for first in range(0, len(genes), EDGES_PER_NODE):
            left = list(genes[first : first + EDGES_PER_NODE])
            while left:
                moves = self.moves(state)
                good = found_at(moves, left)
                chosen = good[int(random.integers(len(good)))]
                stages.append(Stage(state, moves, good, chosen))
                state = self.moved(state, moves[chosen])
                left.remove(moves[chosen].step)
        return stages

    def drawing(self, state: State) -> Graph:
        """The cell in the making in DARTS' form: operations on edges, and nodes that have one so far."""
        genes = self._current(state.genes)
        edges = [
            (source, _INPUTS + position // EDGES_PER_NODE, self.cell_space.operations[operation])
            for position, (source, operation) in enumerate(genes)
        ]
        begun = -(-len(genes) // EDGES_PER_NODE)
        return Graph.build([INPUT] * _INPUTS + [SUM] * begun, edges, range(_INPUTS), [])

    def written(self, state: State, move: Move) -> tuple[str, str]:
        genes, (source, operation) = self._current(state.genes), move.step
        node, name = len(genes) // EDGES_PER_NODE, self.cell_space.operations[operation]
        kind = self.cell_space.kinds[len(state.genes) // self._per_cell]
        return (
            f"{INPUT} {source}" if source < _INPUTS else f"node {source - _INPUTS}",
            f"{name} to node {node} of {kind}",
        )

    def _genes(self, code: Code) -> tuple[tuple[int, int], ...]:
        parts = [code[at : at + 2 * EDGES_PER_NODE] for at in range(0, len(code), 2 * EDGES_PER_NODE)]
        return tuple(gene for part in parts for gene in zip(part[:EDGES_PER_NODE], part[EDGES_PER_NODE:]))

    def _current(self, genes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """The genes of the cell in the making: of the last one when all are done."""
        cell = min(len(genes) // self._per_cell, len(self.cell_space.kinds) - 1)
        return genes[cell * self._per_cell :]

    def _grow(self, genes: tuple[tuple[int, int], ...]) -> tuple[LinkGraph, list[list[int]]]:
        """A cell of NAS-Bench-101's nodes: inputs, output, then the chains; and where each DARTS node ends."""
        labels, links = [0] * _INPUTS + [_OUTPUT], set[Link]()
        ends: list[list[int]] = [[node] for node in range(_INPUTS)]
        for position, (source, operation) in enumerate(genes):
            if position % EDGES_PER_NODE == 0:
                ends.append([])
            last = ends[source]
            for label in self._chains[operation]:
                links.update((node, len(labels)) for node in last)
                last = [len(labels)]
                labels.append(label)
            links.update((node, _INPUTS) for node in last)
            ends[-1] += [node for node in last if node not in ends[-1]]
        return LinkGraph(tuple(labels), tuple(sorted(links))), ends


def _chain(operation: str, replacements: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
    """Labels of what stands for an operation."""
    if operation not in replacements:
        raise UserError(f"no replacement for {operation}; there are ones for {', '.join(replacements)}")
    allowed = LABELS[1:-1]
    for name in replacements[operation]:
        if name not in allowed:
            raise UserError(
                f"the replacement of {operation} names '{name}'; allowed are {', '.join(allowed)}"
                f"{nearest(name, allowed)}"
            )
    return tuple(LABELS.index(name) for name in replacements[operation])
