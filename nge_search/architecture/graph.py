"""One architecture, or one cell of it, as a directed acyclic graph: the form that every part of the package shares.

What is computed stands in labels, on nodes (NAS-Bench-101, whole networks), on edges (DARTS, NAS-Bench-201), or on
several edges between the same two nodes (ENAS). Memory is linear in nodes and edges.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nge_search.errors import UserError

INPUT, OUTPUT, SUM, CONCAT = "input", "output", "sum", "concat"


class Label(NamedTuple):
    """What a node or an edge computes: an operation's name, and what is known of it, as (("kernel", 3), ...)."""

    name: str
    attributes: tuple[tuple[str, int | str], ...] = ()

    @staticmethod
    def of(name: str, **attributes: int | str) -> Label:
        """A label with its attributes in the order of their names, so that equal ones compare equal."""
        return Label(name, tuple(sorted(attributes.items())))

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.attributes)
        return f"{self.name}({inside})" if inside else self.name


#: Of an edge that only hands on what its source gives.
PLAIN = Label("")


class Edge(NamedTuple):
    """`source` feeds `target`; `label` is what is computed on the way."""

    source: int
    target: int
    label: Label = PLAIN


@dataclass(frozen=True)
class Graph:
    """Labelled nodes, numbered from 0, and edges between them.

    Attributes:
        nodes: a label for each.
        edges: in any order; several may join the same two nodes.
        inputs: the nodes that are given, in order: the first and the second input are two different things.
        outputs: the nodes whose values leave, in order.

    Raises:
        UserError: an edge, input or output that names no node, or edges that lead in a circle.
    """

    nodes: tuple[Label, ...]
    edges: tuple[Edge, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        count, forward = len(self.nodes), True
        for edge in self.edges:
            if not (0 <= edge.source < count and 0 <= edge.target < count):
                raise UserError(
                    f"an edge of the graph leads from {edge.source} to {edge.target}; it has {count} nodes"
                )
            forward = forward and edge.source < edge.target
        for node in (*self.inputs, *self.outputs):
            if not 0 <= node < count:
                raise UserError(f"an input or output of the graph is node {node}; it has {count} nodes")
        if not forward and len(self.order) < count:
            raise UserError("the edges of the graph lead in a circle; an architecture is acyclic")

    @staticmethod
    def build(
        nodes: Iterable[Label | str],
        edges: Iterable[tuple[int, int] | tuple[int, int, Label | str]],
        inputs: Iterable[int],
        outputs: Iterable[int],
    ) -> Graph:
        """A graph from names or labels, and from (source, target) or (source, target, name or label) edges."""

        def labelled(given: Label | str) -> Label:
            return given if isinstance(given, Label) else Label(given)

        joined = [Edge(edge[0], edge[1], *map(labelled, edge[2:])) for edge in edges]
        return Graph(tuple(map(labelled, nodes)), tuple(joined), tuple(inputs), tuple(outputs))

    @cached_property
    def incoming(self) -> tuple[tuple[int, ...], ...]:
        """For each node the positions in `edges` of those that end there."""
        return self._positions(edge.target for edge in self.edges)

    @cached_property
    def outgoing(self) -> tuple[tuple[int, ...], ...]:
        """For each node the positions in `edges` of those that start there."""
        return self._positions(edge.source for edge in self.edges)

    def _positions(self, ends: Iterable[int]) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in self.nodes]
        for position, end in enumerate(ends):
            found[end].append(position)
        return tuple(map(tuple, found))

    def sources(self, node: int) -> list[int]:
        """The nodes that feed `node`, one for each edge."""
        return [self.edges[position].source for position in self.incoming[node]]

    def targets(self, node: int) -> list[int]:
        """The nodes that `node` feeds, one for each edge."""
        return [self.edges[position].target for position in self.outgoing[node]]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The nodes in a topological order, of several that may come next the lowest first."""
        waiting = [len(edges) for edges in self.incoming]
        ready = [node for node, count in enumerate(waiting) if not count]
        found = []
        while ready:
            node = heapq.heappop(ready)
            found.append(node)
            for target in self.targets(node):
                waiting[target] -= 1
                if not waiting[target]:
                    heapq.heappush(ready, target)
        return tuple(found)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """For each node the number of edges of the longest path to it."""
        found = [0] * len(self.nodes)
        for node in self.order:
            found[node] = max((found[source] + 1 for source in self.sources(node)), default=0)
        return tuple(found)

    def without(self, names: Collection[str]) -> Graph:
        """The graph without the edges whose operation is one of `names`, such as NAS-Bench-201's `none`."""
        kept = tuple(edge for edge in self.edges if edge.label.name not in names)
        return Graph(self.nodes, kept, self.inputs, self.outputs)

    def pruned(self) -> Graph | None:
        """The part between inputs and outputs: nodes on no path between them are left out, with their edges.

        Inputs and outputs stay, used or not. None if no path leads from an input to an output.
        """
        passed = self._reachable(self.inputs, self.targets) & self._reachable(self.outputs, self.sources)
        if not passed:
            return None
        edges = [edge for edge in self.edges if edge.source in passed and edge.target in passed]
        return self._restricted(sorted(passed.union(self.inputs, self.outputs)), edges)

    @staticmethod
    def _reachable(starts: Iterable[int], step: Callable[[int], list[int]]) -> set[int]:
        found, waiting = set(starts), list(starts)
        while waiting:
            new = [node for node in step(waiting.pop()) if node not in found]
            found.update(new)
            waiting += new
        return found

    def _restricted(self, kept: Sequence[int], edges: Sequence[Edge]) -> Graph:
        """The nodes `kept`, numbered anew in that order, with `edges` between them."""
        if len(edges) == len(self.edges) and list(kept) == list(range(len(self.nodes))):
            return self
        place = {node: position for position, node in enumerate(kept)}
        return Graph(
            tuple(self.nodes[node] for node in kept),
            tuple(Edge(place[edge.source], place[edge.target], edge.label) for edge in edges),
            tuple(place[node] for node in self.inputs),
            tuple(place[node] for node in self.outputs),
        )

    def renumbered(self, order: Sequence[int]) -> Graph:
        """The same graph with node order[k] as its k-th; edges sorted by source, target and label."""
        moved = self._restricted(order, self.edges)
        return Graph(moved.nodes, tuple(sorted(moved.edges)), moved.inputs, moved.outputs)

    def operations_on_nodes(self, keep_sums: bool = False) -> Graph:
        """The graph with every labelled edge turned into a node, as encoders of operations on nodes need it.

        What only adds up (`SUM`) is left out, unless `keep_sums`: what fed it feeds what it fed. (For cells whose
        operations are all on edges this is the line graph, between the inputs and the outputs.)
        """
        nodes, edges = list(self.nodes), []
        for edge in self.edges:
            if edge.label == PLAIN:
                edges.append(edge)
            else:
                edges += [Edge(edge.source, len(nodes)), Edge(len(nodes), edge.target)]
                nodes.append(edge.label)
        split = Graph(tuple(nodes), tuple(edges), self.inputs, self.outputs)
        if keep_sums:
            return split
        ends = {*self.inputs, *self.outputs}
        sums = {node for node, label in enumerate(nodes) if label.name == SUM and node not in ends}
        feeding: dict[int, list[int]] = {}  # what a node hears once sums hand through
        for node in split.order:
            feeding[node] = []
            for source in split.sources(node):
                feeding[node] += feeding[source] if source in sums else [source]
        kept = [node for node in split.order if node not in sums]
        joined = [Edge(source, node) for node in kept for source in feeding[node]]
        return split._restricted(kept, joined)

    @cached_property
    def digest(self) -> str:
        """A name of 32 hexadecimal digits that isomorphic graphs share; see `isomorphism.digest`."""
        from nge_search.architecture.isomorphism import digest

        return digest(self)

    def is_isomorphic(self, other: Graph) -> bool:
        """Whether the two differ in nothing but the numbering of their nodes; exact at any size."""
        from nge_search.architecture.isomorphism import isomorphic

        return isomorphic(self, other)
