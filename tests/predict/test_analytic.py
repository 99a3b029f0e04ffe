"""Analytic features against a list of all paths, and the flow against recursion, on 1,000 random graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from nge_search.architecture.graph import CONCAT, INPUT, OUTPUT, SUM, Graph, Label
from nge_search.predict import analytic
from nge_search.predict.operation_facts import OperationFacts, facts_of

EDGE_LABELS = ("", "skip_connect", "nor_conv_1x1", "sep_conv_5x5", "avg_pool_3x3")
NODE_LABELS = (SUM, SUM, CONCAT, "conv3x3-bn-relu", "maxpool3x3")


def random_graph(random: np.random.Generator) -> Graph:
    """Up to seven nodes, operations anywhere, edges side by side, dead ends; one or two inputs and outputs."""
    inputs, outputs, inner = random.integers(1, 3), random.integers(1, 3), random.integers(0, 5)
    count = inputs + inner + outputs
    labels = [*[INPUT] * inputs, *random.choice(NODE_LABELS, inner), *random.choice([OUTPUT, CONCAT, SUM], outputs)]
    edges = []
    for target in range(inputs, count):
        for source in range(target):
            for _ in range(random.choice([0, 1, 2], p=[0.55, 0.35, 0.1])):
                edges.append((source, target, str(random.choice(EDGE_LABELS))))
    graph = Graph.build(map(str, labels), edges, range(inputs), range(count - outputs, count))
    return graph.renumbered(random.permutation(count).tolist())


def paths(graph: Graph, node: int) -> Iterator[list[Label]]:
    """Labels on each way from an input to `node`."""
    if node in graph.inputs:
        yield [graph.nodes[node]]
    for position in graph.incoming[node]:
        edge = graph.edges[position]
        for path in paths(graph, edge.source):
            yield [*path, edge.label, graph.nodes[node]]


def quantities(labels: list[Label]) -> dict[str, int]:
    facts = [facts_of(label) for label in labels]
    return {
        "operations": sum(fact.convolutions > 0 or fact.pools > 0 for fact in facts),
        "convolutions": sum(fact.convolutions for fact in facts),
        "spatial": sum(fact.spatial for fact in facts),
        "pools": sum(fact.pools for fact in facts),
        "reach": sum(fact.reach for fact in facts),
    }


def path_features(graph: Graph) -> dict[str, float]:
    found = [quantities(path) for node in graph.outputs for path in paths(graph, node)]
    total = len(found)
    identity = sum(not path["operations"] for path in found)
    pool = sum(path["operations"] > 0 and not path["convolutions"] for path in found)
    least = {
        (name, count): sum(p[name] >= count for p in found)
        for name in ("convolutions", "spatial")
        for count in (1, 2)
    }
    convolution = least["convolutions", 1]
    expected: dict[str, float] = {
        "log_paths": math.log(1 + total),
        "log_identity_paths": math.log(1 + identity),
        "log_pool_paths": math.log(1 + pool),
        "log_paths_1_convolution": math.log(1 + convolution),
        "log_paths_2_convolutions": math.log(1 + least["convolutions", 2]),
        "log_paths_1_spatial": math.log(1 + least["spatial", 1]),
        "log_paths_2_spatial": math.log(1 + least["spatial", 2]),
        "share_identity": identity / max(total, 1),
        "share_pool": pool / max(total, 1),
        "share_convolution": convolution / max(total, 1),
        "dead": float(total == 0),
        "no_convolution": float(convolution == 0),
        "bypass": float(total > convolution),
    }
    for name in analytic.QUANTITIES:
        passed = [path[name] for path in found]
        expected[f"{name}_sum"] = math.log(1 + sum(passed))
        expected[f"{name}_mean"] = sum(passed) / max(total, 1)
        expected[f"{name}_max"] = max(passed, default=0)
        expected[f"{name}_min"] = min(passed, default=0)
    return expected


def size_features(graph: Graph) -> dict[str, float]:
    """A node is live if it is on a path, an edge if both of its ends are."""
    behind = {node for node in range(len(graph.nodes)) if next(paths(graph, node), None) is not None}
    ahead = {node for node in range(len(graph.nodes)) if _leads_out(graph, node)}
    live_nodes = behind & ahead
    live = [graph.nodes[node] for node in live_nodes]
    live += [edge.label for edge in graph.edges if {edge.source, edge.target} <= live_nodes]
    every = [*graph.nodes, *(edge.label for edge in graph.edges)]
    weights, live_weights = (sum(facts_of(label).weights for label in labels) for labels in (every, live))
    return {
        "weights": weights,
        "log_weights": math.log(1 + weights),
        "live_weights": live_weights,
        "log_live_weights": math.log(1 + live_weights),
        "live_operations": quantities(live)["operations"],
    }


def _leads_out(graph: Graph, node: int) -> bool:
    return node in graph.outputs or any(_leads_out(graph, target) for target in graph.targets(node))


Flow = tuple[float, list[float]]


def through(flow: Flow, facts: OperationFacts) -> Flow:
    """What an operation makes of a variance, and of what the signal has passed."""
    variance, passed = flow
    convolves, pools = facts.convolutions > 0, facts.pools > 0
    if convolves:
        variance = float(variance > 0)
    elif pools:
        variance *= 0.35
    added = (facts.convolutions, facts.spatial, max(facts.convolutions - facts.spatial, 0), facts.reach)
    return variance, [
        *(before + own for before, own in zip(passed, added)),
        0.0 if convolves or pools else passed[4],
    ]


def joined(flows: list[Flow]) -> Flow:
    total = sum(variance for variance, _ in flows)
    if not total:
        return 0.0, [0.0] * 5
    return total, [sum(variance * passed[i] for variance, passed in flows) / total for i in range(5)]


def arriving(graph: Graph, node: int) -> Flow:
    if node in graph.inputs:
        return 1.0, [0.0, 0.0, 0.0, 0.0, 1.0]
    edges = [graph.edges[position] for position in graph.incoming[node]]
    variance, passed = joined([through(arriving(graph, edge.source), facts_of(edge.label)) for edge in edges])
    if graph.nodes[node].name == CONCAT and edges:
        variance /= len(edges)
    return through((variance, passed), facts_of(graph.nodes[node]))


def flow_features(graph: Graph) -> dict[str, float]:
    live = graph.pruned()
    variance, passed = joined([arriving(live, node) for node in live.outputs]) if live else (0.0, [0.0] * 5)
    names = ("flow_convolutions", "flow_spatial", "flow_pointwise", "flow_reach", "flow_identity")
    return {"variance": variance, "log_variance": math.log(variance + 1e-3), **dict(zip(names, passed))}


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    random = np.random.default_rng(0)
    return [random_graph(random) for _ in range(1000)]


@pytest.fixture(scope="module")
def found(graphs: list[Graph]) -> dict[str, np.ndarray]:
    return dict(zip(analytic.NAMES, analytic.features(graphs).T))


@pytest.mark.parametrize("oracle", [path_features, size_features, flow_features])
def test_features_of_random_graphs(graphs: list[Graph], found: dict[str, np.ndarray], oracle) -> None:
    rows = [oracle(graph) for graph in graphs]
    for name in rows[0]:
        expected = np.array([row[name] for row in rows])
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)
        assert np.ptp(expected) > 0, name


def test_every_feature_is_tested(graphs: list[Graph]) -> None:
    tested = {**path_features(graphs[0]), **size_features(graphs[0]), **flow_features(graphs[0])}
    assert sorted(tested) == sorted(analytic.NAMES)
    assert np.isfinite(analytic.features(graphs)).all()


def test_isomorphic_graphs_have_equal_rows(graphs: list[Graph]) -> None:
    random = np.random.default_rng(1)
    moved = [graph.renumbered(random.permutation(len(graph.nodes)).tolist()) for graph in graphs[:200]]
    np.testing.assert_allclose(analytic.features(moved), analytic.features(graphs[:200]), rtol=1e-9, atol=1e-12)


def test_a_cell_by_hand() -> None:
    """A convolution and a pool side by side, joined by a concatenation, and a skip connection beside both."""
    cell = Graph.build(
        [INPUT, SUM, CONCAT],
        [(0, 1, "nor_conv_3x3"), (0, 1, "skip_connect"), (1, 2, ""), (0, 2, "avg_pool_3x3")],
        [0],
        [2],
    )
    row = dict(zip(analytic.NAMES, analytic.features([cell])[0]))
    assert row["log_paths"] == pytest.approx(math.log(4))
    assert (row["share_identity"], row["share_pool"]) == pytest.approx((1 / 3, 1 / 3))
    assert (row["reach_sum"], row["reach_max"], row["reach_min"]) == pytest.approx((math.log(5), 2, 0))
    assert row["variance"] == pytest.approx((2 + 0.35) / 2)
    assert row["flow_convolutions"] == pytest.approx(1 / 2.35)
    assert row["weights"] == 9
