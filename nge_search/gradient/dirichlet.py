"""Weights of operations drawn from a Dirichlet distribution for each edge (DrNAS; Chen et al., 2021).

Weights theta ~ Dir(c) with concentrations c = ELU(logits) + 1 are drawn at every step, all operations are computed,
and the loss's gradient reaches c along the path of the draw. P is the mean, c / sum c: its arg-max is that of the
logits. An anchor, the divergence of Dir(c) from the even distribution Dir(1), keeps c from running off to where
draws no longer vary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.gradient.mixture import Mixture

#: Logits below are taken as this: their concentration, 6e-6, is as good as none, and draws stay finite.
_LEAST_LOGIT = -12.0

#: Candidates for each Gamma draw. Of each at least .95 are accepted, so that all fail in one of 3e10 draws.
_ROUNDS = 8


def concentrations(logits_EO: Tensor) -> Tensor:
    """c = ELU(logits) + 1, above zero."""
    below_EO = logits_EO.masked_fill(logits_EO > 0, 0.0).masked_fill(logits_EO < _LEAST_LOGIT, _LEAST_LOGIT)
    return torch.relu(logits_EO) + below_EO.exp()


def mean(c_EO: Tensor) -> Tensor:
    """Of Dir(c): c / sum c."""
    return c_EO / c_EO.sum(dim=1, keepdim=True)


def mean_backward(c_EO: Tensor, d_mean_EO: Tensor) -> Tensor:
    """The gradient with respect to c from that with respect to its mean."""
    inner_E1 = (mean(c_EO) * d_mean_EO).sum(dim=1, keepdim=True)
    return (d_mean_EO - inner_E1) / c_EO.sum(dim=1, keepdim=True)


class _Path(torch.autograd.Function):
    """A draw theta of Dir(c), with the gradient along its path: that of `Dirichlet.rsample`."""

    @staticmethod
    def forward(ctx: Any, c_EO: Tensor, theta_EO: Tensor) -> Tensor:
        ctx.save_for_backward(c_EO, theta_EO)
        return theta_EO.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (d_EO,), (c_EO, theta_EO) = outer, ctx.saved_tensors
        total_EO = c_EO.sum(dim=1, keepdim=True).expand_as(c_EO).contiguous()
        slope_EO = torch._dirichlet_grad(theta_EO, c_EO, total_EO)
        return slope_EO * (d_EO - (theta_EO * d_EO).sum(dim=1, keepdim=True)), None


class DirichletMixture(Mixture):
    """Draws from Dir(c) of every edge; settled, their mean. `__call__` takes concentrations in place of P.

    PyTorch's own sampler has no noise that could be written to between steps, so Gamma variates are drawn here by
    Marsaglia and Tsang's method (2000) from noise that is: Gamma(c) is Gamma(c + 1) U^(1 / c), and of candidates
    d (1 + x / sqrt(9 d))^3, d = c + 2/3, x normal, the first is taken that a uniform number accepts.

    Args:
        seed: of all draws, together with the position of a step in the search.
    """

    def __init__(self, space: CellSpace, seed: int, device: torch.device, dtype: torch.dtype):
        self.seed, self.settled = seed, False
        shapes = [(2 * _ROUNDS + 1, *table.shape) for table in space.tables]
        self.noise = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]

    def draw(self, *position: int) -> None:
        random = np.random.default_rng((self.seed, *position))
        self.settled = False
        for noise_NEO in self.noise:
            normal_REO = random.standard_normal((_ROUNDS, *noise_NEO.shape[1:]))
            uniform_SEO = 1 - random.random((_ROUNDS + 1, *noise_NEO.shape[1:]))  # above 0
            noise_NEO.copy_(torch.from_numpy(np.concatenate([normal_REO, uniform_SEO])))

    def settle(self) -> None:
        self.settled = True

    def __call__(self, matrices: Sequence[Tensor], draw: int = 0) -> list[Tensor]:
        if self.settled:
            return [mean(c_EO) for c_EO in matrices]
        return [_Path.apply(c_EO, sample(c_EO.detach(), noise)) for c_EO, noise in zip(matrices, self.noise)]


def sample(c_EO: Tensor, noise_NEO: Tensor) -> Tensor:
    """A draw of Dir(c) from noise: as many normal as uniform candidates, and one more uniform."""
    x_REO, u_REO, boost_EO = noise_NEO[:_ROUNDS], noise_NEO[_ROUNDS:-1], noise_NEO[-1]
    tiny, d_EO = torch.finfo(c_EO.dtype).tiny, c_EO + 2 / 3
    v_REO = (1 + x_REO * torch.rsqrt(9 * d_EO)) ** 3
    log_REO = v_REO.clamp_min(tiny).log()
    accepted_REO = (v_REO > 0) & (u_REO.log() < x_REO.square() / 2 + d_EO * (1 - v_REO + log_REO))
    first_1EO = accepted_REO.to(torch.int8).argmax(dim=0, keepdim=True)
    log_gamma_EO = (d_EO.log() + log_REO.gather(0, first_1EO)[0]) + boost_EO.log() / c_EO
    return torch.softmax(log_gamma_EO, dim=1).clamp(tiny, 1 - torch.finfo(c_EO.dtype).eps)
