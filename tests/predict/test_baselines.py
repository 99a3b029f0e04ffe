"""Baseline encoders against loops in float64, and against torch's LSTM."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.graph import Graph
from nge_search.graph_nn import DenseBatch
from nge_search.predict.baselines import Decisions, GraphEncoder, Recurrence, SequenceEncoder
from nge_search.predict.encoding import Cells, Form
from nge_search.spaces import SPACES


def some(name: str, count: int = 6) -> tuple[Form, list[Cells], DenseBatch]:
    space, random = SPACES[name](), np.random.default_rng(1)
    form = Form.of(space)
    cells = [space.graphs(space.random(random)) for _ in range(count)]
    batch = form.batch(cells)
    return form, cells, dataclasses.replace(batch, a_BVV=batch.a_BVV.double())


def convolved(encoder: GraphEncoder, x: list[Tensor], arcs: set[tuple[int, int]], counted: list[int]) -> Tensor:
    """The mean over `counted` nodes; `arcs` are (source, target)."""
    nodes = range(len(x))
    arcs = arcs | {(node, node) for node in nodes} if encoder.self_loops else arcs
    x = [encoder.lift.weight @ row + encoder.lift.bias for row in x]
    for position, layer in enumerate(encoder.convolutions):
        x = [row.clamp(min=0) for row in x] if position else x
        heard = []
        for node in nodes:
            total = torch.zeros_like(x[0])
            for source in nodes:
                if (source, node) in arcs:
                    degrees = sum(arc[1] == node for arc in arcs) * sum(arc[0] == source for arc in arcs)
                    total = total + x[source] / (degrees**0.5 if encoder.normalised else 1)
            heard.append(layer.weight @ total + layer.bias)
        x = heard
    return torch.stack([x[node] for node in counted]).mean(dim=0)


def of_nodes(encoder: GraphEncoder, form: Form, cell: Graph) -> Tensor:
    x = [encoder.operation_OD[form.nodes.number(label.name)] for label in cell.nodes]
    arcs, counted = {edge[:2] for edge in cell.edges}, list(range(1, len(cell.nodes)))
    if encoder.global_D is not None:
        arcs |= {(node, len(x)) for node in counted}
        counted, x = [*counted, len(x)], [*x, encoder.global_D]
    return convolved(encoder, x, arcs, counted)


def of_line(encoder: GraphEncoder, form: Form, cell: Graph) -> Tensor:
    """The six edges of a cell of NAS-Bench-201, and what feeds what."""
    edges = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    names = {edge[:2]: edge.label.name for edge in cell.edges}
    x = [encoder.operation_OD[form.edges.number(names[pair]) if pair in names else 0] for pair in edges]
    return convolved(encoder, x, {(0, 2), (0, 4), (1, 5), (2, 5)}, list(range(6)))


def of_reading_nodes(encoder: GraphEncoder, form: Form, cell: Graph) -> Tensor:
    size = encoder.operation_OD.shape[1]
    x = [torch.zeros(2 * size, dtype=torch.float64) for _ in cell.nodes]
    for node in range(2, 6):
        edges = sorted(cell.edges[position] for position in cell.incoming[node])
        x[node] = torch.cat([encoder.operation_OD[form.edges.number(edge.label.name)] for edge in edges])
    return convolved(encoder, x, {edge[:2] for edge in cell.edges}, list(range(2, 6)))


@pytest.mark.parametrize(
    ("name", "oracle", "options"),
    [
        ("nasbench101", of_nodes, {}),
        ("nasbench101", of_nodes, {"global_node": True}),
        ("nasbench101", of_nodes, {"self_loops": False}),
        ("nasbench201", of_line, {}),
        ("nasbench201", of_line, {"normalised": False}),
        ("darts", of_reading_nodes, {}),
    ],
)
def test_graph_convolutions_against_loops(name: str, oracle, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    form, cells, batch = some(name)
    encoder = GraphEncoder(form, 2, 5, 3, 4, **options).double()
    (found,) = encoder(batch)
    expected = torch.stack(
        [torch.cat([oracle(encoder, form, graphs[kind]) for kind in form.kinds]) for graphs in cells]
    )
    assert found.shape[1] == encoder.width
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_recurrence_is_an_lstm() -> None:
    own = Recurrence(3, 5).double()
    theirs = nn.LSTM(3, 5, batch_first=True).double()
    theirs.load_state_dict(
        {
            "weight_ih_l0": own.heard.weight,
            "bias_ih_l0": own.heard.bias,
            "weight_hh_l0": own.kept.weight,
            "bias_hh_l0": own.kept.bias,
        }
    )
    x_NLD = torch.randn(4, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(own(x_NLD), theirs(x_NLD)[0], rtol=1e-10, atol=1e-12)
    assert max(parameter.abs().max() for parameter in own.parameters()) <= 5**-0.5


@pytest.mark.parametrize(("name", "tokens", "dim"), [("nasbench101", 26, 100), ("nasbench201", 6, 100)])
def test_tokens_are_decisions(name: str, tokens: int, dim: int) -> None:
    form, _, batch = some(name)
    encoder = SequenceEncoder(form).double()
    tables = {len(table): table for table in encoder.tables}
    codes = form.decisions(batch).tolist()
    assert {len(row) for row in codes} == {tokens}
    x_NLD = torch.stack(
        [torch.stack([tables[count][code] for code, count in zip(row, form.options)]) for row in codes]
    )
    (found,) = encoder(batch)
    assert found.shape == (6, dim)
    torch.testing.assert_close(found, encoder.recurrence(x_NLD)[:, -1])


def test_tokens_are_sources_with_operations() -> None:
    form, _, batch = some("darts")
    encoder = SequenceEncoder(form).double()
    rows = []
    for row in form.decisions(batch).tolist():
        pairs = zip(row[::2], row[1::2])
        tokens = [torch.cat([encoder.tables[0][source], encoder.tables[1][name]]) for source, name in pairs]
        outputs = encoder.recurrence(torch.stack(tokens)[None])[0]
        rows.append(functional.normalize(functional.normalize(outputs, dim=1).mean(dim=0), dim=0))
    (found,) = encoder(batch)
    assert found.shape == (6, 96)
    torch.testing.assert_close(found, torch.stack(rows))


@pytest.mark.parametrize("name", SPACES)
def test_decisions_as_numbers(name: str) -> None:
    form, _, batch = some(name)
    codes = form.decisions(batch)
    (raw,), (hot,) = Decisions(form)(batch), Decisions(form, one_hot=True)(batch)
    assert raw.dtype == torch.float64
    assert raw.tolist() == codes.tolist()
    assert hot.shape == (6, Decisions(form, one_hot=True).width)
    start = 0
    for position, count in enumerate(form.options):
        assert torch.equal(hot[:, start : start + count].argmax(dim=1), codes[:, position])
        assert hot[:, start : start + count].sum(dim=1).tolist() == [1.0] * 6
        start += count
