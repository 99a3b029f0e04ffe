"""ENAS' macro network, layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.networks.enas_macro import EnasMacroNetwork
from nge_search.operations import FactorizedReduce
from nge_search.spaces import EnasMacroSpace

SPACE = EnasMacroSpace()
#: Every operation once; the stem is read again by layers 3 and 6, layer 2 by layer 4.
CODE = SPACE.parse("[[0],[1,0],[2,1,0],[3,0,0,1],[4,0,0,0,0],[5,1,0,0,0,0]]")


def convolved(layers: nn.Module, x: Tensor) -> Tensor:
    """Convolutions, then a new normalisation, whose statistics are 0 and 1, and ReLU."""
    assert isinstance(layers, nn.Sequential)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = functional.conv2d(x, layer.weight, padding=layer.kernel_size[0] // 2, groups=layer.groups)
    return (x / (1 + 1e-5) ** 0.5).clamp(min=0)


def test_a_network_layer_by_layer() -> None:
    torch.manual_seed(0)
    network = EnasMacroNetwork(SPACE.graphs(CODE), channels=3, classes=5).double().eval()
    x = torch.randn(2, 3, 11, 9, dtype=torch.float64)

    def halved(position: int, node: int, x: Tensor) -> Tensor:
        of_position = network.reductions[str(position)]
        assert isinstance(of_position, nn.ModuleDict)
        reduction = of_position[str(node)]
        assert isinstance(reduction, FactorizedReduce)
        return reduction(x)

    def read(position: int, *heard: Tensor) -> Tensor:
        return convolved(network.layers[position].project, torch.cat(heard, dim=1))

    def operated(position: int, x: Tensor) -> Tensor:
        return convolved(network.layers[position].operation, x)

    stem = convolved(network.stem, x)
    one = operated(0, read(0, stem))
    two = operated(1, read(1, one))
    assert sorted(network.reductions["2"]) == ["0", "2"]
    stem, two = halved(2, 0, stem), halved(2, 2, two)
    three = operated(2, read(2, stem, two))
    four = operated(3, read(3, two, three))
    assert sorted(network.reductions["4"]) == ["0", "4"]
    stem, four = halved(4, 0, stem), halved(4, 4, four)
    five = functional.avg_pool2d(read(4, four), 3, 1, 1, count_include_pad=False)
    six = functional.max_pool2d(read(5, stem, five), 3, 1, 1)
    assert six.shape == (2, 12, 3, 3)
    logits, auxiliary = network(x)
    assert auxiliary is None
    torch.testing.assert_close(logits, network.classifier(six.mean(dim=(2, 3))))


@pytest.mark.parametrize(("cells", "at"), [(1, [2, 4]), (2, [4, 8]), (3, [6, 12])])
def test_a_third_of_all_layers_stands_before_each_reduction(cells: int, at: list[int]) -> None:
    network = EnasMacroNetwork(SPACE.graphs(CODE), channels=2, cells=cells)
    assert [int(position) for position in network.reductions] == at
    assert len(network.cells) == 6 * cells
    assert network.classifier.in_features == 8
    assert network(torch.randn(1, 3, 8, 8))[0].shape == (1, 10)
