"""Everything that turns graphs into vectors whose cosines say how alike they are, in one form.

Legend: N graphs that were fitted, B graphs, W words, R directions, D features of an embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nge_search.errors import UserError
from nge_search.retrieve.encoders import GraphEncoder, LabelNumbers, MotifTable
from nge_search.retrieve.fingerprints import CONTROLS, Fingerprint, FingerprintSettings
from nge_search.retrieve.lda import Discriminants
from nge_search.retrieve.motifs import Motifs, MotifSettings, divide
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.training import (
    GraphTraining,
    MacroGraphs,
    MotifTraining,
    Tell,
    ViewTraining,
    WholeGraphs,
    embeddings,
    train_on_contexts,
    train_on_families,
    train_on_views,
)


class Embedder(ABC):
    """Embeds graphs whose operations are on nodes."""

    @abstractmethod
    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        """Learn from graphs.

        Args:
            families: of each; "" where it is not known. Untrained and self-supervised ones do not look at them.
            seed: decides all chance.
        """

    @abstractmethod
    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        """Embeddings, float [B, D]; what counts is their direction."""


def labelled(graphs: Sequence[OrderedGraph], families: Sequence[str]) -> tuple[list[OrderedGraph], list[str]]:
    """The graphs whose family is known, and the families.

    Raises:
        UserError: fewer than two families.
    """
    kept = [(graph, family) for graph, family in zip(graphs, families) if family]
    if len({family for _, family in kept}) < 2:
        raise UserError("an encoder that learns from families needs at least two of them")
    return [graph for graph, _ in kept], [family for _, family in kept]


class UntrainedEmbedder(Embedder):
    """A fingerprint by itself: the controls. Dense, so for corpora of thousands."""

    def __init__(self, settings: FingerprintSettings):
        self.fingerprint = Fingerprint(settings)

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self.fingerprint.fit(graphs)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self.fingerprint.vectors(graphs).toarray()


class DiscriminantEmbedder(Embedder):
    """Linear discriminants of a fingerprint: the control where families were seen."""

    def __init__(self, settings: FingerprintSettings = CONTROLS["wl2"], shrinkage: float = 0.5):
        self.fingerprint, self.discriminants = Fingerprint(settings), Discriminants(shrinkage)

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        known, own = labelled(graphs, families)
        self.fingerprint.fit(known)
        self.discriminants.fit(self.fingerprint.vectors(known), own)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self.discriminants(self.fingerprint.vectors(graphs))


@dataclass(frozen=True)
class NetworkSettings:
    """An encoder that is a network.

    Attributes:
        motifs: how graphs are divided; None: the network sees whole graphs.
        kind, width, layers, heads, dropout: as of `GraphEncoder`; dropout only where families are learnt.
        attributes: labels go in with their attributes.
        on_motifs: the first stage, of graphs of motifs.
        on_families: the second stage; None: families are not learnt.
        on_views: training without labels, before families (whole graphs only); None: none.
    """

    motifs: MotifSettings | None = None
    kind: str = "convolution"
    width: int = 512
    layers: int = 3
    heads: int = 1
    dropout: float = 0.1
    attributes: bool = False
    on_motifs: MotifTraining = MotifTraining()
    on_families: GraphTraining | None = GraphTraining()
    on_views: ViewTraining | None = None

    def __post_init__(self) -> None:
        if self.motifs is not None and self.on_views is not None:
            raise UserError("training on views is of whole graphs; leave motifs out")


class NetworkEmbedder(Embedder):
    """NAR, its baselines on whole graphs, and encoders that learn from views.

    Args:
        tell: called after each epoch with the stage, the epoch and its mean loss.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        device: torch.device | str = "cpu",
        tell: Callable[[str, int, float], None] | None = None,
    ):
        self.settings, self.device, self._tell = settings, torch.device(device), tell
        self.labels = LabelNumbers(())
        self.motif_encoder: GraphEncoder | None = None
        self.encoder: GraphEncoder | None = None
        self.seed = 0

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self.start(LabelNumbers.of(graphs, self.settings.attributes), seed)
        self.train(graphs, families)

    def train(self, graphs: Sequence[OrderedGraph], families: Sequence[str]) -> None:
        """All stages, from where the networks stand, such as after other graphs."""
        settings, seed = self.settings, self.seed
        assert self.encoder is not None, "start comes first"
        if self.motif_encoder is not None:
            self._fit_motifs(graphs, seed)
        if settings.on_views is not None:
            told = self._telling("views")
            train_on_views(self.encoder, graphs, self.labels, settings.on_views, seed, told)
        if settings.on_families is not None:
            known, own = labelled(graphs, families)
            self.encoder.dropout = settings.dropout
            told = self._telling("families")
            train_on_families(self.encoder, self._inputs(known), own, settings.on_families, seed, told)

    def start(self, labels: LabelNumbers, seed: int) -> None:
        """Untrained networks for these labels."""
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if settings.motifs is not None:
                self.motif_encoder = self._network(len(labels), "convolution").to(self.device)
            inputs = len(labels) if settings.motifs is None else settings.width
            self.encoder = self._network(inputs, settings.kind).to(self.device)
        self.labels, self.seed = labels, seed

    def _network(self, inputs: int, kind: str) -> GraphEncoder:
        return GraphEncoder(inputs, self.settings.width, self.settings.layers, kind, heads=self.settings.heads)

    def _fit_motifs(self, graphs: Sequence[OrderedGraph], seed: int) -> None:
        assert self.motif_encoder is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            context_encoder = self._network(len(self.labels), "convolution").to(self.device)
        divided = [self._divided(graph) for graph in graphs]
        told = self._telling("motifs")
        train_on_contexts(
            self.motif_encoder, context_encoder, divided, self.labels, self.settings.on_motifs, seed, told
        )

    def _divided(self, graph: OrderedGraph) -> Motifs:
        assert self.settings.motifs is not None
        return divide(graph, self.settings.motifs, np.random.default_rng(self.seed))

    def _inputs(self, graphs: Sequence[OrderedGraph]) -> WholeGraphs | MacroGraphs:
        assert self.encoder is not None
        if self.motif_encoder is None:
            return WholeGraphs(graphs, self.labels, self.encoder.normalised)
        table = MotifTable(self.motif_encoder, self.labels)
        return MacroGraphs([self._divided(graph) for graph in graphs], table, self.encoder.normalised)

    def _telling(self, stage: str) -> Tell | None:
        tell = self._tell
        return None if tell is None else lambda epoch, loss: tell(stage, epoch, loss)

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        assert self.encoder is not None, "fit comes first"
        return embeddings(self.encoder, self._inputs(graphs))
