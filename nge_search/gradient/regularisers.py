"""What the architecture loss has beside the network's: functions of P, of logits and of concentrations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def entropy(p_EO: Tensor) -> Tensor:
    """The mean over edges of the entropy of P's rows, in nats."""
    return torch.special.entr(p_EO.clamp_min(torch.finfo(p_EO.dtype).tiny)).sum(dim=1).mean()


def beta_decay(logits_EO: Tensor) -> Tensor:
    """The mean over edges of the logsumexp of an edge's logits less their mean (beta-DARTS, Ye et al., 2022).

    The original takes the logits as they are. Their logsumexp falls when a number is taken from all of an edge's
    logits, which changes no P; embeddings with shared layers find that way out. Centred it is KL(uniform || P) plus
    the logarithm of the number of operations, and sees P alone.
    """
    return torch.logsumexp(logits_EO - logits_EO.mean(dim=1, keepdim=True), dim=1).mean()


def beta_decay_gradient(logits_EO: Tensor) -> Tensor:
    """Of `beta_decay` with respect to the logits: (P - 1 / O) / E."""
    edges, operations = logits_EO.shape
    return (torch.softmax(logits_EO, dim=1) - 1 / operations) / edges


def expected_cost(costs: Sequence[Tensor], matrices: Sequence[Tensor]) -> Tensor:
    """The sum over kinds of cell of <cost, P>."""
    return torch.stack([(cost_EO * p_EO).sum() for cost_EO, p_EO in zip(costs, matrices)]).sum()
