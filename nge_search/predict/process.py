"""A Gaussian process whose kernel is a sum over groups of features (Rasmussen and Williams, 2006, chapters 2, 5).

Each group g of D_g features has an amplitude a, a length l and a slope b of its own:

    k(x, x') = sum_g a_g^2 exp(-|x_g - x'_g|^2 / (2 D_g l_g^2)) + b_g^2 (x_g . x'_g) / D_g,     y = f(x) + noise

Hyper-parameters are those of largest posterior density under log-normal priors, or are averaged over: then the
process is an even mixture over some that are drawn from their posterior. Everything is in float64; for given
hyper-parameters it is exact. The cost is cubic in the number of labels.

Legend: N labels, M points to be predicted, G groups, F features, H hyper-parameters, S sets of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Means and deviations of the priors on log a, log l, log b and the log of the noise's deviation.
PRIORS = ((-1.0, 1.0), (0.3, 0.7), (-1.5, 1.0), (-1.5, 0.7))
_JITTER = 1e-8
_STEPS = 60
_TOLERANCE = 1e-5
_AT_ONCE = 2048
#: Steps of a chain before the first hyper-parameters are taken from it, and from one to the next.
_BEFORE, _BETWEEN = 20, 4


@dataclass(frozen=True)
class Hyperparameters:
    """Logarithms of amplitudes, lengths and slopes of the groups [G], and of the noise's deviation []."""

    amplitude_G: Tensor
    length_G: Tensor
    slope_G: Tensor
    noise: Tensor

    @staticmethod
    def start(groups: int) -> Hyperparameters:
        """The means of the priors."""
        amplitude_G, length_G, slope_G = (
            torch.full((groups,), mean, dtype=torch.float64) for mean, _ in PRIORS[:3]
        )
        return Hyperparameters(amplitude_G, length_G, slope_G, torch.tensor(PRIORS[3][0], dtype=torch.float64))

    def tensors(self) -> list[Tensor]:
        return [self.amplitude_G, self.length_G, self.slope_G, self.noise]

    def vector(self) -> Tensor:
        """All of them, [H]."""
        return torch.cat([part.reshape(-1) for part in self.tensors()])

    @staticmethod
    def of_vector(at_H: Tensor) -> Hyperparameters:
        """Those of a `vector`."""
        amplitude_G, length_G, slope_G = at_H[:-1].chunk(3)
        return Hyperparameters(amplitude_G, length_G, slope_G, at_H[-1])

    def log_prior(self) -> Tensor:
        """The logarithm of the priors' density, up to a constant."""
        pairs = zip(self.tensors(), PRIORS)
        squares = [(((value - mean) / deviation) ** 2).sum() for value, (mean, deviation) in pairs]
        return -torch.stack(squares).sum() / 2


class Similarities:
    """What kernels are made of, between two sets of points: for each group squared distances and products."""

    def __init__(self, x_NF: Tensor, y_MF: Tensor, groups: Sequence[Sequence[int]]):
        distances, products = [], []
        for columns in groups:
            x_ND, y_MD = x_NF[:, list(columns)], y_MF[:, list(columns)]
            products.append(x_ND @ y_MD.T / len(columns))
            distances.append(
                torch.cdist(x_ND, y_MD, compute_mode="donot_use_mm_for_euclid_dist") ** 2 / len(columns)
            )
        self.distance_GNM, self.product_GNM = torch.stack(distances), torch.stack(products)

    def kernel(self, at: Hyperparameters) -> Tensor:
        """[N, M]."""
        length_G11 = torch.exp(2 * at.length_G)[:, None, None]
        smooth_GNM = torch.exp(-self.distance_GNM / (2 * length_G11))
        weighted = torch.einsum("g,gnm->nm", torch.exp(2 * at.amplitude_G), smooth_GNM)
        return weighted + torch.einsum("g,gnm->nm", torch.exp(2 * at.slope_G), self.product_GNM)


