"""Motifs: sequences worked by hand, brute force over random graphs, and networks of tens of thousands of nodes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.retrieve.motifs import Motifs, MotifSettings, divide, encode, frequent_runs, numbered
from nge_search.retrieve.ordered import OrderedGraph


def cut(sequence: str) -> list[str]:
    """A text, its letters codes, as its motifs."""
    starts = frequent_runs(np.array([ord(letter) for letter in sequence], np.uint64)).tolist()
    return [sequence[start:end] for start, end in zip(starts, [*starts[1:], len(sequence)])]


def test_sequences_by_hand() -> None:
    """f: how often each pair occurs; t: its most frequent change.

    xabababy: f = 1 3 2 3 2 3 1, changes 2 1 1 1 1 2, t = 1: the rise at the start and the fall at the end cut.
    abababcdcde: f = 3 2 3 2 3 1 2 1 2 1, t = 1: the fall from 3 to 1 cuts behind the node after it.
    abcabcabc: f = 3 3 2 3 3 2 3 3, t = 1: nothing changes by more.
    aaabcaaabcz: f = 4 4 2 2 1 4 4 2 2 1, changes 2 1 3 2 1, t = 1 (of the two most frequent the smaller): at the
    third place a fall of 2, at the sixth a rise of 3, at the eighth a fall of 2 cut.
    """
    assert cut("xabababy") == ["x", "ababab", "y"]
    assert cut("abababcdcde") == ["ababab", "cdcde"]
    assert cut("abcabcabc") == ["abcabcabc"]
    assert cut("aaabcaaabcz") == ["aaa", "bc", "aaa", "bcz"]


def test_sequences_that_end_soon() -> None:
    for sequence in ("a", "ab", "aa", "abc", "aaaa"):
        assert cut(sequence) == [sequence]


def slowly_cut(sequence: list[int]) -> list[list[int]]:
    """Motifs as lists of places, grown one by one as the rule says."""
    count = len(sequence)
    f = [sum(sequence[j : j + 2] == sequence[i : i + 2] for j in range(count - 1)) for i in range(count - 1)]
    changes = Counter(abs(f[i + 1] - f[i]) for i in range(count - 2))
    del changes[0]
    threshold = min((c for c in changes if changes[c] == max(changes.values())), default=0)
    motifs, i = [[0]], 0
    while i + 1 < len(f):
        if abs(f[i] - f[i + 1]) <= threshold:
            i += 1
            motifs[-1].append(i)
        elif f[i] > f[i + 1]:
            motifs[-1].append(i + 1)
            i += 2
            if i < count:
                motifs.append([i])
        else:
            i += 1
            motifs.append([i])
    seen = list(itertools.chain(*motifs))
    motifs[-1] += [place for place in range(count) if place not in seen]
    return motifs


@pytest.mark.parametrize("letters", [2, 3, 5])
def test_sequences_against_brute_force(letters: int) -> None:
    random = np.random.default_rng(letters)
    sizes = []
    for _ in range(80):
        sequence = random.integers(0, letters, random.integers(1, 40))
        sequence = np.concatenate([sequence] * int(random.integers(1, 4)))
        starts = frequent_runs(sequence.astype(np.uint64)).tolist()
        expected = slowly_cut(sequence.tolist())
        assert list(itertools.chain(*expected)) == list(range(len(sequence)))
        assert starts == [motif[0] for motif in expected]
        sizes += map(len, expected)
    assert len(set(sizes)) > 5


def slowly_encoded(graph: Graph, steps: int, labels: str, children: bool) -> list[int]:
    """Eq. 2 on lists of (distance, code); the graph's numbering is topological."""
    texts = {"nothing": lambda label: "", "names": lambda label: label.name, "attributes": str}[labels]
    count = len(graph.nodes)
    code: list[int] = numbers([texts(label) for label in graph.nodes])
    for _ in range(steps):
        keys = []
        for i in range(count):
            key: tuple[object, ...] = (code[i], sorted((i - j, code[j]) for j in graph.sources(i)))
            if children:
                key = (*key, sorted((i - j, code[j]) for j in graph.targets(i)))
            keys.append(repr(key))
        code = numbers(keys)
    return code


def numbers(keys: list[str]) -> list[int]:
    found: dict[str, int] = {}
    return [found.setdefault(key, len(found)) for key in keys]


@pytest.mark.parametrize("labels", ["nothing", "names", "attributes"])
@pytest.mark.parametrize("children", [False, True])
def test_codes_against_brute_force(random_graph, labels: str, children: bool) -> None:
    kinds = set()
    for seed in range(5):
        graph = random_graph(seed, nodes=20, share=0.08)
        for steps in range(4):
            found = numbered(encode(OrderedGraph.of(graph), steps, labels, children)).tolist()
            assert found == slowly_encoded(graph, steps, labels, children)
            kinds.add(max(found))
    assert len(kinds) > 3


def test_blocks_that_repeat_share_codes(stacked) -> None:
    """The codes of a stack: its blocks are alike but for the first, which stands behind the stem."""
    motifs = divide(OrderedGraph.of(stacked("conv norm relu", 4)), MotifSettings())
    assert numbered(motifs.code_N).tolist() == [0, 1, 2, 1, 3, 4, *[5, 1, 3, 6] * 3, 7, 8]


