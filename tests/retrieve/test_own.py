"""Our embedder against the matrices that it folds together; its files; and the choice among several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.choosing import Candidate, choose, similarities
from nge_search.retrieve.embedders import (
    DiscriminantEmbedder,
    Embedder,
    NetworkEmbedder,
    NetworkSettings,
    UntrainedEmbedder,
)
from nge_search.retrieve.encoder_file import read_embedder, write_embedder
from nge_search.retrieve.fingerprints import CONTROLS, FingerprintSettings
from nge_search.retrieve.lda import Whitening
from nge_search.retrieve.motifs import MotifSettings
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.own import OwnEmbedder, OwnSettings
from nge_search.retrieve.saved import write_saved
from nge_search.retrieve.smoothing import Smoothing
from nge_search.retrieve.tasks import same_family
from nge_search.retrieve.training import GraphTraining, MotifTraining

NETWORK = NetworkSettings(
    MotifSettings(), width=4, on_motifs=MotifTraining(1, 64), on_families=GraphTraining(1, 15)
)


@pytest.fixture(scope="module")
def networks(families) -> tuple[list[OrderedGraph], list[str]]:
    pairs = [(OrderedGraph.of(graph), name) for name, graphs in families.items() for graph in graphs]
    return [graph for graph, _ in pairs], [name for _, name in pairs]


def test_without_learning_it_is_the_fingerprint(networks) -> None:
    """With all directions kept, cosines are those of the fingerprints themselves."""
    settings = OwnSettings(((CONTROLS["wl2"], 1.0),), alike="nothing", features=1000)
    own, plain = OwnEmbedder(settings), UntrainedEmbedder(CONTROLS["wl2"])
    for embedder in (own, plain):
        embedder.fit(*networks, 0)
    found, expected = (embedder.embed(networks[0]) for embedder in (own, plain))
    np.testing.assert_allclose(cosines(found, found), cosines(expected, expected), atol=1e-5)


def test_families_are_whitened(networks) -> None:
    """As if all features had been written out and whitened."""
    graphs, names = networks
    hidden = ["" if name == "plain" else name for name in names]
    settings = OwnSettings(((CONTROLS["wl1"], 1.0), (CONTROLS["motifs_idf"], 0.5)), "families", 0.2, features=1000)
    own = OwnEmbedder(settings)
    own.fit(graphs, hidden, 0)
    x_NW = own.vectors(own.bags).toarray()
    known = [i for i, name in enumerate(hidden) if name]
    expected = Whitening(0.2).fit(x_NW[known], [hidden[i] for i in known])(x_NW)
    found = own.embed(graphs)
    np.testing.assert_allclose(cosines(found, found), cosines(expected, expected), atol=1e-5)
    unchanged = cosines(x_NW, x_NW)
    assert np.abs(cosines(found, found) - unchanged).max() > 0.05


def test_views_need_no_families(networks) -> None:
    graphs = networks[0]
    settings = OwnSettings(alike="views", views=2)
    found = []
    for names in ([""] * len(graphs), networks[1]):
        own = OwnEmbedder(settings)
        own.fit(graphs, names, 0)
        found.append(own.embed(graphs))
    np.testing.assert_array_equal(*found)
    nothing = OwnEmbedder(replace(settings, alike="nothing"))
    nothing.fit(graphs, networks[1], 0)
    assert np.abs(cosines(found[0], found[0]) - cosines(*[nothing.embed(graphs)] * 2)).max() > 0.01


def test_fewer_features_keep_the_largest(networks) -> None:
    settings = OwnSettings(features=8)
    own = OwnEmbedder(settings)
    own.fit(*networks, 0)
    found = own.embed(networks[0])
    assert found.shape == (len(networks[0]), 8)
    square_D = (found**2).sum(axis=0)
    assert (np.diff(square_D) <= 1e-6).all()


def test_a_network_beside_it(networks) -> None:
    """Cosines are the weighed means of both parts'."""
    own = OwnEmbedder(OwnSettings(network=NETWORK, network_weight=0.5))
    own.fit(*networks, 0)
    found = own.embed(networks[0])
    assert own.network is not None
    beside = own.network.embed(networks[0])
    first = found[:, : found.shape[1] - 4]
    expected = (cosines(first, first) + 0.25 * cosines(beside, beside)) / 1.25
    np.testing.assert_allclose(cosines(found, found), expected, atol=1e-6)


def make(kind: str) -> Embedder:
    if kind == "untrained":
        return UntrainedEmbedder(CONTROLS["wl2_idf"])
    if kind == "motifs":
        return NetworkEmbedder(NETWORK)
    if kind == "attention":
        return NetworkEmbedder(replace(NETWORK, motifs=None, kind="attention"))
    counted = FingerprintSettings(weight="log", idf=0.5)
    return OwnEmbedder(OwnSettings(((counted, 1.0), (CONTROLS["wl1"], 0.5)), network=NETWORK))


@pytest.mark.parametrize("kind", ["untrained", "motifs", "attention", "own"])
def test_files(networks, tmp_path: Path, kind: str) -> None:
    """What is read embeds as what was written, bit for bit; graphs that were not fitted, too."""
    graphs, names = networks
    embedder = make(kind)
    embedder.fit(graphs[:-3], names[:-3], 0)
    path = tmp_path / "encoder.safetensors"
    write_embedder(path, embedder, {"timm": "1.0"})
    found, about = read_embedder(path)
    assert type(found) is type(embedder)
    assert about == {"timm": "1.0"}
    np.testing.assert_array_equal(found.embed(graphs), embedder.embed(graphs))
    content = bytearray(path.read_bytes())
    content[-5] ^= 8
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_embedder(path)


def test_files_that_say_something_else(networks, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    for document in ({}, {"kind": "oracle"}, {"kind": "untrained", "fingerprint": {"settings": {"rounds": "two"}}}):
        write_saved(path, "retrieval encoder", {"x": np.ones(1)}, {"embedder": document, "about": {}})
        with pytest.raises(UserError, match="damaged"):
            read_embedder(path)
    with pytest.raises(UserError, match="DiscriminantEmbedder are not written"):
        write_embedder(path, DiscriminantEmbedder())


def test_choosing(networks) -> None:
    """The better one is taken, whatever it is called; a candidate never sees the family that asks."""
    graphs, names = networks
    seen: list[tuple[str, ...]] = []

    class Watched(UntrainedEmbedder):
        def fit(self, graphs, families, seed) -> None:
            seen.append(tuple(families))
            super().fit(graphs, families, seed)

    candidates = {
        "a": Candidate(lambda: Watched(FingerprintSettings("operations", labels="nothing"))),
        "b": Candidate(lambda: Watched(CONTROLS["wl1"])),
        "c": Candidate(lambda: Watched(CONTROLS["wl1"]), Smoothing(2, 0.5)),
    }
    best, figures = choose(candidates, graphs, names, folds=3, seed=100)
    assert figures["b"] > figures["a"]
    assert best == max(figures, key=figures.__getitem__)
    assert len(seen) == 9
    assert all(0 < own.count("") < len(own) for own in seen)
    task = same_family(names)
    found = similarities(candidates["b"], graphs, names, task, 3, 100)
    assert task.answers(found).figures((20,))["map_at_20"] == figures["b"]
    with pytest.raises(UserError, match="needs candidates"):
        choose({}, graphs, names)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="did you mean 'views'"):
        OwnSettings(alike="view")
    with pytest.raises(UserError, match="features and views of at least 1"):
        OwnSettings(features=0)
