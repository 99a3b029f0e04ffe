"""Analytic features: what can be said of a cell's signal paths without training it, for any typed graph.

Paths from the inputs to the outputs are never listed. Their number, and the sum, mean, largest and smallest of what
they pass, come by dynamic programming over nodes in topological order, for many graphs at once. Next to them stands
a mean-field flow: the variance with which a signal leaves, where what paths bring adds up, a convolution (with its
normalisation) gives variance 1, a pool keeps a part of its input's, and everything else all of it.

Legend: B graphs, V nodes of the largest, Q quantities of an operation, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nge_search.architecture.graph import CONCAT, Graph
from nge_search.predict.operation_facts import facts_of

#: Of a signal's variance that a 3x3 pool keeps, where neighbouring pixels are alike to the usual degree.
POOL_KEEPS = 0.35

#: What paths pass, in the columns of `Cells.facts_BVQ`.
QUANTITIES = ("operations", "convolutions", "spatial", "pools", "reach")
_STATISTICS = ("sum", "mean", "max", "min")

#: Names of the features, by group.
GROUPS: dict[str, tuple[str, ...]] = {
    "paths": (
        *("log_paths", "log_identity_paths", "log_pool_paths"),
        *("log_paths_1_convolution", "log_paths_2_convolutions", "log_paths_1_spatial", "log_paths_2_spatial"),
        *("share_identity", "share_pool", "share_convolution", "dead", "no_convolution", "bypass"),
    ),
    **{name: tuple(f"{name}_{statistic}" for statistic in _STATISTICS) for name in QUANTITIES},
    "size": ("weights", "log_weights", "live_weights", "log_live_weights", "live_operations"),
    "flow": (
        *("variance", "log_variance", "flow_convolutions", "flow_spatial", "flow_pointwise", "flow_reach"),
        "flow_identity",
    ),
}
NAMES: tuple[str, ...] = tuple(name for group in GROUPS.values() for name in group)


@dataclass(frozen=True)
class Cells:
    """Graphs with their operations on nodes, padded; nodes in topological order.

    Attributes:
        a_BVV: number of edges from the second node to the first.
        facts_BVQ: of each node's operation, as `QUANTITIES`.
        averages_BV: nodes that join their inputs side by side, so that variances average.
        input_BV, output_BV: which nodes are given, and which leave.
        weights_B: of all operations, live or not, in units of channels squared.
        live_weights_B: of those on a path.
    """

    a_BVV: np.ndarray
    facts_BVQ: np.ndarray
    averages_BV: np.ndarray
    input_BV: np.ndarray
    output_BV: np.ndarray
    weights_B: np.ndarray
    live_weights_B: np.ndarray


def tabulate(graphs: Sequence[Graph]) -> Cells:
    """The live part of each graph as arrays; a graph without a path has no node left."""
    live = [
        None if (pruned := graph.pruned()) is None else pruned.operations_on_nodes(keep_sums=True)
        for graph in graphs
    ]
    count, width = len(graphs), max((len(graph.nodes) for graph in live if graph), default=1)
    cells = Cells(
        a_BVV=np.zeros((count, width, width)),
        facts_BVQ=np.zeros((count, width, len(QUANTITIES))),
        averages_BV=np.zeros((count, width), dtype=bool),
        input_BV=np.zeros((count, width), dtype=bool),
        output_BV=np.zeros((count, width), dtype=bool),
        weights_B=np.array([_weights(graph) for graph in graphs]),
        live_weights_B=np.array([_weights(graph) if graph else 0.0 for graph in live]),
    )
    for b, graph in enumerate(live):
        if graph is not None:
            _fill(cells, b, graph)
    return cells


def _weights(graph: Graph) -> float:
    labels = [*graph.nodes, *(edge.label for edge in graph.edges)]
    return sum(facts_of(label).weights for label in labels)


def _fill(cells: Cells, b: int, graph: Graph) -> None:
    place = {node: position for position, node in enumerate(graph.order)}
    for edge in graph.edges:
        cells.a_BVV[b, place[edge.target], place[edge.source]] += 1
    for node, label in enumerate(graph.nodes):
        facts = facts_of(label)
        passed = float(not facts.is_identity), facts.convolutions, facts.spatial, facts.pools, facts.reach
        cells.facts_BVQ[b, place[node]] = passed
        cells.averages_BV[b, place[node]] = label.name == CONCAT
    cells.input_BV[b, [place[node] for node in graph.inputs]] = True
    cells.output_BV[b, [place[node] for node in graph.outputs]] = True


def features(graphs: Sequence[Graph]) -> np.ndarray:
    """The features of graphs: float64 [B, F], in the order of `NAMES`; all finite.

    Isomorphic graphs have equal rows, up to rounding.
    """
    cells = tabulate(graphs)
    counts = count_paths(cells)
    columns = {**_path_columns(counts), **_quantity_columns(cells), **_flow_columns(cells)}
    columns["weights"], columns["live_weights"] = cells.weights_B, cells.live_weights_B
    for name in ("weights", "live_weights"):
        columns[f"log_{name}"] = np.log1p(columns[name])
    columns["live_operations"] = cells.facts_BVQ[..., QUANTITIES.index("operations")].sum(axis=1)
    return np.stack([columns[name] for name in NAMES], axis=1)


def count_paths(cells: Cells) -> dict[str, np.ndarray]:
    """Numbers of paths from inputs to outputs, [B] each, by what they pass.

    `all`; `identity`: no operation; `pool`: pools, but no convolution; `1_convolution` and `2_convolutions`: at
    least so many, and likewise `spatial`.
    """
    by_convolutions_BV3 = _saturated(cells, cells.facts_BVQ[..., QUANTITIES.index("convolutions")])
    by_spatial_BV3 = _saturated(cells, cells.facts_BVQ[..., QUANTITIES.index("spatial")])
    by_operations_BV3 = _saturated(cells, cells.facts_BVQ[..., QUANTITIES.index("operations")])
    convolutions, spatial, operations = (
        (paths_BV3 * cells.output_BV[..., None]).sum(axis=1).T
        for paths_BV3 in (by_convolutions_BV3, by_spatial_BV3, by_operations_BV3)
    )
    return {
        "all": operations.sum(axis=0),
        "identity": operations[0],
        "pool": convolutions[0] - operations[0],
        "1_convolution": convolutions[1] + convolutions[2],
        "2_convolutions": convolutions[2],
        "1_spatial": spatial[1] + spatial[2],
        "2_spatial": spatial[2],
    }


def _saturated(cells: Cells, passed_BV: np.ndarray) -> np.ndarray:
    """Paths to each node that pass a quantity 0 times, once, and more often: [B, V, 3]."""
    paths_BV3 = np.zeros((*passed_BV.shape, 3))
    for v in range(passed_BV.shape[1]):
        come_B3 = np.einsum("bu,buk->bk", cells.a_BVV[:, v, :v], paths_BV3[:, :v])
        come_B3[:, 0] += cells.input_BV[:, v]
        zero, once, more = come_B3.T
        passed_B = passed_BV[:, v]
        paths_BV3[:, v, 0] = np.where(passed_B == 0, zero, 0)
        paths_BV3[:, v, 1] = np.select([passed_B == 0, passed_B == 1], [once, zero], 0)
        paths_BV3[:, v, 2] = np.select([passed_B == 0, passed_B == 1], [more, once + more], zero + once + more)
    return paths_BV3


def _path_columns(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total_B = counts["all"].clip(min=1)
    return {
        "log_paths": np.log1p(counts["all"]),
        "log_identity_paths": np.log1p(counts["identity"]),
        "log_pool_paths": np.log1p(counts["pool"]),
        "log_paths_1_convolution": np.log1p(counts["1_convolution"]),
        "log_paths_2_convolutions": np.log1p(counts["2_convolutions"]),
        "log_paths_1_spatial": np.log1p(counts["1_spatial"]),
        "log_paths_2_spatial": np.log1p(counts["2_spatial"]),
        "share_identity": counts["identity"] / total_B,
        "share_pool": counts["pool"] / total_B,
        "share_convolution": counts["1_convolution"] / total_B,
        "dead": (counts["all"] == 0).astype(float),
        "no_convolution": (counts["1_convolution"] == 0).astype(float),
        "bypass": (counts["identity"] + counts["pool"] > 0).astype(float),
    }


def _quantity_columns(cells: Cells) -> dict[str, np.ndarray]:
    """Of each quantity the sum, mean, largest and smallest over all paths; 0 where there is no path."""
    paths_BV, sums_BVQ, most_BVQ, least_BVQ = over_paths(cells)
    output_BV1 = cells.output_BV[..., None]
    paths_B = (paths_BV * cells.output_BV).sum(axis=1)
    sum_BQ = (sums_BVQ * output_BV1).sum(axis=1)
    most_BQ = np.where(output_BV1, most_BVQ, -np.inf).max(axis=1)
    least_BQ = np.where(output_BV1, least_BVQ, np.inf).min(axis=1)
    columns = {}
    for q, name in enumerate(QUANTITIES):
        columns[f"{name}_sum"] = np.log1p(sum_BQ[:, q])
        columns[f"{name}_mean"] = sum_BQ[:, q] / paths_B.clip(min=1)
        columns[f"{name}_max"] = np.where(paths_B > 0, most_BQ[:, q], 0)
        columns[f"{name}_min"] = np.where(paths_B > 0, least_BQ[:, q], 0)
    return columns


def over_paths(cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each node the number of paths to it [B, V]; of what they pass the sum, the largest and the smallest.

    The last three are [B, V, Q], with -inf and inf where no path leads.
    """
    paths_BV = np.zeros(cells.input_BV.shape)
    sums_BVQ = np.zeros(cells.facts_BVQ.shape)
    most_BVQ, least_BVQ = np.full(sums_BVQ.shape, -np.inf), np.full(sums_BVQ.shape, np.inf)
    for v in range(cells.input_BV.shape[1]):
        a_Bu, own_BQ = cells.a_BVV[:, v, :v], cells.facts_BVQ[:, v]
        given_B, heard_Bu1 = cells.input_BV[:, v], (a_Bu > 0)[..., None]
        paths_BV[:, v] = (a_Bu * paths_BV[:, :v]).sum(axis=1) + given_B
        sums_BVQ[:, v] = np.einsum("bu,buq->bq", a_Bu, sums_BVQ[:, :v]) + paths_BV[:, v, None] * own_BQ
        start_BQ = np.where(given_B[:, None], 0.0, np.nan)
        most = np.where(heard_Bu1, most_BVQ[:, :v], -np.inf).max(axis=1, initial=-np.inf)
        least = np.where(heard_Bu1, least_BVQ[:, :v], np.inf).min(axis=1, initial=np.inf)
        most_BVQ[:, v] = np.fmax(most, start_BQ) + own_BQ
        least_BVQ[:, v] = np.fmin(least, start_BQ) + own_BQ
    return paths_BV, sums_BVQ, most_BVQ, least_BVQ


