"""Networks take up some of what their nearest neighbours are: what a family has in common comes to the fore.

A vector z becomes z + weight * sum over its nearest neighbours n of cosine(z, n)^power n, in the database and in
the query alike (query expansion and its counterpart for databases: Arandjelovic and Zisserman, 2012; the power:
Radenovic, Tolias and Chum, 2019). What is the same is no neighbour, so that a network that is in the database is
there as it is as a query. No label is seen.

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
    """

    neighbours: int = 0
    weight: float = 1.0
    power: float = 3.0

    def __post_init__(self) -> None:
        if self.neighbours < 0 or self.weight < 0 or self.power < 0:
            raise UserError("smoothing needs neighbours, weight and power of at least 0")

    def rows(self, unit_ND: np.ndarray) -> np.ndarray:
        """A database's vectors, of length 1, after it: [N, D], of length 1."""
        return self.queries(unit_ND, unit_ND)

    def queries(self, query_QD: np.ndarray, unit_ND: np.ndarray) -> np.ndarray:
        """Queries' vectors, of length 1, after it, beside a database as it was before it: [Q, D], of length 1."""
        count = min(self.neighbours, len(unit_ND))
        if not count or not len(query_QD):
            return query_QD
        cosine_QN = others(query_QD @ unit_ND.T)
        near_QK = np.argsort(-cosine_QN, axis=1, kind="stable")[:, :count]
        cosine_QK = np.take_along_axis(cosine_QN, near_QK, axis=1)
        weight_QK = np.where(np.isfinite(cosine_QK), self._weights(cosine_QK), 0)
        found_QD = query_QD + np.einsum("qk,qkd->qd", weight_QK, unit_ND[near_QK])
        return found_QD / np.maximum(np.linalg.norm(found_QD, axis=1, keepdims=True), 1e-30)

    def _weights(self, cosine_QK: np.ndarray) -> np.ndarray:
        return self.weight * np.maximum(cosine_QK, 0) ** self.power


def others(cosine_QN: np.ndarray) -> np.ndarray:
    """Cosines, but for vectors that are the same: these are as far away as can be."""
    return np.where(cosine_QN > _SAME, -np.inf, cosine_QN)


def smoothed_similarities(
    cosine_NN: np.ndarray, query_Q: np.ndarray, there_QN: np.ndarray, smoothing: Smoothing
) -> np.ndarray:
    """Cosines of queries and networks after smoothing, [Q, N], where each query has a database of its own.

    What is not in a query's database, such as the query itself, is no neighbour of anything there: it is as if the
    database had been built without it.

    Args:
        cosine_NN: of all networks before it.
        there_QN: which networks are in each query's database.
    """
    if not smoothing.neighbours:
        return cosine_NN[query_Q]
    gone = int((~there_QN).sum(axis=1).max(initial=0))
    most = min(smoothing.neighbours + gone, len(cosine_NN))
    other_NN = others(cosine_NN)
    near_NM = np.argsort(-other_NN, axis=1, kind="stable")[:, :most]
    apart_NM = np.isfinite(np.take_along_axis(other_NN, near_NM, axis=1))
    itself_N1 = np.arange(len(cosine_NN))[:, None]
    found_QN = np.empty(there_QN.shape)
    for q, query in enumerate(query_Q):
        usable_NM = there_QN[q][near_NM] & apart_NM
        first_NK = np.argsort(~usable_NM, axis=1, kind="stable")[:, : smoothing.neighbours]
        near_NK = np.take_along_axis(near_NM, first_NK, axis=1)
        weight_NK = smoothing._weights(cosine_NN[itself_N1, near_NK])
        weight_NK = np.where(np.take_along_axis(usable_NM, first_NK, axis=1), weight_NK, 0)
        near_NK, weight_NK = np.hstack([itself_N1, near_NK]), np.hstack([np.ones_like(itself_N1), weight_NK])
        heard_N = cosine_NN[:, near_NK[query]] @ weight_NK[query]
        product_N = (weight_NK * heard_N[near_NK]).sum(axis=1)
        among_NKK = cosine_NN[near_NK[:, :, None], near_NK[:, None, :]]
        square_N = np.einsum("nk,nl,nkl->n", weight_NK, weight_NK, among_NKK, optimize=True)
        found_QN[q] = product_N / np.sqrt(np.maximum(square_N * square_N[query], 1e-30))
    return found_QN
