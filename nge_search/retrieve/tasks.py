"""Questions whose answers are known, by which encoders are compared.

Legend: N networks, Q queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nge_search.metrics.retrieval import Answers

#: The fewest members of a family that is asked for.
SMALLEST_FAMILY = 5


@dataclass(frozen=True)
class Task:
    """Queries out of a set of networks, and what answers them.

    Attributes:
        query_Q: which networks ask.
        relevant_QN: which networks are of the query's family.
        there_QN: which are in its database; never the query itself.
        family_Q: of the queries, for tests of significance.
    """

    query_Q: np.ndarray
    relevant_QN: np.ndarray
    there_QN: np.ndarray
    family_Q: np.ndarray

    def answers(self, similarity_QN: np.ndarray, depth: int = 100) -> Answers:
        """The best networks for each query; `similarity_QN` of the queries to all networks."""
        return Answers.of(similarity_QN, self.relevant_QN, self.there_QN, depth)

    def without(self, gone_QN: np.ndarray) -> Task:
        """The task with some networks taken out of each query's database."""
        return replace(self, there_QN=self.there_QN & ~gone_QN)

    def of_queries(self, kept_Q: np.ndarray) -> Task:
        """The task of some of the queries."""
        return Task(self.query_Q[kept_Q], self.relevant_QN[kept_Q], self.there_QN[kept_Q], self.family_Q[kept_Q])


def nearest_with_and_without(similarity_QN: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """How near each query's nearest network is, and how near it would be if the query's family were not there.

    What `index.Novelty.calibrated` takes: [Q] each.
    """
    there_QN = np.where(task.there_QN, similarity_QN, -np.inf)
    return there_QN.max(axis=1), np.where(task.relevant_QN, -np.inf, there_QN).max(axis=1)


def large_families(families: Sequence[str], least: int = SMALLEST_FAMILY) -> list[str]:
    """Those of at least so many members, in alphabetical order; "" is no family."""
    return sorted(name for name, count in Counter(families).items() if name and count >= least)


def same_family(families: Sequence[str], asked: Collection[str] | None = None) -> Task:
    """Leave-one-out: each network of a family that is `asked` (None: a large one) is looked for in all others."""
    family_N = np.array(families)
    query_Q = np.flatnonzero(np.isin(family_N, list(large_families(families) if asked is None else asked)))
    there_QN = query_Q[:, None] != np.arange(len(family_N))
    return Task(query_Q, family_N[query_Q][:, None] == family_N, there_QN, family_N[query_Q])


def between(families: Sequence[str], asking: np.ndarray, asked: np.ndarray) -> Task:
    """Networks of one set are looked for in another, such as those of one library in another's.

    Args:
        asking, asked: bool [N]. Queries whose family the other set lacks are left out.
    """
    family_N = np.array(families)
    known = set(family_N[asked].tolist()) - {""}
    query_Q = np.flatnonzero(asking & np.isin(family_N, list(known)))
    there_QN = np.broadcast_to(asked, (len(query_Q), len(family_N))) & (
        query_Q[:, None] != np.arange(len(family_N))
    )
    return Task(query_Q, family_N[query_Q][:, None] == family_N, there_QN, family_N[query_Q])


def relations(pairs: Collection[tuple[int, int]], networks: int, groups: Sequence[str]) -> Task:
    """Networks that are known to take after others: (from, of) pairs; each `from` asks, each of its `of` answers.

    Args:
        groups: of all networks, exchanged together in tests of significance.
    """
    query_Q = np.array(sorted({first for first, _ in pairs}), np.int64)
    row = {int(query): q for q, query in enumerate(query_Q)}
    relevant_QN = np.zeros((len(query_Q), networks), bool)
    for first, second in pairs:
        relevant_QN[row[first], second] = first != second
    return Task(query_Q, relevant_QN, query_Q[:, None] != np.arange(networks), np.array(groups)[query_Q])


def near_twins(bags: Sequence[np.ndarray], query_Q: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Which networks share so much with each query that finding them is no achievement: bool [Q, N].

    Args:
        bags: distinct words of each network, ascending.
        least: Jaccard's index from which two are twins.
    """
    words = np.unique(np.concatenate(bags))
    has_NW = np.zeros((len(bags), len(words)), np.float32)
    for row, own in zip(has_NW, bags):
        row[np.searchsorted(words, own)] = 1
    both_QN = has_NW[query_Q] @ has_NW.T
    size_N = has_NW.sum(axis=1)
    return both_QN >= least * (size_N[query_Q][:, None] + size_N - both_QN)


def held_out(families: Sequence[str], share: float, seed: int) -> np.ndarray:
    """A share of each family's members, at least one where it has two: bool [N]."""
    random = np.random.default_rng(seed)
    held_N = np.zeros(len(families), bool)
    for name in sorted(set(families)):
        members = np.flatnonzero(np.array(families) == name)
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        held_N[random.permutation(members)[:count]] = True
    return held_N


def family_folds(families: Sequence[str], folds: int, seed: int) -> Iterator[list[str]]:
    """The large families in so many parts, drawn at random; members of one are never in two."""
    names = large_families(families)
    order = np.random.default_rng(seed).permutation(len(names))
    for part in np.array_split(order, folds):
        if len(part):
            yield [names[i] for i in sorted(part)]


#: Fits on the families of networks ("" where one may not be seen), gives similarities of queries to all networks.
Similarities = Callable[[Sequence[str], np.ndarray], np.ndarray]


def cross_fitted(families: Sequence[str], task: Task, fit: Similarities, folds: int, seed: int) -> np.ndarray:
    """Similarities [Q, N] of a task, from models that see no label of their queries' families.

    Args:
        fit: given families, with "" for those that may not be seen, and queries, gives their similarities [q, N].
    """
    similarity_QN = np.full(task.there_QN.shape, np.nan)
    for hidden in family_folds(families, folds, seed):
        rows = np.flatnonzero(np.isin(task.family_Q, hidden))
        if len(rows):
            seen = ["" if name in hidden else name for name in families]
            similarity_QN[rows] = fit(seen, task.query_Q[rows])
    left = np.isnan(similarity_QN).all(axis=1)
    if left.any():  # families too small to be in a fold
        hidden = sorted(set(task.family_Q[left].tolist()))
        seen = ["" if name in hidden else name for name in families]
        similarity_QN[left] = fit(seen, task.query_Q[left])
    return similarity_QN