class GaussianProcess:
    """A process fitted to labels; `predict` gives means and deviations.

    Args:
        x_NF: standardised features, float64.
        y_N: standardised labels, float64.
        groups: the columns of each group of features.
        at: hyper-parameters; None: those of largest posterior density.
    """

    def __init__(
        self, x_NF: Tensor, y_N: Tensor, groups: Sequence[Sequence[int]], at: Hyperparameters | None = None
    ):
        self.x_NF, self.groups = x_NF, groups
        own = Similarities(x_NF, x_NF, groups)
        self.at = _fitted(own, y_N, Hyperparameters.start(len(groups))) if at is None else at
        self.cholesky_NN = _factor(own, self.at)
        self.weight_N = torch.cholesky_solve(y_N[:, None], self.cholesky_NN)[:, 0]
        self.log_likelihood = float(_log_density(self.cholesky_NN, y_N))

    def predict(self, x_MF: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a label at each point, the noise of a training included: [M] each."""
        return mixture_at([self], x_MF)

    def left_out(self, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each known label, [N] each, had it not been known (Eqs. 5.10 to 5.12)."""
        inverse_N = torch.cholesky_inverse(self.cholesky_NN).diagonal()
        return y_N - self.weight_N / inverse_N, inverse_N.rsqrt()

    def at_points(self, x_MF: Tensor, between: Similarities) -> tuple[Tensor, Tensor]:
        """What `predict` gives, from how similar the points are to those that are known."""
        k_NM = between.kernel(self.at)
        solved_NM = torch.linalg.solve_triangular(self.cholesky_NN, k_NM, upper=False)
        slope_G = torch.exp(2 * self.at.slope_G)
        squares_GM = torch.stack([(x_MF[:, list(columns)] ** 2).mean(dim=1) for columns in self.groups])
        own_M = torch.exp(2 * self.at.amplitude_G).sum() + slope_G @ squares_GM
        variance_M = own_M + torch.exp(2 * self.at.noise) - (solved_NM**2).sum(dim=0)
        return k_NM.T @ self.weight_N, variance_M.clamp(min=0).sqrt()


def mixture(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and deviation, [M] each, of the even mixture of normal densities with those means and deviations."""
    mean_SM, deviation_SM = (torch.stack(part) for part in zip(*parts))
    mean_M = mean_SM.mean(dim=0)
    return mean_M, (deviation_SM**2 + (mean_SM - mean_M) ** 2).mean(dim=0).sqrt()


def mixture_at(processes: Sequence[GaussianProcess], x_MF: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation at points, [M] each, of processes on the same points that differ in hyper-parameters."""
    first, parts = processes[0], []
    for part_MF in x_MF.split(_AT_ONCE):
        between = Similarities(first.x_NF, part_MF, first.groups)
        parts.append(mixture([process.at_points(part_MF, between) for process in processes]))
    mean, deviation = (torch.cat(part) for part in zip(*parts))
    return mean, deviation


def sampled(
    x_NF: Tensor, y_N: Tensor, groups: Sequence[Sequence[int]], count: int, seed: int
) -> list[Hyperparameters]:
    """Hyper-parameters drawn from their posterior, by elliptical slices from where it is largest."""
    own = Similarities(x_NF, x_NF, groups)
    start = _fitted(own, y_N, Hyperparameters.start(len(groups)))
    sizes = [part.numel() for part in start.tensors()]
    mean_H, deviation_H = (
        torch.cat([torch.full((size,), prior[k], dtype=torch.float64) for size, prior in zip(sizes, PRIORS)])
        for k in range(2)
    )

    def log_likelihood(at_H: Tensor) -> float:
        try:
            return float(_log_likelihood(own, y_N, Hyperparameters.of_vector(at_H)))
        except torch.linalg.LinAlgError:  # too far out to be factored
            return -math.inf

    drawn = elliptical_slices(log_likelihood, mean_H, deviation_H, start.vector(), _BEFORE + _BETWEEN * count, seed)
    return [Hyperparameters.of_vector(at_H) for at_H in drawn[_BEFORE + _BETWEEN - 1 :: _BETWEEN]]


def elliptical_slices(
    log_likelihood: Callable[[Tensor], float],
    mean_H: Tensor,
    deviation_H: Tensor,
    start_H: Tensor,
    steps: int,
    seed: int,
) -> list[Tensor]:
    """A chain of `steps` draws from a posterior whose prior is normal (Murray et al., 2010, Figure 2)."""
    random = np.random.default_rng(seed)
    at_H, likelihood, chain = start_H, log_likelihood(start_H), []
    for _ in range(steps):
        other_H = deviation_H * torch.from_numpy(random.standard_normal(len(mean_H)))
        least = likelihood + math.log(1 - random.random())
        angle = 2 * math.pi * random.random()
        low, high = angle - 2 * math.pi, angle
        while True:
            new_H = mean_H + (at_H - mean_H) * math.cos(angle) + other_H * math.sin(angle)
            likelihood = log_likelihood(new_H)
            if likelihood >= least or high - low < 1e-9:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = low + (high - low) * random.random()
        at_H = new_H
        chain.append(at_H)
    return chain


def _factor(own: Similarities, at: Hyperparameters) -> Tensor:
    k_NN = own.kernel(at)
    noise_N = (torch.exp(2 * at.noise) + _JITTER).expand(len(k_NN))
    return torch.linalg.cholesky(k_NN + torch.diag(noise_N))


def _log_likelihood(own: Similarities, y_N: Tensor, at: Hyperparameters) -> Tensor:
    """The logarithm of the labels' density."""
    return _log_density(_factor(own, at), y_N)


def _log_density(cholesky_NN: Tensor, y_N: Tensor) -> Tensor:
    """That of labels whose covariance has this factor (Rasmussen and Williams, Eq. 2.30)."""
    solved_N = torch.linalg.solve_triangular(cholesky_NN, y_N[:, None], upper=False)[:, 0]
    constant = len(y_N) * math.log(2 * math.pi) / 2
    return -(solved_N**2).sum() / 2 - cholesky_NN.diagonal().log().sum() - constant


def _fitted(own: Similarities, y_N: Tensor, start: Hyperparameters) -> Hyperparameters:
    """The hyper-parameters of largest posterior density, by L-BFGS from `start`.

    A step to where the kernel cannot be factored is the last one; the best ones seen are taken.
    """
    tensors = [tensor.clone().requires_grad_() for tensor in start.tensors()]
    at = Hyperparameters(*tensors)
    optimiser = torch.optim.LBFGS(
        tensors, max_iter=_STEPS, tolerance_change=_TOLERANCE, line_search_fn="strong_wolfe"
    )
    best, least = start, math.inf

    def loss() -> Tensor:
        nonlocal best, least
        optimiser.zero_grad()
        value = -(_log_likelihood(own, y_N, at) + at.log_prior())
        value.backward()
        if float(value.detach()) < least:
            best = Hyperparameters(*(tensor.detach().clone() for tensor in tensors))
            least = float(value.detach())
        return value

    with contextlib.suppress(torch.linalg.LinAlgError):
        optimiser.step(loss)
    return best
