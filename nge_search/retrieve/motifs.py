"""Motifs: the blocks that a network repeats, and the network as a graph of them (NAR, Sections 3.2 and 3.3).

A node's code says what surrounds it: its label, and, step by step, the codes of those that it hears with how far
back they stand (Eq. 2). Blocks that are built alike give the same codes in a row, so a network becomes a sequence
in which they recur; where the frequency of pairs of codes falls or rises, a motif ends. Motifs are runs of nodes,
one behind the other; two are joined in the macro graph if an edge leads from one to the other.

All of it is linear in nodes and edges.

Legend: N nodes in topological order, E edges, M motifs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nge_search.errors import UserError, nearest
from nge_search.retrieve.ordered import OrderedGraph, mixed, refined


@dataclass(frozen=True)
class MotifSettings:
    """How a graph is divided into motifs.

    Attributes:
        split: one of `SPLITS`; only `frequent` looks at the graph.
        steps: s of Eq. 2, how many edges far a code sees.
        labels: what of a node's label its code holds, one of `ordered.DETAILS`; nothing: the topology alone.
        children: codes also hold those that hear the node.
        size: nodes of a motif, where they are cut by node number.
        count: motifs of a graph, where they are cut by motif number.
        shortest, longest: nodes of a motif, where they are cut at random.
    """

    split: str = "frequent"
    steps: int = 1
    labels: str = "names"
    children: bool = False
    size: int = 7
    count: int = 30
    shortest: int = 5
    longest: int = 9

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            known = ", ".join(SPLITS)
            raise UserError(f"motifs are split by one of {known}, not '{self.split}'{nearest(self.split, SPLITS)}")
        if min(self.steps, self.size - 1, self.count - 1, self.shortest - 1) < 0 or self.longest < self.shortest:
            raise UserError("motifs need steps >= 0, sizes and counts >= 1, and longest >= shortest")


@dataclass(frozen=True)
class Part:
    """A piece of a graph, its nodes numbered from 0.

    Attributes:
        place_N: where its nodes stand in the graph's row.
        source_E, target_E: edges, in the piece's numbers.
    """

    place_N: np.ndarray
    source_E: np.ndarray
    target_E: np.ndarray


@dataclass(frozen=True)
class Motifs:
    """A graph divided into runs of its nodes.

    Attributes:
        graph: its nodes in their order.
        code_N: what surrounds each node, uint64.
        first_M: where each motif begins; the first at 0.
    """

    graph: OrderedGraph
    code_N: np.ndarray
    first_M: np.ndarray

    def __len__(self) -> int:
        return len(self.first_M)

    @cached_property
    def size_M(self) -> np.ndarray:
        """Nodes of each motif."""
        return np.diff(self.first_M, append=len(self.graph))

    @cached_property
    def owner_N(self) -> np.ndarray:
        """The motif of each node."""
        return np.repeat(np.arange(len(self)), self.size_M)

    @cached_property
    def word_M(self) -> np.ndarray:
        """A name for each motif: those with the same sequence of codes share it, in all graphs; uint64."""
        return self._sequences(self.code_N)

    @cached_property
    def content_M(self) -> np.ndarray:
        """A name that motifs share whose graphs (`part`) are the same, labels with attributes; uint64."""
        return self._sequences(self._surroundings(1))

    @cached_property
    def context_M(self) -> np.ndarray:
        """A name that motifs share whose contexts of one hop (`context`) are the same; uint64."""
        return self._sequences(self._surroundings(2))

    def _surroundings(self, rounds: int) -> np.ndarray:
        word_N = self.graph.words("attributes")
        for _ in range(rounds):
            word_N = refined(word_N, self.graph, offsets=True)
        return word_N

    def _sequences(self, word_N: np.ndarray) -> np.ndarray:
        """One word for the words of each motif, in their order."""
        within_N = np.arange(len(word_N)) - self.first_M[self.owner_N]
        sum_M = np.add.reduceat(mixed(word_N + mixed(within_N.astype(np.uint64))), self.first_M)
        return mixed(sum_M + mixed(self.size_M.astype(np.uint64)))

    def nodes(self, motif: int) -> np.ndarray:
        """The graph's numbers of a motif's nodes."""
        first = self.first_M[motif]
        return self.graph.node_N[first : first + self.size_M[motif]]

    @cached_property
    def macro_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Sources and targets of the macro graph's edges: each pair of motifs that an edge leads between, once."""
        owner_E = self.owner_N[self.graph.source_E], self.owner_N[self.graph.target_E]
        crossing_E = owner_E[0] != owner_E[1]
        pairs = sorted(set(zip(owner_E[0][crossing_E].tolist(), owner_E[1][crossing_E].tolist())))
        source_F, target_F = np.array(pairs, np.int64).reshape(-1, 2).T
        return source_F, target_F

    def part(self, motif: int) -> Part:
        """A motif's graph: all edges with an end in it, and their ends. Its own nodes come first."""
        first = int(self.first_M[motif])
        last = first + int(self.size_M[motif])
        return self._around(np.arange(first, last), self._touching_run(first, last))

    def context(self, motif: int, hops: int = 1) -> Part:
        """A motif's graph and what stands up to `hops` edges from it; the motif's own nodes come first."""
        found = self.part(motif)
        own = found.place_N[: self.size_M[motif]]
        for _ in range(hops):
            found = self._around(own, self._touching(found.place_N))
        return found

    def _touching_run(self, first: int, last: int) -> np.ndarray:
        """The edges with an end among the places from `first` up to `last`."""
        graph = self.graph
        heard_E = np.arange(graph.first_heard[first], graph.first_heard[last])
        told_E = graph.by_source[graph.first_told[first] : graph.first_told[last]]
        return np.concatenate([heard_E, told_E[graph.target_E[told_E] >= last]])

    def _touching(self, place_P: np.ndarray) -> np.ndarray:
        """The edges with an end among these places, by their number."""
        graph = self.graph
        parts = [np.arange(graph.first_heard[place], graph.first_heard[place + 1]) for place in place_P]
        parts += [graph.by_source[graph.first_told[place] : graph.first_told[place + 1]] for place in place_P]
        return np.unique(np.concatenate(parts))

    def _around(self, own_P: np.ndarray, edge_E: np.ndarray) -> Part:
        """The piece of these edges; of its nodes `own_P` come first."""
        source_E, target_E = self.graph.source_E[edge_E], self.graph.target_E[edge_E]
        others = np.setdiff1d(np.concatenate([source_E, target_E]), own_P)
        place_N = np.concatenate([own_P, others])
        by_place = np.argsort(place_N)
        numbers = [by_place[np.searchsorted(place_N, end_E, sorter=by_place)] for end_E in (source_E, target_E)]
        return Part(place_N, *numbers)


