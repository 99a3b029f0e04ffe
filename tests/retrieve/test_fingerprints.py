"""Fingerprints against loops over nested tuples, and against what a person expects of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nge_search.architecture.graph import Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.extraction import without_views
from nge_search.retrieve.fingerprints import CONTROLS, Fingerprint, FingerprintSettings, bag
from nge_search.retrieve.motifs import MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph


def surroundings(graph: Graph, rounds: int, attributes: bool) -> list[str]:
    """Names of nodes as nested texts."""
    names = [str(label) if attributes else label.name for label in graph.nodes]
    for _ in range(rounds):
        names = [
            repr(
                (
                    names[node],
                    sorted(names[other] for other in graph.sources(node)),
                    sorted(names[other] for other in graph.targets(node)),
                )
            )
            for node in range(len(graph.nodes))
        ]
    return names


def expected_cosine(first: Counter[str], second: Counter[str], weight, idf) -> float:
    def length(own: Counter[str]) -> float:
        return math.sqrt(sum((weight(own[word]) * idf(word)) ** 2 for word in own))

    product = sum(weight(first[word]) * weight(second[word]) * idf(word) ** 2 for word in first if word in second)
    return product / length(first) / length(second)


@pytest.mark.parametrize("weight", ["presence", "count", "log"])
@pytest.mark.parametrize("idf", [0.0, 1.0, 0.5])
def test_cosines_against_nested_names(random_graph, weight: str, idf: float) -> None:
    """All rounds count; the last graph was not fitted, and has words of its own."""
    graphs = [random_graph(seed, nodes=10, share=0.15) for seed in range(8)]
    settings = FingerprintSettings(rounds=2, all_rounds=True, weight=weight, idf=idf)
    ordered = [OrderedGraph.of(graph) for graph in graphs]
    fitted = Fingerprint(settings).fit(ordered[:-1])
    vectors = fitted.vectors(ordered)
    found = (vectors @ vectors.T).toarray()
    bags = [
        Counter(f"{done}{name}" for done in range(3) for name in surroundings(graph, done, True))
        for graph in graphs
    ]
    weights = {"presence": lambda n: 1.0, "count": float, "log": math.log1p}

    def rarity(word: str) -> float:
        having = sum(word in own for own in bags[:-1])
        return math.log(1 + (7 / having if having else 8)) ** idf

    assert any(word not in own for word in bags[-1] for own in bags[:-1])
    for a in range(8):
        for b in range(7):
            assert found[a, b] == pytest.approx(expected_cosine(bags[a], bags[b], weights[weight], rarity))


def test_last_rounds_alone(random_graph) -> None:
    for attributes, labels in ((True, "attributes"), (False, "names")):
        for rounds in range(3):
            graph = random_graph(3, nodes=14)
            words, counts = bag(OrderedGraph.of(graph), FingerprintSettings(rounds=rounds, labels=labels))
            expected = Counter(surroundings(graph, rounds, attributes))
            assert sorted(counts.tolist()) == sorted(expected.values())
            assert (np.diff(words.astype(object)) > 0).all()


def test_operations_and_motifs(stacked) -> None:
    ordered = OrderedGraph.of(stacked("conv norm relu", 3))
    _, counts = bag(ordered, CONTROLS["operations"])
    assert sorted(counts.tolist()) == sorted([4, 4, 3, 3, 1, 1])
    words, counts = bag(ordered, FingerprintSettings("motifs", motifs=MotifSettings("node_number", size=4)))
    motifs = divide(ordered, MotifSettings("node_number", size=4))
    assert set(words.tolist()) == set(motifs.word_M.tolist())
    assert counts.sum() == len(motifs)


def test_presence_does_not_see_depth(stacked) -> None:
    """A network whose block is repeated more often is the same network, but for counts."""
    graphs = [OrderedGraph.of(stacked("conv norm relu", depth)) for depth in (6, 9)]
    for name, alike in (("wl1", True), ("wl2", True), ("operations", False)):
        vectors = Fingerprint(CONTROLS[name]).fit(graphs).vectors(graphs)
        assert ((vectors @ vectors.T).toarray()[0, 1] > 1 - 1e-9) == alike


@pytest.mark.parametrize("name", [name for name in CONTROLS if CONTROLS[name].kind != "motifs"])
def test_numbering_does_not_matter(random_graph, name: str) -> None:
    """Motifs are cut from the order of nodes, which is the graph's own; all else sees the graph alone."""
    graph = random_graph(5)
    other = graph.renumbered(np.random.default_rng(0).permutation(len(graph.nodes)).tolist())
    ordered = [OrderedGraph.of(own) for own in (graph, other)]
    vectors = Fingerprint(CONTROLS[name]).fit(ordered[:1]).vectors(ordered).toarray()
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)


