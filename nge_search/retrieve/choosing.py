"""Which of several embedders to take, by families that none of them has seen (validation families).

Legend: N networks, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.errors import UserError
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.embedders import Embedder
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.smoothing import Smoothing, smoothed_similarities
from nge_search.retrieve.tasks import Task, cross_fitted, same_family


@dataclass(frozen=True)
class Candidate:
    """An embedder to be made, and how its embeddings are smoothed.

    Attributes:
        families: it learns from names of families, so that those of queries must be hidden from it.
    """

    make: Callable[[], Embedder]
    smoothing: Smoothing = Smoothing()
    families: bool = True


def similarities(
    candidate: Candidate,
    graphs: Sequence[OrderedGraph],
    families: Sequence[str],
    task: Task,
    folds: int,
    seed: int,
) -> np.ndarray:
    """Of a task's queries to all networks, [Q, N], by embedders that see no label of the queries' families.

    The embedder sees all graphs, as they are known without labels; with smoothing, what is not in a query's
    database is no neighbour of anything.
    """

    def fit(seen: Sequence[str], query_Q: np.ndarray) -> np.ndarray:
        embedder = candidate.make()
        embedder.fit(graphs, seen, seed)
        embedding_ND = embedder.embed(graphs)
        rows = np.flatnonzero(np.isin(task.query_Q, query_Q))
        cosine_NN = cosines(embedding_ND, embedding_ND)
        return smoothed_similarities(cosine_NN, query_Q, task.there_QN[rows], candidate.smoothing)

    if not candidate.families:
        return fit([""] * len(graphs), task.query_Q)
    return cross_fitted(families, task, fit, folds, seed)


def choose(
    candidates: Mapping[str, Candidate],
    graphs: Sequence[OrderedGraph],
    families: Sequence[str],
    folds: int = 3,
    seed: int = 100,
    task: Task | None = None,
) -> tuple[str, dict[str, float]]:
    """The candidate of highest MAP@20 over validation families, of equals the first; and all their figures.

    Args:
        families: "" where a family may not be looked at, such as those that the choice is reported on.
        task: what is asked; None: each network of a large family, of all others.

    Raises:
        UserError: no candidates, or too few families.
    """
    task = same_family(families) if task is None else task
    if not candidates or not len(task.query_Q):
        raise UserError("choosing an embedder needs candidates, and families of at least five networks")
    figures = {}
    for name, candidate in candidates.items():
        found_QN = similarities(candidate, graphs, families, task, folds, seed)
        figures[name] = task.answers(found_QN).figures((20,))["map_at_20"]
    return max(figures, key=lambda name: figures[name]), figures
