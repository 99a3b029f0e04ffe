"""What makes an architecture worth a query, by what a predictor expects of it: the higher, the sooner.

Legend: M architectures.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nge_search.settings import names
from nge_search.settings.names import require_names

#: From here on the improvement is phi(z) / z^2, to eight digits.
_FAR = -1e4
_LOG_ROOT_2PI = math.log(2 * math.pi) / 2


class Acquisition(Protocol):
    """Worths of architectures whose targets are normal, float64 [M]; `best` is the best target so far."""

    def __call__(
        self, mean_M: Tensor, deviation_M: Tensor, best: float, random: np.random.Generator, /
    ) -> Tensor: ...


def expected_improvement(mean_M: Tensor, deviation_M: Tensor, best: float, random: np.random.Generator) -> Tensor:
    """The logarithm of E max(target - best, 0) (Jones et al., 1998), exact where that is too small for a number.

    With z = (mean - best) / deviation it is log deviation + log(phi(z) + z Phi(z)). Below -1, where the sum
    cancels, the second term is log phi(z) + log(1 - |z| Phi(z) / phi(z)) (as in Ament et al., 2023).
    """
    z_M = (mean_M - best) / deviation_M
    log_density_M = -(z_M**2) / 2 - _LOG_ROOT_2PI
    near_M, tail_M, far_M = z_M.clamp(min=-1), z_M.clamp(_FAR, -1), z_M.clamp(max=_FAR)
    density_M = torch.exp(-(near_M**2) / 2 - _LOG_ROOT_2PI)
    ratio_M = math.sqrt(math.pi / 2) * torch.special.erfcx(-tail_M / math.sqrt(2))  # Phi / phi
    tail_M = torch.where(z_M < _FAR, -2 * torch.log(-far_M), torch.log1p(tail_M * ratio_M))
    near_M = torch.log(density_M + near_M * torch.special.ndtr(near_M))
    return deviation_M.log() + torch.where(z_M > -1, near_M, log_density_M + tail_M)


def thompson(mean_M: Tensor, deviation_M: Tensor, best: float, random: np.random.Generator) -> Tensor:
    """A target drawn for each architecture independently (White et al., 2021, BANANAS)."""
    return mean_M + deviation_M * torch.from_numpy(random.standard_normal(len(mean_M)))


def greedy(mean_M: Tensor, deviation_M: Tensor, best: float, random: np.random.Generator) -> Tensor:
    """The mean."""
    return mean_M


ACQUISITIONS: dict[str, Acquisition] = {
    "expected_improvement": expected_improvement,
    "thompson": thompson,
    "greedy": greedy,
}
require_names(ACQUISITIONS, names.ACQUISITIONS)
