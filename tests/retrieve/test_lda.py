"""Discriminants against scikit-learn's, and whitening against the matrices that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, sparse
from sklearn.covariance import empirical_covariance, shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from nge_search.errors import UserError
from nge_search.retrieve.lda import Discriminants, Span, Whitening


def features(graphs: int = 30, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    class_N = np.arange(graphs) % 4
    return random.normal(size=(graphs, width)) + 2 * random.normal(size=(4, width))[class_N], class_N


def slow_discriminants(x_NW: np.ndarray, class_N: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and directions from covariances of all features, as scikit-learn shrinks them."""
    width = x_NW.shape[1]
    within, between = np.zeros((width, width)), np.zeros((width, width))
    for label in np.unique(class_N):
        own, share = x_NW[class_N == label], (class_N == label).mean()
        within += share * shrunk_covariance(empirical_covariance(own), shrinkage)
        away = own.mean(axis=0) - x_NW.mean(axis=0)
        between += share * np.outer(away, away)
    return x_NW.mean(axis=0), linalg.eigh(between, within)[1][:, ::-1][:, : class_N.max()]


@pytest.mark.parametrize("shrinkage", [0.1, 0.9, 1.0])
@pytest.mark.parametrize("width", [12, 50])
def test_discriminants_against_all_features(shrinkage: float, width: int) -> None:
    """With fewer and more features than graphs, also of vectors outside their span; up to directions' signs."""
    x_NW, class_N = features(width=width)
    mean_W, direction_WD = slow_discriminants(x_NW, class_N, shrinkage)
    asked_BW = np.concatenate([x_NW, np.random.default_rng(1).normal(size=(5, width))])
    expected = (asked_BW - mean_W) @ direction_WD
    for known, asked in ((x_NW, asked_BW), (sparse.csr_array(x_NW), sparse.csr_array(asked_BW))):
        found = Discriminants(shrinkage).fit(known, [f"family {label}" for label in class_N])(asked)
        assert found.shape == (35, 3)
        sign_D = np.sign((found * expected).sum(axis=0))
        np.testing.assert_allclose(found * sign_D, expected, atol=1e-8)


def test_discriminants_against_scikit_learn() -> None:
    """Where nearly nothing is shrunk: its shrinkage also touches the covariance between classes, ours does not."""
    x_NW, class_N = features()
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage=1e-9).fit(x_NW, class_N)
    expected = (x_NW - x_NW.mean(axis=0)) @ reference.scalings_[:, :3]
    found = Discriminants(1e-9).fit(x_NW, list(class_N))(x_NW)
    sign_D = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * sign_D, expected, atol=1e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_spans(centred: bool) -> None:
    x_NW = np.random.default_rng(2).normal(size=(6, 40))
    span = Span(sparse.csr_array(x_NW), centred)
    basis_WR = span.directions(np.eye(span.place_NR.shape[1]))
    np.testing.assert_allclose(basis_WR.T @ basis_WR, np.eye(len(basis_WR.T)), atol=1e-10)
    np.testing.assert_allclose(span.place_NR @ basis_WR.T + span.mean_W, x_NW, atol=1e-10)
    assert basis_WR.shape == (40, 5 if centred else 6)


@pytest.mark.parametrize("ratio", [0.1, 3.0])
def test_whitening_against_its_matrix(ratio: float) -> None:
    x_NW, class_N = features(width=50)
    within = x_NW - np.stack([x_NW[class_N == label].mean(axis=0) for label in class_N])
    covariance = within.T @ within / len(x_NW)
    scale = np.trace(covariance) / np.linalg.matrix_rank(covariance)
    matrix = np.linalg.inv(linalg.sqrtm(np.eye(50) + covariance / (ratio * scale)).real)
    for given in (x_NW, sparse.csr_array(x_NW)):
        found = Whitening(ratio).fit(given, list(class_N))(given)
        np.testing.assert_allclose(found, x_NW @ matrix, atol=1e-8)


def test_whitening_tells_unseen_families_apart() -> None:
    """Noise that all families share hides the unseen; discriminants lose what the known do not differ in."""
    random = np.random.default_rng(3)
    noise_WK = random.normal(size=(30, 3))

    def members(families: int, first: int) -> tuple[np.ndarray, np.ndarray]:
        centre_CW = np.eye(30)[first : first + families] * 3
        class_N = np.repeat(np.arange(families), 6)
        return centre_CW[class_N] + random.normal(size=(len(class_N), 3)) @ noise_WK.T, class_N

    def share(x_NW: np.ndarray, class_N: np.ndarray) -> float:
        unit = x_NW / np.linalg.norm(x_NW, axis=1, keepdims=True)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -2)
        return float((class_N[cosine.argmax(axis=1)] == class_N).mean())

    known, unseen = members(10, 0), members(10, 15)
    assert share(*unseen) < 0.7
    assert share(Whitening(0.001).fit(*known)(unseen[0]), unseen[1]) > 0.95
    assert share(Discriminants(0.5).fit(*known)(unseen[0]), unseen[1]) < 0.7


def test_what_cannot_be_learnt_from() -> None:
    x_NW, class_N = features()
    with pytest.raises(UserError, match="at least two"):
        Discriminants().fit(x_NW, [0] * 30)
    with pytest.raises(UserError, match="two members"):
        Whitening().fit(x_NW, list(range(30)))
    with pytest.raises(UserError, match="nothing to tell apart"):
        Discriminants().fit(np.eye(2)[[0, 0, 1, 1]], [0, 0, 1, 1])
    with pytest.raises(UserError, match="nothing to learn"):
        Whitening().fit_differences(np.zeros((3, 4)))
    with pytest.raises(UserError, match="above 0 and at most 1, not 0"):
        Discriminants(0.0)
    with pytest.raises(UserError, match="above 0, not -1"):
        Whitening(-1.0)
    assert class_N.max() == 3
