"""Networks take up some of what their nearest neighbours are: what a family has in common comes to the fore.

A vector z becomes z + weight * sum over its nearest neighbours n of cosine(z, n)^power n, in the database and in
the query alike (query expansion and its counterpart for databases: Arandjelovic and Zisserman, 2012; the power:
Radenovic, Tolias and Chum, 2019). What is the same is no neighbour, so that a network that is in the database is
there as it is as a query. No label is seen. The vector as it was may stand beside the smoothed one, so that what
was very near stays near.

Legend: Q queries, N networks, D features, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nge_search.errors import UserError

#: From which cosine on two vectors are the same, but for rounding.
_SAME = 1 - 1e-6


@dataclass(frozen=True)
class Smoothing:
    """How much vectors take up.

    Attributes:
        neighbours: K; 0: vectors stay as they are.
        weight: of all that is taken up.
        power: of cosines; the higher, the more the nearest count.
        kept: share of a similarity that is the cosine of vectors as they were; the rest is that of smoothed ones.
    """

    neighbours: int = 0
    weight: float = 1.0
    power: float = 3.0
    kept: float = 0.0

    def __post_init__(self) -> None:
        if self.neighbours < 0 or self.weight < 0 or self.power < 0 or not 0 <= self.kept <= 1:
            raise UserError(
                "smoothing needs neighbours, weight and power of at least 0, and keeps a share of 0 to 1"
            )

    def rows(self, unit_ND: np.ndarray) -> np.ndarray:
        """A database's vectors, of length 1, after it: [N, D], or [N, 2 D] where a share is kept, of length 1."""
        return self.queries(unit_ND, unit_ND)

    def queries(self, query_QD: np.ndarray, unit_ND: np.ndarray) -> np.ndarray:
        """Queries' vectors, of length 1, after it, beside a database as it was before it: as `rows`."""
        count = min(self.neighbours, len(unit_ND))
        if not count or not len(query_QD):
            return query_QD
        cosine_QN = others(query_QD @ unit_ND.T)
        near_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, :count]
        cosine_QK = np.take_along_axis(cosine_QN, near_QK, axis=1)
        weight_QK = np.where(np.isfinite(cosine_QK), self._weights(cosine_QK), 0)
        found_QD = query_QD + np.einsum("qk,qkd->qd", weight_QK, unit_ND[near_QK])
        found_QD = found_QD / np.maximum(np.linalg.norm(found_QD, axis=1, keepdims=True), 1e-30)
        if not self.kept:
            return found_QD
        return np.hstack([np.sqrt(self.kept) * query_QD, np.sqrt(1 - self.kept) * found_QD])

    def _weights(self, cosine_QK: np.ndarray) -> np.ndarray:
        return self.weight * np.maximum(cosine_QK, 0) ** self.power


def others(cosine_QN: np.ndarray) -> np.ndarray:
    """Cosines, but for vectors that are the same: these are as far away as can be."""
    return np.where(cosine_QN > _SAME, -np.inf, cosine_QN)


def smoothed_similarities(
    cosine_NN: np.ndarray, query_Q: np.ndarray, there_QN: np.ndarray, smoothing: Smoothing
) -> np.ndarray:
    """Similarities of queries and networks after smoothing, [Q, N], where each query has a database of its own.

    What is not in a query's database, such as the query itself, is no neighbour of anything there: it is as if the
    database had been built without it.

    Args:
        cosine_NN: of all networks before it.
        there_QN: which networks are in each query's database.
    """
    plain_QN = cosine_NN[query_Q]
    if not smoothing.neighbours:
        return plain_QN
    order_NN = np.argsort(-others(cosine_NN), axis=1, kind="stable")
    whole = _Smoothed.of(cosine_NN, order_NN, np.arange(len(cosine_NN)), np.ones(len(cosine_NN), bool), smoothing)
    found_QN = np.empty(there_QN.shape)
    for q, query in enumerate(query_Q):
        # rows that lose a neighbour are made anew; all others are those of the whole database
        lost_N = there_QN[q] & ~there_QN[q][whole.near_NK[:, 1:]].all(axis=1)
        lost_N[query] = True
        changed = np.flatnonzero(lost_N)
        own = whole.replaced(changed, _Smoothed.of(cosine_NN, order_NN, changed, there_QN[q], smoothing))
        heard_N = cosine_NN[:, own.near_NK[query]] @ own.weight_NK[query]
        product_N = (own.weight_NK * heard_N[own.near_NK]).sum(axis=1)
        found_QN[q] = product_N / np.sqrt(np.maximum(own.square_N * own.square_N[query], 1e-30))
    return smoothing.kept * plain_QN + (1 - smoothing.kept) * found_QN


@dataclass(frozen=True)
class _Smoothed:
    """Rows after smoothing, as sums of rows before it: near_NK says of which, themselves first, and with what
    weights; square_N is their squared length."""

    near_NK: np.ndarray
    weight_NK: np.ndarray
    square_N: np.ndarray

    @staticmethod
    def of(
        cosine_NN: np.ndarray, order_NN: np.ndarray, row_M: np.ndarray, there_N: np.ndarray, smoothing: Smoothing
    ) -> _Smoothed:
        """Some rows, whose neighbours are there; `order_NN` has the nearest of each row first."""
        order_MN = order_NN[row_M]
        usable_MN = there_N[order_MN]
        first_MK = np.argsort(~usable_MN, axis=1, kind="stable")[:, : smoothing.neighbours]
        near_MK = np.take_along_axis(order_MN, first_MK, axis=1)
        cosine_MK = others(cosine_NN[row_M[:, None], near_MK])
        usable_MK = np.take_along_axis(usable_MN, first_MK, axis=1) & np.isfinite(cosine_MK)
        weight_MK = np.where(usable_MK, smoothing._weights(cosine_MK), 0)
        near_MK = np.hstack([row_M[:, None], near_MK])
        weight_MK = np.hstack([np.ones((len(row_M), 1)), weight_MK])
        among_MKK = cosine_NN[near_MK[:, :, None], near_MK[:, None, :]]
        return _Smoothed(
            near_MK, weight_MK, np.einsum("nk,nl,nkl->n", weight_MK, weight_MK, among_MKK, optimize=True)
        )

    def replaced(self, row_M: np.ndarray, other: _Smoothed) -> _Smoothed:
        """With other rows in some places."""
        near_NK, weight_NK, square_N = self.near_NK.copy(), self.weight_NK.copy(), self.square_N.copy()
        near_NK[row_M], weight_NK[row_M], square_N[row_M] = other.near_NK, other.weight_NK, other.square_N
        return _Smoothed(near_NK, weight_NK, square_N)
