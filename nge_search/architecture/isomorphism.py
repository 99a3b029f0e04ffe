"""Names of graphs that do not hang on how their nodes are numbered, and exact comparison.

Nodes are coloured by Weisfeiler and Leman's refinement (1968): a colour takes up the colours of the neighbours and
the labels of the edges between, until no more nodes can be told apart. It starts from colours that already hold all
that leads to a node and away from it, so that it settles in a few rounds however deep a graph is. Up to
`EXACT_NODES` nodes a canonical numbering is searched behind it: such graphs share a name exactly if they are
isomorphic. Larger ones that share a name are compared node by node where it matters.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from nge_search.architecture.graph import Edge, Graph, Label

EXACT_NODES = 10

Colour = bytes
Written = tuple[tuple[Label, ...], tuple[Edge, ...], tuple[int, ...], tuple[int, ...]]
Item = TypeVar("Item")


def digest(graph: Graph) -> str:
    """The graph's name: 32 hexadecimal digits.

    Exact up to `EXACT_NODES` nodes, but for a collision of hashes; beyond, two graphs that are not isomorphic may
    share one (`isomorphic` tells them apart).
    """
    if len(graph.nodes) > EXACT_NODES:
        return _hash("refined", *sorted(colours(graph))).hex()
    best = min(_numberings(graph, colours(graph)), key=_written)
    return _hash("exact", _written(best)).hex()


def isomorphic(first: Graph, second: Graph) -> bool:
    """Whether a renumbering of nodes turns one graph into the other: labels, roles and all edges agree."""
    if len(first.nodes) != len(second.nodes) or len(first.edges) != len(second.edges):
        return False
    if first.digest != second.digest:
        return False
    return len(first.nodes) <= EXACT_NODES or _matches(first, second)


def distinct(items: Iterable[Item], graph: Callable[[Item], Graph]) -> list[Item]:
    """The first of each class of items whose graphs are isomorphic, in their order."""
    found: dict[str, list[Graph]] = defaultdict(list)
    kept = []
    for item in items:
        own = graph(item)
        alike = found[own.digest]
        if not any(isomorphic(own, other) for other in alike):
            alike.append(own)
            kept.append(item)
    return kept


def colours(graph: Graph) -> list[Colour]:
    """The stable colours of the nodes; the same for any numbering."""
    roles = [
        _hash(label, _places(graph.inputs, node), _places(graph.outputs, node))
        for node, label in enumerate(graph.nodes)
    ]
    behind, ahead = list(roles), list(roles)
    for node in graph.order:
        behind[node] = _hash(roles[node], *_heard(graph, node, behind))
    for node in reversed(graph.order):
        ahead[node] = _hash(roles[node], *_told(graph, node, ahead))
    return _refined(graph, [_hash(*pair) for pair in zip(behind, ahead)])


def _refined(graph: Graph, found: list[Colour]) -> list[Colour]:
    """Take up neighbours' colours until that tells no more nodes apart."""
    kinds = len(set(found))
    while kinds < len(found):
        found = [
            _hash(own, *_heard(graph, node, found), "|", *_told(graph, node, found))
            for node, own in enumerate(found)
        ]
        before, kinds = kinds, len(set(found))
        if kinds == before:
            break
    return found


def _heard(graph: Graph, node: int, found: list[Colour]) -> list[tuple[Hashable, Colour]]:
    edges = (graph.edges[position] for position in graph.incoming[node])
    return sorted((edge.label, found[edge.source]) for edge in edges)


def _told(graph: Graph, node: int, found: list[Colour]) -> list[tuple[Hashable, Colour]]:
    edges = (graph.edges[position] for position in graph.outgoing[node])
    return sorted((edge.label, found[edge.target]) for edge in edges)


def _places(members: tuple[int, ...], node: int) -> tuple[int, ...]:
    return tuple(place for place, member in enumerate(members) if member == node)


def _numberings(graph: Graph, found: list[Colour]) -> Iterator[Graph]:
    """The graph in every numbering that its colours leave open, but for those that differ by exchanging twins."""
    groups: dict[Colour, list[int]] = defaultdict(list)
    for node, colour in enumerate(found):
        groups[colour].append(node)
    tied = sorted((colour, members) for colour, members in groups.items() if len(members) > 1)
    if not tied:
        yield graph.renumbered(sorted(range(len(found)), key=found.__getitem__))
        return
    colour, members = tied[0]
    for chosen in members[:1] if _are_twins(graph, members) else members:
        told_apart = list(found)
        told_apart[chosen] = _hash(colour, "first")
        yield from _numberings(graph, _refined(graph, told_apart))


def _are_twins(graph: Graph, members: list[int]) -> bool:
    """Whether all of these nodes have the same neighbours, so that exchanging them changes nothing."""

    def around(node: int) -> tuple[list[Edge], list[Edge]]:
        heard = [graph.edges[position]._replace(target=-1) for position in graph.incoming[node]]
        told = [graph.edges[position]._replace(source=-1) for position in graph.outgoing[node]]
        return sorted(heard), sorted(told)

    first = around(members[0])
    return all(around(other) == first for other in members[1:])


def _written(graph: Graph) -> Written:
    return graph.nodes, graph.edges, graph.inputs, graph.outputs


def _matches(first: Graph, second: Graph) -> bool:
    """Whether some mapping of nodes, tried one after the other in topological order, keeps colours and edges."""
    own, theirs = colours(first), colours(second)
    candidates: dict[Colour, list[int]] = defaultdict(list)
    for node, colour in enumerate(theirs):
        candidates[colour].append(node)
    mapping: dict[int, int] = {}
    used: set[int] = set()
    trials: list[Iterator[int]] = []
    while len(mapping) < len(first.order):
        node = first.order[len(mapping)]
        if len(trials) == len(mapping):
            trials.append(iter(candidates[own[node]]))
        found = next((c for c in trials[-1] if c not in used and _fits(first, second, node, c, mapping)), None)
        if found is not None:
            mapping[node] = found
            used.add(found)
            continue
        trials.pop()
        if not trials:
            return False
        used.remove(mapping.pop(first.order[len(trials) - 1]))
    return True


def _fits(first: Graph, second: Graph, node: int, candidate: int, mapping: dict[int, int]) -> bool:
    """Whether `candidate` hears from the images of `node`'s sources, over the same edges."""
    edges = (first.edges[position] for position in first.incoming[node])
    others = (second.edges[position] for position in second.incoming[candidate])
    return sorted((mapping[edge.source], edge.label) for edge in edges) == sorted(
        (edge.source, edge.label) for edge in others
    )


def _hash(*parts: Hashable) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
