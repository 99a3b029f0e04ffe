"""How networks that score architectures are trained (TA-GATES, Sections 4.1 and A.3).

Legend: E members, N architectures, B those of a batch, F features, T heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nge_search.graph_nn import DenseBatch
from nge_search.predict import losses
from nge_search.predict.encoders import Encoder, head
from nge_search.predict.members import Members

_AT_ONCE = 4096


@dataclass(frozen=True)
class Inputs:
    """Architectures as a network takes them.

    Attributes:
        batch: graphs, kind by kind of cells.
        kinds: of cells.
        features_NF: analytic features, standardised; None: none.
    """

    batch: DenseBatch
    kinds: int = 1
    features_NF: Tensor | None = None

    def __len__(self) -> int:
        return len(self.batch.node_BV) // self.kinds

    def take(self, positions: Tensor) -> Inputs:
        """Some of them, in that order."""
        count = len(self)
        rows = torch.cat([positions + kind * count for kind in range(self.kinds)])
        graphs = DenseBatch(self.batch.node_BV[rows], self.batch.edge_BKVV[rows], self.batch.a_BVV[rows])
        return Inputs(graphs, self.kinds, None if self.features_NF is None else self.features_NF[positions])


class ScoreNetwork(nn.Module):
    """An encoder with a head for each stage of training that is scored; features join the encoding before the head.

    Args:
        encoder: of graphs.
        features: F.
        hidden: units of the head's hidden layers.
        heads: T: the last T steps of the encoder are scored, each by a head of its own.
    """

    def __init__(
        self, encoder: Encoder, features: int, hidden: Sequence[int], dropout: float = 0.1, heads: int = 1
    ):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(head(encoder.width + features, hidden, dropout) for _ in range(heads))

    def forward(self, batch: DenseBatch, features_NF: Tensor | None) -> Tensor:
        """Scores [T, N]."""
        encodings = self.encoder(batch)[-len(self.heads) :]
        scores = []
        for encoding_NF, mlp in zip(encodings, self.heads):
            joined = encoding_NF if features_NF is None else torch.cat([encoding_NF, features_NF], dim=1)
            scores.append(mlp(joined)[:, 0])
        return torch.stack(scores)


@dataclass(frozen=True)
class TrainingSettings:
    """Of a score network; the defaults are TA-GATES' on NAS-Bench-201."""

    epochs: int = 200
    batch_size: int = 512
    pairs_per_architecture: float = 4.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


def train(members: Members, inputs: Inputs, label_N: Tensor, settings: TrainingSettings, seed: int) -> None:
    """Train by the hinge loss on pairs of each batch, with Adam at a constant rate."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(members.trained(), settings.learning_rate, weight_decay=settings.weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(settings.epochs):
            for positions_B in torch.randperm(len(inputs), generator=generator).split(settings.batch_size):
                better_P, worse_P = losses.pairs(label_N[positions_B], settings.pairs_per_architecture, generator)
                if not len(better_P):
                    continue
                part = inputs.take(positions_B)
                score_ETB = members(part.batch, part.features_NF, train=True)
                loss = losses.hinge(score_ETB[:, -1], better_P, worse_P)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()


@torch.no_grad()
def scores(members: Members, inputs: Inputs) -> Tensor:
    """Scores of the members, [E, T, N]."""
    parts = []
    for positions_B in torch.arange(len(inputs)).split(_AT_ONCE):
        part = inputs.take(positions_B)
        parts.append(members(part.batch, part.features_NF))
    return torch.cat(parts, dim=2)
