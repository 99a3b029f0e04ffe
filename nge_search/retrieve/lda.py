"""Linear maps that families of known networks suggest, in closed form.

Linear discriminants (Fisher, 1936; shrunk as by Friedman, 1989) are the control for families that were seen: they
keep the directions in which the known families differ, and nothing else. For families that were not seen all
directions are kept, and those in which members of a family differ are made shorter (within-class covariance
normalisation: Hatch, Kajarekar and Stolcke, 2006).

Features are many more than graphs: all is computed in the span of the graphs, which holds every direction that
matters, as shrinkage is the same in all directions outside it.

Legend: N graphs, W features, C families, R directions of the span, D features of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import linalg, sparse

from nge_search.errors import UserError

#: np.ndarray or sparse.csr_array, [rows, W].
Matrix = Any

#: Directions of the span that hold less than this share of the largest variance are left out.
_LEAST = 1e-10


class Span:
    """What N vectors span around their mean (or around 0), in an orthonormal basis that is never written out.

    Attributes:
        place_NR: the vectors less their mean, in the basis; the direction of largest variance first.
        weight_NR: the basis, as sums of the vectors less their mean.
    """

    def __init__(self, x_NW: Matrix, centred: bool = True):
        self.x_NW = x_NW
        mean_W = np.asarray(x_NW.mean(axis=0)).ravel()
        self.mean_W = mean_W if centred else np.zeros_like(mean_W)
        gram_NN = x_NW @ x_NW.T
        gram_NN = gram_NN.toarray() if sparse.issparse(gram_NN) else gram_NN
        if centred:
            gram_NN = gram_NN - gram_NN.mean(axis=0) - gram_NN.mean(axis=1, keepdims=True) + gram_NN.mean()
        value_R, vector_NR = np.linalg.eigh(gram_NN)
        kept = value_R > max(_LEAST * float(value_R.max(initial=0)), 1e-300)
        length_R, vector_NR = np.sqrt(value_R[kept][::-1]), vector_NR[:, kept][:, ::-1]
        self.place_NR, self.weight_NR = vector_NR * length_R, vector_NR / length_R

    def directions(self, v_RD: np.ndarray) -> np.ndarray:
        """Vectors that are given in the basis, as they are: [W, D]."""
        weight_ND = self.weight_NR @ v_RD
        return self.x_NW.T @ weight_ND - np.outer(self.mean_W, weight_ND.sum(axis=0))


def _classes(labels: Sequence[object]) -> np.ndarray:
    """[N] numbers of the labels; UserError unless there are two of them and one has two members."""
    numbers: dict[object, int] = {}
    class_N = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
    if len(numbers) < 2 or len(numbers) == len(class_N):
        raise UserError("families to be told apart must be at least two, and one must have two members")
    return class_N


def _class_means(place_NR: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """The mean of its class at each row: [N, R]."""
    sum_CR = np.zeros((class_N.max() + 1, place_NR.shape[1]))
    np.add.at(sum_CR, class_N, place_NR)
    return (sum_CR / np.bincount(class_N)[:, None])[class_N]


class Discriminants:
    """Linear discriminant analysis with shrinkage, classes weighed by their size.

    With S_w and S_b the covariances within and between classes, the directions v solve
    S_b v = l ((1 - shrinkage) S_w + shrinkage tr(S_w) / W) v, scaled so that the bracket's form of v is 1.

    Args:
        shrinkage: above 0 and at most 1.

    Attributes:
        mean_W, direction_WD: an embedding is (x - mean) @ direction; D = C - 1.
    """

    def __init__(self, shrinkage: float = 0.5):
        if not 0 < shrinkage <= 1:
            raise UserError(f"the shrinkage of discriminants is above 0 and at most 1, not {shrinkage}")
        self.shrinkage = shrinkage
        self.mean_W, self.direction_WD = np.zeros(0), np.zeros((0, 0))

    def fit(self, x_NW: Matrix, labels: Sequence[object]) -> Discriminants:
        class_N = _classes(labels)
        span = Span(x_NW)
        between_NR = _class_means(span.place_NR, class_N)
        within_NR = span.place_NR - between_NR
        within_RR = within_NR.T @ within_NR / len(class_N)
        floor = self.shrinkage * np.trace(within_RR) / x_NW.shape[1]
        if not floor > 0:
            raise UserError("the members of each family are the same; there is nothing to tell apart")
        within_RR = (1 - self.shrinkage) * within_RR + floor * np.eye(len(within_RR))
        between_RR = between_NR.T @ between_NR / len(class_N)
        wanted = (max(0, len(within_RR) - class_N.max()), len(within_RR) - 1)
        _, vector_RD = linalg.eigh(between_RR, within_RR, subset_by_index=wanted)
        self.mean_W, self.direction_WD = span.mean_W, span.directions(vector_RD[:, ::-1])
        return self

    def __call__(self, x_NW: Matrix) -> np.ndarray:
        """Embeddings [N, D]."""
        return x_NW @ self.direction_WD - self.mean_W @ self.direction_WD


class Whitening:
    """Shortens the directions in which members of a family differ; keeps all others as they are.

    x becomes (I + S_w / (ratio s))^(-1/2) x, with S_w the covariance within families and s its mean variance along
    the directions that it has. Cosines of what comes out compare graphs of families that were not seen.

    Args:
        ratio: above 0; the larger, the less changes.

    Attributes:
        basis_WR, factor_R: x loses (1 - factor) of what it has along each column.
    """

    def __init__(self, ratio: float = 1.0):
        if not ratio > 0:
            raise UserError(f"the ratio of whitening is above 0, not {ratio}")
        self.ratio = ratio
        self.basis_WR, self.factor_R = np.zeros((0, 0)), np.zeros(0)

    def fit(self, x_NW: Matrix, labels: Sequence[object]) -> Whitening:
        """From families: differences are those of members from their family's mean."""
        class_N = _classes(labels)
        matrix = sparse.csr_array((np.ones(len(class_N)), (np.arange(len(class_N)), class_N)))
        own_CW = (matrix / np.bincount(class_N)).T @ x_NW
        difference = x_NW - matrix @ own_CW
        return self.fit_differences(difference)

    def fit_differences(self, difference_NW: Matrix) -> Whitening:
        """From vectors that say how networks differ that are to count as alike, such as views of one network."""
        span = Span(difference_NW, centred=False)
        variance_R = (span.place_NR**2).mean(axis=0)
        if not len(variance_R):
            raise UserError("networks that count as alike are the same; there is nothing to learn from them")
        self.basis_WR = span.directions(np.eye(len(variance_R)))
        self.factor_R = (1 + variance_R / (self.ratio * variance_R.mean())) ** -0.5
        return self

    def __call__(self, x_NW: Matrix) -> np.ndarray:
        """[N, W], dense."""
        along_NR = x_NW @ self.basis_WR
        dense_NW = x_NW.toarray() if sparse.issparse(x_NW) else np.asarray(x_NW)
        return dense_NW - (along_NR * (1 - self.factor_R)) @ self.basis_WR.T
