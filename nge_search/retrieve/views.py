"""Other networks that are built like a given one, made from its graph: pieces of it, and other depths.

Legend: N nodes in topological order, E edges.
"""

from __future__ import annotations

import numpy as np

from nge_search.retrieve.motifs import encode
from nge_search.retrieve.ordered import OrderedGraph


def random_subgraph(graph: OrderedGraph, share: float, generator: np.random.Generator) -> OrderedGraph:
    """A run of consecutive nodes, at least one, with the edges between them: a part of a network cut out.

    Args:
        share: of the nodes that stay.
    """
    count = max(1, round(share * len(graph)))
    first = int(generator.integers(0, len(graph) - count + 1))
    place_N = np.arange(len(graph))
    return graph.kept((place_N >= first) & (place_N < first + count))


def repetitions(graph: OrderedGraph, shortest: int = 3, most: int = 200) -> list[tuple[int, int]]:
    """Where a run of nodes is followed by one that is built alike: (first place, length), the lengths in ascending
    order.

    A run counts if each of its nodes hears the same, equally far back, as the node one run later; of several of one
    length that overlap, those that begin a stretch of them.

    Args:
        shortest, most: nodes of a run. Longer ones are not looked for, so that the work is linear.
    """
    code_N = encode(graph, 1)
    found = []
    for length in range(shortest, min(most, len(code_N) // 2) + 1):
        same_N = code_N[:-length] == code_N[length:]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same_N, [False]])))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
            found += [(first, length) for first in range(start, end - length + 1, length)]
    return found


def without_repetition(graph: OrderedGraph, first: int, length: int) -> OrderedGraph:
    """The network less deep by the run of nodes at `first`, which the next run of that length takes the place of.

    What the run heard from before it, the next run hears; what heard the run hears the next; what the two said to
    each other is gone.
    """
    place_N = np.arange(len(graph))
    gone_N = (place_N >= first) & (place_N < first + length)
    next_N = (place_N >= first + length) & (place_N < first + 2 * length)
    source_E, target_E = graph.source_E, graph.target_E
    before_E = source_E < first
    kept_E = ~(gone_N[source_E] & next_N[target_E]) & ~(before_E & next_N[target_E])
    moved = [np.where(gone_N[end_E], end_E + length, end_E)[kept_E] for end_E in (source_E, target_E)]
    # within the run, edges now double those of the next run
    inside_E = (gone_N[source_E] & gone_N[target_E])[kept_E]
    moved = [end_E[~inside_E] for end_E in moved]
    twice_E = gone_N[source_E][kept_E][~inside_E] & _is_among(moved, source_E, target_E)
    source_E, target_E = (end_E[~twice_E] for end_E in moved)
    order = np.lexsort((source_E, target_E))
    whole = OrderedGraph(graph.node_N, graph.labels, graph.label_N, source_E[order], target_E[order])
    return whole.kept(~gone_N)


def _is_among(edges: list[np.ndarray], source_E: np.ndarray, target_E: np.ndarray) -> np.ndarray:
    """Whether each of some edges is one of those of a graph."""
    width = int(max(edges[1].max(initial=0), target_E.max(initial=0))) + 1
    return np.isin(edges[0] * width + edges[1], source_E * width + target_E)


def random_depth(graph: OrderedGraph, most: int, generator: np.random.Generator) -> OrderedGraph:
    """The network with up to `most` repetitions taken out, drawn at random; the same where nothing repeats."""
    for _ in range(int(generator.integers(0, most + 1))):
        found = repetitions(graph)
        if not found:
            break
        graph = without_repetition(graph, *found[int(generator.integers(0, len(found)))])
    return graph


def random_view(
    graph: OrderedGraph, least_share: float, most_repetitions: int, generator: np.random.Generator
) -> OrderedGraph:
    """A network of another depth, cut out to a random share of its nodes of at least `least_share`."""
    shallower = random_depth(graph, most_repetitions, generator)
    return random_subgraph(shallower, float(generator.uniform(least_share, 1.0)), generator)
