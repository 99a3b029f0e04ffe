"""How a cell grows link by link: the states that it passes through, and the moves there are in each.

A state is a cell in the making with operations on nodes. A move adds what one link leads to, a new node for the
most part; moves are made such that whatever is drawn, the cell that results is one of the space.

Legend: L labels, F features of a label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nge_search.architecture.graph import INPUT, OUTPUT, Graph
from nge_search.errors import UserError
from nge_search.spaces import Code, Space

#: (source, target), nodes of a graph.
Link = tuple[int, int]

#: A cell in the making, as the rules of its space write it; can be compared and hashed.
State = Any


class LinkGraph(NamedTuple):
    """Nodes with operations and links between them, in the form that link models take.

    Attributes:
        labels: of each node, as a position in `Rules.labels`.
        links: between them.
    """

    labels: tuple[int, ...]
    links: tuple[Link, ...]


class Move(NamedTuple):
    """One way to go on.

    Attributes:
        links: those by which it is judged, (source, target); a target below 0 is new: the first node of the part
            `Rules.parts[~target]`.
        step: what is added, as the rules of the space write it.
    """

    links: tuple[Link, ...]
    step: Any


class Choice(NamedTuple):
    """What there is to judge.

    Attributes:
        graph: the cell so far.
        moves: all there are; at least one.
    """

    graph: LinkGraph
    moves: tuple[Move, ...]


class Stage(NamedTuple):
    """A state on the way to a known cell.

    Attributes:
        state: reached so far.
        moves: all there are.
        good: positions of those that lead on to the cell.
        chosen: position of the one that was taken.
    """

    state: State
    moves: tuple[Move, ...]
    good: tuple[int, ...]
    chosen: int


class Rules(ABC):
    """What cells of a space are made of and how they grow.

    Attributes:
        space: of the cells.
        labels: the operations of nodes.
        features_LF: a row for each label: what a model sees of it.
        parts: what a move may add, not linked to the cell yet: single nodes, or chains of them.
    """

    space: Space
    labels: tuple[str, ...]
    features_LF: np.ndarray
    parts: tuple[LinkGraph, ...]

    @abstractmethod
    def start(self, size: int) -> State:
        """The state that a cell grows from.

        Args:
            size: the number of moves after which it is done, if it can be met.

        Raises:
            UserError: a size that no cell has.
        """

    @abstractmethod
    def graph(self, state: State) -> LinkGraph:
        """The cell so far."""

    @abstractmethod
    def moves(self, state: State) -> tuple[Move, ...]:
        """The moves there are; none when the cell is done."""

    @abstractmethod
    def moved(self, state: State, move: Move) -> State:
        """The state after a move."""

    @abstractmethod
    def code(self, state: State) -> Code:
        """The cell that is done."""

    @abstractmethod
    def size(self, code: Code) -> int:
        """The number of moves that a cell takes."""

    @abstractmethod
    def graphs(self, code: Code) -> list[LinkGraph]:
        """An architecture's cells as wholes; none if no path leads through it."""

    @abstractmethod
    def grown(self, code: Code, random: np.random.Generator) -> list[Stage]:
        """The way on which a cell comes to be, its links in a random order in which each leaves what is there."""

    def key(self, code: Code) -> bytes:
        """What names a cell, equal for those that compute the same by the space's count."""
        return self.space.key(code)

    def drawing(self, state: State) -> Graph:
        """The cell so far, as other parts of the package take it."""
        labels, links = self.graph(state)
        names = [self.labels[label] for label in labels]
        inputs = [node for node, name in enumerate(names) if name == INPUT]
        return Graph.build(names, links, inputs, [node for node, name in enumerate(names) if name == OUTPUT])

    def written(self, state: State, move: Move) -> tuple[str, str]:
        """Source and target of a move for people: operations with their nodes' numbers, or marked as new."""
        labels, (source, target) = self.graph(state).labels, move.links[0]
        new = self.labels[self.parts[~target].labels[0]] if target < 0 else ""
        return (
            f"{self.labels[labels[source]]} {source}",
            f"new {new}" if new else f"{self.labels[labels[target]]} {target}",
        )


def one_hot(count: int) -> np.ndarray:
    """A feature for each label: [L, L]."""
    return np.eye(count, dtype=np.float32)


def single(label: int) -> LinkGraph:
    """A part that is one node."""
    return LinkGraph((label,), ())


def require_size(size: int, largest: int, space: Space) -> None:
    """Raise UserError for a number of links that no cell has."""
    if not 1 <= size <= largest:
        raise UserError(f"a cell of {space.name} with {size} links: it has 1 to {largest}")


def found_at(moves: Sequence[Move], steps: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the moves whose steps these are, in the order of the moves."""
    wanted = set(steps)
    return tuple(position for position, move in enumerate(moves) if move.step in wanted)