def test_hashed_vectors_come_close(random_graph) -> None:
    graphs = [OrderedGraph.of(random_graph(seed, nodes=60, share=0.03)) for seed in range(6)]
    fingerprint = Fingerprint(FingerprintSettings(rounds=1, all_rounds=True, labels="names"))
    exact = fingerprint.fit(graphs).vectors(graphs)
    products = (exact @ exact.T).toarray()
    hashed = fingerprint.hashed(graphs, 4096)
    np.testing.assert_allclose(np.linalg.norm(hashed, axis=1), 1)
    assert np.abs(hashed @ hashed.T - products).max() < 0.1
    assert np.ptp(products) > 0.3
    np.testing.assert_array_equal(Fingerprint(fingerprint.settings).hashed(graphs, 4096), hashed)


def test_nothing_in_common() -> None:
    chain = OrderedGraph.of(Graph.build(["a", "b"], [(0, 1)], [0], [1]))
    other = OrderedGraph.of(Graph.build(["c", "d"], [(0, 1)], [0], [1]))
    fitted = Fingerprint(CONTROLS["wl1"]).fit([chain])
    assert fitted.vectors([other]).nnz == 0
    assert fitted.vectors([]).shape == (0, 2)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="did you mean 'motifs'"):
        FingerprintSettings("motif")
    with pytest.raises(UserError, match="one of presence, count, log"):
        FingerprintSettings(weight="sum")
    with pytest.raises(UserError, match="rounds >= 0"):
        FingerprintSettings(rounds=-1)


def test_views_may_be_contracted(random_graph) -> None:
    """Words are those of the graph without them."""
    contracted = []
    for seed in range(4):
        graph = random_graph(seed)
        renamed = [
            Label.of("View") if place and label.name == "relu" else label for place, label in enumerate(graph.nodes)
        ]
        graph = Graph.build(renamed, [edge[:2] for edge in graph.edges], list(graph.inputs), list(graph.outputs))
        found, expected = (
            bag(OrderedGraph.of(own), FingerprintSettings(rounds=2, views=views))
            for own, views in ((graph, False), (without_views(graph), True))
        )
        np.testing.assert_array_equal(found, expected)
        contracted.append(sum(label.name == "View" for label in graph.nodes))
        assert found[1].sum() == len(graph.nodes) - contracted[-1]
    assert max(contracted) > 1


def test_words_are_found_once(random_graph) -> None:
    """What a fingerprint weighs them by does not matter, and all that decides them does."""
    graph = random_graph(0, nodes=20)
    names = ["View" if label.name == "relu" else label for label in graph.nodes]
    graph = Graph.build(names, [edge[:2] for edge in graph.edges], list(graph.inputs), list(graph.outputs))
    shared = OrderedGraph.of(graph)
    several = [*CONTROLS.values(), *(replace(one, views=False, all_rounds=True) for one in CONTROLS.values())]
    for settings in several:
        found, expected = bag(shared, settings), bag(OrderedGraph.of(graph), settings)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        assert bag(shared, replace(settings, idf=0.3, weight="log")) is found
