"""TA-GATES and GATES against numbers by hand and loops, stopped gradients, and what tells operations apart."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nge_search.architecture.graph import CONCAT, INPUT, OUTPUT, SUM, Graph
from nge_search.graph_nn import DenseBatch, GatedConvolution, Vocabulary, pad
from nge_search.predict.encoders import FlowEncoder, FlowSettings, head

ON_NODES = Vocabulary((INPUT, "conv3x3", "maxpool3x3", OUTPUT)), Vocabulary(("",))
ON_EDGES = Vocabulary((INPUT, SUM, CONCAT)), Vocabulary(("", "skip_connect", "nor_conv_3x3", "max_pool_3x3"))
SMALL = FlowSettings(
    steps=3, layers=3, operation_dim=4, node_dim=3, hidden_dim=5, width=6, update_dim=7, step_size=0.5
)
METRICS = 2


def names_of(settings: FlowSettings, on_edges: bool) -> dict[str, tuple[bool, bool, bool]]:
    """Whether each operation is trained, open, and updated, written out by the rules of the paper's code."""
    if not on_edges:
        moves = {"conv3x3": True, "maxpool3x3": False, INPUT: False, OUTPUT: False}
        return {name: (name != INPUT, False, move) for name, move in moves.items()}
    closed = not settings.open_skips
    return {
        "": (closed, True, False),
        "skip_connect": (closed, True, False),
        "nor_conv_3x3": (True, False, True),
        "max_pool_3x3": (True, False, False),
    }


def edge_cell(inputs: int, nodes: int, edges: list[tuple[int, int, str]]) -> Graph:
    labels = [INPUT] * inputs + [SUM] * (nodes - inputs - 1) + [CONCAT]
    return Graph.build(labels, edges, range(inputs), [nodes - 1])