def _flow_columns(cells: Cells) -> dict[str, np.ndarray]:
    """The mean-field flow to the outputs: its variance, and what it has passed on average, weighted by variance."""
    variance_BV = np.zeros(cells.input_BV.shape)
    passed_BVP = np.zeros((*variance_BV.shape, 5))  # convolutions, spatial, pointwise, reach, identity
    facts = {name: cells.facts_BVQ[..., q] for q, name in enumerate(QUANTITIES)}
    pointwise_BV = (facts["convolutions"] - facts["spatial"]).clip(min=0)
    added_BVP = np.stack([facts["convolutions"], facts["spatial"], pointwise_BV, facts["reach"]], axis=-1)
    for v in range(cells.input_BV.shape[1]):
        given_B = cells.input_BV[:, v]
        come_Bu = cells.a_BVV[:, v, :v] * variance_BV[:, :v]
        total_B = come_Bu.sum(axis=1)
        mean_BP = np.einsum("bu,bup->bp", come_Bu, passed_BVP[:, :v]) / np.where(total_B > 0, total_B, 1)[:, None]
        mean_BP[given_B] = (0, 0, 0, 0, 1)
        edges_B = cells.a_BVV[:, v, :v].sum(axis=1).clip(min=1)
        joined_B = np.where(cells.averages_BV[:, v], total_B / edges_B, total_B) + given_B
        convolves_B, pools_B = facts["convolutions"][:, v] > 0, facts["pools"][:, v] > 0
        kept_B = np.where(pools_B, POOL_KEEPS * joined_B, joined_B)
        variance_BV[:, v] = np.where(convolves_B, joined_B > 0, kept_B)
        passed_BVP[:, v, :4] = mean_BP[:, :4] + added_BVP[:, v]
        passed_BVP[:, v, 4] = np.where(convolves_B | pools_B, 0, mean_BP[:, 4])
    out_BV = variance_BV * cells.output_BV
    out_B = out_BV.sum(axis=1)
    passed_BP = np.einsum("bv,bvp->bp", out_BV, passed_BVP) / np.where(out_B > 0, out_B, 1)[:, None]
    names = ("flow_convolutions", "flow_spatial", "flow_pointwise", "flow_reach", "flow_identity")
    return {
        "variance": out_B,
        "log_variance": np.log(out_B + 1e-3),
        **{name: passed_BP[:, p] for p, name in enumerate(names)},
    }
