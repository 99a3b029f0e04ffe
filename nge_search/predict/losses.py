"""Losses that train predictors: on the order of two architectures, or on their labels themselves.

Legend: E members, B architectures of a batch, P pairs, T heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: By which two scores should differ (TA-GATES, Section A.3).
MARGIN = 0.1


def pairs(label_B: Tensor, per_architecture: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of two architectures with different labels, the first with the higher: int64 [P] each.

    Of all pairs at most `per_architecture` times B, drawn uniformly without replacement.
    """
    first_P, second_P = torch.triu_indices(len(label_B), len(label_B), offset=1).unbind()
    differs = label_B[first_P] != label_B[second_P]
    first_P, second_P = first_P[differs], second_P[differs]
    most = int(per_architecture * len(label_B))
    if len(first_P) > most:
        kept = torch.randperm(len(first_P), generator=generator)[:most]
        first_P, second_P = first_P[kept], second_P[kept]
    turned = label_B[first_P] < label_B[second_P]
    return torch.where(turned, second_P, first_P), torch.where(turned, first_P, second_P)


def hinge(score_EB: Tensor, better_P: Tensor, worse_P: Tensor, margin: float = MARGIN) -> Tensor:
    """The mean over pairs of max(0, margin - (s_better - s_worse)), added over members."""
    short_EP = margin - (score_EB[:, better_P] - score_EB[:, worse_P])
    return torch.relu(short_EP).mean(dim=1).sum()


def regression(score_EB: Tensor, label_B: Tensor) -> Tensor:
    """The mean squared error of sigmoid(score) against a label from 0 to 1, added over members."""
    estimate_EB = torch.sigmoid(score_EB)
    return functional.mse_loss(estimate_EB, label_B.expand_as(estimate_EB), reduction="none").mean(dim=1).sum()


def anytime(score_ETB: Tensor, label_TB: Tensor) -> Tensor:
    """The errors of one head for each stage of a training, added up (Section 3.3)."""
    return sum((regression(s_EB, y_B) for s_EB, y_B in zip(score_ETB.unbind(dim=1), label_TB)), torch.zeros(()))
