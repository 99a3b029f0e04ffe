"""A graph in layers: which column each node stands in, and in which order inside its column.

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

from nge_search.architecture.graph import PLAIN, SUM, Graph

_RESTARTS = 12
_SWEEPS = 8


class Item(NamedTuple):
    """What takes up room in a column: a node, or the lane in which edges of `node` pass by."""

    column: int
    node: int
    lane: bool = False


@dataclass(frozen=True)
class Link:
    """A piece of edge between neighbouring columns. `edge`: position of that whose operation it reaches, if any."""

    start: Item
    end: Item
    edge: int | None = None


@dataclass(frozen=True)
class Layers:
    """`columns`: the items from left to right, each column from top to bottom."""

    columns: tuple[tuple[Item, ...], ...]
    links: tuple[Link, ...]

    def position(self) -> dict[Item, int]:
        return {item: place for column in self.columns for place, item in enumerate(column)}

    def crossings(self) -> int:
        """How many pairs of links cross."""
        return sum(_crossings(links, self.position()) for links in _by_gap(self.links, len(self.columns)))


def is_terminal(graph: Graph, node: int) -> bool:
    """Whether a node is drawn as where the cell begins or ends: inputs, and outputs that do not add up."""
    return node in graph.inputs or (node in graph.outputs and graph.nodes[node].name != SUM)


def columns_of(graph: Graph) -> list[int]:
    """The column of every node: inputs in the first, outputs that only collect in the last."""
    column = [0] * len(graph.nodes)
    for node in graph.order:
        if node not in graph.inputs:
            column[node] = 1 + max((column[source] for source in graph.sources(node)), default=0)
    last = 1 + max((column[node] for node in graph.order if node not in graph.outputs), default=0)
    return [last if node in graph.outputs and is_terminal(graph, node) else at for node, at in enumerate(column)]


def orderings(graph: Graph) -> Iterator[Layers]:
    """The layers of `graph` in differing, locally best orders; the same ones at every call.

    The inputs keep their order (c_{k-2} above c_{k-1}), so that cells compare easily.
    """
    columns, links = _build(graph)
    shuffle = random.Random(0)
    gaps = _by_gap(links, len(columns))
    for restart in range(_RESTARTS):
        order = [list(column) for column in columns]
        if restart == 1:
            order = [order[0], *([*reversed(column)] for column in order[1:])]
        elif restart > 1:
            for column in order[1:]:
                shuffle.shuffle(column)
        yield Layers(tuple(map(tuple, _improve(order, gaps))), links)


def _build(graph: Graph) -> tuple[list[list[Item]], tuple[Link, ...]]:
    column_of = columns_of(graph)
    columns: list[list[Item]] = [[] for _ in range(max(column_of) + 1)]
    for node, column in enumerate(column_of):
        columns[column].append(Item(column, node))
    links: list[Link] = []
    for position, (source, target, label) in enumerate(graph.edges):
        last = Item(column_of[source], source)
        for column in range(column_of[source] + 1, column_of[target]):
            lane = Item(column, source, lane=True)
            if lane not in columns[column]:
                columns[column].append(lane)
                links.append(Link(last, lane))
            last = lane
        links.append(Link(last, Item(column_of[target], target), None if label == PLAIN else position))
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
