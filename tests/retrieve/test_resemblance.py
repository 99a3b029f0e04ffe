"""What two networks share: by hand, and runs against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.retrieve.motifs import MotifSettings
from nge_search.retrieve.resemblance import SuffixAutomaton, resemblance


def slow_run(first: list[int], second: list[int]) -> int:
    return max(
        (
            length
            for i in range(len(first))
            for j in range(len(second))
            for length in range(1, min(len(first) - i, len(second) - j) + 1)
            if first[i : i + length] == second[j : j + length]
        ),
        default=0,
    )


@pytest.mark.parametrize("letters", [1, 2, 4, 30])
def test_longest_runs_against_brute_force(letters: int) -> None:
    random = np.random.default_rng(letters)
    found = set()
    for _ in range(25):
        first, second = (random.integers(0, letters, random.integers(0, 16)) for _ in range(2))
        automaton = SuffixAutomaton(second.tolist())
        start, begin, length = automaton.longest_run(first.tolist())
        assert length == slow_run(first.tolist(), second.tolist())
        assert first[start : start + length].tolist() == second[begin : begin + length].tolist()
        found.add(length)
        for size in range(1, 5):
            run = first[:size].tolist()
            places = [i for i in range(len(second) - len(run) + 1) if second[i : i + len(run)].tolist() == run]
            assert automaton.occurrences(run) == (len(places) if run else len(second))
    assert len(found) > 1


def test_the_same_network_in_another_numbering(stacked) -> None:
    graph = stacked("conv norm relu", 5)
    found = resemblance(graph, graph)
    assert found.share == pytest.approx(1)
    assert found.first_nodes == found.second_nodes == tuple(range(len(graph.nodes)))
    assert all(motif.first <= motif.second for motif in found.shared)


def test_two_depths_share_their_block(stacked) -> None:
    """The longest run are the three later blocks, which are alike in both; only the deep one has a fourth."""
    shallow, deep = stacked("conv norm relu", 4), stacked("conv norm relu", 5, stem="conv", head="mean norm")
    found = resemblance(shallow, deep)
    assert found.first_nodes == tuple(range(6, 19))
    assert found.second_nodes == tuple(range(9, 22))
    names = [shallow.nodes[node].name for node in found.first_nodes]
    assert names == ["conv", "norm", "relu", "add"] * 3 + ["mean"]


def test_motifs_by_hand() -> None:
    """Cut every two nodes; a pair counts as shared if both of its nodes hear the same in both networks."""
    settings = MotifSettings("node_number", size=2)

    def chain(text: str) -> Graph:
        names = text.split()
        return Graph.build(names, [(i, i + 1) for i in range(len(names) - 1)], [0], [len(names) - 1])

    found = resemblance(chain("a b c b a b c d"), chain("a b x y a b c d"), settings)
    described = [(motif.operations, motif.first, motif.second, motif.share) for motif in found.shared]
    assert sorted(described) == [(("a", "b"), 1, 1, 0.25), (("c", "d"), 1, 1, 0.25)]
    assert found.share == 0.5
    assert (found.first_nodes, found.second_nodes) == ((5, 6, 7), (5, 6, 7))


def test_nothing_in_common() -> None:
    one = Graph.build(["a", "b"], [(0, 1)], [0], [1])
    other = Graph.build(["c", "b"], [(0, 1)], [0], [1])
    found = resemblance(one, other)
    assert (found.shared, found.share, found.first_nodes, found.second_nodes) == ((), 0, (), ())
