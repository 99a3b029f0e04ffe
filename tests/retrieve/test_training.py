"""Training learns what it is asked to, repeats itself, and leaves alone what it should."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from nge_search.errors import RunFailure, UserError
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.embedders import DiscriminantEmbedder, NetworkEmbedder, NetworkSettings, UntrainedEmbedder
from nge_search.retrieve.encoders import GraphEncoder, LabelNumbers, batch_of_graphs
from nge_search.retrieve.fingerprints import CONTROLS
from nge_search.retrieve.motifs import MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.tasks import same_family
from nge_search.retrieve.training import (
    GraphTraining,
    MotifTraining,
    ViewTraining,
    WholeGraphs,
    embeddings,
    encoded,
    train_on_contexts,
)

FAMILIES = GraphTraining(epochs=80, batch_size=30, learning_rate=1e-2)
MOTIFS = MotifTraining(epochs=3, batch_size=64)
VIEWS = ViewTraining(epochs=3, batch_size=15, learning_rate=1e-2)


@pytest.fixture(scope="module")
def networks(families) -> tuple[list[OrderedGraph], list[str]]:
    pairs = [(OrderedGraph.of(graph), name) for name, graphs in families.items() for graph in graphs]
    return [graph for graph, _ in pairs], [name for _, name in pairs]


def precision(embedder, networks) -> float:
    graphs, names = networks
    task = same_family(names)
    embedding_ND = embedder.embed(graphs)
    return task.answers(cosines(embedding_ND[task.query_Q], embedding_ND)).figures((20,))["map_at_20"]


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(MotifSettings(children=True), width=16, dropout=0, on_motifs=MOTIFS, on_families=FAMILIES),
        NetworkSettings(kind="convolution", width=16, on_families=FAMILIES),
        NetworkSettings(kind="attention", width=16, heads=2, on_families=FAMILIES),
        NetworkSettings(kind="convolution", width=16, on_families=replace(FAMILIES, classify=False)),
    ],
    ids=["motifs", "convolution", "attention", "contrast alone"],
)
def test_families_come_together(networks, settings: NetworkSettings) -> None:
    """What is learnt from, is found."""
    losses: dict[str, list[float]] = {}
    embedder = NetworkEmbedder(settings, tell=lambda stage, epoch, loss: losses.setdefault(stage, []).append(loss))
    embedder.fit(*networks, 0)
    assert precision(embedder, networks) > (0.9 if settings.motifs is None else 0.6)
    assert losses["families"][-1] < losses["families"][0] - 0.5
    assert ("motifs" in losses) == (settings.motifs is not None)


def test_views_of_a_network_come_together(networks) -> None:
    """No family is seen, and none needs to be known."""
    losses: list[float] = []
    settings = NetworkSettings(width=16, on_families=None, on_views=VIEWS)
    embedder = NetworkEmbedder(settings, tell=lambda stage, epoch, loss: losses.append(loss))
    embedder.fit(networks[0], [""] * len(networks[0]), 0)
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert precision(embedder, networks) > 0.7


def test_the_same_seed_gives_the_same(networks) -> None:
    settings = NetworkSettings(
        MotifSettings("random"),
        width=4,
        on_motifs=MotifTraining(1, 64),
        on_families=GraphTraining(1, 15),
    )
    found = []
    for seed in (0, 0, 1):
        embedder = NetworkEmbedder(settings)
        torch.rand(seed + 3)
        embedder.fit(*networks, seed)
        found.append(embedder.embed(networks[0][:3]))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_the_first_stage(networks) -> None:
    """Motifs come to be told by their contexts; the second stage leaves their encoder alone."""
    divided = [divide(graph, MotifSettings()) for graph in networks[0]]
    labels = LabelNumbers.of(networks[0])
    torch.manual_seed(0)
    encoders = [GraphEncoder(len(labels), 16) for _ in range(2)]
    losses: list[float] = []
    train_on_contexts(*encoders, divided, labels, MotifTraining(6, 64), 0, lambda epoch, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.1
    embedder = NetworkEmbedder(NetworkSettings(MotifSettings(), width=8, on_motifs=MotifTraining(1, 64)))
    kept = {}

    def tell(stage: str, epoch: int, loss: float) -> None:
        if stage == "motifs":
            kept.update(copy.deepcopy(embedder.motif_encoder.state_dict()))

    embedder._tell = tell
    embedder.fit(*networks, 0)
    assert all(torch.equal(kept[name], tensor) for name, tensor in embedder.motif_encoder.state_dict().items())


@pytest.mark.parametrize("most_nodes", [1, 60, 100_000])
def test_parts_of_a_batch(networks, most_nodes: int) -> None:
    """Embeddings and gradients do not hang on how many graphs are encoded at once."""
    graphs = networks[0][:6]
    labels = LabelNumbers.of(graphs)
    torch.manual_seed(0)
    encoder = GraphEncoder(len(labels), 5)
    found = encoded(encoder, WholeGraphs(graphs, labels), [4, 0, 5, 1], most_nodes)
    expected = encoder(batch_of_graphs([graphs[i] for i in (4, 0, 5, 1)], labels))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(h.square().sum(), list(encoder.parameters())) for h in (found, expected)]
    torch.testing.assert_close(*gradients)
    np.testing.assert_allclose(
        embeddings(encoder, WholeGraphs(graphs, labels), most_nodes)[[4, 0, 5, 1]],
        expected.detach().numpy(),
        rtol=1e-4,
        atol=1e-6,
    )


def test_controls(networks) -> None:
    """Untrained fingerprints and closed-form discriminants, in the same form as trained encoders."""
    found = []
    for embedder in (UntrainedEmbedder(CONTROLS["wl1"]), DiscriminantEmbedder()):
        embedder.fit(*networks, 0)
        found.append(precision(embedder, networks))
    assert 0.7 < found[0] < found[1]


def test_graphs_without_a_family(networks) -> None:
    """They are left out where families are learnt."""
    graphs, names = networks
    hidden = ["" if name in ("plain", "mixer") else name for name in names]
    kept = [(graph, name) for graph, name in zip(graphs, hidden) if name]
    first, second = DiscriminantEmbedder(), DiscriminantEmbedder()
    first.fit(graphs, hidden, 0)
    second.fit([graph for graph, _ in kept], [name for _, name in kept], 0)
    np.testing.assert_array_equal(first.embed(graphs), second.embed(graphs))
    with pytest.raises(UserError, match="at least two"):
        first.fit(graphs, ["plain"] * len(graphs), 0)


def test_losses_that_are_not_finite(networks) -> None:
    embedder = NetworkEmbedder(NetworkSettings(width=4, on_families=GraphTraining(3, 15, learning_rate=1e30)))
    with pytest.raises(RunFailure, match="lower the learning rate"):
        embedder.fit(*networks, 0)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(UserError, match="needs a loss"):
        GraphTraining(contrast=False, classify=False)
    with pytest.raises(UserError, match="leave motifs out"):
        NetworkSettings(MotifSettings(), on_views=VIEWS)
