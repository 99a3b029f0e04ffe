"""A graph's nodes in a row, as arrays, and names of 64 bits for what surrounds a node.

A node's name is a word of 64 bits. In a round of refinement (Weisfeiler and Leman, 1968) it takes up the names of
those that the node hears, and of those that hear it: a multiset enters as the sum of its members' hashes, so that a
round is a few sums over edges, at any size. Two different surroundings share a word with probability 2^-64; words
are the same in every graph, in every process and on every machine.

Legend: N nodes, E edges, L distinct labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from nge_search.architecture.graph import PLAIN, Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.operation_labels import VIEWS

#: What of a label is looked at: nothing, the operation's name, or the name with its attributes.
DETAILS = ("nothing", "names", "attributes")

_GAMMA, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_HEARD, _TOLD = np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7)


@dataclass(frozen=True)
class OrderedGraph:
    """A graph with its nodes in topological order.

    Attributes:
        node_N: which node of the graph stands at each place.
        labels: the distinct labels, by first occurrence.
        label_N: the number of each node's label among `labels`.
        source_E, target_E: places of the edges' ends, by target and then by source.
    """

    node_N: np.ndarray
    labels: tuple[Label, ...]
    label_N: np.ndarray
    source_E: np.ndarray
    target_E: np.ndarray

    def __len__(self) -> int:
        return len(self.node_N)

    @staticmethod
    def of(graph: Graph) -> OrderedGraph:
        """A graph whose operations are on nodes.

        Raises:
            UserError: operations on edges, or no nodes.
        """
        if not graph.nodes:
            raise UserError("a graph without nodes cannot be compared with others")
        if any(edge.label != PLAIN for edge in graph.edges):
            raise UserError("the graph has operations on edges; turn them into nodes (Graph.operations_on_nodes)")
        node_N = np.array(graph.order, np.int64)
        place_N = np.empty_like(node_N)
        place_N[node_N] = np.arange(len(node_N))
        numbers: dict[Label, int] = {}
        label_N = np.array([numbers.setdefault(graph.nodes[node], len(numbers)) for node in graph.order], np.int64)
        ends_E2 = np.array([edge[:2] for edge in graph.edges], np.int64).reshape(-1, 2)
        return _sorted(node_N, tuple(numbers), label_N, place_N[ends_E2[:, 0]], place_N[ends_E2[:, 1]])

    @cached_property
    def first_heard(self) -> np.ndarray:
        """[N + 1]: the edges that end at place i are those from first_heard[i] up to first_heard[i + 1]."""
        return np.searchsorted(self.target_E, np.arange(len(self) + 1))

    @cached_property
    def by_source(self) -> np.ndarray:
        """[E]: the edges by their sources."""
        return np.argsort(self.source_E, kind="stable")

    @cached_property
    def first_told(self) -> np.ndarray:
        """[N + 1]: as `first_heard`, of the edges that start there, in the order of `by_source`."""
        return np.searchsorted(self.source_E[self.by_source], np.arange(len(self) + 1))

    @cached_property
    def bags(self) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
        """What `fingerprints.bag` found in the graph, by the settings that decide it."""
        return {}

    @cached_property
    def contracted(self) -> OrderedGraph:
        """The graph without what only looks at numbers in another way."""
        return self.without(VIEWS)

    def words(self, detail: str) -> np.ndarray:
        """Names of the nodes by their labels alone, uint64 [N]; `detail` is one of `DETAILS`."""
        return label_words(self.labels, detail)[self.label_N]

    def kept(self, keep_N: np.ndarray) -> OrderedGraph:
        """The nodes where `keep_N` is true, with the edges between them."""
        place_N = np.cumsum(keep_N) - 1
        edge_E = keep_N[self.source_E] & keep_N[self.target_E]
        ends = place_N[self.source_E[edge_E]], place_N[self.target_E[edge_E]]
        return OrderedGraph(self.node_N[keep_N], self.labels, self.label_N[keep_N], *ends)

    def without(self, names: Collection[str]) -> OrderedGraph:
        """The graph without the operations of some names: what fed one feeds what it fed."""
        gone_N = np.array([label.name in names for label in self.labels], bool)[self.label_N]
        if not gone_N.any():
            return self
        heard: dict[int, list[int]] = {}  # by nodes that go: what stays of what they hear, through others that go
        for node in np.flatnonzero(gone_N).tolist():
            own = self.source_E[self.first_heard[node] : self.first_heard[node + 1]].tolist()
            heard[node] = [source for direct in own for source in heard.get(direct, (direct,))]
        place_N, keep_E = np.cumsum(~gone_N) - 1, ~gone_N[self.target_E]
        through = np.flatnonzero(keep_E & gone_N[self.source_E]).tolist()
        new = [(source, self.target_E[e]) for e in through for source in heard[int(self.source_E[e])]]
        new_E2 = np.array(new, np.int64).reshape(-1, 2)
        keep_E &= ~gone_N[self.source_E]
        source_E = np.concatenate([self.source_E[keep_E], new_E2[:, 0]])
        target_E = np.concatenate([self.target_E[keep_E], new_E2[:, 1]])
        kept = self.node_N[~gone_N], self.labels, self.label_N[~gone_N]
        return _sorted(*kept, place_N[source_E], place_N[target_E])


def _sorted(
    node_N: np.ndarray, labels: tuple[Label, ...], label_N: np.ndarray, source_E: np.ndarray, target_E: np.ndarray
) -> OrderedGraph:
    by_target = np.lexsort((source_E, target_E))
    return OrderedGraph(node_N, labels, label_N, source_E[by_target], target_E[by_target])


def label_words(labels: Sequence[Label], detail: str) -> np.ndarray:
    """A word for each label, uint64 [L].

    Raises:
        ValueError: an unknown detail.
    """
    if detail not in DETAILS:
        raise ValueError(f"detail is one of {', '.join(DETAILS)}, not '{detail}'")
    texts = {"nothing": "", "names": "{0.name}", "attributes": "{0}"}
    return np.array([text_word(texts[detail].format(label)) for label in labels], np.uint64)


@lru_cache(maxsize=1 << 16)
def text_word(text: str) -> int:
    """64 bits for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mixed(word_N: np.ndarray) -> np.ndarray:
    """splitmix64's output function, a bijection of words: uint64 [N] (Steele, Lea and Flood, 2014)."""
    word_N = word_N + _GAMMA
    word_N = (word_N ^ (word_N >> np.uint64(30))) * _FIRST
    word_N = (word_N ^ (word_N >> np.uint64(27))) * _SECOND
    return word_N ^ (word_N >> np.uint64(31))


def refined(
    word_N: np.ndarray, graph: OrderedGraph, parents: bool = True, children: bool = True, offsets: bool = False
) -> np.ndarray:
    """Names after one more round: each node's own with those of its neighbours, uint64 [N].

    Args:
        word_N: names before it.
        parents, children: which neighbours count: those that are heard, and those that hear.
        offsets: how far a neighbour stands from the node in the row is part of what it brings.
    """
    found_N = mixed(word_N)
    sides = (
        (parents, graph.source_E, graph.target_E, _HEARD),
        (children, graph.target_E, graph.source_E, _TOLD),
    )
    for wanted, from_E, to_E, factor in sides:
        if wanted:
            brought_E = word_N[from_E]
            if offsets:
                brought_E = brought_E + mixed((to_E - from_E).astype(np.uint64))
            sum_N = np.zeros(len(word_N), np.uint64)
            np.add.at(sum_N, to_E, mixed(brought_E))
            found_N = found_N + factor * mixed(sum_N)
    return mixed(found_N)
