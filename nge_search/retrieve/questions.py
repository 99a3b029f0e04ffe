"""The questions of `nge retrieve bench`, by name: what is asked, of which networks, and what encoders may see.

Legend: N networks, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.errors import UserError
from nge_search.metrics.retrieval import Answers, cosines
from nge_search.retrieve.architecture_graphs import darts_network
from nge_search.retrieve.choosing import Candidate, similarities
from nge_search.retrieve.code_relations import code_relations
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.fingerprints import CONTROLS, bag
from nge_search.retrieve.nas_set import NasSetSettings, nas_set
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.smoothing import smoothed_similarities
from nge_search.retrieve.sources import CLASSIFICATION
from nge_search.retrieve.tasks import Task, between, held_out, large_families, near_twins, relations, same_family
from nge_search.settings.names import RETRIEVAL_TASKS, require_names
from nge_search.settings.retrieve import RetrieveBenchConfig

#: Of a set of networks, the share that asks where families are seen.
ASKING = 0.1


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        graphs: N.
        families: of the networks.
        task: queries and what answers them.
        fitted_N: the networks that encoders are fitted on, with their families; None: all are seen, but encoders
            are cross-fitted, so that none sees the families of its queries.
    """

    graphs: Sequence[OrderedGraph]
    families: Sequence[str]
    task: Task
    fitted_N: np.ndarray | None = None

    def answers(self, candidate: Candidate, folds: int, seed: int) -> Answers:
        """What an encoder answers."""
        if self.fitted_N is None:
            found_QN = similarities(candidate, self.graphs, self.families, self.task, folds, seed)
            return self.task.answers(found_QN)
        made, seen = candidate.make(), np.flatnonzero(self.fitted_N).tolist()
        made.fit([self.graphs[i] for i in seen], [self.families[i] for i in seen], seed)
        embedding_ND = made.embed(self.graphs)
        cosine_NN = cosines(embedding_ND, embedding_ND)
        task = self.task
        return task.answers(smoothed_similarities(cosine_NN, task.query_Q, task.there_QN, candidate.smoothing))


class Asked:
    """The networks of a corpus, of which questions are asked.

    Args:
        graphs: of its entries, as encoders take them.
    """

    def __init__(self, corpus: Corpus, graphs: Sequence[OrderedGraph], config: RetrieveBenchConfig):
        self.corpus, self.graphs, self.config = corpus, graphs, config
        self.families = [entry.family for entry in corpus.entries]

    def question(self, name: str, seed: int) -> Question:
        """One of `RETRIEVAL_TASKS`.

        Raises:
            UserError: the corpus has nothing that it could be asked of.
        """
        question = QUESTIONS[name](self, seed)
        if not len(question.task.query_Q):
            raise UserError(f"bench.tasks: '{name}' cannot be asked of this corpus, which has no network for it")
        return question

    def of_families(self, seed: int) -> Question:
        return Question(self.graphs, self.families, same_family(self.families))

    def unseen(self, seed: int) -> Question:
        names = large_families(self.families)
        random = np.random.default_rng(seed)
        drawn = random.permutation(len(names))[: self.config.bench.families]
        return Question(self.graphs, self.families, same_family(self.families, [names[i] for i in drawn]))

    def twins(self, seed: int) -> Question:
        task = same_family(self.families)
        words = [bag(graph, CONTROLS["wl2"])[0] for graph in self.graphs]
        return Question(self.graphs, self.families, task.without(near_twins(words, task.query_Q)))

    def torchvision(self, seed: int) -> Question:
        """torchvision's classifiers; a graph that both libraries have is not in its own database."""

        def has(library: str) -> np.ndarray:
            found = (entry.of_library(library) for entry in self.corpus.entries)
            return np.array([own is not None and own.task == CLASSIFICATION for own in found])

        return Question(self.graphs, self.families, between(self.families, has("torchvision"), has("timm")))

    def seen(self, seed: int) -> Question:
        return _divided(self.graphs, self.families, seed)

    def nas(self, seed: int) -> Question:
        own = self.config.nas
        genotypes, classes = nas_set(NasSetSettings(own.classes, own.members, own.edits), seed)
        graphs = [OrderedGraph.of(darts_network(genotype)) for genotype in genotypes]
        return _divided(graphs, [f"class {number}" for number in classes], seed)

    def code(self, seed: int) -> Question:
        """Models that share a graph, and the folders of models, are found by their entries."""
        places: dict[str, int] = {}
        for place, entry in enumerate(self.corpus.entries):
            for network in entry.networks:
                if network.library == "transformers":
                    places.setdefault(network.family, place)
        pairs = {
            (places[taker], places[giver]) for taker, giver in code_relations() if {taker, giver} <= places.keys()
        }
        pairs = {(taker, giver) for taker, giver in pairs if taker != giver}
        task = relations(pairs, len(self.graphs), self.families)
        return Question(self.graphs, self.families, task)


def _divided(graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> Question:
    """A tenth of each large family asks, from what encoders were fitted on."""
    large = np.isin(families, large_families(families))
    asking_N = held_out(families, ASKING, seed) & large
    return Question(graphs, families, between(families, asking_N, ~asking_N), ~asking_N)


QUESTIONS: dict[str, Callable[[Asked, int], Question]] = {
    "families": Asked.of_families,
    "unseen": Asked.unseen,
    "twins": Asked.twins,
    "torchvision": Asked.torchvision,
    "seen": Asked.seen,
    "nas": Asked.nas,
    "code": Asked.code,
}

require_names(QUESTIONS, RETRIEVAL_TASKS)
