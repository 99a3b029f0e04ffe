"""NASBOWL's features by hand, its kernel and its fit against scikit-learn and dense grids."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from nge_search.architecture.graph import INPUT, OUTPUT, SUM, Graph
from nge_search.predict.nasbowl import ROUNDS, Features, Nasbowl, fitted, subtrees
from nge_search.spaces import SPACES


def chain(*names: str) -> dict[str, Graph]:
    nodes = [INPUT, *names, OUTPUT]
    return {"cell": Graph.build(nodes, [(i, i + 1) for i in range(len(nodes) - 1)], [0], [len(nodes) - 1])}


def test_subtrees_by_hand() -> None:
    """Two convolutions in a row are one name in round 0, and two behind it: only one hears the input."""
    names = subtrees(chain("conv", "conv"), 1)
    by_round = [sorted(count for (_, done, _), count in names.items() if done == now) for now in (0, 1)]
    assert by_round == [[1, 1, 2], [1, 1, 1, 1]]
    shorter = subtrees(chain("conv"), 1)
    assert len(shorter) == 6
    assert sum((names & shorter).values()) == 3 + 3  # all but the convolution that hears a convolution


def test_what_leads_nowhere_and_order_do_not_count() -> None:
    cell = Graph.build([INPUT, "a", "b", "a", OUTPUT], [(0, 1), (0, 2), (1, 4), (2, 4), (0, 3)], [0], [4])
    moved = cell.renumbered([0, 3, 2, 1, 4])
    pruned = Graph.build([INPUT, "a", "b", OUTPUT], [(0, 1), (0, 2), (1, 3), (2, 3)], [0], [3])
    for rounds in ROUNDS:
        expected = subtrees({"cell": pruned}, rounds)
        assert subtrees({"cell": cell}, rounds) == subtrees({"cell": moved}, rounds) == expected
    assert len(subtrees({"cell": Graph.build([INPUT, SUM], [], [0], [1])}, 3)) == 1


def some(count: int) -> tuple[list[dict[str, Graph]], torch.Tensor]:
    space, random = SPACES["nasbench201"](), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(count)]
    convolutions = torch.tensor([float(code.count(3) + code.count(2) / 2) for code in codes], dtype=torch.float64)
    noise = torch.from_numpy(random.normal(size=count) / 5)
    return [space.graphs(code) for code in codes], convolutions + noise


def test_the_kernel_is_of_counts() -> None:
    cells, _ = some(8)
    phi_NW = Features(2).matrix(cells)
    found = (phi_NW @ phi_NW.T).toarray()
    counts = [subtrees(cell, 2) for cell in cells]
    for i, first in enumerate(counts):
        for j, second in enumerate(counts):
            product = sum(first[name] * second[name] for name in first)
            squares = sum(v**2 for v in first.values()) * sum(v**2 for v in second.values())
            assert abs(found[i, j] - product / math.sqrt(squares)) < 1e-12


def test_noise_and_scale_are_the_likeliest() -> None:
    cells, label_N = some(40)
    y_N = (label_N - label_N.mean()).numpy()
    phi_NW = Features(1).matrix(cells)
    k_NN = (phi_NW @ phi_NW.T).toarray()
    found = fitted(k_NN, y_N)

    def likelihood(noise: float, scale: float) -> float:
        covariance = scale**2 * (k_NN + noise * np.eye(len(y_N)))
        return float(stats.multivariate_normal(np.zeros(len(y_N)), covariance).logpdf(y_N))

    assert abs(likelihood(found.noise, found.scale) - found.log_likelihood) < 1e-8
    for noise in np.geomspace(1e-4, 10, 12):
        for scale in np.geomspace(found.scale / 3, found.scale * 3, 9):
            assert likelihood(noise, scale) <= found.log_likelihood + 1e-9


def test_scores_as_scikit_learn() -> None:
    """A process on features of length 1 with their product as the kernel; names unseen with a label count, too."""
    cells, label_N = some(60)
    model = Nasbowl()
    model.fit(cells[:30], label_N[:30], 0)
    found = model.scores(cells[30:])
    likelihoods = []
    y_N = ((label_N[:30] - label_N[:30].mean()) / label_N[:30].std(correction=0)).numpy()
    for rounds in ROUNDS:
        phi_NW = Features(rounds).matrix(cells[:30])
        likelihoods.append(fitted((phi_NW @ phi_NW.T).toarray(), y_N).log_likelihood)
    assert model.features.rounds == ROUNDS[int(np.argmax(likelihoods))]
    phi_NW = Features(model.features.rounds).matrix(cells).toarray()
    kernel = DotProduct(0, sigma_0_bounds="fixed")
    theirs = GaussianProcessRegressor(kernel, alpha=model.process.noise, optimizer=None).fit(phi_NW[:30], y_N)
    np.testing.assert_allclose(found.numpy(), theirs.predict(phi_NW[30:]), rtol=0, atol=1e-8)
