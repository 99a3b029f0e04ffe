"""The Gaussian process against scikit-learn's on the same kernel, and its hyper-parameters against a search."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from nge_search.predict import process
from nge_search.predict.process import (
    PRIORS,
    GaussianProcess,
    Hyperparameters,
    Similarities,
    elliptical_slices,
    mixture_at,
    sampled,
)

GROUPS = [(0, 1, 2), (3,), (1, 4)]
_JITTER = 1e-8


class GroupKernel(Kernel):
    """The documented formula, two points at a time, with the noise on the diagonal."""

    def __init__(self, at: Hyperparameters):
        self.at = at

    def between(self, x_F: np.ndarray, y_F: np.ndarray) -> float:
        total = 0.0
        for group, columns in enumerate(GROUPS):
            amplitude, length, slope = (
                math.exp(float(part[group])) for part in (self.at.amplitude_G, self.at.length_G, self.at.slope_G)
            )
            square = sum((x_F[column] - y_F[column]) ** 2 for column in columns)
            product = sum(x_F[column] * y_F[column] for column in columns)
            total += amplitude**2 * math.exp(-square / (2 * len(columns) * length**2))
            total += slope**2 * product / len(columns)
        return total

    def __call__(self, x_NF: np.ndarray, y_MF: np.ndarray | None = None, eval_gradient: bool = False) -> np.ndarray:
        noise = 0.0 if y_MF is not None else math.exp(2 * float(self.at.noise))
        k_NM = np.array([[self.between(x_F, y_F) for y_F in (x_NF if y_MF is None else y_MF)] for x_F in x_NF])
        return k_NM + noise * np.eye(len(x_NF)) if y_MF is None else k_NM

    def diag(self, x_NF: np.ndarray) -> np.ndarray:
        return np.array([self.between(x_F, x_F) for x_F in x_NF]) + math.exp(2 * float(self.at.noise))

    def is_stationary(self) -> bool:
        return False


@pytest.fixture(scope="module")
def points() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_NF, x_MF = (torch.randn(count, 5, generator=generator, dtype=torch.float64) for count in (30, 40))
    noise_N = 0.2 * torch.randn(30, generator=generator, dtype=torch.float64)
    return x_NF, torch.sin(2 * x_NF[:, 0]) + x_NF[:, 3] + noise_N, x_MF


def random_parameters(seed: int) -> Hyperparameters:
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randn(len(GROUPS), generator=generator, dtype=torch.float64) / 2 for _ in range(3)]
    return Hyperparameters(*groups, torch.tensor(-1.0 - seed / 4, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(4))
def test_as_scikit_learn(points, seed: int) -> None:
    x_NF, y_N, x_MF = points
    at = random_parameters(seed)
    own = GaussianProcess(x_NF, y_N, GROUPS, at)
    theirs = GaussianProcessRegressor(GroupKernel(at), alpha=_JITTER, optimizer=None).fit(x_NF.numpy(), y_N.numpy())
    mean_M, deviation_M = theirs.predict(x_MF.numpy(), return_std=True)
    found_mean_M, found_deviation_M = own.predict(x_MF)
    np.testing.assert_allclose(found_mean_M.numpy(), mean_M, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found_deviation_M.numpy(), deviation_M, rtol=0, atol=1e-8)
    assert abs(own.log_likelihood - theirs.log_marginal_likelihood_value_) < 1e-8


def test_predictions_in_parts(points, monkeypatch: pytest.MonkeyPatch) -> None:
    x_NF, y_N, x_MF = points
    own = GaussianProcess(x_NF, y_N, GROUPS, random_parameters(1))
    whole = own.predict(x_MF)
    monkeypatch.setattr("nge_search.predict.process._AT_ONCE", 7)
    for found, expected in zip(own.predict(x_MF), whole):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def log_posterior(x_NF: torch.Tensor, y_N: torch.Tensor, at: Hyperparameters) -> float:
    """Of the hyper-parameters, up to a constant; the likelihood is scikit-learn's."""
    theirs = GaussianProcessRegressor(GroupKernel(at), alpha=_JITTER, optimizer=None).fit(x_NF.numpy(), y_N.numpy())
    prior = 0.0
    for part, (mean, deviation) in zip(at.tensors(), PRIORS):
        prior -= sum(((float(value) - mean) / deviation) ** 2 / 2 for value in part.reshape(-1))
    return float(theirs.log_marginal_likelihood_value_) + prior