CONV, POOL, SKIP = "nor_conv_3x3", "max_pool_3x3", "skip_connect"
NODE_CELLS = [
    [Graph.build([INPUT, "conv3x3", "maxpool3x3", OUTPUT], [(0, 1), (0, 2), (1, 2), (2, 3), (0, 3)], [0], [3])],
    [Graph.build([INPUT, "conv3x3", OUTPUT], [(0, 1), (1, 2)], [0], [2])],
    [Graph.build([INPUT, OUTPUT], [(0, 1)], [0], [1])],
]
EDGE_CELLS = [
    [edge_cell(1, 4, [(0, 1, CONV), (0, 2, CONV), (1, 2, SKIP), (0, 3, POOL), (1, 3, CONV), (2, 3, CONV)])],
    [edge_cell(1, 4, [(0, 1, POOL), (1, 3, CONV), (0, 3, CONV)])],
    [edge_cell(1, 4, [(0, 3, SKIP)])],
]
TWO_KINDS = [
    [
        edge_cell(2, 5, [(0, 2, CONV), (1, 2, SKIP), (1, 3, CONV), (2, 3, POOL), (2, 4, ""), (3, 4, "")]),
        edge_cell(2, 5, [(0, 2, POOL), (1, 2, CONV), (0, 3, CONV), (1, 3, CONV), (2, 4, ""), (3, 4, "")]),
    ],
    [
        edge_cell(2, 5, [(0, 2, SKIP), (1, 2, POOL), (2, 3, CONV), (1, 3, CONV), (2, 4, ""), (3, 4, "")]),
        edge_cell(2, 5, [(1, 2, CONV), (0, 2, CONV), (0, 3, CONV), (1, 3, SKIP), (2, 4, ""), (3, 4, "")]),
    ],
]
TWO_EDGES = [
    [
        edge_cell(2, 5, [(0, 2, CONV), (0, 2, SKIP), (2, 3, CONV), (2, 3, CONV), (3, 4, "")]),
        edge_cell(2, 5, [(0, 2, POOL), (1, 2, CONV), (1, 3, CONV), (1, 3, POOL), (2, 4, ""), (3, 4, "")]),
    ],
    [
        edge_cell(2, 5, [(1, 2, CONV), (0, 2, CONV), (0, 3, CONV), (1, 3, SKIP), (2, 4, ""), (3, 4, "")]),
        edge_cell(2, 5, [(1, 2, POOL), (1, 2, POOL), (2, 3, CONV), (2, 3, POOL), (3, 4, "")]),
    ],
]
two_kinds = dataclasses.replace(SMALL, update_from="nodes", train_other=True, residual=2)
on_nodes = dataclasses.replace(SMALL, update_from="nodes", self_loops=True, train_other=True, readout="mean")
CASES = {
    "edges": (SMALL, EDGE_CELLS, 1),
    "edges, gates": (dataclasses.replace(SMALL, steps=1, open_skips=False), EDGE_CELLS, 1),
    "edges, all move": (
        dataclasses.replace(SMALL, open_skips=False, update_parameter_free=True, breaking="concat"),
        EDGE_CELLS,
        1,
    ),
    "edges, nothing stopped": (dataclasses.replace(SMALL, stop_gradients=""), EDGE_CELLS, 1),
    "edges, all stopped": (dataclasses.replace(SMALL, stop_gradients="ofb"), EDGE_CELLS, 1),
    "edges, told of o and b": (dataclasses.replace(SMALL, update_inputs="ob"), EDGE_CELLS, 1),
    "two kinds": (two_kinds, TWO_KINDS, 2),
    "two kinds, told of f and b": (
        dataclasses.replace(two_kinds, update_inputs="fb", stop_gradients="b"),
        TWO_KINDS,
        2,
    ),
    "two kinds, add": (dataclasses.replace(two_kinds, breaking="add", breaking_scale=0.7), TWO_KINDS, 2),
    "two edges": (two_kinds, TWO_EDGES, 2),
    "two edges, messages": (dataclasses.replace(two_kinds, update_from="messages", breaking="add"), TWO_EDGES, 2),
    "nodes": (dataclasses.replace(on_nodes, mean_of=6), NODE_CELLS, 1),
    "nodes, present": (dataclasses.replace(on_nodes, breaking="concat"), NODE_CELLS, 1),
    "nodes, all": (
        dataclasses.replace(SMALL, update_from="nodes", residual=None, update_parameter_free=True, breaking="add"),
        NODE_CELLS,
        1,
    ),
}


def build(settings: FlowSettings, architectures: list[list[Graph]], inputs: int) -> tuple[FlowEncoder, DenseBatch]:
    """An encoder in float64 whose trained zeros are replaced, and the batch of the architectures."""
    torch.manual_seed(0)
    on_edges = CONCAT in {label.name for label in architectures[0][0].nodes}
    nodes, edges = ON_EDGES if on_edges else ON_NODES
    kinds = len(architectures[0])
    metrics = METRICS if settings.breaking in ("add", "concat") else 0
    encoder = FlowEncoder(settings, edges if on_edges else nodes, inputs, kinds, on_edges, metrics).double()
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias_F") or (name == "other_CD" and settings.train_other):
            torch.nn.init.normal_(parameter)
    batch = pad([cells[kind] for kind in range(kinds) for cells in architectures], nodes, edges)
    return encoder, DenseBatch(batch.node_BV, batch.edge_BKVV, batch.a_BVV.double())


def places(cell: Graph, width: int, on_edges: bool) -> list[tuple[int, ...]]:
    """Where a padded batch has each operation of a cell."""
    place = [width - 1 if node in cell.outputs else node for node in range(len(cell.nodes))]
    if not on_edges:
        return [(node,) for node in place]
    found: list[tuple[int, ...]] = []
    for edge in cell.edges:
        ends = place[edge.target], place[edge.source]
        found.append((sum(other[1:] == ends for other in found), *ends))
    return found


