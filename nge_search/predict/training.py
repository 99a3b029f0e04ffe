"""How networks that score architectures are trained (TA-GATES, Sections 4.1 and A.3).

Legend: E members, N architectures, B those of a batch, F features, T heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        metrics: numbers of operations that break symmetries, as `FlowEncoder` takes them; None: none.
    """

    batch: DenseBatch
    kinds: int = 1
    features_NF: Tensor | None = None
    metrics: Tensor | None = None

    def __len__(self) -> int:
        return len(self.batch.node_BV) // self.kinds

    def take(self, positions: Tensor) -> Inputs:
        """Some of them, in that order."""
        count = len(self)
        rows = torch.cat([positions + kind * count for kind in range(self.kinds)])
        graphs = DenseBatch(self.batch.node_BV[rows], self.batch.edge_BKVV[rows], self.batch.a_BVV[rows])
        return Inputs(
            graphs,
            self.kinds,
            None if self.features_NF is None else self.features_NF[positions],
            None if self.metrics is None else self.metrics[rows],
        )


class ScoreNetwork(nn.Module):
    """An encoder with a head for each stage of training that is scored; features join the encoding before the head.

    Args:
        encoder: of graphs.
        features: F.
        hidden: units of the head's hidden layers.
        heads: the last so many steps of the encoder are scored, each by a head of its own.
        outputs: scores that each head gives; with those of all heads they are T.
    """

    def __init__(
        self,
        encoder: Encoder,
        features: int,
        hidden: Sequence[int],
        dropout: float = 0.1,
        heads: int = 1,
        outputs: int = 1,
    ):
        super().__init__()
        self.encoder = encoder
        width = encoder.width + features
        self.heads = nn.ModuleList(head(width, hidden, dropout, outputs) for _ in range(heads))

    def forward(self, batch: DenseBatch, features_NF: Tensor | None, metrics: Tensor | None = None) -> Tensor:
        """Scores [T, N]."""
        encodings = self.encoder(batch) if metrics is None else self.encoder(batch, metrics)
        scores = []
        for encoding_NF, mlp in zip(encodings[-len(self.heads) :], self.heads):
            joined = encoding_NF if features_NF is None else torch.cat([encoding_NF, features_NF], dim=1)
            scores.append(mlp(joined).T)
        return torch.cat(scores)


@dataclass(frozen=True)
class TrainingSettings:
    """Of a score network; the defaults are TA-GATES' on NAS-Bench-201."""

    epochs: int = 200
    batch_size: int = 512
    pairs_per_architecture: float = 4.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


#: From the scores of a batch, [E, T, B], to what is minimised.
Loss = Callable[[Tensor], Tensor]


def train(
    members: Members,
    inputs: Inputs,
    label: Tensor,
    settings: TrainingSettings,
    seed: int,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train with Adam at a constant rate.

    Args:
        label: [N]: by the hinge loss on pairs of each batch; shares [T, N]: by the squared error of each score.
        seed: of the order of architectures, pairs and dropout.
        after_epoch: is called with the number of each epoch when it is done.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(members.trained(), settings.learning_rate, weight_decay=settings.weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(settings.epochs):
            for positions_B in torch.randperm(len(inputs), generator=generator).split(settings.batch_size):
                loss = _loss(label[..., positions_B], settings, generator)
                if loss is not None:
                    part = inputs.take(positions_B)
                    optimiser.zero_grad(set_to_none=True)
                    loss(members(part.batch, part.features_NF, part.metrics, train=True)).backward()
                    optimiser.step()
            if after_epoch is not None:
                after_epoch(epoch)


def _loss(label: Tensor, settings: TrainingSettings, generator: torch.Generator) -> Loss | None:
    """That of a batch; None where all labels are equal, so that there is no pair."""
    if label.ndim == 2:
        return lambda score_ETB: losses.anytime(score_ETB, label)
    better_P, worse_P = losses.pairs(label, settings.pairs_per_architecture, generator)
    if not len(better_P):
        return None
    return lambda score_ETB: losses.hinge(score_ETB[:, -1], better_P, worse_P)


@torch.no_grad()
def scores(members: Members, inputs: Inputs) -> Tensor:
    """Scores of the members, [E, T, N]; noise that breaks symmetries is the same each time."""
    parts = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for positions_B in torch.arange(len(inputs)).split(_AT_ONCE):
            part = inputs.take(positions_B)
            parts.append(members(part.batch, part.features_NF, part.metrics))
    return torch.cat(parts, dim=2)
