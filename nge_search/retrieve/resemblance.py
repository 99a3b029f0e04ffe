"""Why two networks are alike: the motifs that they share, and the longest of them in both.

Legend: N and M nodes of the two graphs in topological order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from nge_search.architecture.graph import Graph
from nge_search.retrieve.motifs import Motifs, MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph

#: How motifs are cut for this: as far as a person compares blocks, by operations with their attributes.
SETTINGS = MotifSettings(labels="attributes")


@dataclass(frozen=True)
class SharedMotif:
    """A sequence of codes that is a motif of both networks.

    Attributes:
        operations: its nodes' labels, in their order.
        first, second: how often it is a motif of the one and of the other.
        share: of the first network's nodes that its motifs hold.
    """

    operations: tuple[str, ...]
    first: int
    second: int
    share: float


@dataclass(frozen=True)
class Resemblance:
    """What two networks have in common.

    Attributes:
        shared: motifs of both, the one that holds most of the first network's nodes first.
        share: of the first network's nodes that stand in shared motifs.
        first_nodes, second_nodes: the nodes of the longest run that both have, in their graphs' numbers and in the
            same order; empty if not two nodes in a row have the same surroundings.
    """

    shared: tuple[SharedMotif, ...]
    share: float
    first_nodes: tuple[int, ...]
    second_nodes: tuple[int, ...]


def resemblance(first: Graph, second: Graph, settings: MotifSettings = SETTINGS) -> Resemblance:
    """Compare two graphs whose operations are on nodes; the longest shared motif may span several cut ones."""
    one, other = (divide(OrderedGraph.of(graph), settings) for graph in (first, second))
    shared = _shared(one, other)
    start, begin, length = longest_common_run(one.code_N, other.code_N)
    length = length if length > 1 else 0
    return Resemblance(
        shared,
        sum(motif.share for motif in shared),
        tuple(one.graph.node_N[start : start + length].tolist()),
        tuple(other.graph.node_N[begin : begin + length].tolist()),
    )


def _shared(one: Motifs, other: Motifs) -> tuple[SharedMotif, ...]:
    own, theirs = Counter(one.word_M.tolist()), Counter(other.word_M.tolist())
    found = []
    for motif, word in enumerate(one.word_M.tolist()):
        if word in theirs and word in own:
            first = int(one.first_M[motif])
            numbers = one.graph.label_N[first : first + int(one.size_M[motif])]
            operations = tuple(str(one.graph.labels[number]) for number in numbers)
            count = own.pop(word)
            found.append(SharedMotif(operations, count, theirs[word], count * len(numbers) / len(one.graph)))
    return tuple(sorted(found, key=lambda motif: -motif.share))


def longest_common_run(first_N: np.ndarray, second_M: np.ndarray) -> tuple[int, int, int]:
    """Where the longest run of equal codes begins in both sequences, and its length; of several the first.

    A suffix automaton of the first (Blumer et al., 1985) reads the second: linear in both.
    """
    automaton = _SuffixAutomaton(first_N.tolist())
    best = (0, 0, 0)
    state, length = 0, 0
    for place, code in enumerate(second_M.tolist()):
        while state and code not in automaton.steps[state]:
            state = automaton.links[state]
            length = automaton.lengths[state]
        if code in automaton.steps[state]:
            state, length = automaton.steps[state][code], length + 1
        if length > best[2]:
            best = automaton.ends[state] - length + 1, place - length + 1, length
    return best


class _SuffixAutomaton:
    """Reads exactly the runs of a sequence. State 0 has read nothing.

    Attributes:
        steps: for each state the state behind each code.
        links: the state of the longest suffix that stands in other places, too; of state 0 -1.
        lengths: of the longest run that leads to it.
        ends: where the first of these runs ends.
    """

    def __init__(self, codes: list[int]):
        self.steps: list[dict[int, int]] = [{}]
        self.links, self.lengths, self.ends = [-1], [0], [-1]
        last = 0
        for place, code in enumerate(codes):
            last = self._grow(last, code, place)

    def _state(self, steps: dict[int, int], link: int, length: int, end: int) -> int:
        self.steps.append(steps)
        self.links.append(link)
        self.lengths.append(length)
        self.ends.append(end)
        return len(self.steps) - 1

    def _grow(self, last: int, code: int, place: int) -> int:
        new = self._state({}, 0, self.lengths[last] + 1, place)
        state = last
        while state >= 0 and code not in self.steps[state]:
            self.steps[state][code] = new
            state = self.links[state]
        if state >= 0:
            after = self.steps[state][code]
            if self.lengths[after] == self.lengths[state] + 1:
                self.links[new] = after
            else:
                self.links[new] = self._split(state, code, after)
                self.links[after] = self.links[new]
        return new

    def _split(self, state: int, code: int, after: int) -> int:
        """A state for the shorter runs of `after`, which stand in more places."""
        copy = self._state(dict(self.steps[after]), self.links[after], self.lengths[state] + 1, self.ends[after])
        while state >= 0 and self.steps[state].get(code) == after:
            self.steps[state][code] = copy
            state = self.links[state]
        return copy
