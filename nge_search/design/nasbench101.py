"""How NAS-Bench-101's cells grow: one link a move, from a node that is there to another or to a new one.

A cell is done after as many links as were asked for. On the way no node may be left that could not be led on to
the output with the links that remain, so that nothing has to be cut off at the end (Algorithm 1 of NAL, corrected).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.design.growth import (
    Link,
    LinkGraph,
    Move,
    Rules,
    Stage,
    State,
    found_at,
    one_hot,
    require_size,
    single,
)
from nge_search.spaces import Code, NasBench101Space
from nge_search.spaces.nasbench101 import MAX_EDGES, OPERATIONS

#: In the order of their numbers.
LABELS = (INPUT, *OPERATIONS, OUTPUT)
_OUTPUT = len(LABELS) - 1


class _Cell(NamedTuple):
    """Nodes in the order in which they came, the input first; links sorted; links of the whole cell."""

    labels: tuple[int, ...]
    links: tuple[Link, ...]
    size: int


class NasBench101Rules(Rules):
    """Cells of up to `vertices` vertices and nine links.

    A step is (source, target), where a target below 0 is a new node of the label ~target.

    Args:
        vertices: the largest number of nodes.
        dangling: nodes may be left that lead nowhere, and are cut off at the end: growth as printed.
    """

    def __init__(self, vertices: int = 7, dangling: bool = False):
        self.space = NasBench101Space(vertices)
        self.vertices, self.dangling = vertices, dangling
        self.labels, self.features_LF = LABELS, one_hot(len(LABELS))
        self.parts = tuple(single(label) for label in range(1, len(LABELS)))

    def start(self, size: int) -> State:
        require_size(size, min(MAX_EDGES, self.vertices * (self.vertices - 1) // 2), self.space)
        return _Cell((0,), (), size)

    def graph(self, state: State) -> LinkGraph:
        return LinkGraph(state.labels, state.links)

    def moves(self, state: State) -> tuple[Move, ...]:
        labels, links, size = state
        after = size - len(links) - 1  # links that remain behind this one
        if after < 0:
            return ()
        count, placed = len(labels), _OUTPUT in labels
        reached = _reached(count, links)
        ends = {node for node in range(count) if labels[node] != _OUTPUT} - {source for source, _ in links}
        found = []
        for source in range(count):
            if labels[source] == _OUTPUT:
                continue
            left = len(ends) - (source in ends)
            if self._can_end(left, placed, after):
                for target in range(1, count):
                    if not reached[target] >> source & 1 and (source, target) not in links:
                        found.append((source, target))
            if count < self.vertices:
                if (placed or count < self.vertices - 1) and self._can_end(left + 1, placed, after):
                    found += [(source, ~label) for label in range(1, _OUTPUT)]
                if not placed and self._can_end(left, True, after):
                    found.append((source, ~_OUTPUT))
        return tuple(
            Move(((source, target if target >= 0 else target + 1),), (source, target)) for source, target in found
        )

    def _can_end(self, ends: int, placed: bool, after: int) -> bool:
        """Whether `after` more links can lead each of `ends` nodes, and anything at all, to the output."""
        return max(0 if self.dangling else ends, 0 if placed else 1) <= after

    def moved(self, state: State, move: Move) -> State:
        source, target = move.step
        labels = state.labels if target >= 0 else (*state.labels, ~target)
        link = (source, target if target >= 0 else len(state.labels))
        return _Cell(labels, tuple(sorted((*state.links, link))), state.size)

    def code(self, state: State) -> Code:
        output = state.labels.index(_OUTPUT)
        names = [LABELS[label] for label in state.labels]
        cell = Graph.build(names, state.links, [0], [output]).pruned()
        assert cell is not None  # every node is reached from the input, and the output is there
        output = cell.outputs[0]
        order = [*(node for node in cell.order if node != output), output]
        return self.space.code({"cell": cell.renumbered(order)})

    def size(self, code: Code) -> int:
        return len(self.space.graphs(code)["cell"].edges)

    def graphs(self, code: Code) -> list[LinkGraph]:
        cell = self.space.graphs(code)["cell"]
        labels = tuple(LABELS.index(label.name) for label in cell.nodes)
        return [LinkGraph(labels, tuple((edge.source, edge.target) for edge in cell.edges))]

    def grown(self, code: Code, random: np.random.Generator) -> list[Stage]:
        (whole,) = self.graphs(code)
        state, place, left = self.start(len(whole.links)), {0: 0}, list(whole.links)
        stages = []
        while left:
            open_ = [link for link in left if link[0] in place]
            steps = [(place[source], place.get(target, ~whole.labels[target])) for source, target in open_]
            taken = int(random.integers(len(open_)))
            moves = self.moves(state)
            (chosen,) = found_at(moves, [steps[taken]])
            stages.append(Stage(state, moves, found_at(moves, steps), chosen))
            state = self.moved(state, moves[chosen])
            place.setdefault(open_[taken][1], len(place))
            left.remove(open_[taken])
        return stages


def _reached(count: int, links: tuple[Link, ...]) -> list[int]:
    """For each node, as bits, those that paths from it lead to, itself included."""
    reached = [1 << node for node in range(count)]
    for source, target in links:
        reached[source] |= 1 << target
    for middle in range(count):
        for node in range(count):
            if reached[node] >> middle & 1:
                reached[node] |= reached[middle]
    return reached
