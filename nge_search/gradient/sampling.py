"""One operation for each edge, drawn anew at every step, and two ways to a gradient of P.

With g of Gumbel's distribution, argmax(log P + g) is a draw from P. What the supernet computes is then one
operation for each edge, which in NAS-Bench-201's space is a network that can be derived, and not a mixture of all.

- Relaxed: the draw's gradient is taken as that of softmax((log P + g) / temperature), the straight-through
  Gumbel-softmax (Jang et al., 2017; GDAS, Dong and Yang, 2019, Eq. 3-4). It extrapolates from what is drawn to all
  other operations as if the loss were linear, and so is biased.
- Score: the expected loss has the gradient E[loss * d log P(draw)] (REINFORCE, Williams, 1992; ENAS, Pham et al.,
  2018), which needs the loss alone and is exact in the mean. Its best P are certainties, since the expected loss is
  linear in each edge's probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.gradient.mixture import Mixture, logarithm


class Sampler(Mixture):
    """Turns matrices P [E, O] into draws of one operation for each edge: one-hot rows, with a softmax's gradient.

    Args:
        temperature: of the softmax that gives gradients.
        seed: of all draws, together with the position of a step in the search.
        draws: K, how many a step can make.
    """

    def __init__(
        self,
        space: CellSpace,
        temperature: float,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        draws: int = 1,
    ):
        self.temperature, self.seed, self.draws = temperature, seed, draws
        self.noise = [torch.zeros(draws, *table.shape, dtype=dtype, device=device) for table in space.tables]

    def draw(self, *position: int) -> None:
        random = np.random.default_rng((self.seed, *position))
        for noise_KEO in self.noise:
            noise_KEO.copy_(torch.from_numpy(random.gumbel(size=tuple(noise_KEO.shape))))

    def settle(self) -> None:
        for noise_KEO in self.noise:
            noise_KEO.zero_()

    def __call__(self, matrices: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
        found = []
        for p_EO, noise_KEO in zip(matrices, self.noise):
            log_EO = logarithm(p_EO) + noise_KEO[draw]
            soft_EO = torch.softmax(log_EO / self.temperature, dim=1)
            hard_EO = torch.zeros_like(soft_EO).scatter_(1, log_EO.argmax(dim=1, keepdim=True), 1.0)
            found.append(hard_EO + (soft_EO - soft_EO.detach()))
        return found


def score_gradient(losses_K: Tensor, draws: Sequence[Sequence[Tensor]], matrices: Sequence[Tensor]) -> list[Tensor]:
    """An unbiased estimate of the expected loss's gradient with respect to each P [E, O].

    Each draw's loss is compared with the mean of the others' (Kool et al., 2019), which takes away what the batch
    itself contributes and leaves the mean as it is.

    Args:
        losses_K: of K draws, at least two.
        draws: K times one-hot rows [E, O] for each P, drawn from it independently.
    """
    advantages_K = (losses_K - losses_K.mean()) / (len(losses_K) - 1)
    found = []
    for table, p_EO in enumerate(matrices):
        drawn_KEO = torch.stack([own[table] for own in draws])
        weighted_EO = (advantages_K.to(p_EO.dtype)[:, None, None] * drawn_KEO).sum(dim=0)
        found.append(weighted_EO / p_EO.clamp_min(torch.finfo(p_EO.dtype).tiny))
    return found
