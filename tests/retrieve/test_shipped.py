"""The catalogue that ships: what is in it, and that it answers as a person expects."""

from __future__ import annotations

import numpy as np
import pytest
import torchvision
from torch import Tensor, nn

import nge_search
from nge_search.kinds import CORPUS
from nge_search.retrieve.asked_network import AskedNetwork, asked_module, asked_network
from nge_search.retrieve.catalogue import Catalogue, key, open_catalogue, shipped_folder
from nge_search.retrieve.models import OURS
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.own import OwnEmbedder
from nge_search.retrieve.query import Answered, ask
from nge_search.retrieve.sources import CLASSIFICATION
from nge_search.retrieve.tasks import SMALLEST_FAMILY
from nge_search.settings.retrieve import RetrieveConfig

#: Families of networks in which nothing is added to what it was computed from.
NOT_RESIDUAL = ("vgg", "alexnet", "googlenet", "inception_v3", "squeezenet", "densenet")


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return open_catalogue()


def about(catalogue: Catalogue, name: str, top: int = 10, task: str = "") -> Answered:
    return ask(catalogue, asked_network(name, catalogue.corpus), top, task)


def families(answered: Answered) -> list[str]:
    return [near.answer.about["family"] for near in answered.nearest]


def test_its_size_and_content(shipped: Catalogue) -> None:
    folder = shipped_folder()
    assert (folder / CORPUS).stat().st_size < 1_000_000
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    corpus = shipped.corpus
    assert {"torch", "extraction", "timm", "torchvision", "transformers"} <= corpus.versions.keys()
    assert {"python", "torch", "numpy", "corpus: timm"} <= shipped.about["made"].keys()
    vision = corpus.of_libraries(["timm", "torchvision"])
    assert len(vision) >= 1000
    assert len(vision.families(SMALLEST_FAMILY)) >= 45
    assert not vision.skipped
    names = [network.name for entry in corpus.entries for network in entry.networks if network.library == "timm"]
    assert len(names) == len(set(names)) >= 1371
    traced = sum(network.library == "transformers" for entry in corpus.entries for network in entry.networks)
    untraced = sum(name.startswith("transformers:") for name in corpus.skipped)
    assert traced / (traced + untraced) >= 0.55
    digests = [entry.digest for entry in corpus.entries]
    assert len(digests) == len(set(digests))
    assert shipped.index.novelty is not None


def test_it_is_what_the_stated_command_makes(shipped: Catalogue) -> None:
    """Of the settings that are ours today, and the index of the encoder beside it."""
    chosen, embedder, index = OURS[RetrieveConfig().retrieve.model], shipped.embedder, shipped.index
    assert isinstance(embedder, OwnEmbedder)
    assert (embedder.settings, index.smoothing) == (chosen.settings, chosen.smoothing)
    assert shipped.about["model"] == RetrieveConfig().retrieve.model
    some = range(0, len(shipped.corpus), 150)
    graphs = [OrderedGraph.of(shipped.comparable(shipped.corpus.entries[place].graph)) for place in some]
    np.testing.assert_allclose(embedder.embed(graphs), index.embedding_ND[some], atol=1e-5)


def test_what_a_person_expects(shipped: Catalogue) -> None:
    assert families(about(shipped, "resnet50"))[:5] == ["resnet"] * 5
    assert set(families(about(shipped, "deit_base_patch16_224"))[:5]) <= {"vision_transformer", "deit"}
    assert set(families(about(shipped, "swin_tiny_patch4_window7_224", task=CLASSIFICATION))[:3]) == {
        "swin_transformer"
    }
    tasks = {near.answer.about["task"] for near in about(shipped, "resnet50", 30, "detection").nearest}
    assert tasks == {"detection"}


def test_residual_networks_are_nearer_to_each_other(shipped: Catalogue) -> None:
    index = shipped.index
    place = {name: row for row, name in enumerate(index.names)}
    embedding_ND = index.smoothing.rows(index.embedding_ND / np.linalg.norm(index.embedding_ND, axis=1)[:, None])
    pair = [place[key(shipped.corpus.find(name))] for name in ("resnet50", "resnet101")]
    others = [row for row, own in enumerate(index.about) if own["family"] in NOT_RESIDUAL]
    assert len(others) > 20
    both_2D = embedding_ND[pair]
    assert float(both_2D[0] @ both_2D[1]) > float((both_2D @ embedding_ND[others].T).max())


class Renamed(nn.Module):
    """torchvision's ResNet-50 with other names, its parts registered from the last to the first."""

    def __init__(self) -> None:
        super().__init__()
        parts = list(torchvision.models.resnet50().children())
        for number, part in reversed(list(enumerate(parts))):
            setattr(self, f"stage_{number}", part)
        self._count = len(parts)

    def forward(self, image: Tensor) -> Tensor:
        for number in range(self._count - 1):
            image = getattr(self, f"stage_{number}")(image)
        return getattr(self, f"stage_{self._count - 1}")(image.flatten(1))


def test_a_renamed_copy_is_its_own_nearest_neighbour(shipped: Catalogue) -> None:
    asked: AskedNetwork = asked_module(Renamed())
    best = ask(shipped, asked, 1).nearest[0]
    names = [best.answer.name, *best.answer.about["also"]]
    assert "torchvision:resnet50" in names
    assert best.answer.similarity == pytest.approx(1, abs=1e-5)
    assert best.why.share == pytest.approx(1)
    assert len(best.why.first_nodes) == len(asked.graph.nodes)
    assert ask(shipped, asked, 1).is_new is False


class Odd(nn.Module):
    """Nothing like what is published."""

    def forward(self, image: Tensor) -> Tensor:
        for _ in range(4):
            image = image.cumsum(1).sin() * image.cos().cumprod(2)
        return image


def test_what_is_like_nothing_is_new(shipped: Catalogue) -> None:
    assert ask(shipped, asked_module(Odd()), 3).is_new is True


def test_a_searched_network_is_compared_with_published_ones() -> None:
    found = nge_search.retrieve_query("darts_v2", top=3)
    assert (found["network"], found["known"]) == ("darts_v2", False)
    assert found["parameters"] == pytest.approx(4.7e6, rel=0.02)
    assert len(found["nearest"]) == 3