def divide(graph: OrderedGraph, settings: MotifSettings, generator: np.random.Generator | None = None) -> Motifs:
    """A graph's motifs; `generator` decides where those of random sizes end (None: of seed 0)."""
    code_N = encode(graph, settings.steps, settings.labels, settings.children)
    generator = generator or np.random.default_rng(0)
    return Motifs(graph, code_N, SPLITS[settings.split](code_N, settings, generator))


def encode(graph: OrderedGraph, steps: int, labels: str = "names", children: bool = False) -> np.ndarray:
    """C^s of Eq. 2: a word for each node's surroundings, uint64 [N].

    Two nodes share a code if they share their label (as far as `labels` says) and, at each step, the codes of those
    that they hear together with how far before them these stand; with `children` also of those that hear them.
    """
    code_N = graph.words(labels)
    for _ in range(steps):
        code_N = refined(code_N, graph, children=children, offsets=True)
    return code_N


def numbered(code_N: np.ndarray) -> np.ndarray:
    """Codes as numbers in the order of their first occurrence, from 0: int64 [N]."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(code, len(numbers)) for code in code_N.tolist()], np.int64)


def frequent_runs(code_N: np.ndarray) -> np.ndarray:
    """Where the motifs of a sequence of codes begin: int64 [M].

    With f_i how often the pair (c_i, c_i+1) occurs, and t the most frequent change of f (of equals the smallest; 0
    if it never changes), a motif goes on while f changes by at most t; a larger fall ends it behind the next node,
    a larger rise before it.
    """
    count = len(code_N)
    pairs = list(zip(code_N[:-1].tolist(), code_N[1:].tolist()))
    occurrences = Counter(pairs)
    f = [occurrences[pair] for pair in pairs]
    changes = Counter(abs(after - before) for before, after in itertools.pairwise(f) if after != before)
    threshold = min(changes, key=lambda change: (-changes[change], change), default=0)
    starts, i = [0], 0
    while i < count - 2:
        if abs(f[i] - f[i + 1]) <= threshold:
            i += 1
            continue
        i += 2 if f[i] > f[i + 1] else 1
        if i < count:
            starts.append(i)
    return np.array(starts, np.int64)


def _frequent(code_N: np.ndarray, settings: MotifSettings, generator: np.random.Generator) -> np.ndarray:
    return frequent_runs(code_N)


def _node_number(code_N: np.ndarray, settings: MotifSettings, generator: np.random.Generator) -> np.ndarray:
    """Motifs of one size; the last may be smaller."""
    return np.arange(0, len(code_N), settings.size)


def _motif_number(code_N: np.ndarray, settings: MotifSettings, generator: np.random.Generator) -> np.ndarray:
    """So many motifs, of sizes that differ by at most 1; as many as nodes, if there are fewer."""
    count = min(settings.count, len(code_N))
    return np.arange(count) * len(code_N) // count


def _random(code_N: np.ndarray, settings: MotifSettings, generator: np.random.Generator) -> np.ndarray:
    """Motifs of sizes drawn from a range; the last may be smaller."""
    most = -(-len(code_N) // settings.shortest)
    ends = np.cumsum(generator.integers(settings.shortest, settings.longest + 1, most))
    return np.concatenate([[0], ends[ends < len(code_N)]])


SPLITS: dict[str, Callable[[np.ndarray, MotifSettings, np.random.Generator], np.ndarray]] = {
    "frequent": _frequent,
    "node_number": _node_number,
    "motif_number": _motif_number,
    "random": _random,
}