def everything(motifs: Motifs, graph: Graph) -> None:
    """A division against loops over motifs and edges: the macro graph, motifs' graphs, contexts."""
    count = len(motifs)
    members = [set(motifs.nodes(m).tolist()) for m in range(count)]
    assert sorted(node for own in members for node in own) == list(range(len(graph.nodes)))
    macro = {
        (a, b)
        for a in range(count)
        for b in range(count)
        if a != b and any(e.source in members[a] and e.target in members[b] for e in graph.edges)
    }
    assert list(zip(*(ends.tolist() for ends in motifs.macro_edges))) == sorted(macro)
    node_N = motifs.graph.node_N
    for m in range(count):
        around = members[m]
        for part in (motifs.part(m), motifs.context(m)):
            expected = sorted(e[:2] for e in graph.edges if e.source in around or e.target in around)
            ends = node_N[part.place_N[part.source_E]].tolist(), node_N[part.place_N[part.target_E]].tolist()
            assert sorted(zip(*ends)) == expected
            assert set(node_N[part.place_N[: motifs.size_M[m]]].tolist()) == members[m]
            nodes = {end for edge in expected for end in edge} | around
            assert sorted(node_N[part.place_N].tolist()) == sorted(nodes)
            around = nodes


@pytest.mark.parametrize("split", ["frequent", "node_number", "motif_number", "random"])
def test_macro_graphs_and_contexts_against_brute_force(random_graph, split: str) -> None:
    settings = MotifSettings(split, size=3, count=4, shortest=2, longest=4)
    for seed in range(4):
        graph = random_graph(seed, nodes=15)
        everything(divide(OrderedGraph.of(graph), settings, np.random.default_rng(seed)), graph)


def test_names_of_motifs(random_graph) -> None:
    """Motifs share a name exactly if their codes, their graphs or their contexts are the same."""
    seen: list[dict[int, str]] = [{}, {}, {}]
    back: list[dict[str, int]] = [{}, {}, {}]
    alike = 0
    for seed in range(30):
        graph = random_graph(seed, nodes=14, share=0.1)
        motifs = divide(OrderedGraph.of(graph), MotifSettings("node_number", size=2))
        code_N = motifs.code_N.tolist()
        for m, first in enumerate(motifs.first_M.tolist()):
            sequence = tuple(code_N[first : first + motifs.size_M[m]])
            texts = [repr(sequence), described(motifs, m, 0), described(motifs, m, 1)]
            for kind, word_M in enumerate((motifs.word_M, motifs.content_M, motifs.context_M)):
                word = int(word_M[m])
                alike += word in seen[kind]
                assert seen[kind].setdefault(word, texts[kind]) == texts[kind]
                assert back[kind].setdefault(texts[kind], word) == word
    assert alike > 20


def described(motifs: Motifs, motif: int, hops: int) -> str:
    """A piece's labels and edges, nodes by how far they stand from the motif's first."""
    part, first = motifs.context(motif, hops), motifs.first_M[motif]
    place_N = (part.place_N - first).tolist()
    labels = [str(motifs.graph.labels[number]) for number in motifs.graph.label_N[part.place_N]]
    edges = sorted((place_N[s], place_N[t]) for s, t in zip(part.source_E, part.target_E))
    return repr((sorted(zip(place_N, labels)), edges, int(motifs.size_M[motif])))


def test_other_splits() -> None:
    chain = OrderedGraph.of(Graph.build(["conv"] * 11, [(i, i + 1) for i in range(10)], [0], [10]))

    def sizes(split: str, seed: int = 0, **options: int) -> list[int]:
        return divide(chain, MotifSettings(split, **options), np.random.default_rng(seed)).size_M.tolist()

    assert sizes("node_number", size=4) == [4, 4, 3]
    assert sizes("motif_number", count=4) == [2, 3, 3, 3]
    assert sizes("motif_number", count=30) == [1] * 11
    drawn = [sizes("random", seed, shortest=2, longest=4) for seed in range(20)]
    assert {size for own in drawn for size in own[:-1]} == {2, 3, 4}
    assert all(sum(own) == 11 for own in drawn)
    assert sizes("random", 3) == sizes("random", 3)
    assert len({tuple(own) for own in drawn}) > 5


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="not 'frequnt'; did you mean 'frequent'"):
        MotifSettings("frequnt")
    with pytest.raises(UserError, match="sizes and counts >= 1"):
        MotifSettings(size=0)
    with pytest.raises(UserError, match="longest >= shortest"):
        MotifSettings(shortest=5, longest=4)


def test_tens_of_thousands_of_nodes(stacked) -> None:
    """A matrix of so many nodes would take gigabytes, and all pairs of motifs hours."""
    graph = stacked("conv norm relu conv norm gelu conv norm", 4_000)
    motifs = divide(OrderedGraph.of(graph), MotifSettings(steps=2))
    assert len(motifs.graph) > 35_000
    assert int(motifs.size_M.sum()) == len(motifs.graph)
    source_F, target_F = motifs.macro_edges
    assert len(source_F) <= len(graph.edges)
    assert (source_F < target_F).all()
    assert len(set(motifs.content_M.tolist())) < 50
