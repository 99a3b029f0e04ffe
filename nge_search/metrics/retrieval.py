"""How well rankings of a database answer queries, and whether one does so better than another.

A query is never part of what it is answered from. Gains are 0 or 1.

Legend: Q queries, N items of the database, K places of the ranking, F families.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

DEPTHS = (20, 50, 100)


@dataclass(frozen=True)
class Answers:
    """The best items for each query.

    Attributes:
        hit_QK: whether the item at each place is relevant; False where the database has fewer than K items.
        relevant_Q: how many relevant items the database has for each query.
    """

    hit_QK: np.ndarray
    relevant_Q: np.ndarray

    @staticmethod
    def of(similarity_QN: np.ndarray, relevant_QN: np.ndarray, there_QN: np.ndarray, depth: int) -> Answers:
        """The answers of highest similarity; of equals the first.

        Args:
            similarity_QN: the higher, the better.
            relevant_QN: whether an item answers a query.
            there_QN: whether an item is in the query's database: False for the query itself, and for all that is
                left out.
            depth: K.
        """
        depth = min(depth, similarity_QN.shape[1])
        seen_QN = np.where(there_QN, similarity_QN, -np.inf)
        best_QK = np.argsort(-seen_QN, axis=1, kind="stable")[:, :depth]
        relevant_QN = relevant_QN & there_QN
        return Answers(np.take_along_axis(relevant_QN, best_QK, axis=1), relevant_QN.sum(axis=1))

    def reciprocal_ranks(self, depth: int) -> np.ndarray:
        """1 / the rank of the first hit among the first `depth`; 0 without one: [Q]."""
        hit_QK = self.hit_QK[:, :depth]
        return np.where(hit_QK.any(axis=1), 1 / (1 + hit_QK.argmax(axis=1)), 0.0)

    def average_precisions(self, depth: int) -> np.ndarray:
        """The sum over hits of the precision up to them / min(relevant items, depth): [Q]; NaN without any."""
        hit_QK = self.hit_QK[:, :depth]
        precision_QK = np.cumsum(hit_QK, axis=1) / np.arange(1, hit_QK.shape[1] + 1)
        return _share((precision_QK * hit_QK).sum(axis=1), np.minimum(self.relevant_Q, depth))

    def ndcgs(self, depth: int) -> np.ndarray:
        """Gains 1 / log2(rank + 1) of the hits / those of the best ranking: [Q]; NaN without relevant items."""
        hit_QK = self.hit_QK[:, :depth]
        discount_K = 1 / np.log2(np.arange(2, depth + 2))
        best_K = np.concatenate([[0.0], np.cumsum(discount_K)])
        return _share(
            (hit_QK * discount_K[: hit_QK.shape[1]]).sum(axis=1), best_K[np.minimum(self.relevant_Q, depth)]
        )

    def figures(self, depths: Iterable[int] = DEPTHS) -> dict[str, float]:
        """Means of all three over the queries that have something relevant, by name; NaN if none has."""
        asked_Q = self.relevant_Q > 0
        found = {}
        for depth in depths:
            for name, value_Q in (
                ("mrr", self.reciprocal_ranks(depth)),
                ("map", self.average_precisions(depth)),
                ("ndcg", self.ndcgs(depth)),
            ):
                found[f"{name}_at_{depth}"] = float(value_Q[asked_Q].mean()) if asked_Q.any() else float("nan")
        return found


def _share(value_Q: np.ndarray, of_Q: np.ndarray) -> np.ndarray:
    return np.divide(value_Q, of_Q, out=np.full(len(value_Q), np.nan), where=of_Q > 0)


def cosines(query_QD: np.ndarray, item_ND: np.ndarray) -> np.ndarray:
    """Cosines of the angles between vectors, [Q, N]; 0 where a vector is 0."""
    return _unit(query_QD) @ _unit(item_ND).T


def _unit(x_ND: np.ndarray) -> np.ndarray:
    length_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return np.divide(x_ND, length_N1, out=np.zeros_like(x_ND, dtype=float), where=length_N1 > 0)


def auroc(positive_N: np.ndarray, negative_N: np.ndarray) -> float:
    """The probability that a positive's score exceeds a negative's, ties count half; NaN where either has none."""
    if not len(positive_N) or not len(negative_N):
        return float("nan")
    ordered = np.sort(negative_N)
    below = np.searchsorted(ordered, positive_N, "left") + np.searchsorted(ordered, positive_N, "right")
    return float(below.mean() / 2 / len(negative_N))


def family_permutation_test(
    first_Q: np.ndarray, second_Q: np.ndarray, family_Q: np.ndarray, draws: int = 100_000, seed: int = 0
) -> float:
    """One-sided p that the first's mean is no higher than the second's, by exchanging the two family by family.

    Queries of a family are alike, so that what is exchanged is whole families: the difference of means is compared
    with those of all 2^F exchanges, if these are at most `draws`, else of `draws` random ones (the observed one
    counted among them). Paired; queries that are NaN in either are left out.

    Args:
        first_Q, second_Q: a figure of each query, such as average precisions.
        family_Q: the family of each.

    Returns:
        p; 1 where no query is left.
    """
    asked_Q = ~(np.isnan(first_Q) | np.isnan(second_Q))
    _, family_Q = np.unique(np.asarray(family_Q)[asked_Q], return_inverse=True)
    sum_F = np.bincount(family_Q, (first_Q - second_Q)[asked_Q])
    sum_F = sum_F[sum_F != 0]
    observed = sum_F.sum() - 1e-12 * np.abs(sum_F).sum()
    if len(sum_F) < 63 and 1 << len(sum_F) <= draws:
        codes_P1 = np.arange(1 << len(sum_F))[:, None]
        return float(((1 - 2 * (codes_P1 >> np.arange(len(sum_F)) & 1)) @ sum_F >= observed).mean())
    generator = np.random.default_rng(seed)
    reached = 1
    for start in range(0, draws, 4096):
        count = min(4096, draws - start)
        sign_PF = 1 - 2 * generator.integers(0, 2, (count, len(sum_F)), np.int8)
        reached += int((sign_PF @ sum_F >= observed).sum())
    return reached / (draws + 1)
