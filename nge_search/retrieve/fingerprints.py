"""Untrained fingerprints of graphs: which surroundings, operations or motifs a network has.

They are what trained encoders have to beat. A fingerprint is a bag of words (`ordered`): presence tells networks
that are built alike from others whatever their depth, counts see the depth.

Legend: B graphs, W words that occur in the graphs that were fitted, D features of a hashed vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from nge_search.errors import UserError, nearest
from nge_search.retrieve.motifs import MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph, mixed, refined

#: A graph's distinct words in ascending order, uint64, and how often each occurs.
Bag = tuple[np.ndarray, np.ndarray]

#: What a fingerprint counts: surroundings of nodes (Weisfeiler and Leman), operations, or motifs.
FINGERPRINTS = ("wl", "operations", "motifs")
#: How often a word occurs becomes: whether it does, how often, or the logarithm of that and 1.
WEIGHTS = ("presence", "count", "log")


@dataclass(frozen=True)
class FingerprintSettings:
    """Which words a graph is described by, and what each weighs.

    Attributes:
        kind: one of `FINGERPRINTS`.
        rounds: of refinement over parents and children, where surroundings are counted; names are those after all.
        all_rounds: count the names after fewer rounds, too.
        labels: what of a node's label counts, one of `ordered.DETAILS`.
        weight: one of `WEIGHTS`.
        idf: words weigh by their inverse document frequency, log(graphs / graphs that have the word), to this power
            (0: all alike).
        motifs: how motifs are divided, where they are counted.
        views: operations that only look at numbers in another way count; otherwise they are contracted.
    """

    kind: str = "wl"
    rounds: int = 2
    all_rounds: bool = False
    labels: str = "attributes"
    weight: str = "presence"
    idf: float = 0.0
    motifs: MotifSettings = MotifSettings()
    views: bool = True

    def __post_init__(self) -> None:
        for given, known in ((self.kind, FINGERPRINTS), (self.weight, WEIGHTS)):
            if given not in known:
                raise UserError(
                    f"a fingerprint has one of {', '.join(known)}, not '{given}'{nearest(given, known)}"
                )
        if self.rounds < 0 or self.idf < 0:
            raise UserError("a fingerprint needs rounds >= 0 and idf >= 0")


#: The controls beside which every trained encoder is reported.
CONTROLS: dict[str, FingerprintSettings] = {
    "operations": FingerprintSettings("operations", labels="names", weight="log"),
    "operations_with_attributes": FingerprintSettings("operations", weight="log"),
    "wl1": FingerprintSettings(rounds=1),
    "wl2": FingerprintSettings(rounds=2),
    "wl1_names": FingerprintSettings(rounds=1, labels="names"),
    "wl2_names": FingerprintSettings(rounds=2, labels="names"),
    "wl2_idf": FingerprintSettings(rounds=2, idf=1.0),
    "motifs_idf": FingerprintSettings("motifs", idf=1.0, motifs=MotifSettings(labels="attributes")),
}


def bag(graph: OrderedGraph, settings: FingerprintSettings) -> Bag:
    """The words of a graph, which are found once, whatever they weigh."""
    which = replace(settings, weight="presence", idf=0.0)
    if which not in graph.bags:
        graph.bags[which] = _bag(graph if settings.views else graph.contracted, settings)
    return graph.bags[which]


def _bag(graph: OrderedGraph, settings: FingerprintSettings) -> Bag:
    if settings.kind == "motifs":
        return np.unique(divide(graph, settings.motifs).word_M, return_counts=True)
    word_N = graph.words(settings.labels)
    rounds = 0 if settings.kind == "operations" else settings.rounds
    found = [word_N]
    for _ in range(rounds):
        found.append(refined(found[-1], graph))
    if not settings.all_rounds:
        return np.unique(found[-1], return_counts=True)
    named = [mixed(word_N + np.uint64(done)) for done, word_N in enumerate(found)]  # a round's own words
    return np.unique(np.concatenate(named), return_counts=True)


class Fingerprint:
    """Fingerprints as vectors of length 1: sparse over the words of the graphs it was fitted on, or hashed.

    Attributes:
        word_W: the words, ascending, uint64.
        idf_W: what each weighs.
        unseen: what a word weighs that no fitted graph has.
    """

    def __init__(self, settings: FingerprintSettings):
        self.settings = settings
        self.word_W, self.idf_W, self.unseen = np.zeros(0, np.uint64), np.zeros(0), 1.0

    def fit(self, graphs: Sequence[OrderedGraph]) -> Fingerprint:
        """Learn which words there are and how rare each is; needs no label."""
        return self.fit_bags([bag(graph, self.settings) for graph in graphs])

    def fit_bags(self, bags: Sequence[Bag]) -> Fingerprint:
        """As `fit`, from what `bag` gave."""
        words = np.concatenate([words for words, _ in bags]) if bags else self.word_W
        self.word_W, graphs_W = np.unique(words, return_counts=True)
        self.idf_W = self._idf(len(bags) / graphs_W)
        self.unseen = float(self._idf(np.array([len(bags) + 1.0]))[0])
        return self

    def _idf(self, rarity: np.ndarray) -> np.ndarray:
        return np.log(1 + rarity) ** self.settings.idf

    def vectors(self, graphs: Sequence[OrderedGraph]) -> sparse.csr_array:
        """[B, W]. Words that no fitted graph has are left out, but count in a vector's length of 1.

        A scalar product is then the cosine of the whole fingerprints, wherever one of the two was fitted.
        """
        return self.vectors_of_bags([bag(graph, self.settings) for graph in graphs])

    def vectors_of_bags(self, bags: Sequence[Bag]) -> sparse.csr_array:
        """As `vectors`, from what `bag` gave."""
        rows, columns, values = [], [], []
        for row, (words, counts) in enumerate(bags):
            place_K, known_K = self._places(words)
            value_K = self._weights(counts) * np.where(known_K, self._known_idf(place_K), self.unseen)
            length = np.linalg.norm(value_K)
            rows.append(np.full(int(known_K.sum()), row))
            columns.append(place_K[known_K])
            values.append(value_K[known_K] / (length if length > 0 else 1.0))
        joined = [np.concatenate(parts) if parts else np.zeros(0) for parts in (values, rows, columns)]
        shape = (len(bags), len(self.word_W))
        return sparse.csr_array((joined[0], (joined[1].astype(int), joined[2].astype(int))), shape=shape)

    def hashed(self, graphs: Sequence[OrderedGraph], features: int) -> np.ndarray:
        """[B, D], of length 1: each word adds to one feature, with a sign, and both are read off the word.

        It needs no fitting where words weigh alike. Scalar products are those of the fingerprints up to chance of
        the order 1 / sqrt(D) (Weinberger et al., 2009).
        """
        found_BD = np.zeros((len(graphs), features))
        for row_D, graph in zip(found_BD, graphs):
            words, counts = bag(graph, self.settings)
            place_K, known_K = self._places(words)
            value_K = self._weights(counts) * np.where(known_K, self._known_idf(place_K), self.unseen)
            hash_K = mixed(words)
            sign_K = np.where(hash_K >> np.uint64(63), 1.0, -1.0)
            np.add.at(row_D, (hash_K % np.uint64(features)).astype(int), sign_K * value_K)
            row_D /= max(float(np.linalg.norm(row_D)), 1e-30)
        return found_BD

    def _places(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where words stand among W, and whether they do."""
        place_K = np.searchsorted(self.word_W, words)
        known_K = place_K < len(self.word_W)
        known_K[known_K] = self.word_W[place_K[known_K]] == words[known_K]
        return place_K, known_K

    def _known_idf(self, place_K: np.ndarray) -> np.ndarray:
        return np.append(self.idf_W, 1.0)[np.minimum(place_K, len(self.idf_W))]

    def _weights(self, counts: np.ndarray) -> np.ndarray:
        weight = self.settings.weight
        if weight == "presence":
            return np.ones(len(counts))
        return counts.astype(float) if weight == "count" else np.log1p(counts)
