"""A cell as a layered graph: which column each node stands in, and in which order inside its column.

Every node stands one column right of its latest source (Sugiyama, Tagawa and Toda, 1981). An edge that skips
columns gets a lane in each of them, and all edges of one source share its lanes: so no edge ever has to
pass through a box, and a source with many readers draws one line that branches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from nge_search.genotype import EDGES_PER_NODE, INPUT_NODES, Cell

_RESTARTS = 12
_SWEEPS = 8


class Item(NamedTuple):
    """What takes up room in a column: a node, or the lane in which edges of `node` pass by."""

    column: int
    node: int
    lane: bool = False


@dataclass(frozen=True)
class Link:
    """A piece of edge between neighbouring columns. `gene`: the gene whose operation it reaches, or None."""

    start: Item
    end: Item
    gene: int | None = None


@dataclass(frozen=True)
class Layers:
    """`columns`: the items from left to right, each column from top to bottom; `output` numbers c_k."""

    columns: tuple[tuple[Item, ...], ...]
    links: tuple[Link, ...]
    output: int

    def position(self) -> dict[Item, int]:
        return {item: place for column in self.columns for place, item in enumerate(column)}

    def crossings(self) -> int:
        """How many pairs of links cross."""
        return sum(_crossings(links, self.position()) for links in _by_gap(self.links, len(self.columns)))


def depths(cell: Cell) -> list[int]:
    """The column of every node, the output node last."""
    depth = [0] * INPUT_NODES
    for node in range(INPUT_NODES, INPUT_NODES + cell.nodes):
        depth.append(1 + max(depth[source] for _, source in cell.incoming(node)))
    return [*depth, 1 + max(depth)]


def orderings(cell: Cell) -> Iterator[Layers]:
    """Layered graphs of `cell` in differing, locally best orders; the same ones at every call.

    The inputs keep their order (c_{k-2} above c_{k-1}), so that cells compare easily.
    """
    columns, links = _build(cell)
    shuffle = random.Random(0)
    gaps = _by_gap(links, len(columns))
    for restart in range(_RESTARTS):
        order = [list(column) for column in columns]
        if restart == 1:
            order = [order[0], *([*reversed(column)] for column in order[1:])]
        elif restart > 1:
            for column in order[1:]:
                shuffle.shuffle(column)
        yield Layers(tuple(map(tuple, _improve(order, gaps))), links, INPUT_NODES + cell.nodes)


def _build(cell: Cell) -> tuple[list[list[Item]], tuple[Link, ...]]:
    depth = depths(cell)
    output = len(depth) - 1
    edges: list[tuple[int, int, int | None]] = [
        (source, INPUT_NODES + gene // EDGES_PER_NODE, gene) for gene, (_, source) in enumerate(cell.genes)
    ]
    edges += [(node, output, None) for node in cell.concat]
    columns: list[list[Item]] = [[] for _ in range(depth[output] + 1)]
    for node, column in enumerate(depth):
        columns[column].append(Item(column, node))
    links: list[Link] = []
    for source, target, gene in edges:
        last = Item(depth[source], source)
        for column in range(depth[source] + 1, depth[target]):
            lane = Item(column, source, lane=True)
            if lane not in columns[column]:
                columns[column].append(lane)
                links.append(Link(last, lane))
            last = lane
        links.append(Link(last, Item(depth[target], target), gene))
    return columns, tuple(links)


def _by_gap(links: tuple[Link, ...], columns: int) -> list[list[Link]]:
    """The links right of each column."""
    gaps: list[list[Link]] = [[] for _ in range(columns)]
    for link in links:
        gaps[link.start.column].append(link)
    return gaps


def _crossings(links: list[Link], position: dict[Item, int]) -> int:
    ends = [(position[link.start], position[link.end]) for link in links]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(ends, 2))


def _improve(order: list[list[Item]], gaps: list[list[Link]]) -> list[list[Item]]:
    """Sort columns by the mean place of their neighbours, then swap neighbours while crossings fall."""
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for column in range(1, len(order)) if forward else range(len(order) - 2, 0, -1):
            beside = order[column - 1 if forward else column + 1]
            place = {item: index / max(len(beside) - 1, 1) for index, item in enumerate(beside)}
            pull: dict[Item, list[float]] = {item: [] for item in order[column]}
            for link in gaps[column - 1 if forward else column]:
                near, far = (link.end, link.start) if forward else (link.start, link.end)
                pull[near].append(place[far])
            own = {item: index / max(len(order[column]) - 1, 1) for index, item in enumerate(order[column])}
            order[column].sort(key=lambda item: sum(pull[item]) / len(pull[item]) if pull[item] else own[item])
    _swap_neighbours(order, gaps)
    return order


def _swap_neighbours(order: list[list[Item]], gaps: list[list[Link]]) -> None:
    position = {item: place for column in order for place, item in enumerate(column)}
    improved = True
    while improved:
        improved = False
        for number in range(1, len(order)):
            column = order[number]
            around = (gaps[number - 1], gaps[number])
            for upper in range(len(column) - 1):
                first, second = column[upper], column[upper + 1]
                before = sum(_crossings(links, position) for links in around)
                position[first], position[second] = upper + 1, upper
                if sum(_crossings(links, position) for links in around) < before:
                    column[upper], column[upper + 1] = second, first
                    improved = True
                else:
                    position[first], position[second] = upper, upper + 1
