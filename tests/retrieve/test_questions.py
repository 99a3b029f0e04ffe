"""Questions: what is asked, of which networks, and what encoders may see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.retrieve import questions
from nge_search.retrieve.catalogue import graphs_of
from nge_search.retrieve.choosing import Candidate
from nge_search.retrieve.corpus import Corpus, Network
from nge_search.retrieve.embedders import Embedder
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.questions import Asked
from nge_search.settings.retrieve import NasSection, RetrieveBenchConfig, RetrieveBenchSection


class Recording(Embedder):
    """Embeds by random numbers, and remembers what it was fitted on."""

    seen: list[tuple[int, tuple[str, ...]]]

    def __init__(self, seen: list[tuple[int, tuple[str, ...]]]):
        self.seen = seen

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        self.seen.append((len(graphs), tuple(families)))

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(graphs), 4))


@pytest.fixture(scope="module")
def asked(small_corpus: Corpus) -> Asked:
    config = RetrieveBenchConfig(
        bench=RetrieveBenchSection(families=2), nas=NasSection(classes=2, members=10, edits=4)
    )
    return Asked(small_corpus, graphs_of(small_corpus), config)


def test_unseen_families_are_drawn_by_the_seed(asked: Asked) -> None:
    drawn = [set(asked.question("unseen", seed).task.family_Q) for seed in range(4)]
    assert all(len(families) == 2 for families in drawn)
    assert len({frozenset(families) for families in drawn}) > 1
    question = asked.question("unseen", 0)
    assert len(question.task.query_Q) == 10
    assert question.task.there_QN.sum() == 10 * 29


def test_no_encoder_sees_the_families_of_its_queries(asked: Asked) -> None:
    seen: list[tuple[int, tuple[str, ...]]] = []
    asked.question("families", 0).answers(Candidate(lambda: Recording(seen)), folds=3, seed=0)
    assert len(seen) == 3
    assert all(count == 30 for count, _ in seen)
    hidden = [set(asked.families) - set(families) for _, families in seen]
    assert all(len(own) == 2 for own in hidden)
    assert set.union(*hidden) == set(asked.families)


def test_twins_are_out_of_the_database(asked: Asked) -> None:
    whole, question = asked.question("families", 0), asked.question("twins", 0)
    assert (question.task.there_QN <= whole.task.there_QN).all()
    assert question.task.there_QN.sum() < whole.task.there_QN.sum()


def test_torchvision_asks_timm(asked: Asked) -> None:
    task = asked.question("torchvision", 0).task
    entries = asked.corpus.entries
    assert [entries[query].library for query in task.query_Q] == ["torchvision"] * 6
    for there_N in task.there_QN:
        assert {entries[place].library for place in np.flatnonzero(there_N)} == {"timm"}


def test_a_tenth_asks_where_families_are_seen(asked: Asked) -> None:
    question, seen = asked.question("seen", 0), []
    question.answers(Candidate(lambda: Recording(seen)), folds=3, seed=0)
    assert len(question.task.query_Q) == 6  # one of each family
    assert not question.fitted_N[question.task.query_Q].any()
    assert (question.task.there_QN == question.fitted_N).all()
    assert seen == [(24, tuple(np.array(asked.families)[question.fitted_N]))]


def test_the_set_of_searched_networks(asked: Asked) -> None:
    question = asked.question("nas", 0)
    assert len(question.graphs) == 20
    assert {len(graph) for graph in question.graphs} == {265}
    assert len(question.task.query_Q) == 2


def test_models_that_take_over_code(
    stacked_items: list[tuple[tuple[Network, ...], str, Graph]], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.of(stacked_items, {}, {})
    relations = [("taker", "giver"), ("taker", "nowhere"), ("copy", "giver"), ("giver", "taker")]
    monkeypatch.setattr(questions, "code_relations", lambda: relations)
    asked = Asked(corpus, graphs_of(corpus), RetrieveBenchConfig())
    task = asked.question("code", 0).task
    assert task.query_Q.tolist() == [0, 1]  # copy has the graph of giver
    np.testing.assert_array_equal(task.relevant_QN, [[False, True], [True, False]])
    monkeypatch.setattr(questions, "code_relations", list)
    with pytest.raises(UserError, match=r"bench\.tasks: 'code' cannot be asked of this corpus"):
        asked.question("code", 0)


@pytest.fixture
def stacked_items(families: dict[str, list[Graph]]) -> list[tuple[tuple[Network, ...], str, Graph]]:
    graphs = families["plain"]

    def model(name: str) -> Network:
        return Network(name, "transformers", name, "text", 1, 1)

    return [((model("taker"),), "a", graphs[0]), ((model("giver"), model("copy")), "b", graphs[1])]