def test_hyper_parameters_are_the_likeliest(points) -> None:
    """No step to either side of one of them, and no other start, is better."""
    x_NF, y_N, _ = points
    own = GaussianProcess(x_NF, y_N, GROUPS)
    best = log_posterior(x_NF, y_N, own.at)
    assert best > log_posterior(x_NF, y_N, Hyperparameters.start(len(GROUPS))) + 1
    for part in range(4):
        for step in (-0.2, 0.2):
            moved = [tensor.clone() for tensor in own.at.tensors()]
            moved[part] += step
            assert log_posterior(x_NF, y_N, Hyperparameters(*moved)) < best


def test_a_step_that_goes_too_far_is_the_last(points, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best hyper-parameters so far are taken."""
    x_NF, y_N, _ = points
    factored, seen = process._factor, []

    def factor(own: Similarities, at: Hyperparameters) -> torch.Tensor:
        if len(seen) == 4:
            raise torch.linalg.LinAlgError("not positive-definite")
        seen.append([tensor.detach().clone() for tensor in at.tensors()])
        return factored(own, at)

    own = Similarities(x_NF, x_NF, GROUPS)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_factor", factor)
        found = process._fitted(own, y_N, Hyperparameters.start(len(GROUPS)))
    tried = [Hyperparameters(*tensors) for tensors in seen]
    densities = [float(process._log_likelihood(own, y_N, at) + at.log_prior()) for at in tried]
    best = tried[int(np.argmax(densities))]
    assert len(tried) == 4
    assert all(torch.equal(*pair) for pair in zip(found.tensors(), best.tensors()))


def test_distances_of_equal_points_are_zero() -> None:
    x_NF = torch.randn(8, 5, dtype=torch.float64) * 100
    assert not Similarities(x_NF, x_NF, GROUPS).distance_GNM.diagonal(dim1=1, dim2=2).any()


def test_left_out_as_a_process_without_it(points) -> None:
    x_NF, y_N, _ = points
    at = random_parameters(2)
    mean_N, deviation_N = GaussianProcess(x_NF, y_N, GROUPS, at).left_out(y_N)
    for n in range(0, len(y_N), 7):
        others = torch.arange(len(y_N)) != n
        mean_1, deviation_1 = GaussianProcess(x_NF[others], y_N[others], GROUPS, at).predict(x_NF[n : n + 1])
        torch.testing.assert_close(mean_N[n], mean_1[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(deviation_N[n], deviation_1[0], rtol=0, atol=1e-6)


def test_a_mixture_is_one_of_its_processes_drawn_evenly(points) -> None:
    x_NF, y_N, x_MF = points
    processes = [GaussianProcess(x_NF, y_N, GROUPS, random_parameters(seed)) for seed in range(3)]
    mean_M, deviation_M = mixture_at(processes, x_MF)
    for m in range(len(x_MF)):
        own = [process.predict(x_MF[m : m + 1]) for process in processes]
        mean = sum(float(mean_1) for mean_1, _ in own) / 3
        second = sum(float(deviation_1) ** 2 + float(mean_1) ** 2 for mean_1, deviation_1 in own) / 3
        assert abs(float(mean_M[m]) - mean) < 1e-10
        assert abs(float(deviation_M[m]) - math.sqrt(second - mean**2)) < 1e-8


def test_slices_draw_from_the_posterior() -> None:
    """A normal prior and a normal likelihood have a posterior in closed form."""
    mean_H, deviation_H = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double()
    seen_H, noise_H = torch.tensor([2.0, 1.0]).double(), torch.tensor([0.5, 1.0]).double()

    def log_likelihood(at_H: torch.Tensor) -> float:
        return -float((((at_H - seen_H) / noise_H) ** 2).sum()) / 2

    chain = torch.stack(elliptical_slices(log_likelihood, mean_H, deviation_H, mean_H, 4000, seed=0))
    variance_H = 1 / (1 / deviation_H**2 + 1 / noise_H**2)
    expected_H = variance_H * (mean_H / deviation_H**2 + seen_H / noise_H**2)
    torch.testing.assert_close(chain.mean(dim=0), expected_H, rtol=0, atol=0.06)
    torch.testing.assert_close(chain.std(dim=0), variance_H.sqrt(), rtol=0, atol=0.05)


def test_sampled_hyper_parameters_are_likely_and_differ(points) -> None:
    x_NF, y_N, _ = points
    drawn = sampled(x_NF, y_N, GROUPS, 5, seed=0)
    best = log_posterior(x_NF, y_N, GaussianProcess(x_NF, y_N, GROUPS).at)
    densities = [log_posterior(x_NF, y_N, at) for at in drawn]
    assert len(set(densities)) == 5
    assert max(densities) < best + 1e-6
    assert min(densities) > best - 30  # a draw from the priors has some hundred less
    again = sampled(x_NF, y_N, GROUPS, 5, seed=0)
    assert all(torch.equal(one.vector(), other.vector()) for one, other in zip(drawn, again))
