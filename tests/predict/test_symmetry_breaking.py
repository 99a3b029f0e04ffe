"""Saliencies made comparable, and put where the encoder looks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import Graph
from nge_search.predict.symmetry_breaking import SaliencyScale, breaking_numbers
from nge_search.predict.zero_cost import ZeroCostSettings, zero_cost_operations
from nge_search.predict.zero_cost_metrics import SALIENCIES
from nge_search.spaces import NasBench201Space

PLAIN, SNIP = SALIENCIES.index("plain"), SALIENCIES.index("snip")


def saliencies(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, len(SALIENCIES))) * 10.0 ** random.integers(-3, 9, len(SALIENCIES))
    rows[:, SNIP] = np.abs(rows[:, PLAIN]) * random.uniform(1, 50, count)
    return rows


def test_scale_by_hand() -> None:
    train = [
        {"normal": saliencies(3), "reduce": np.zeros((2, 5))},
        {"normal": saliencies(4, 1), "reduce": saliencies(1, 2)},
    ]
    scale = SaliencyScale.fit(train)
    rows = [row for kinds in train for own in kinds.values() for row in own if row.any()]
    for s in range(len(SALIENCIES)):
        median = np.median([abs(row[s]) for row in rows])
        logarithms = [np.sign(row[s]) * np.log(1 + abs(row[s]) / median) for row in rows]
        expected = (logarithms - np.mean(logarithms)) / np.std(logarithms)
        np.testing.assert_allclose([scale(row[None])[0, s] for row in rows], expected, rtol=1e-10)
    assert not scale(np.zeros((2, 5))).any()


def test_plain_that_a_normalisation_makes_zero_stays_out() -> None:
    """Noise of rounding would otherwise be scaled up to random numbers."""
    rows = saliencies(6)
    rows[:, PLAIN] = 1e-7 * rows[:, SNIP] * np.array([1, -1, 1, 1, -1, -1])
    scale = SaliencyScale.fit([{"cell": rows}])
    assert not scale(rows)[:, PLAIN].any()
    assert scale(rows)[:, SNIP].std() == pytest.approx(1)


def test_measured_operations_have_no_plain() -> None:
    space, random = NasBench201Space(), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(4)]
    found = zero_cost_operations(space, codes, ZeroCostSettings(batch=4, side=8))
    scale = SaliencyScale.fit(found)
    scaled = np.concatenate([scale(own["cell"]) for own in found])
    assert not scaled[:, PLAIN].any()
    np.testing.assert_allclose(scaled[scaled.any(axis=1)][:, [0, 1, 2, 4]].std(axis=0), 1)


def test_nothing_to_scale_by() -> None:
    for nothing in ([], [{"cell": np.zeros((3, 5))}], [{"cell": np.zeros((0, 5))}]):
        scale = SaliencyScale.fit(nothing)
        assert np.isfinite(scale(saliencies(2))).all()


def test_a_cell_without_operations_has_no_numbers() -> None:
    """As NAS-Bench-201's of nothing but `none`."""
    edges = Graph.build(["input", "output"], [(0, 1, "x"), (0, 1, "y")], [0], [1])
    nothing = Graph.build(["input", "output"], [], [0], [1])
    graphs = [{"cell": nothing}, {"cell": edges}]
    rows = [{"cell": saliencies(len(own["cell"].edges))} for own in graphs]
    found = breaking_numbers(graphs, rows, SaliencyScale.fit(rows), on_edges=True)
    assert not found[0].any()
    assert found[1, :, 1, 0].any(dim=1).all()


def test_numbers_stand_where_the_batch_has_their_operations() -> None:
    """Two kinds of cells, two edges between the same nodes, and nodes of which the output stands last."""
    first = Graph.build(["input", "a", "output"], [(0, 1, "x"), (0, 1, "y"), (1, 2, "x")], [0], [2])
    second = Graph.build(["input", "output"], [(0, 1, "y")], [0], [1])
    graphs = [{"normal": first, "reduce": second}, {"normal": second, "reduce": first}]
    on_edges = [{kind: saliencies(len(graph.edges), 7) for kind, graph in own.items()} for own in graphs]
    scale = SaliencyScale.fit(on_edges)
    found = breaking_numbers(graphs, on_edges, scale, on_edges=True)
    assert found.shape == (4, 2, 3, 3, 5)
    expected = torch.zeros_like(found)
    for r, places in (
        (0, [(0, 1, 0), (1, 1, 0), (0, 2, 1)]),
        (1, [(0, 2, 0)]),
        (2, [(0, 2, 0)]),
        (3, [(0, 1, 0), (1, 1, 0), (0, 2, 1)]),
    ):
        kind, architecture = ("normal", "reduce")[r // 2], r % 2
        for place, row in zip(places, scale(on_edges[architecture][kind])):
            expected[(r, *place)] = torch.from_numpy(row)
    torch.testing.assert_close(found, expected)

    on_nodes = [{kind: saliencies(len(graph.nodes), 8) for kind, graph in own.items()} for own in graphs]
    found = breaking_numbers(graphs, on_nodes, scale, on_edges=False)
    assert found.shape == (4, 3, 5)
    own = torch.from_numpy(scale(on_nodes[0]["reduce"])).float()
    torch.testing.assert_close(found[2], torch.stack([own[0], torch.zeros(5), own[1]]))
