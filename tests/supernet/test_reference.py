"""The textbook supernet: its size, and its cell against the definition written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace, reduction_positions
from nge_search.counting import count_parameters
from nge_search.supernet import Supernet
from nge_search.supernet.reference import MixedCell

SPACE = CellSpace()


def test_parameter_count_of_the_paper_s_proxy():
    assert count_parameters(Supernet(SPACE, channels=16, cells=8, classes=10)) == 1_930_618


def normalise(x):
    """Training-mode batch normalisation without affine parameters, spelled out."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def separable(weights, x, kernel, stride, dilation):
    depthwise, pointwise = weights
    padding = dilation * (kernel - 1) // 2
    x = functional.conv2d(functional.relu(x), depthwise, None, stride, padding, dilation, groups=x.shape[1])
    return normalise(functional.conv2d(x, pointwise))


def reduce_skip(weights, x):
    """Stride-2 identity: two shifted 1x1 convolutions; the shifted image gains a zero row and column if odd."""
    even, odd = weights
    x = functional.relu(x)
    height, width = x.shape[2:]
    shifted = torch.zeros(*x.shape[:2], height + height % 2, width + width % 2, dtype=x.dtype)
    shifted[:, :, : height - 1, : width - 1] = x[:, :, 1:, 1:]
    shifted = shifted[:, :, : 2 * ((height + 1) // 2), : 2 * ((width + 1) // 2)]
    parts = [functional.conv2d(x[:, :, ::2, ::2], even), functional.conv2d(shifted[:, :, ::2, ::2], odd)]
    return normalise(torch.cat(parts, dim=1))


def pool(x, stride, kind):
    """3x3 pooling by explicit windows; padding never counts."""
    fill = float("-inf") if kind == "max" else 0.0
    windows = functional.pad(x, (1, 1, 1, 1), value=fill).unfold(2, 3, stride).unfold(3, 3, stride)
    if kind == "max":
        return normalise(windows.amax(dim=(4, 5)))
    valid = functional.pad(torch.ones_like(x), (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride)
    return normalise(windows.sum(dim=(4, 5)) / valid.sum(dim=(4, 5)))


def textbook_edge(parameters, x, p, stride):
    """All seven operations of an edge, from its parameters in order of registration."""
    parameters = list(parameters)
    skip = reduce_skip((parameters.pop(0), parameters.pop(0)), x) if stride == 2 else x
    outputs = [skip, pool(x, stride, "max"), pool(x, stride, "avg")]
    for kernel in (3, 5):
        first = separable((parameters.pop(0), parameters.pop(0)), x, kernel, stride, 1)
        outputs.append(separable((parameters.pop(0), parameters.pop(0)), first, kernel, 1, 1))
    for kernel in (3, 5):
        outputs.append(separable((parameters.pop(0), parameters.pop(0)), x, kernel, stride, 2))
    return sum(p[position] * output for position, output in enumerate(outputs))


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_cell_is_the_sum_over_edges_and_operations(reduction, size):
    torch.manual_seed(0)
    cell = MixedCell(SPACE, 8, 8, 4, reduction, reduction_before=False).double()
    before, last = torch.randn(2, 3, 8, *size, dtype=torch.float64)
    p_EO = torch.rand(SPACE.shape, dtype=torch.float64)
    states = [
        normalise(functional.conv2d(functional.relu(x), module[1].weight))
        for x, module in ((before, cell.preprocess0), (last, cell.preprocess1))
    ]
    edge = 0
    for node in range(2, 6):
        total = 0
        for source in range(node):
            stride = 2 if reduction and source < 2 else 1
            total = total + textbook_edge(cell.edges[edge].parameters(), states[source], p_EO[edge], stride)
            edge += 1
        states.append(total)
    expected = torch.cat(states[2:], dim=1)
    torch.testing.assert_close(cell(before, last, p_EO), expected, rtol=0, atol=1e-12)


def test_normalisations_have_no_affine_parameters_but_the_stem():
    supernet = Supernet(SPACE, channels=4, cells=3, classes=10)
    affine = [name for name, module in supernet.named_modules() if getattr(module, "affine", False)]
    assert affine == ["stem.1"]


def test_cells_reduce_at_a_third_and_two_thirds():
    assert reduction_positions(8) == (2, 5)
    assert reduction_positions(20) == (6, 13)
    supernet = Supernet(SPACE, channels=4, cells=8, classes=10)
    assert [cell.reduction for cell in supernet.cells] == [position in (2, 5) for position in range(8)]


def test_every_weight_and_p_receive_gradients():
    torch.manual_seed(0)
    supernet = Supernet(SPACE, channels=4, cells=3, classes=10)
    matrices = [torch.full(SPACE.shape, 1 / 7, requires_grad=True) for _ in range(2)]
    functional.cross_entropy(supernet(torch.randn(8, 3, 16, 16), *matrices), torch.arange(8)).backward()
    for name, parameter in supernet.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    for p_EO in matrices:
        assert (p_EO.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("cells", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [8, 9, 15])
def test_any_depth_and_odd_sizes_work(cells, size):
    supernet = Supernet(SPACE, channels=2, cells=cells, classes=5, image_channels=1)
    p_EO = torch.full(SPACE.shape, 1 / 7)
    assert supernet(torch.randn(4, 1, size, size), p_EO, p_EO).shape == (4, 5)
