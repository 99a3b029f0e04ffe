"""Why two networks are alike: the motifs that they share, and the longest of them in both.

A motif of one network counts as shared if its codes stand in a row in the other: where motifs are cut hangs on how
often they recur, and so on a network's depth.

Legend: N nodes of the first graph in topological order, M its motifs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nge_search.architecture.graph import Graph
from nge_search.retrieve.motifs import Motifs, MotifSettings, divide, encode
from nge_search.retrieve.ordered import OrderedGraph

#: How motifs are cut for this: as far as a person compares blocks, by operations with their attributes.
SETTINGS = MotifSettings(labels="attributes")


@dataclass(frozen=True)
class SharedMotif:
    """A motif of the first network that the second one has, too, wherever its own motifs are cut.

    Attributes:
        operations: its nodes' labels, in their order.
        first: how often it is a motif of the first.
        second: how often its codes stand in a row in the second.
        share: of the first network's nodes that these motifs hold.
    """

    operations: tuple[str, ...]
    first: int
    second: int
    share: float


@dataclass(frozen=True)
class Resemblance:
    """What two networks have in common.

    Attributes:
        shared: motifs, the one that holds most of the first network's nodes first.
        share: of the first network's nodes that stand in shared motifs.
        first_nodes, second_nodes: the nodes of the longest run that both have, in their graphs' numbers and in the
            same order; empty if not two nodes in a row have the same surroundings.
    """

    shared: tuple[SharedMotif, ...]
    share: float
    first_nodes: tuple[int, ...]
    second_nodes: tuple[int, ...]


def resemblance(first: Graph, second: Graph, settings: MotifSettings = SETTINGS) -> Resemblance:
    """Compare two graphs whose operations are on nodes; the longest run may span several motifs."""
    one, other = divide(OrderedGraph.of(first), settings), OrderedGraph.of(second)
    runs = SuffixAutomaton(encode(other, settings.steps, settings.labels, settings.children).tolist())
    shared = _shared(one, runs)
    start, begin, length = runs.longest_run(one.code_N.tolist())
    length = length if length > 1 else 0
    return Resemblance(
        shared,
        sum(motif.share for motif in shared),
        tuple(one.graph.node_N[start : start + length].tolist()),
        tuple(other.node_N[begin : begin + length].tolist()),
    )


def _shared(one: Motifs, runs: SuffixAutomaton) -> tuple[SharedMotif, ...]:
    counts, found = Counter(one.word_M.tolist()), []
    for motif, word in enumerate(one.word_M.tolist()):
        first = int(one.first_M[motif])
        places = slice(first, first + int(one.size_M[motif]))
        count = counts.pop(word, 0)
        there = runs.occurrences(one.code_N[places].tolist()) if count else 0
        if there:
            operations = tuple(str(one.graph.labels[number]) for number in one.graph.label_N[places])
            found.append(SharedMotif(operations, count, there, count * len(operations) / len(one.graph)))
    return tuple(sorted(found, key=lambda motif: -motif.share))


class SuffixAutomaton:
    """Reads exactly the runs of a sequence, in time linear in what it reads (Blumer et al., 1985).

    State 0 has read nothing.

    Attributes:
        steps: for each state the state behind each code.
        links: the state of the longest suffix that stands in other places, too; of state 0 -1.
        lengths: of the longest run that leads to it.
        ends: where the first of these runs ends.
        counts: in how many places its runs stand.
    """

    def __init__(self, codes: list[int]):
        self.steps: list[dict[int, int]] = [{}]
        self.links, self.lengths, self.ends = [-1], [0], [-1]
        last = 0
        self.counts = [0]
        for place, code in enumerate(codes):
            last = self._grow(last, code, place)
        for state in sorted(range(1, len(self.lengths)), key=self.lengths.__getitem__, reverse=True):
            self.counts[self.links[state]] += self.counts[state]

    def occurrences(self, codes: list[int]) -> int:
        """In how many places a run stands in the sequence; they may overlap."""
        state = 0
        for code in codes:
            if code not in self.steps[state]:
                return 0
            state = self.steps[state][code]
        return self.counts[state]

    def longest_run(self, codes: list[int]) -> tuple[int, int, int]:
        """The longest run that another sequence shares: where it begins there and here, its length; the first."""
        best = (0, 0, 0)
        state, length = 0, 0
        for place, code in enumerate(codes):
            while state and code not in self.steps[state]:
                state = self.links[state]
                length = self.lengths[state]
            if code in self.steps[state]:
                state, length = self.steps[state][code], length + 1
            if length > best[2]:
                best = place - length + 1, self.ends[state] - length + 1, length
        return best

    def _state(self, steps: dict[int, int], link: int, length: int, end: int, count: int) -> int:
        self.steps.append(steps)
        self.links.append(link)
        self.lengths.append(length)
        self.ends.append(end)
        self.counts.append(count)
        return len(self.steps) - 1

    def _grow(self, last: int, code: int, place: int) -> int:
        new = self._state({}, 0, self.lengths[last] + 1, place, 1)
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
        length, end = self.lengths[state] + 1, self.ends[after]
        copy = self._state(dict(self.steps[after]), self.links[after], length, end, 0)
        while state >= 0 and self.steps[state].get(code) == after:
            self.steps[state][code] = copy
            state = self.links[state]
        return copy
