"""ENAS' macro space: notation, chances, graphs by hand, and what is none of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.spaces import EnasMacroSpace
from nge_search.spaces.enas_macro import OPERATIONS

SPACE = EnasMacroSpace()
TEXT = "[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]"
#: Skips by layer and source, then operations.
CODE = (0, *(0, 0), *(1, 1, 1), *(1, 1, 1, 1), *(0, 0, 0, 0, 1), *(1, 4, 5, 0, 2, 3))


def test_a_structure_by_hand() -> None:
    assert SPACE.parse(f" {TEXT.replace(',', ', ')} ") == CODE
    assert SPACE.text(CODE) == TEXT
    graph = SPACE.graphs(CODE)["network"]
    assert [label.name for label in graph.nodes] == ["input", *(OPERATIONS[k] for k in CODE[-6:]), "output"]
    assert [graph.sources(node) for node in range(8)] == [
        [],
        [0],
        [1],
        [2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [4, 5],
        [6],
    ]
    assert SPACE.size == 6**6 * 2**15


def test_the_chance_of_a_code_is_the_product_of_its_decisions() -> None:
    random = np.random.default_rng(0)
    matrices = [random.dirichlet(np.full(len(table.options), 2.0), table.rows) for table in SPACE.cell_space.tables]
    assert [matrix.shape for matrix in matrices] == [(15, 2), (6, 6)]
    found = SPACE.log_probability(torch.tensor([CODE]), [torch.tensor(matrix) for matrix in matrices])
    chances = [*(matrices[0][k, CODE[k]] for k in range(15)), *(matrices[1][k, CODE[15 + k]] for k in range(6))]
    assert math.isclose(float(found[0]), sum(map(math.log, chances)), rel_tol=1e-12)


def test_draws_follow_the_probabilities_of_each_decision() -> None:
    """Means within five standard deviations."""
    random = np.random.default_rng(1)
    skips, operations = np.tile([0.8, 0.2], (15, 1)), np.tile([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], (6, 1))
    codes = np.array([SPACE.draw([skips, operations], random) for _ in range(4000)])
    for column in range(21):
        found, chance = (codes[:, column] == 1).mean(), 0.2 if column < 15 else 0.1
        assert abs(found - chance) < 5 * math.sqrt(chance * (1 - chance) / len(codes))


def test_neighbours_by_count() -> None:
    assert len(SPACE.neighbours(CODE)) == 15 + 6 * 5


def test_no_two_codes_are_isomorphic() -> None:
    digests = {SPACE.graphs(code)["network"].digest for code in [CODE, *SPACE.neighbours(CODE)]}
    assert len(digests) == 46


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("[1],", "[6],", 1), "in layer 1, 6 is not an operation, 0 to 5"),
        (TEXT.replace("[4,0]", "[4,2]"), "in layer 2, 2 is not a skip, 0 or 1"),
        (TEXT.replace("[4,0]", "[4,true]"), "in layer 2, True is not a skip"),
        (TEXT.replace("[4,0]", "[4.0,0]"), "in layer 2, 4.0 is not an operation"),
        (TEXT.replace("[4,0]", "[4]"), "layer 2 is a list of its operation and 1 zeros and ones"),
        (TEXT.replace("[4,0]", "7"), "layer 2 is a list"),
        ("[[1]]", "a list of 6 layers"),
        ("{}", "a list of 6 layers"),
        ("[[1],", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        (TEXT.replace("[4,0]", f"[{'9' * 5000},0]"), "layer 2|not valid JSON|digits"),
    ],
)
def test_what_is_no_structure(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        SPACE.parse(text)


def test_graphs_that_are_no_networks() -> None:
    graph = SPACE.graphs(CODE)["network"]
    nodes = list(graph.nodes)
    for broken, says in (
        (Graph.build(nodes, graph.edges[1:], [0], [7]), "each layer reads the one before it"),
        (Graph.build(nodes, [*graph.edges, graph.edges[0]], [0], [7]), "earlier ones once"),
        (Graph.build(nodes, [*graph.edges, (5, 7)], [0], [7]), "each layer reads"),
        (Graph.build(["input", "conv_7x7", *nodes[2:]], graph.edges, [0], [7]), "the operations of enas_macro are"),
        (Graph.build(nodes[:7], [edge for edge in graph.edges if edge.target < 7], [0], [6]), "has 6 layers"),
    ):
        with pytest.raises(UserError, match=says):
            SPACE.code({"network": broken})
    with pytest.raises(UserError, match="has 6 layers"):
        SPACE.code({"cell": graph})
