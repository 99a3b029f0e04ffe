"""One operation for each edge, drawn anew at every step: the straight-through Gumbel-softmax.

With g of Gumbel's distribution, argmax(log P + g) is a draw from P; its gradient is taken as that of
softmax((log P + g) / temperature) (Jang et al., 2017; GDAS, Dong and Yang, 2019, Eq. 3-4). What the supernet
computes is then a network that can be derived, and not a mixture of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.graph import CellSpace


class Sampler:
    """Turns matrices P [E, O] into draws, the same on all ranks.

    The noise is in tensors that are written to between steps, so that a recorded step sees new draws.

    Args:
        temperature: of the softmax that gives gradients.
        seed: of all draws, together with the position of a step in the search.
    """

    def __init__(self, space: CellSpace, temperature: float, seed: int, device: torch.device, dtype: torch.dtype):
        self.temperature, self.seed = temperature, seed
        self.noise = [torch.zeros(table.shape, dtype=dtype, device=device) for table in space.tables]

    def draw(self, *position: int) -> None:
        """New noise, given by the seed and the position."""
        random = np.random.default_rng((self.seed, *position))
        for noise_EO in self.noise:
            noise_EO.copy_(torch.from_numpy(random.gumbel(size=tuple(noise_EO.shape))))

    def settle(self) -> None:
        """No noise: the most probable operation of each edge."""
        for noise_EO in self.noise:
            noise_EO.zero_()

    def __call__(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """One-hot rows [E, O] each, with the gradient of the softmax."""
        found = []
        for p_EO, noise_EO in zip(matrices, self.noise):
            log_EO = (p_EO + torch.finfo(p_EO.dtype).tiny).log() + noise_EO  # finite where P has vanished
            soft_EO = torch.softmax(log_EO / self.temperature, dim=1)
            hard_EO = torch.zeros_like(soft_EO).scatter_(1, log_EO.argmax(dim=1, keepdim=True), 1.0)
            found.append(hard_EO + (soft_EO - soft_EO.detach()))
        return found
