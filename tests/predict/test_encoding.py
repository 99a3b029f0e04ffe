"""Architectures of every space as batches and as decisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import INPUT, OUTPUT, SUM, Graph
from nge_search.errors import UserError
from nge_search.graph_nn import Vocabulary, pad
from nge_search.predict.encoding import Cells, Form
from nge_search.spaces import SPACES, Code, Space


def some(space: Space, count: int) -> tuple[list[Code], list[Cells]]:
    random = np.random.default_rng(0)
    codes = [space.random(random) for _ in range(count)]
    return codes, [space.graphs(code) for code in codes]


@pytest.mark.parametrize(
    ("name", "width", "labels"), [("nasbench101", 7, 5), ("nasbench201", 4, 5), ("darts", 7, 8)]
)
def test_a_batch_goes_kind_by_kind(name: str, width: int, labels: int) -> None:
    space = SPACES[name]()
    form = Form.of(space)
    _, cells = some(space, 5)
    batch = form.batch(cells)
    assert (form.width, len(form.labels.names)) == (width, labels)
    assert batch.node_BV.shape == (5 * len(form.kinds), width)
    for kind, label in enumerate(form.kinds):
        alone = pad([graphs[label] for graphs in cells], form.nodes, form.edges, width)
        rows = slice(5 * kind, 5 * kind + 5)
        assert torch.equal(batch.node_BV[rows], alone.node_BV)
        assert torch.equal(batch.edge_BKVV[rows], alone.edge_BKVV)


def test_decisions_of_nasbench201() -> None:
    space = SPACES["nasbench201"]()
    form = Form.of(space)
    codes, cells = some(space, 50)
    found = form.decisions(form.batch(cells))
    assert form.options == (6,) * 6
    for code, row in zip(codes, found.tolist()):
        names = [space.cell_space.operations[choice] for choice in code]
        assert row == [0 if name == "none" else form.edges.number(name) for name in names]


def test_decisions_of_nasbench101() -> None:
    space = SPACES["nasbench101"]()
    form = Form.of(space)
    _, cells = some(space, 50)
    found = form.decisions(form.batch(cells))
    assert form.options == (2,) * 21 + (6,) * 5
    pairs = [(source, target) for target in range(1, 7) for source in range(target)]
    for graphs, row in zip(cells, found.tolist()):
        graph = graphs["cell"]
        last = len(graph.nodes) - 1
        place = {node: 6 if node == last else node for node in range(last + 1)}
        edges = {(place[edge.source], place[edge.target]) for edge in graph.edges}
        assert row[:21] == [int(pair in edges) for pair in pairs]
        inner = [form.nodes.number(label.name) for label in graph.nodes[1:-1]]
        assert row[21:] == inner + [0] * (5 - len(inner))


def test_decisions_of_darts() -> None:
    space = SPACES["darts"]()
    form = Form.of(space)
    codes, cells = some(space, 50)
    found = form.decisions(form.batch(cells))
    assert form.options == (7, 8 + 1) * 16
    for code, row in zip(codes, found.tolist()):
        expected: list[int] = []
        for at in range(0, len(code), 4):
            first, second, of_first, of_second = code[at : at + 4]
            numbers = [form.edges.number(space.cell_space.operations[choice]) for choice in (of_first, of_second)]
            expected += [first, numbers[0], second, numbers[1]]
        assert row == expected


def test_two_edges_between_the_same_nodes_are_both_read() -> None:
    edges = Vocabulary(("", "conv", "pool"))
    form = Form(("cell",), 1, 4, True, Vocabulary((INPUT, SUM, OUTPUT)), edges, reads=2)
    cell = Graph.build(
        [INPUT, SUM, SUM, OUTPUT],
        [(0, 1, "conv"), (0, 1, "pool"), (1, 2, "pool"), (0, 2, "conv"), (2, 3)],
        [0],
        [3],
    )
    assert form.decisions(form.batch([{"cell": cell}])).tolist() == [[0, 2, 0, 3, 0, 2, 1, 3]]


def test_inputs_come_first() -> None:
    space = SPACES["nasbench201"]()
    form = Form.of(space)
    _, cells = some(space, 20)
    turned = [{"cell": graphs["cell"].renumbered([1, 0, 2, 3])} for graphs in cells]
    assert torch.equal(form.batch(turned).edge_BKVV, form.batch(cells).edge_BKVV)


def test_cells_of_another_space() -> None:
    forms = {name: Form.of(SPACES[name]()) for name in SPACES}
    cells = {name: some(SPACES[name](), 1)[1] for name in SPACES}
    with pytest.raises(UserError, match="has cells normal, reduce, not cell"):
        forms["darts"].batch(cells["nasbench201"])
    with pytest.raises(UserError, match="is none of input, sum, concat"):
        forms["nasbench201"].batch([{"cell": Graph.build([INPUT, "conv3x3-bn-relu", OUTPUT], [(0, 1)], [0], [2])}])
    with pytest.raises(UserError, match="1 inputs, 1 output and at most 4 nodes, not 2, 1 and 7"):
        forms["nasbench201"].batch([{"cell": cells["darts"][0]["normal"]}])
