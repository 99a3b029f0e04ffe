"""Expected mult-adds against formulas, and their gradient against autograd."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.cli import main
from nge_search.counting import multiply_adds
from nge_search.engine.distributed import World
from nge_search.errors import UserError
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.cost import ExpectedCost, MeasuredCost
from nge_search.supernet import Supernet

SPACE = CellSpace()


def by_hand(operation: str, channels: int, out: int, stride: int) -> int:
    """Mult-adds of an operation whose output is channels x out x out."""
    pixels = out * out
    if operation == "skip_connect":
        return 0 if stride == 1 else channels * channels * pixels
    if "pool" in operation:
        return 0
    kernel = int(operation[-1])
    once = channels * kernel * kernel * pixels + channels * channels * pixels
    return once if operation.startswith("dil") else 2 * once


@pytest.mark.parametrize("size", [8, 32])
def test_matches_the_formulas(size):
    supernet = Supernet(SPACE, channels=4, cells=5, classes=10)
    cost = ExpectedCost(supernet, size)
    expected = {False: torch.zeros(SPACE.shape), True: torch.zeros(SPACE.shape)}
    side, channels = size, 4
    for position in range(5):
        reduction = position in (1, 3)
        channels, side = (2 * channels, side // 2) if reduction else (channels, side)
        for edge, (source, _) in enumerate(SPACE.edges):
            stride = 2 if reduction and source < 2 else 1
            for column, operation in enumerate(SPACE.operations):
                expected[reduction][edge, column] += by_hand(operation, channels, side, stride)
    assert torch.equal(cost.matrices[0].float(), expected[False])
    assert torch.equal(cost.matrices[1].float(), expected[True])


def test_certain_p_counts_the_mixed_edges_of_a_plain_network():
    """With P one-hot on every edge the expectation is what torch's counter finds for those operations."""
    supernet = Supernet(SPACE, channels=4, cells=3, classes=10)
    cost = ExpectedCost(supernet, 16)
    p_EO = torch.nn.functional.one_hot(torch.arange(14) % 7, 7).double()
    total, sides, channels = 0, [16, 8, 4], [4, 8, 16]
    for cell, side, width in zip(supernet.cells, sides, channels):
        for edge, (source, _) in enumerate(SPACE.edges):
            inner = side * 2 if cell.reduction and source < 2 else side
            total += multiply_adds(cell.edges[edge][edge % 7], (1, width, inner, inner))
    # cells 1 and 2 of 3 reduce, so the sides above are those of the outputs
    assert [cell.reduction for cell in supernet.cells] == [False, True, True]
    assert cost.expected(p_EO, p_EO) == total


def test_gradient_is_that_of_the_relative_cost():
    cost = ExpectedCost(Supernet(SPACE, channels=4, cells=3, classes=10), 8)
    matrices = [torch.rand(SPACE.shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    value = (cost.matrices[0] * matrices[0]).sum() + (cost.matrices[1] * matrices[1]).sum()
    uniform = torch.full(SPACE.shape, 1 / 7, dtype=torch.float64)
    value = value / cost.expected(uniform, uniform)
    for found, expected in zip(cost.relative_gradients(), torch.autograd.grad(value, matrices)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_measured_costs_are_kept(make_measured):
    """What is measured is positive, of the same edges, and comes back from a checkpoint in place of what is new."""
    first, second = make_measured(), make_measured()
    assert not first.known
    first.measure(World(torch.device("cpu")))
    assert (first.how["threads"], first.how["passes"], first.how["batch"]) == (torch.get_num_threads(), 7, 8)
    assert all((seconds_EO > 0).all() for seconds_EO in first.matrices)
    assert [seconds_EO.shape for seconds_EO in first.matrices] == [SPACE.shape] * 2
    second.load_state_dict(first.state_dict(), "here")
    assert all(map(torch.equal, first.matrices, second.matrices))
    assert second.known
    assert second.how == first.how
    uniform = torch.full(SPACE.shape, 1 / 7, dtype=torch.float64)
    assert first.expected(uniform, uniform) == pytest.approx(sum(float(m.mean(1).sum()) for m in first.matrices))
    no_seconds = ({"seconds": given} for given in (3, torch.ones(2, 3), torch.ones(2, 14, 7)))
    for damaged in (None, {}, {"seconds": first.state_dict()["seconds"]}, *no_seconds):
        with pytest.raises(UserError, match="here is damaged: 'latency'"):
            second.load_state_dict(damaged, "here")


@pytest.fixture
def make_measured():
    """Of fp64 weights, which are measured in fp32."""
    supernet = Supernet(SPACE, channels=2, cells=3, classes=10).double()
    return lambda: MeasuredCost(supernet, 4)


def test_a_search_weighs_latency_that_is_measured_once(tiny_search, tmp_path, monkeypatch):
    """In fp64, too; a search that was cut goes on with what it had, and measures nothing anew."""
    words = [*tiny_search, "search.cost=latency", "search.cost_weight=1", "precision=fp64"]
    run, step, cut = tmp_path / "run", BilevelSearch.evaluation_step, []

    def stop(self, *given):
        if not cut:
            cut.append(self.latency.matrices)
            signal.raise_signal(signal.SIGTERM)
        return step(self, *given)

    monkeypatch.setattr(BilevelSearch, "evaluation_step", stop)
    assert main(["search", *words, f"run.dir={run}"]) == 128 + signal.SIGTERM
    monkeypatch.setattr(MeasuredCost, "measure", None)
    assert main(["search", *words, f"run.dir={run}"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["latency"]["batch"], summary["latency"]["threads"]) == (8, 1)
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    matrices = [torch.tensor(row[f"p_{kind}"], dtype=torch.float64) for kind in ("normal", "reduce")]
    expected = sum(float((seconds_EO * p_EO).sum()) for seconds_EO, p_EO in zip(cut[0], matrices))
    assert row["expected_latency"] == pytest.approx(expected)
