"""NAS-Bench-201's textbook supernet against its description: one architecture at a time, sizes, strides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.counting import count_parameters
from nge_search.gradient.cost import ExpectedCost
from nge_search.spaces import NasBench201Space
from nge_search.supernet import DenseSupernet

SPACE = NasBench201Space()
GRAPH = SPACE.cell_space


def one_hot(code: tuple[int, ...]) -> Tensor:
    return functional.one_hot(torch.tensor(code), 5).double()


def standardised(x: Tensor) -> Tensor:
    """Batch normalisation without affine parameters."""
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (variance + 1e-5).sqrt()


def average(x: Tensor) -> Tensor:
    """3x3, over the pixels inside the image."""
    inside = functional.pad(torch.ones_like(x), (1, 1, 1, 1))
    padded, size = functional.pad(x, (1, 1, 1, 1)), x.shape[-1]
    windows = [(slice(i, i + size), slice(j, j + size)) for i in range(3) for j in range(3)]
    total = sum(padded[:, :, rows, columns] for rows, columns in windows)
    return total / sum(inside[:, :, rows, columns] for rows, columns in windows)


@pytest.mark.parametrize("code", [(3, 1, 2, 4, 0, 3), (1, 1, 1, 1, 1, 1), (4, 2, 3, 0, 2, 1)])
def test_a_cell_with_one_operation_per_edge_is_that_architecture(code):
    torch.manual_seed(0)
    cell = DenseSupernet(GRAPH, 3, 3, 10).double().stages[0][0]
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    nodes = [x]
    for target in (1, 2, 3):
        total = torch.zeros_like(x)
        for edge, (source, end) in enumerate(GRAPH.edges):
            if end != target:
                continue
            name, y = GRAPH.operations[code[edge]], nodes[source]
            if name.startswith("nor_conv"):
                kernel = cell.edges[edge][code[edge]][1].weight
                y = standardised(functional.conv2d(y.relu(), kernel, padding=kernel.shape[-1] // 2))
            elif name == "avg_pool_3x3":
                y = average(y)
            elif name == "none":
                continue
            total = total + y
        nodes.append(total)
    torch.testing.assert_close(cell(x, one_hot(code)), nodes[-1], rtol=1e-10, atol=1e-10)


def test_sizes_are_the_published_ones():
    """Parameters of the benchmark's table: 0.0733M without any convolution, 1.5315M with 3x3 ones everywhere."""
    network = DenseSupernet(GRAPH, 16, 15, 10)
    cells = [cell for stage in network.stages for cell in stage]
    assert [cell.channels for cell in cells] == [16] * 5 + [32] * 5 + [64] * 5
    skeleton = count_parameters(network) - sum(map(count_parameters, cells))
    assert skeleton == 73_306
    place = GRAPH.operations.index("nor_conv_3x3")
    convolutions = sum(count_parameters(edge[place]) + 2 * cell.channels for cell in cells for edge in cell.edges)
    assert skeleton + convolutions == 1_531_546


def test_each_stage_halves_the_resolution():
    network = DenseSupernet(GRAPH, 2, 6, 10)
    seen: list[tuple[int, ...]] = []
    for stage in network.stages:
        for cell in stage:
            cell.register_forward_hook(lambda cell, given, out: seen.append(tuple(out.shape[1:])))
    assert network(torch.randn(2, 3, 10, 10), one_hot((3,) * 6).float()).shape == (2, 10)
    assert seen == [(2, 10, 10)] * 2 + [(4, 5, 5)] * 2 + [(8, 3, 3)] * 2


def test_a_residual_block_by_hand():
    torch.manual_seed(0)
    block = DenseSupernet(GRAPH, 2, 3, 10).double().reductions[0]
    for norm in (block.first[2], block.second[2]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)

    def step(x: Tensor, module: nn.Module, stride: int) -> Tensor:
        y = standardised(functional.conv2d(x.relu(), module[1].weight, stride=stride, padding=1))
        return y * module[2].weight[:, None, None] + module[2].bias[:, None, None]

    halved = x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    expected = step(step(x, block.first, 2), block.second, 1)
    expected = expected + functional.conv2d(halved, block.shortcut[1].weight)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_expected_cost_by_hand():
    """Of three cells: a 3x3 convolution is nine 1x1 ones, all else is free, each stage costs the same."""
    cost = ExpectedCost(DenseSupernet(GRAPH, 4, 3, 10), 8)
    (matrix_EO,) = cost.matrices
    pointwise = 3 * 4 * 4 * 8 * 8
    assert matrix_EO.tolist() == [[0, 0, pointwise, 9 * pointwise, 0]] * 6
    assert cost.expected(torch.full((6, 5), 0.2)) == pytest.approx(0.2 * 6 * 10 * pointwise)
    (gradient_EO,) = cost.relative_gradients()
    assert float((gradient_EO * 0.2).sum()) == pytest.approx(1)
