"""Our embedder for families that nobody has seen: fingerprints, which may be less what alike networks differ in.

Fingerprints of several kinds stand side by side. Along the directions in which networks differ that are built alike
they are made shorter (`lda.Whitening`): members of known families, or views of one network (other depths, pieces of
it), for which no label is needed. A trained network's embedding may stand beside them. The result is dense and
small, though it is computed from the words of the corpus: a graph's products with all of its fingerprints.

Legend: N graphs that were fitted, B graphs, W words, R directions of the span, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from nge_search.errors import UserError, nearest
from nge_search.retrieve.embedders import Embedder, NetworkEmbedder, NetworkSettings
from nge_search.retrieve.fingerprints import Bag, Fingerprint, FingerprintSettings, bag
from nge_search.retrieve.lda import Span, Whitening
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.views import random_view

#: What says which networks are built alike: nothing, views of a network, or families.
ALIKE = ("nothing", "views", "families")


#: Surroundings with and without attributes, and operations, each with views and with views contracted.
FINGERPRINTS = tuple(
    (FingerprintSettings(rounds=rounds, labels=labels, idf=0.5, views=views), 1.0)
    for views in (True, False)
    for rounds, labels in ((1, "attributes"), (1, "names"), (0, "attributes"))
)


@dataclass(frozen=True)
class OwnSettings:
    """Which fingerprints, and what is learnt.

    Attributes:
        fingerprints: with the weight of each.
        alike: one of `ALIKE`.
        ratio: of `Whitening`; the larger, the less is learnt.
        views: of each network, where these say what is alike; `least_share` and `most_repetitions` as of
            `random_view`.
        features: D, of the fingerprints' part.
        network: an encoder that is trained beside them; None: none.
        network_weight: of its embedding, the fingerprints' being 1.
    """

    fingerprints: tuple[tuple[FingerprintSettings, float], ...] = FINGERPRINTS
    alike: str = "nothing"
    ratio: float = 1.0
    views: int = 3
    least_share: float = 0.6
    most_repetitions: int = 3
    features: int = 256
    network: NetworkSettings | None = None
    network_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.alike not in ALIKE:
            raise UserError(
                f"networks are alike by one of {', '.join(ALIKE)}, not '{self.alike}'{nearest(self.alike, ALIKE)}"
            )
        if not self.fingerprints or self.features < 1 or self.views < 1:
            raise UserError("our embedder needs a fingerprint, and features and views of at least 1")


class OwnEmbedder(Embedder):
    """Fingerprints, whitened, in D dense features.

    Attributes:
        bags: of the fitted graphs, for each of the fingerprints.
        x_NW: the fitted graphs' fingerprints.
        map_ND: a graph's features are its products with them, times this.
    """

    def __init__(self, settings: OwnSettings = OwnSettings(), device: torch.device | str = "cpu"):
        self.settings = settings
        self.fingerprints = [Fingerprint(own) for own, _ in settings.fingerprints]
        self.network = None if settings.network is None else NetworkEmbedder(settings.network, device)
        self.bags: list[list[Bag]] = []
        self.x_NW, self.map_ND = sparse.csr_array((0, 0)), np.zeros((0, 0))

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self.bags = self.bags_of(graphs)
        for fingerprint, bags in zip(self.fingerprints, self.bags):
            fingerprint.fit_bags(bags)
        self.x_NW = self.vectors(self.bags)
        span = Span(self.x_NW, centred=False)
        self.map_ND = span.weight_NR
        change_RR = self._change(graphs, families, span.place_NR, seed)
        # the directions of largest variance of what comes out
        _, _, basis_RR = np.linalg.svd(span.place_NR @ change_RR, full_matrices=False)
        map_ND = span.weight_NR @ change_RR @ basis_RR[: self.settings.features].T
        self.map_ND = map_ND.astype(np.float32)  # as it is written
        if self.network is not None:
            self.network.fit(graphs, families, seed)

    def _change(
        self, graphs: Sequence[OrderedGraph], families: Sequence[str], place_NR: np.ndarray, seed: int
    ) -> np.ndarray:
        """What whitening makes of the axes of the span: [R, R]."""
        whitening = Whitening(self.settings.ratio)
        if self.settings.alike == "families":
            known = [i for i, family in enumerate(families) if family]
            whitening.fit(place_NR[known], [families[i] for i in known])
        elif self.settings.alike == "views":
            whitening.fit_differences(self._differences(graphs, place_NR, seed))
        else:
            return np.eye(place_NR.shape[1])
        return whitening(np.eye(place_NR.shape[1]))

    def _differences(self, graphs: Sequence[OrderedGraph], place_NR: np.ndarray, seed: int) -> np.ndarray:
        """Of views from the networks they are views of: [views N, R]."""
        settings, generator = self.settings, np.random.default_rng(seed)
        found = []
        for _ in range(settings.views):
            views = [random_view(g, settings.least_share, settings.most_repetitions, generator) for g in graphs]
            found.append(self._products(views) @ self.map_ND - place_NR)
        return np.concatenate(found)

    def bags_of(self, graphs: Sequence[OrderedGraph]) -> list[list[Bag]]:
        """The words of graphs, for each of the fingerprints."""
        return [[bag(graph, settings) for graph in graphs] for settings, _ in self.settings.fingerprints]

    def vectors(self, bags: Sequence[Sequence[Bag]]) -> sparse.csr_array:
        """All fingerprints side by side, weighed: sparse [B, W]."""
        weights = [weight for _, weight in self.settings.fingerprints]
        parts = [one.vectors_of_bags(own) * weight for one, own, weight in zip(self.fingerprints, bags, weights)]
        return sparse.csr_array(sparse.hstack(parts))

    def _products(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        """[B, N]."""
        return (self.vectors(self.bags_of(graphs)) @ self.x_NW.T).toarray()

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        found_BD = self._products(graphs) @ self.map_ND
        if self.network is None:
            return found_BD
        return np.hstack([_unit(found_BD), self.settings.network_weight * _unit(self.network.embed(graphs))])


def _unit(x_BD: np.ndarray) -> np.ndarray:
    return x_BD / np.maximum(np.linalg.norm(x_BD, axis=1, keepdims=True), 1e-30)
