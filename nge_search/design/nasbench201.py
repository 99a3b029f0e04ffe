"""How NAS-Bench-201's cells grow: an operation a move, on an edge whose source is there.

In node form each operation is a node, fed by those that stand before it. Its place in the cell is part of its
label: operations on different edges are different nodes, though they compute the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.design.growth import Link, LinkGraph, Move, Rules, Stage, State, found_at, require_size, single
from nge_search.spaces import Code, NasBench201Space
from nge_search.spaces.nasbench201 import NONE, OPERATIONS

_EDGES = NasBench201Space.cell_space.edges
_OUTPUT = NasBench201Space.cell_space.vertices - 1
_ABSENT = OPERATIONS.index(NONE)
_CHOICES = tuple(choice for choice in range(len(OPERATIONS)) if choice != _ABSENT)


class _Cell(NamedTuple):
    """The operation of each edge, and the number of operations of the whole cell."""

    chosen: Code
    size: int


class NasBench201Rules(Rules):
    """Cells without parts that lead nowhere. A step is (edge, operation)."""

    def __init__(self) -> None:
        self.space = NasBench201Space()
        names = [f"{OPERATIONS[choice]} {source}-{target}" for source, target in _EDGES for choice in _CHOICES]
        self.labels = (INPUT, OUTPUT, *names)
        self.features_LF = _features()
        self.parts = tuple(single(label) for label in range(2, len(self.labels)))

    def start(self, size: int) -> State:
        require_size(size, len(_EDGES), self.space)
        return _Cell((_ABSENT,) * len(_EDGES), size)

    def graph(self, state: State) -> LinkGraph:
        return _node_form(state.chosen)

    def moves(self, state: State) -> tuple[Move, ...]:
        after = state.size - sum(choice != _ABSENT for choice in state.chosen) - 1
        if after < 0:
            return ()
        there = _there(state.chosen)
        found = []
        for edge, (source, _) in enumerate(_EDGES):
            before = _before(source, there)
            if edge in there or not before or not _can_end([*there, edge], after):
                continue
            found += [
                Move(tuple((node, ~_part(edge, choice)) for node in before), (edge, choice)) for choice in _CHOICES
            ]
        return tuple(found)

    def moved(self, state: State, move: Move) -> State:
        edge, choice = move.step
        return _Cell((*state.chosen[:edge], choice, *state.chosen[edge + 1 :]), state.size)

    def code(self, state: State) -> Code:
        return state.chosen

    def size(self, code: Code) -> int:
        return sum(choice != _ABSENT for choice in _live(code))

    def graphs(self, code: Code) -> list[LinkGraph]:
        live = _live(code)
        return [_node_form(live)] if any(choice != _ABSENT for choice in live) else []

    def key(self, code: Code) -> bytes:
        return self.space.key(_live(code))

    def drawing(self, state: State) -> Graph:
        """The cell so far with operations on edges, as the space has it."""
        return self.space.graphs(state.chosen)["cell"]

    def written(self, state: State, move: Move) -> tuple[str, str]:
        edge, choice = move.step
        source, target = _EDGES[edge]
        return (f"node {source}" if source else INPUT, f"{OPERATIONS[choice]} to node {target}")

    def grown(self, code: Code, random: np.random.Generator) -> list[Stage]:
        live = _live(code)
        state, left = self.start(self.size(code)), list(_there(live))
        stages = []
        while left:
            moves = self.moves(state)
            steps = [(edge, live[edge]) for edge in left]
            good = found_at(moves, steps)
            chosen = good[int(random.integers(len(good)))]
            stages.append(Stage(state, moves, good, chosen))
            state = self.moved(state, moves[chosen])
            left.remove(moves[chosen].step[0])
        return stages


def _features() -> np.ndarray:
    """Of each label what kind of node it is, then which edge it stands on: [L, kinds + edges]."""
    kinds, edges = np.eye(2 + len(_CHOICES), dtype=np.float32), np.eye(len(_EDGES), dtype=np.float32)
    nowhere = np.zeros((2, len(_EDGES)), dtype=np.float32)
    ends = np.hstack([kinds[:2], nowhere])
    return np.vstack([ends, np.hstack([np.tile(kinds[2:], (len(_EDGES), 1)), edges.repeat(len(_CHOICES), axis=0)])])


def _part(edge: int, choice: int) -> int:
    return edge * len(_CHOICES) + _CHOICES.index(choice)


def _there(chosen: Code) -> list[int]:
    return [edge for edge, choice in enumerate(chosen) if choice != _ABSENT]


def _before(cell_node: int, there: list[int]) -> list[int]:
    """Nodes that arrive at a node of the cell; nodes are the input, the output, and the edges that are there."""
    return (
        [0] if cell_node == 0 else [2 + place for place, edge in enumerate(there) if _EDGES[edge][1] == cell_node]
    )


def _node_form(chosen: Code) -> LinkGraph:
    there = _there(chosen)
    links: list[Link] = []
    for place, edge in enumerate(there):
        links += [(before, 2 + place) for before in _before(_EDGES[edge][0], there)]
    links += [(before, 1) for before in _before(_OUTPUT, there)]
    return LinkGraph((0, 1, *(2 + _part(edge, chosen[edge]) for edge in there)), tuple(sorted(links)))


def _can_end(there: list[int], after: int) -> bool:
    """Whether `after` more operations can lead all that is there to the output: one for each node without a way."""
    arrived, left = {_EDGES[edge][1] for edge in there}, {_EDGES[edge][0] for edge in there}
    ends = len(arrived - left - {_OUTPUT})
    return max(ends, 0 if _OUTPUT in arrived else 1) <= after


def _live(code: Code) -> Code:
    """The code without operations that no path from input to output passes."""
    there = set(_there(code))
    while True:
        reached = {0, *(_EDGES[edge][1] for edge in there)}
        used = {_OUTPUT, *(_EDGES[edge][0] for edge in there)}
        kept = {edge for edge in there if _EDGES[edge][0] in reached and _EDGES[edge][1] in used}
        if kept == there:
            return tuple(choice if edge in there else _ABSENT for edge, choice in enumerate(code))
        there = kept
