"""Rules of growth: which moves there are, against brute force over whole spaces; genotypes of DARTS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import PUBLISHED
from nge_search.design.darts import REPLACEMENTS, DartsRules
from nge_search.design.growth import LinkGraph, Rules, State
from nge_search.design.nasbench101 import LABELS, NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.errors import UserError
from nge_search.spaces import NasBench101Space

IN, C3, C1, POOL, OUT = range(5)


def reached(rules: Rules, size: int) -> set[State]:
    """The states in which growth can end."""
    waiting, seen, ends = [rules.start(size)], set(), set()
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        moves = rules.moves(state)
        waiting += [rules.moved(state, move) for move in moves]
        if not moves:
            ends.add(state)
    return ends


def test_every_small_cell_and_nothing_else_can_grow() -> None:
    """Sizes 1 to 6 of four vertices: the cells that are reached are those of the space, all of a size or stuck."""
    rules, space = NasBench101Rules(4), NasBench101Space(4)
    every = {}
    for code in itertools.product(*([range(2)] * 6), *([range(3)] * 2)):
        if space.allows(code):
            every.setdefault(len(space.graphs(code)["cell"].edges), set()).add(space.key(code))
    for size in range(1, 7):
        ends = reached(rules, size)
        full = [state for state in ends if len(state.links) == size]
        assert {rules.key(rules.code(state)) for state in full} == every[size], size
        for state in ends:  # none is cut off, not even where links ran out
            assert len(space.graphs(rules.code(state))["cell"].edges) == len(state.links)


def test_growth_as_printed_leaves_nodes_that_are_cut_off() -> None:
    rules = NasBench101Rules(4, dangling=True)
    kept = [len(rules.space.graphs(rules.code(state))["cell"].edges) for state in reached(rules, 3)]
    assert min(kept) == 1
    assert max(kept) == 3


def test_moves_by_hand() -> None:
    """Of input -> conv3x3 -> output with one more link: all that does not leave a node without a way on."""
    rules = NasBench101Rules(4)
    state = rules.start(3)
    for source, target in ((0, ~C3), (1, ~OUT)):
        (move,) = [move for move in rules.moves(state) if move.step == (source, target)]
        state = rules.moved(state, move)
    assert rules.graph(state) == LinkGraph((IN, C3, OUT), ((0, 1), (1, 2)))
    assert [move.step for move in rules.moves(state)] == [(0, 2)]  # a new node would need two links
    assert [rules.written(state, move) for move in rules.moves(state)] == [("input 0", "output 2")]
    first = rules.moves(rules.start(3))
    assert [rules.written(rules.start(3), move)[1] for move in first] == [f"new {name}" for name in LABELS[1:]]


def test_every_live_cell_of_nasbench201_can_grow() -> None:
    """Of up to three operations, and all of the six: live cells are those without `none` on what leads nowhere."""
    rules, space = NasBench201Rules(), NasBench201Rules().space
    live = {1: set(), 2: set(), 3: set()}
    for code in itertools.product(range(5), repeat=6):
        graph = space.graphs(code)["cell"]
        pruned = graph.pruned()
        if pruned is not None and 1 <= len(graph.edges) <= 3 and len(pruned.edges) == len(graph.edges):
            live[len(graph.edges)].add(code)
    for size in live:
        assert {state.chosen for state in reached(rules, size) if _count(state.chosen) == size} == live[size]


def _count(code: tuple[int, ...]) -> int:
    return sum(choice > 0 for choice in code)


def test_node_form_of_nasbench201() -> None:
    rules = NasBench201Rules()
    code = rules.space.parse(
        "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    (graph,) = rules.graphs(code)
    names = [rules.labels[label] for label in graph.labels]
    assert names == [
        *("input", "output", "nor_conv_3x3 0-1", "avg_pool_3x3 1-2", "skip_connect 0-3", "nor_conv_1x1 1-3"),
        "nor_conv_3x3 2-3",
    ]
    assert graph.links == ((0, 2), (0, 4), (2, 3), (2, 5), (3, 6), (4, 1), (5, 1), (6, 1))
    dead = rules.space.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|")
    alive = rules.space.parse("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    assert rules.key(dead) == rules.key(alive)
    assert rules.size(dead) == 1
    assert rules.graphs((0,) * 6) == []
    rows = {tuple(row) for row in rules.features_LF.tolist()}
    assert len(rows) == len(rules.labels)  # no two labels look alike


def test_genotypes_in_terms_of_nasbench101() -> None:
    """One inner node: a separable convolution of input 0 and a skip of input 1, worked out by hand."""
    rules = DartsRules(CellSpace(nodes=1))
    operations = rules.cell_space.operations
    sep, skip = operations.index("sep_conv_3x3"), operations.index("skip_connect")
    graph, _ = rules.graphs((0, 1, sep, skip, 0, 1, skip, skip))
    assert graph == LinkGraph((IN, IN, OUT, C3, C1), ((0, 3), (1, 2), (3, 4), (4, 2)))
    state = rules.start(0)
    moves = rules.moves(state)
    assert len(moves) == 2 * len(operations)
    assert rules.graph(state) == LinkGraph((IN, IN, OUT), ())
    by_step = {move.step: move for move in moves}
    assert by_step[1, skip].links == ((1, 2),)  # judged by the link that it makes: to the output
    ((source, target),) = by_step[0, sep].links
    assert (source, rules.parts[~target]) == (0, LinkGraph((C3, C1), ((0, 1),)))
    state = rules.moved(state, by_step[0, sep])
    assert {move.step[0] for move in rules.moves(state)} == {1}  # the other edge has another source
    state = rules.moved(state, next(move for move in rules.moves(state) if move.step == (1, skip)))
    assert rules.graph(state) == LinkGraph((IN, IN, OUT), ())  # the reduction cell begins


def test_what_reads_a_node_reads_the_ends_of_both_its_operations() -> None:
    rules = DartsRules(CellSpace(nodes=2))
    pool = rules.cell_space.operations.index("max_pool_3x3")
    state = rules.start(0)
    for gene in ((0, pool), (1, pool)):
        state = rules.moved(state, next(move for move in rules.moves(state) if move.step == gene))
    move = next(move for move in rules.moves(state) if move.step == (2, pool))
    assert [source for source, _ in move.links] == [3, 4]
    assert rules.graph(rules.moved(state, move)).links == ((0, 3), (1, 4), (3, 2), (3, 5), (4, 2), (4, 5), (5, 2))


@pytest.mark.parametrize("name", ["darts_v2", "pc_darts_cifar", "p_darts"])
def test_published_genotypes_grow(name: str) -> None:
    rules = DartsRules()
    code = rules.space.code(PUBLISHED[name].graphs())
    stages = rules.grown(code, np.random.default_rng(0))
    assert len(stages) == 16
    state = rules.moved(stages[-1].state, stages[-1].moves[stages[-1].chosen])
    assert rules.code(state) == code
    assert rules.moves(state) == ()
    genotype = rules.space.genotype(code)
    assert genotype.normal.concat == (2, 3, 4, 5)


def test_replacements_are_checked() -> None:
    with pytest.raises(UserError, match="no replacement for skip_connect"):
        DartsRules(replacements={})
    with pytest.raises(UserError, match="did you mean 'maxpool3x3'"):
        DartsRules(replacements={**REPLACEMENTS, "max_pool_3x3": ("maxpool3",)})
    rules = DartsRules(replacements={**REPLACEMENTS, "skip_connect": (LABELS[2],)})
    assert len(rules.parts) == 7


@pytest.mark.parametrize(
    ("rules", "size"), [(NasBench101Rules(4), 7), (NasBench101Rules(), 10), (NasBench201Rules(), 0)]
)
def test_impossible_sizes(rules: Rules, size: int) -> None:
    with pytest.raises(UserError, match=f"with {size} links"):
        rules.start(size)


def test_rules_of_too_many_vertices() -> None:
    with pytest.raises(UserError, match="2 to 7 vertices"):
        NasBench101Rules(8)


def test_drawings_are_graphs() -> None:
    rules = NasBench101Rules()
    state = rules.start(9)
    for _ in range(3):
        state = rules.moved(state, rules.moves(state)[0])
    graph = rules.drawing(state)
    assert [graph.nodes[node].name for node in graph.inputs] == ["input"]
    assert len(graph.edges) == 3
