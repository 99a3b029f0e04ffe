"""Losses that place embeddings of what is alike near each other (NAR, Eq. 4 and 5; van den Oord et al., 2018).

Legend: M motifs of a batch, B graphs, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine_matrix(first_MF: Tensor, second_BF: Tensor) -> Tensor:
    """Cosines between all rows of one and all of the other: [M, B]."""
    return functional.normalize(first_MF, dim=1) @ functional.normalize(second_BF, dim=1).T


def context_loss(motif_MF: Tensor, context_MF: Tensor, content_M: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 4: a motif is to be found by its own context among those of the other motifs; the mean over motifs.

    Args:
        motif_MF, context_MF: embeddings of motifs and of their contexts.
        content_M: what each motif is; contexts of motifs that are the same are no negatives.
    """
    score_MM = cosine_matrix(motif_MF, context_MF) / temperature
    same_MM = content_M[:, None] == content_M
    own_M = score_MM.diagonal()
    others_MM = score_MM.masked_fill(
        same_MM & ~torch.eye(len(own_M), dtype=torch.bool, device=own_M.device), -torch.inf
    )
    return (others_MM.logsumexp(dim=1) - own_M).mean()


def family_loss(h_BF: Tensor, family_B: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 5: members of the own family against all others, a graph itself left out.

    The mean over the graphs that have another member and a stranger in the batch; 0 if none has.
    """
    score_BB = cosine_matrix(h_BF, h_BF) / temperature
    same_BB = family_B[:, None] == family_B
    itself_BB = torch.eye(len(h_BF), dtype=torch.bool, device=h_BF.device)
    members_BB = same_BB & ~itself_BB
    counted_B = members_BB.any(dim=1) & ~same_BB.all(dim=1)
    score_BB, members_BB, itself_BB = score_BB[counted_B], members_BB[counted_B], itself_BB[counted_B]
    if not len(score_BB):
        return h_BF.sum() * 0
    member_B = score_BB.masked_fill(~members_BB, -torch.inf).logsumexp(dim=1)
    return (score_BB.masked_fill(itself_BB, -torch.inf).logsumexp(dim=1) - member_B).mean()


def pair_loss(first_BF: Tensor, second_BF: Tensor, temperature: float = 0.1) -> Tensor:
    """Two views of each graph are to be found by each other among the views of all; the mean over views.

    (Chen et al., 2020.)
    """
    h_BF = torch.cat([first_BF, second_BF])
    return family_loss(h_BF, torch.arange(len(first_BF), device=h_BF.device).repeat(2), temperature)
