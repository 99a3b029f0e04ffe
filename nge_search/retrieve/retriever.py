"""What a network is like: an embedder, an index of known networks, and why two of them are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.embedders import Embedder
from nge_search.retrieve.index import Answer, Index, Novelty
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.resemblance import Resemblance, resemblance
from nge_search.retrieve.smoothing import Smoothing, smoothed_similarities
from nge_search.retrieve.tasks import nearest_with_and_without, same_family

_PLAIN = Smoothing()


@dataclass(frozen=True)
class Found:
    """What a query gave.

    Attributes:
        answers: the nearest networks, the nearest first.
        is_new: nothing is near; None: the index cannot say, as its threshold is not calibrated.
    """

    answers: tuple[Answer, ...]
    is_new: bool | None


class Retriever:
    """Answers queries.

    Args:
        embedder: the one that made the index.
        index: of known networks.
        graph: gives the graph of one of them, whose operations are on nodes.
    """

    def __init__(self, embedder: Embedder, index: Index, graph: Callable[[str], Graph]):
        self.embedder, self.index, self.graph = embedder, index, graph

    def query(
        self, graph: Graph, top: int = 10, without: Sequence[str] = (), where: dict[str, Any] | None = None
    ) -> Found:
        """The networks nearest to a graph whose operations are on nodes; see `Index.query`.

        Raises:
            UserError: operations on edges, or no nodes.
        """
        embedding_D = self.embedder.embed([OrderedGraph.of(graph)])[0]
        answers = self.index.query(embedding_D, top, without, where)
        nearest = answers if not where else self.index.query(embedding_D, 1, without)
        novelty = self.index.novelty
        is_new = None if novelty is None or not nearest else novelty.is_new(nearest[0].similarity)
        return Found(tuple(answers), is_new)

    def why(self, graph: Graph, name: str) -> Resemblance:
        """What a graph has in common with a known network."""
        return resemblance(graph, self.graph(name))


def build_index(
    embedder: Embedder,
    graphs: Sequence[OrderedGraph],
    names: Sequence[str],
    about: Sequence[dict[str, Any]],
    encoder: str = "",
    smoothing: Smoothing = _PLAIN,
    false_alarms: float = 0.05,
) -> Index:
    """The index of some networks, by an embedder that was fitted on them, its threshold for what is new calibrated.

    A network counts as known beside others of its family, and as new where these are taken out. An embedder that
    learnt from families has learnt from these, too: thresholds of such are better calibrated by cross-fitting.

    Args:
        about: with "family" among what is known of each network; without large families there is no threshold.
        false_alarms: see `Novelty.calibrated`.
    """
    embedding_ND = embedder.embed(graphs)
    task = same_family([str(own.get("family", "")) for own in about])
    novelty = None
    if len(task.query_Q):
        cosine_NN = cosines(embedding_ND, embedding_ND)
        similarity_QN = smoothed_similarities(cosine_NN, task.query_Q, task.there_QN, smoothing)
        novelty = Novelty.calibrated(*nearest_with_and_without(similarity_QN, task), false_alarms)
    return Index(tuple(names), embedding_ND.astype("float32"), tuple(about), novelty, encoder, smoothing)
