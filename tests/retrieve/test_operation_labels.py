"""Labels of operations, read from autograd graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nge_search.architecture.graph import Label
from nge_search.counting import multiply_adds
from nge_search.retrieve.extraction import extract, images, trace


def label(module: nn.Module, *shape: int) -> Label:
    return extract(module, images(*shape)).nodes[1]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 8, 3), {"kernel": 3, "stride": 1, "groups": 1}),
        (nn.Conv2d(4, 8, (1, 7), stride=(2, 1)), {"kernel": "1x7", "stride": "2x1", "groups": 1}),
        (nn.Conv2d(4, 4, 3, groups=4), {"kernel": 3, "stride": 1, "groups": "depthwise"}),
        (nn.Conv2d(4, 8, 3, groups=4), {"kernel": 3, "stride": 1, "groups": "depthwise"}),
        (nn.Conv2d(4, 4, 3, groups=2), {"kernel": 3, "stride": 1, "groups": "some"}),
        (nn.Conv2d(4, 4, 3, dilation=2), {"kernel": 3, "stride": 1, "groups": 1, "dilation": 2}),
    ],
)
def test_convolutions(module: nn.Module, expected: dict[str, int | str]) -> None:
    assert label(module, 4, 16, 16) == Label.of("Convolution", **expected)


def test_transposed_convolutions() -> None:
    expected = Label.of("TransposedConvolution", kernel=2, stride=2, groups=1)
    assert label(nn.ConvTranspose2d(4, 8, 2, stride=2), 4, 16, 16) == expected
    grouped = nn.ConvTranspose2d(4, 8, 2, groups=4)
    assert dict(label(grouped, 4, 16, 16).attributes)["groups"] == "depthwise"


def test_one_and_three_dimensions() -> None:
    assert dict(label(nn.Conv1d(4, 8, 5), 4, 16).attributes)["kernel"] == 5
    assert dict(label(nn.Conv3d(4, 8, (1, 3, 3)), 4, 8, 8, 8).attributes)["kernel"] == "1x3x3"


def test_pools_have_kernels_and_others_have_none() -> None:
    assert label(nn.MaxPool2d(3, stride=2), 4, 16, 16) == Label.of("MaxPool2DWithIndices", kernel=3, stride=2)
    assert label(nn.AvgPool2d(2), 4, 16, 16) == Label.of("AvgPool2D", kernel=2, stride=2)
    assert label(nn.AdaptiveAvgPool2d(2), 4, 16, 16).attributes == ()
    assert label(nn.ReLU(), 4, 16, 16) == Label("Relu")


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight_55 = nn.Parameter(torch.ones(5, 5))
        self.table_B55 = nn.Parameter(torch.ones(1, 5, 5))

    def forward(self, x_B5: torch.Tensor) -> torch.Tensor:
        x = torch.addmm(x_B5, x_B5, self.weight_55) @ self.weight_55
        return torch.baddbmm(self.table_B55, x[:, :, None], x[:, None])


def test_products_count_as_the_packages_other_counter_does() -> None:
    assert trace(Products(), images(5)).multiply_adds == multiply_adds(Products(), (1, 5)) == 25 * 3


@pytest.mark.parametrize(
    ("groups", "transposed"), [(1, False), (2, False), (4, False), (1, True), (2, True), (4, True)]
)
def test_convolutions_count_as_the_packages_other_counter_does(groups: int, transposed: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    module = kind(4, 8, (3, 2), stride=2, groups=groups)
    assert trace(module, images(4, 9, 9)).multiply_adds == multiply_adds(module, (1, 4, 9, 9)) > 0
