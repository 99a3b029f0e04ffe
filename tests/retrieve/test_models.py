"""Encoders by name: what options change, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.retrieve.models import FROM_FAMILIES, NETWORKS, candidate, configured, require_taken
from nge_search.retrieve.motifs import SPLITS
from nge_search.retrieve.ordered import DETAILS, OrderedGraph
from nge_search.settings.names import MOTIF_LABELS, MOTIF_SPLITS, RETRIEVERS
from nge_search.settings.retrieve import EncoderSection

TINY = {"width": 4, "layers": 1, "epochs": 1, "motif_epochs": 1, "batch_size": 64}


def test_the_published_settings() -> None:
    """Of the paper's Table 5."""
    nar, gat = NETWORKS["nar"], NETWORKS["gat"]
    assert (nar.width, nar.layers, nar.dropout) == (gat.width, gat.layers, gat.dropout) == (512, 3, 0.1)
    assert (nar.on_motifs.epochs, nar.on_motifs.batch_size, nar.on_motifs.learning_rate) == (5, 256, 1e-2)
    for network in (nar, gat, NETWORKS["gcn"]):
        own = network.on_families
        assert (own.epochs, own.batch_size, own.learning_rate) == (15, 512, 1e-3)
    assert gat.kind == "attention"
    assert gat.motifs is None


def test_options_change_what_they_name() -> None:
    options = EncoderSection(width=8, epochs=2, split="random", motif_size=3, motif_learning_rate=0.5).given()
    found = configured("nar", options)
    assert (found.width, found.layers) == (8, 3)
    assert (found.motifs.split, found.motifs.size, found.motifs.steps) == ("random", 3, 1)
    assert (found.on_families.epochs, found.on_motifs.epochs) == (2, 5)
    assert found.on_motifs.learning_rate == 0.5
    assert configured("gcn", options).width == 8
    assert configured("views", {"epochs": 3, "temperature": 0.5}).on_views.temperature == 0.5
    assert configured("gcn", {}) == NETWORKS["gcn"]


def test_options_that_nobody_takes_are_refused() -> None:
    require_taken({"split": "random", "epochs": 3}, ["gcn", "nar"])
    require_taken({}, ["wl1"])
    with pytest.raises(UserError, match=r"encoder\.split: gcn, own have no such option"):
        require_taken({"epochs": 3, "split": "random"}, ["gcn", "own"])
    with pytest.raises(UserError, match=r"encoder\.width: lda has no such option"):
        require_taken({"width": 3}, ["lda"])


def test_names_are_those_of_the_library() -> None:
    assert set(SPLITS) == set(MOTIF_SPLITS)
    assert DETAILS == MOTIF_LABELS


@pytest.mark.parametrize("name", RETRIEVERS)
def test_each_learns_from_what_it_says(name: str, families: dict[str, list[Graph]]) -> None:
    """Those that see no family embed the same whatever the families are called; the others do not."""
    graphs = [OrderedGraph.of(graph) for own in families.values() for graph in own]
    named = [family for family, own in families.items() for _ in own]
    found = []
    for labels in (named, [str(number % 7) for number in range(len(graphs))]):
        made = candidate(name, TINY if name in NETWORKS else {}).make()
        made.fit(graphs, labels, 100)
        found.append(made.embed(graphs))
    assert len(found[0]) == len(graphs)
    assert np.isfinite(found[0]).all()
    same = found[0].shape == found[1].shape and np.array_equal(*found)
    assert same == (name not in FROM_FAMILIES)
