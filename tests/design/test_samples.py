"""Samples against cells that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.design.growth import LinkGraph
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.design.samples import (
    Sample,
    SampleSettings,
    absent_links,
    build_samples,
    choose_cells,
    disassembled,
    taken_out,
)
from nge_search.errors import UserError
from nge_search.spaces import Code

RULES = NasBench101Rules(4)
#: Numbers of labels.
IN, C3, C1, POOL, OUT = range(5)
#: input -> conv3x3 -> output, input -> conv1x1 -> output, and input -> output.
WHOLE = LinkGraph((IN, C3, C1, OUT), ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3)))
#: input -> pool -> output.
POOR = LinkGraph((IN, POOL, OUT), ((0, 1), (1, 2)))


def code_of(text: str) -> Code:
    return RULES.space.parse(text)


GOOD = code_of("0111000100010000 input,conv3x3-bn-relu,conv1x1-bn-relu,output")
BAD = code_of("010001000 input,maxpool3x3,output")
DEEP_POOLS = "0100001000010000 input,maxpool3x3,maxpool3x3,output"


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def build(construction: str, seed: int = 0, **settings: float) -> list[Sample]:
    return build_samples(RULES, [GOOD], [BAD], SampleSettings(construction, **settings), random(seed))


def test_links_are_taken_out_one_at_a_time() -> None:
    assert RULES.graphs(GOOD) == [WHOLE]
    assert taken_out(POOR) == [
        Sample(LinkGraph(POOR.labels, ((1, 2),)), ((0, 1),), (1,)),
        Sample(LinkGraph(POOR.labels, ((0, 1),)), ((1, 2),), (1,)),
    ]


def test_disassembly_by_hand() -> None:
    class Order:
        """Takes out (1, 3), (2, 3), (0, 3) and (0, 2), in that order."""

        def permutation(self, count: int) -> np.ndarray:
            return np.array([3, 4, 2, 1, 0])

    positives, negatives = disassembled(RULES, WHOLE, Order(), [(1, 2)])  # type: ignore[arg-type]
    assert negatives == [Sample(positive.graph, ((1, 2),), (0,)) for positive in positives]
    assert positives == [
        Sample(LinkGraph(WHOLE.labels, ((0, 1), (0, 2), (0, 3), (2, 3))), ((1, 3),), (1,)),
        Sample(LinkGraph(WHOLE.labels, ((0, 1), (0, 2), (0, 3))), ((2, 3),), (1,)),
        Sample(LinkGraph(WHOLE.labels, ((0, 1), (0, 2))), ((0, 3),), (1,)),  # the output is an end of the link
        Sample(LinkGraph((IN, C3, C1), ((0, 1),)), ((0, 2),), (1,)),  # and is dropped now; the 1x1 is new
    ]


def test_inputs_stay_in_disassembly() -> None:
    for seed in range(20):
        for sample in disassembled(RULES, WHOLE, random(seed))[0]:
            assert sample.graph.labels[0] == IN
            isolated = set(range(len(sample.graph.labels))) - {n for link in sample.graph.links for n in link}
            assert isolated <= {0, *sample.links[0]}


def test_common_practice_knows_whole_cells_alone() -> None:
    samples = build("common")
    positives = [sample for sample in samples if sample.labels == (1,)]
    negatives = [sample for sample in samples if sample.labels == (0,)]
    assert positives == taken_out(WHOLE)
    assert negatives == [Sample(WHOLE, ((1, 2),), (0,))]  # the one pair of inner nodes


def test_as_printed_there_are_as_many_negatives() -> None:
    bad = [BAD, code_of(DEEP_POOLS)]
    samples = build_samples(RULES, [GOOD], bad, SampleSettings("paper", kept=1.0), random())
    positives = [sample for sample in samples if sample.labels == (1,)]
    assert len(positives) == 5 + 4  # each link once, and four steps of disassembly
    assert positives[:5] == taken_out(WHOLE)
    negatives = [sample for sample in samples if sample.labels == (0,)]
    assert len(negatives) == len(positives)
    of_good = [sample for sample in negatives if POOL not in sample.graph.labels]
    assert of_good
    for sample in of_good:  # the one link that the cell lacks
        assert [sample.graph.labels[node] for node in sample.links[0]] == [C3, C1]
    few = build_samples(RULES, [GOOD], bad, SampleSettings("paper", kept=0.0), random())
    assert sum(sample.labels[0] for sample in few) == 5


def test_absent_links_follow_the_topological_order() -> None:
    graph = LinkGraph((IN, C3, C1, OUT), ((0, 2), (2, 1), (1, 3)))
    assert absent_links(RULES, graph) == [(0, 1), (0, 3), (2, 3)]


def test_grown_states_by_hand() -> None:
    """A chain grows in one way: its moves and what they stand for are known."""
    samples = build("grown", negatives=100)
    poor = [sample for sample in samples if sample.labels == (0,)]
    parts = {label: ~(label - 1) for label in (C3, C1, POOL, OUT)}
    assert poor == [
        Sample(LinkGraph((IN,), ()), ((0, parts[POOL]),), (0,)),
        Sample(LinkGraph((IN, POOL), ((0, 1),)), ((1, parts[OUT]),), (0,)),
    ]
    assert len(build("grown", worst=False)) == len(WHOLE.links)
    assert len(build("grown", worst=False, ways=3)) == 3 * len(WHOLE.links)
    first = samples[0]
    assert first.graph == LinkGraph((IN,), ())
    chosen, *others = zip(first.links, first.labels)
    assert chosen[1] == 1
    assert chosen[0] in {(0, parts[C3]), (0, parts[C1]), (0, parts[OUT])}
    assert others == [((0, parts[POOL]), 0)]  # the other two would lead on to the cell as well


@pytest.mark.parametrize("rules", [RULES, NasBench201Rules()])
def test_negatives_are_moves_that_do_not_lead_on(rules) -> None:
    random_codes = [rules.space.random(random(seed)) for seed in range(10)]
    for code in (code for code in random_codes if rules.graphs(code)):
        stages = rules.grown(code, random())
        for stage, after in zip(stages, [*stages[1:], None]):
            assert stage.chosen in stage.good
            assert stage.moves == rules.moves(stage.state)
            state = rules.moved(stage.state, stage.moves[stage.chosen])
            assert after is None or state == after.state
        assert rules.moves(state) == ()
        assert rules.key(rules.code(state)) == rules.key(code)


def test_few_negatives_are_taken_of_a_state() -> None:
    most = max(len(sample.links) for sample in build("grown", negatives=2))
    assert most == 3


def test_best_and_worst_cells() -> None:
    pool, again = code_of(DEEP_POOLS), code_of(DEEP_POOLS)
    empty = code_of("0100 input,output")
    codes = [BAD, GOOD, pool, again, empty]
    good, bad = choose_cells(RULES, codes, np.array([10.0, 90, 30, 95, 50]), 2)
    assert good == [pool, GOOD]  # a cell that stands there twice has the better figure among the best
    assert bad == [BAD, empty]
    assert choose_cells(RULES, codes, np.array([10.0, 90, 30, 95, 50]), 1, lowest=20) == ([pool], [empty])


@pytest.mark.parametrize(
    ("label_N", "count", "words"),
    [
        ([10.0, 20.0], 2, "too few for the 2 best and the 2 worst"),
        ([10.0, 10.0], 1, "not all better"),
        ([10.0, np.nan], 1, "not finite"),
        ([10.0], 1, "one for each"),
        ([10.0, 20.0], 0, "take at least 1"),
    ],
)
def test_cells_that_cannot_be_chosen_from(label_N: list[float], count: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose_cells(RULES, [GOOD, BAD], np.array(label_N), count)


def test_unknown_construction() -> None:
    with pytest.raises(UserError, match="grown, paper, common, not 'printed'"):
        build("printed")
