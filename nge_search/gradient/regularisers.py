"""What the architecture loss has beside the network's: gradients with respect to P, logits and concentrations.

They are written down, as autograd's would make tensors of numbers of the host, which a recorded step must not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_gradient(p_EO: Tensor) -> Tensor:
    """Of minus the mean over edges of the entropy of P's rows, with respect to P: (log P + 1) / E."""
    return (p_EO.clamp_min(torch.finfo(p_EO.dtype).tiny).log() + 1) / len(p_EO)


def beta_decay_gradient(logits_EO: Tensor) -> Tensor:
    """Of centred beta-decay with respect to the logits: (P - 1 / O) / E, P their softmax.

    Beta-decay (beta-DARTS, Ye et al., 2022) is the mean over edges of the logsumexp of an edge's logits. That falls
    when a number is taken from all of them, which changes no P; embeddings with shared layers find that way out.
    Here each edge's logits are taken less their mean. That is KL(uniform || P) plus log O, and sees P alone.
    """
    edges, operations = logits_EO.shape
    return (torch.softmax(logits_EO, dim=1) - 1 / operations) / edges


def anchor_gradient(c_EO: Tensor) -> Tensor:
    """Of the sum over edges of KL(Dir(c) || Dir(1)) (DrNAS, Chen et al., 2021) with respect to c.

    (c - 1) psi'(c) - (c_0 - O) psi'(c_0): c_0 is the sum of an edge's concentrations, psi' the trigamma function.
    """
    total_E1 = c_EO.sum(dim=1, keepdim=True)
    of_total_E1 = (total_E1 - c_EO.shape[1]) * torch.special.polygamma(1, total_E1)
    return (c_EO - 1) * torch.special.polygamma(1, c_EO) - of_total_E1