def metrics_of(
    encoder: FlowEncoder, architectures: list[list[Graph]], batch: DenseBatch
) -> tuple[Tensor | None, list[list[dict[int, Tensor]] | None]]:
    """Random metrics for every operation: in a batch's form, and by architecture, kind and operation."""
    if not encoder.metrics:
        return None, [None] * len(architectures)
    numbers = batch.edge_BKVV if encoder.on_edges else batch.node_BV
    metrics = torch.randn(*numbers.shape, encoder.metrics, dtype=torch.float64)
    found: list[list[dict[int, Tensor]] | None] = []
    for b, cells in enumerate(architectures):
        own = []
        for kind, cell in enumerate(cells):
            row = metrics[kind * len(architectures) + b]
            where = places(cell, batch.node_BV.shape[1], encoder.on_edges)
            own.append({operation: row[place] for operation, place in enumerate(where)})
        found.append(own)
    return metrics, found


def gradients(encoder: FlowEncoder, value: Tensor) -> dict[str, Tensor]:
    named = [(name, parameter) for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    found = torch.autograd.grad(value, [parameter for _, parameter in named], allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(named, found)
    }


@pytest.mark.parametrize("case", CASES)
def test_an_encoding_against_loops(case: str, oracle_class) -> None:
    """Values of every step, and the gradients where what is stopped in an update are numbers that do not change."""
    settings, architectures, inputs = CASES[case]
    encoder, batch = build(settings, architectures, inputs)
    labels = ON_EDGES[1] if encoder.on_edges else ON_NODES[0]
    oracle = oracle_class(encoder, labels, names_of(settings, encoder.on_edges))
    metrics, own_metrics = metrics_of(encoder, architectures, batch)
    found = encoder(batch, metrics)
    assert len(found) == settings.steps
    assert found[0].shape == (len(architectures), encoder.width)
    weight = torch.randn_like(found[-1])
    flowing, stopped = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for b, cells in enumerate(architectures):
        free = oracle(cells, own_metrics[b])
        for step in range(settings.steps):
            torch.testing.assert_close(found[step][b], free[step], rtol=1e-10, atol=1e-12)
        flowing = flowing + weight[b] @ free[-1]
        stopped = stopped + weight[b] @ oracle(cells, own_metrics[b], dict(oracle.seen))[-1]
    own, with_stops = gradients(encoder, (weight * found[-1]).sum()), gradients(encoder, stopped)
    torch.testing.assert_close(own, with_stops, rtol=1e-9, atol=1e-11)
    if settings.steps > 1 and settings.stop_gradients:
        without = gradients(encoder, flowing)
        assert not torch.allclose(own["operation_OG"], without["operation_OG"], rtol=1e-6)
        assert not torch.allclose(own["input_CID"], without["input_CID"], rtol=1e-6)


@pytest.mark.parametrize("case", ["edges, all move", "nodes"])
def test_every_parameter_learns_but_those_that_are_fixed(case: str) -> None:
    settings, architectures, inputs = CASES[case]
    encoder, batch = build(settings, architectures, inputs)
    metrics, _ = metrics_of(encoder, architectures, batch)
    found = gradients(encoder, encoder(batch, metrics)[-1].square().sum())
    fixed = {"other_CD"} if encoder.on_edges else set()
    assert set(found) | fixed == {name for name, _ in encoder.named_parameters()}
    assert [bool(row.any()) for row in found["operation_OG"]] == [False, False, True, True, True]
    assert all(gradient.any() for gradient in found.values())


def test_the_vector_of_other_nodes_may_stay_zero() -> None:
    encoder, _ = build(SMALL, EDGE_CELLS, 1)
    assert not encoder.other_CD.requires_grad
    assert not encoder.other_CD.any()


def scalar_layer(bias: float | None = None) -> GatedConvolution:
    """S = 2 x, and gates that are the sigmoid of the embedding."""
    layer = GatedConvolution(1, 1, 1, bias is not None)
    layer.weight_DF.data.fill_(2)
    layer.gate.weight.data.fill_(1)
    layer.gate.bias.data.zero_()
    if layer.bias_F is not None:
        layer.bias_F.data.fill_(bias or 0)
    return layer


def test_three_nodes_by_hand() -> None:
    """x = 1, 10, 100, of which nodes say 2, 20, 200; gates of 3/4 and of 1/2; the first node hears itself."""
    x_BV1, itself_BV = torch.tensor([[[1.0], [10.0], [100.0]]]), torch.tensor([[1.0, 0, 0]])
    three_quarters, half = torch.log(torch.tensor(3.0)), 0.0

    cell = Graph.build([INPUT, "conv3x3", OUTPUT], [(0, 1), (1, 2), (0, 2)], [0], [2])
    batch = pad([cell], *ON_NODES)
    operations = torch.tensor([[[9.0], [three_quarters], [half]]])
    y = scalar_layer(0.25)(x_BV1, batch, operations, False, itself_BV).flatten()
    torch.testing.assert_close(y, torch.tensor([2.25, 0.75 * 2 + 0.25, 0.5 * (2 + 20) + 0.25]))

    table_O1 = torch.tensor([[0.0], [0], [9], [three_quarters], [half]])  # by number: "", skip, convolution, pool
    cell = edge_cell(1, 3, [(0, 1, CONV), (1, 2, POOL), (0, 2, CONV)])
    batch = pad([cell], *ON_EDGES)
    y = scalar_layer()(x_BV1, batch, batch.per_edge(table_O1), True, itself_BV).flatten()
    torch.testing.assert_close(y, torch.tensor([2, 0.75 * 2, 0.5 * 20 + 0.75 * 2]))
    y = scalar_layer()(x_BV1, batch, batch.per_edge(table_O1), True, itself_BV, batch.edge_BKVV == 4).flatten()
    torch.testing.assert_close(y, torch.tensor([2, 0.75 * 2, 20 + 0.75 * 2]))

    batch = pad([edge_cell(1, 3, [(0, 1, CONV), (0, 1, POOL), (1, 2, POOL)])], *ON_EDGES)
    y = scalar_layer()(x_BV1, batch, batch.per_edge(table_O1), True, itself_BV).flatten()
    torch.testing.assert_close(y, torch.tensor([2, 0.75 * 2 + 0.5 * 2, 0.5 * 20]))


@st.composite
def cells(draw: st.DrawFn, on_edges: bool) -> tuple[Graph, Graph]:
    """A cell, and the same with its inner nodes in another order."""
    inner = draw(st.integers(1, 4))
    pairs = [(source, target) for target in range(1, inner + 2) for source in range(target)]
    if on_edges:
        kinds = st.lists(st.sampled_from([CONV, POOL, SKIP, ""]), max_size=2)
        cell = edge_cell(1, inner + 2, [(*pair, name) for pair in pairs for name in draw(kinds)])
    else:
        names = [INPUT, *(draw(st.sampled_from(["conv3x3", "maxpool3x3"])) for _ in range(inner)), OUTPUT]
        cell = Graph.build(names, [pair for pair in pairs if draw(st.booleans())], [0], [inner + 1])
    return cell, cell.renumbered([0, *draw(st.permutations(range(1, inner + 1))), inner + 1])


INVARIANT = {
    "edges, messages": (SMALL, True),
    "edges, nodes": (dataclasses.replace(two_kinds, residual=1), True),
    "nodes, output": (dataclasses.replace(on_nodes, readout="output"), False),
    "nodes, mean of six": (dataclasses.replace(on_nodes, mean_of=6), False),
    "nodes, mean of those there": (on_nodes, False),
}


@pytest.mark.parametrize("case", INVARIANT)
def test_order_and_padding_change_nothing(case: str) -> None:
    settings_, on_edges = INVARIANT[case]
    encoder, _ = build(settings_, EDGE_CELLS if on_edges else NODE_CELLS, 1)
    vocabularies = ON_EDGES if on_edges else ON_NODES

    @settings(max_examples=25, deadline=None, database=None)
    @given(cells(on_edges))
    def check(pair: tuple[Graph, Graph]) -> None:
        first, second = pair
        beside = (EDGE_CELLS if on_edges else NODE_CELLS)[0][0]
        rows = []
        for graphs, width in (([first], 0), ([second, beside], 0), ([beside, first], 9)):
            batch = pad(graphs, *vocabularies, width)
            batch = DenseBatch(batch.node_BV, batch.edge_BKVV, batch.a_BVV.double())
            with torch.no_grad():
                rows.append(encoder(batch)[-1][1 if graphs[0] is beside else 0])
        torch.testing.assert_close(rows[1], rows[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(rows[2], rows[0], rtol=1e-9, atol=1e-11)

    check()


def embeddings(encoder: FlowEncoder, batch: DenseBatch, metrics: Tensor | None = None) -> list[Tensor]:
    """The embeddings of the operations at the start and after each update."""
    found: list[Tensor] = []
    broken, updated = encoder.broken, encoder._updated

    def keep(function):
        def kept(*inputs):
            found.append(function(*inputs))
            return found[-1]

        return kept

    encoder.broken, encoder._updated = keep(broken), keep(updated)
    encoder(batch, metrics)
    return found


SYMMETRIC = edge_cell(1, 4, [(0, 1, CONV), (0, 2, CONV), (1, 3, CONV), (2, 3, CONV)])  # in this order in batches


@pytest.mark.parametrize("update_from", ["nodes", "messages"])
@pytest.mark.parametrize("breaking", ["none", "random", "add", "concat"])
def test_symmetric_operations_stay_equal_until_symmetry_is_broken(breaking: str, update_from: str) -> None:
    own = dataclasses.replace(SMALL, steps=4, breaking=breaking, update_from=update_from)
    encoder, batch = build(own, [[SYMMETRIC]], 1)
    metrics, _ = metrics_of(encoder, [[SYMMETRIC]], batch)
    found = embeddings(encoder, batch, metrics)
    assert len(found) == 4
    for before, after in itertools.pairwise(found):
        assert not torch.allclose(before[0, 0], after[0, 0])
    for step, now in enumerate(found):
        for first, second in ((0, 1), (2, 3)):
            o, other = now[0, first], now[0, second]
            if breaking == "none":
                torch.testing.assert_close(o, other, rtol=0, atol=1e-14)
            else:
                assert (o - other).abs().max() > 1e-3
        apart = now[0, 0] - now[0, 2]
        assert step == 0 or apart.abs().max() > 1e-6  # of one type, but in different places


def test_the_pair_below_figure_2_is_told_apart_without_breaking_symmetry() -> None:
    """Two convolutions side by side, or one whose output a skip connection hands to the second node.

    The paper says that the encodings are equal. They are not where a skip's target hears of its source one layer
    later, as in graph convolutions with weights of their own in each layer: already GATES tells the two apart.
    """
    tails = [(1, 3, SKIP), (2, 3, SKIP)]
    pair = [[edge_cell(1, 4, [(0, 1, CONV), way, *tails])] for way in ((0, 2, CONV), (1, 2, SKIP))]
    for steps in (1, 4):
        encoder, batch = build(dataclasses.replace(SMALL, steps=steps), pair, 1)
        first, second = encoder(batch)[-1].detach()
        assert (first - second).norm() > 0.1 * first.norm()


def test_metrics_are_needed_where_they_break_symmetry() -> None:
    encoder, batch = build(CASES["two kinds, add"][0], TWO_KINDS, 2)
    with pytest.raises(ValueError, match="needs metrics"):
        encoder(batch)


def test_the_head() -> None:
    layers = head(6, (5, 4), 0.1)
    assert [type(layer).__name__ for layer in layers] == [*["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    assert layers(torch.randn(2, 3, 6)).shape == (2, 3, 1)
    assert [type(layer).__name__ for layer in head(6, (), 0.1)] == ["Linear"]
