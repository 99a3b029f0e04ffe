"""From a graph to its answers: families that are found, networks that are new, and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nge_search.architecture.graph import Graph
from nge_search.retrieve.embedders import UntrainedEmbedder
from nge_search.retrieve.fingerprints import CONTROLS, FingerprintSettings
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.own import OwnEmbedder, OwnSettings
from nge_search.retrieve.retriever import Retriever, build_index
from nge_search.retrieve.smoothing import Smoothing


@pytest.fixture(scope="module", params=["plain", "smoothed"])
def retriever(families, request: pytest.FixtureRequest) -> Retriever:
    graphs = {f"{name}{i}": graph for name, own in families.items() for i, graph in enumerate(own)}
    ordered = [OrderedGraph.of(graph) for graph in graphs.values()]
    about = [{"family": name.rstrip("0123456789"), "task": "any"} for name in graphs]
    wl2 = FingerprintSettings(rounds=2, all_rounds=True, idf=0.5)
    embedder = OwnEmbedder(OwnSettings(((wl2, 1.0), (CONTROLS["motifs_idf"], 0.5)), "families"))
    embedder.fit(ordered, [own["family"] for own in about], 0)
    smoothing = Smoothing(2, 0.5) if request.param == "smoothed" else Smoothing()
    return Retriever(
        embedder, build_index(embedder, ordered, list(graphs), about, "own", smoothing), graphs.__getitem__
    )


def test_a_deeper_network_is_of_its_family(retriever: Retriever, stacked: Callable[..., Graph]) -> None:
    """A depth that is not there, the name of nothing known."""
    found = retriever.query(stacked("norm linear matmul softmax matmul linear", 5), top=4)
    assert [answer.about["family"] for answer in found.answers] == ["attention"] * 4
    assert found.is_new is False
    assert retriever.query(retriever.graph("mixer2"), 1).answers[0].similarity == pytest.approx(1, abs=1e-4)
    assert retriever.query(retriever.graph("mixer2"), 1, without=["mixer2"]).answers[0].name != "mixer2"


def test_another_numbering_is_the_same_network(retriever: Retriever) -> None:
    """Nodes numbered from the last to the first: still in an order that fits, nothing changes."""
    graph = retriever.graph("residual3")
    other = graph.renumbered(list(range(len(graph.nodes)))[::-1])
    best = retriever.query(other, 1).answers[0]
    assert best.name == "residual3"
    assert best.similarity == pytest.approx(1, abs=1e-4)


def test_a_network_like_none_is_new(retriever: Retriever) -> None:
    graph = Graph.build(["fft", "abs", "log", "sort"], [(0, 1), (1, 2), (2, 3), (0, 3)], [0], [3])
    assert retriever.query(graph).is_new is True
    assert retriever.query(graph, where={"task": "none"}).answers == ()
    novelty = retriever.index.novelty
    assert novelty is not None
    assert novelty.area > 0.8
    assert novelty.false_alarms <= 0.05


def test_why(retriever: Retriever, stacked: Callable[..., Graph]) -> None:
    found = retriever.why(stacked("conv depthwise conv norm", 5), "separable4")
    assert 0.3 < found.share < 1
    assert len(found.first_nodes) == len(found.second_nodes) > 5


def test_without_families_nothing_is_called_new(families) -> None:
    graphs = [OrderedGraph.of(graph) for graph in families["mixer"]]
    embedder = UntrainedEmbedder(CONTROLS["wl1"])
    embedder.fit(graphs, [""] * len(graphs), 0)
    index = build_index(embedder, graphs, [str(i) for i in range(len(graphs))], [{}] * len(graphs))
    assert index.novelty is None
    assert Retriever(embedder, index, families.__getitem__).query(families["mixer"][0]).is_new is None
