"""Encoders of `retrieve.py` that the package does not name: other controls, and the published one in other ways.

Legend: N networks, D features, A searched networks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nge_search.retrieve import own
from nge_search.retrieve.architecture_graphs import darts_network
from nge_search.retrieve.choosing import Candidate
from nge_search.retrieve.embedders import Embedder, NetworkEmbedder
from nge_search.retrieve.encoders import LabelNumbers
from nge_search.retrieve.fingerprints import CONTROLS, Fingerprint, FingerprintSettings
from nge_search.retrieve.lda import Discriminants, Span
from nge_search.retrieve.models import FROM_FAMILIES, NETWORKS, OURS, candidate, configured
from nge_search.retrieve.nas_set import NasSetSettings, nas_set, slot_features
from nge_search.retrieve.ordered import OrderedGraph

#: Questions whose networks a seed draws or divides.
DRAWN = ("unseen", "seen", "nas")
#: Untrained controls: the registry's, and without operations that only look at numbers in another way.
FINGERPRINTS = {
    **CONTROLS,
    "wl1, contracted": replace(CONTROLS["wl1"], views=False),
    "wl2, contracted": replace(CONTROLS["wl2"], views=False),
}
#: What smoothing alone does.
SMOOTHED = {f"{name}, smoothed": name for name in ("wl1", "wl1, contracted")}
#: Networks that are published, with other options: a registered one, and the options.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"nar, {split}": ("nar", {"split": split}) for split in ("node_number", "motif_number", "random")},
    "nar, contrast alone": ("nar", {"classify": False}),
    "nar, classes alone": ("nar", {"contrast": False}),
}
#: Trained on searched networks, then on those of the question.
TRANSFERRED = "nar, searched networks first"
#: Discriminants of our fingerprints.
LDA_OWN = "lda of ours"
#: Of the searched networks alone: what each step of each cell has, in one row.
SLOTS = "slots of steps"

UNTRAINED = (*FINGERPRINTS, SLOTS)


@dataclass(frozen=True)
class Reduced:
    """What published networks, and the set of searched ones, are reduced to; `motif_epochs`: NAR's first stage."""

    members: int
    edits: int
    width: int
    batch: int
    epochs: int
    motif_epochs: int

    def options(self) -> dict[str, Any]:
        """Of a network."""
        return {
            "width": self.width,
            "batch_size": self.batch,
            "epochs": self.epochs,
            "motif_epochs": self.motif_epochs,
        }

    def set(self) -> NasSetSettings:
        return NasSetSettings(members=self.members, edits=self.edits)


#: What is usual of the searched networks, and of those of the corpus. The paper does not tell how many genes are
#: edited: of 2 and 4 that by which its convolutions on whole graphs come nearer to the published MAP, by seed 100.
REDUCED = {"nas": Reduced(300, 2, 128, 32, 15, 5), "seen": Reduced(300, 2, 64, 32, 15, 5)}


def of_network(model: str) -> bool:
    """Whether an encoder is a network that `Reduced` is about."""
    return model in NETWORKS or model in VARIANTS or model == TRANSFERRED


def by_chance(model: str, question: str = "") -> bool:
    """Whether a seed decides anything of an encoder, or of what it is asked."""
    return question in DRAWN or model in FROM_FAMILIES or model == LDA_OWN or of_network(model)


def candidate_of(model: str, reduced: Reduced, seed: int, fitted_once: bool) -> Candidate:
    """An encoder by its name here.

    Args:
        fitted_once: graphs stay the same, so that what no chance enters need not be fitted again.
    """
    smoothing = OURS["own"].smoothing if model in SMOOTHED else None
    model = SMOOTHED.get(model, model)
    if model == SLOTS:
        found = Candidate(lambda: Slots(reduced.set(), seed), families=False)
    elif model in FINGERPRINTS:
        found = Candidate(lambda: Untrained(FINGERPRINTS[model]), families=False)
    elif model == LDA_OWN:
        found = Candidate(OwnDiscriminants)
    elif model == TRANSFERRED:
        found = Candidate(lambda: Transferred(reduced))
    else:
        name, given = VARIANTS.get(model, (model, {}))
        known = reduced.options() if name in NETWORKS else {}
        if name != "nar":
            known.pop("motif_epochs", None)
        found = candidate(name, {**known, **given})
    if fitted_once and not by_chance(model):
        fitted = once(str(OURS[model].settings) if model in OURS else model, found)
        found = replace(found, make=lambda: fitted)
    return found if smoothing is None else replace(found, smoothing=smoothing)


class Untrained(Embedder):
    """A fingerprint, in the directions that the embedded graphs span: all cosines between these stay."""

    def __init__(self, settings: FingerprintSettings):
        self._fingerprint = Fingerprint(settings)

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self._fingerprint.fit(graphs)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return Span(self._fingerprint.vectors(graphs), centred=False).place_NR


class OwnDiscriminants(Embedder):
    """Linear discriminants of all of our fingerprints."""

    def __init__(self) -> None:
        self._own, self._discriminants = own.OwnEmbedder(), Discriminants()

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        known = [place for place, family in enumerate(families) if family]
        bags = self._own.bags_of([graphs[place] for place in known])
        for fingerprint, bags_of_one in zip(self._own.fingerprints, bags):
            fingerprint.fit_bags(bags_of_one)
        self._discriminants.fit(self._own.vectors(bags), [families[place] for place in known])

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._discriminants(self._own.vectors(self._own.bags_of(graphs)))


class Transferred(Embedder):
    """NAR, trained on searched networks first: what it has learnt there is where training begins."""

    def __init__(self, reduced: Reduced):
        self._reduced = reduced
        self._network = NetworkEmbedder(configured("nar", reduced.options()))

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        searched, classes = searched_networks(self._reduced.set(), seed)
        self._network.start(LabelNumbers.of([*searched, *graphs]), seed)
        self._network.train(searched, classes)
        self._network.train(graphs, families)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._network.embed(graphs)


class Slots(Embedder):
    """The searched networks of a set by their genes: no graph is looked at."""

    def __init__(self, settings: NasSetSettings, seed: int):
        self._feature_AF = slot_features(nas_set(settings, seed)[0])

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        pass

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._feature_AF


class Once(Embedder):
    """Is fitted to the same graphs once, and embeds them once."""

    def __init__(self, embedder: Embedder):
        self._embedder, self._graphs, self._found_ND = embedder, None, np.zeros((0, 0))

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        if self._graphs is not graphs:
            self._embedder.fit(graphs, families, seed)
            self._found_ND = self._embedder.embed(graphs).astype(np.float32)
            self._graphs = graphs

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._found_ND if graphs is self._graphs else self._embedder.embed(graphs)


_FITTED: dict[str, Once] = {}


def once(model: str, found: Candidate) -> Once:
    """The one of a name that is fitted already."""
    return _FITTED.setdefault(model, Once(found.make()))


class Watched(Embedder):
    """An embedder whose last embedding is kept, to be drawn."""

    def __init__(self, embedder: Embedder):
        self._embedder, self.embedding_ND = embedder, np.zeros((0, 0))

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self._embedder.fit(graphs, families, seed)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        self.embedding_ND = self._embedder.embed(graphs)
        return self.embedding_ND


@functools.lru_cache(1)
def searched_networks(settings: NasSetSettings, seed: int) -> tuple[list[OrderedGraph], list[str]]:
    """The set's graphs, and their classes."""
    genotypes, classes = nas_set(settings, seed)
    graphs = [OrderedGraph.of(darts_network(genotype)) for genotype in genotypes]
    return graphs, [f"class {number}" for number in classes]
