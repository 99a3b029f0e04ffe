"""NAS-Bench-201's supernet in its textbook form: cells in three stages, a residual block before the last two.

Dong and Yang (2020), Section 3.1, and their search networks: normalisations of cells have no affine parameters, the
residual blocks and the stem have them. Slow and plain on purpose: the oracle of `nasbench201_fused`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace
from nge_search.operations import ModuleList, ReLUConvBN
from nge_search.spaces.nasbench201 import STAGES
from nge_search.supernet.reference import MixedOperation, mixed_operation


class Zero(nn.Module):
    """The operation `none`."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros_like(x_BCHW)


def build_operation(name: str, channels: int, affine: bool) -> nn.Module:
    """An operation of the space on maps of `channels` channels; `affine`: its normalisation has scale and shift."""
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[name]
    return ReLUConvBN(channels, channels, kernel, padding=kernel // 2, affine=affine)


class DenseCell(nn.Module):
    """A cell in which every edge carries every operation; its output is the last node.

    `partial`: into so many parts are channels divided, of which one passes the operations.
    """

    def __init__(self, space: CellSpace, channels: int, partial: int = 1):
        super().__init__()
        self.space, self.channels, self.partial = space, channels, partial
        own = channels // partial
        self.edges = ModuleList(
            mixed_operation([build_operation(name, own, affine=False) for name in space.operations], partial)
            for _ in space.edges
        )

    def extra_repr(self) -> str:
        return f"nodes={self.space.nodes}, channels={self.channels}"

    def forward(self, x_BCHW: Tensor, p_EO: Tensor) -> Tensor:
        states = [x_BCHW]
        for node in self.space.inner:
            incoming = enumerate(self.space.incoming(node))
            states.append(sum(self.edges[edge](states[source], p_EO[edge]) for source, edge in incoming))
        return states[-1]


class ResidualBlock(nn.Module):
    """Half the resolution, twice the channels: two 3x3 convolutions beside an average and a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.first = ReLUConvBN(c_in, c_out, 3, stride=2, padding=1)
        self.second = ReLUConvBN(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),  # of odd sides the rest counts too
            nn.Conv2d(c_in, c_out, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.shortcut(x_BCHW) + self.second(self.first(x_BCHW))


Cell = TypeVar("Cell", bound=nn.Module)


class ThreeStages(nn.Module, Generic[Cell]):
    """Stem, three stages of equal numbers of cells, normalisation, global pooling, classifier.

    Args:
        cell: makes a cell of so many channels.
        channels: C, doubled by each of the two residual blocks.
        cells: number of cells, a multiple of three.
        classes: number of classes.
        image_channels: channels of the images.
    """

    def __init__(
        self, cell: Callable[[int], Cell], channels: int, cells: int, classes: int, image_channels: int = 3
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        widths = [channels * 2**stage for stage in range(STAGES)]
        self.stages = ModuleList(ModuleList(cell(width) for _ in range(cells // STAGES)) for width in widths)
        self.reductions = nn.ModuleList(ResidualBlock(width, 2 * width) for width in widths[:-1])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.classifier = nn.Linear(widths[-1], classes)

    def run(self, x_BCHW: Tensor, *given: Tensor) -> Tensor:
        """Logits [B, classes] of images; every cell takes `given` beside what it reads."""
        x_BCHW = self.stem(x_BCHW)
        for stage, cells in enumerate(self.stages):
            if stage:
                x_BCHW = self.reductions[stage - 1](x_BCHW)
            for cell in cells:
                x_BCHW = cell(x_BCHW, *given)
        return self.classifier(torch.relu(self.norm(x_BCHW)).mean(dim=(2, 3)))


class DenseSupernet(ThreeStages[DenseCell]):
    """The network whose cells carry every operation on every edge.

    Args:
        space: the cell's graph and operations.
        channels, cells, classes, image_channels: as of `ThreeStages`.
        partial: as of `DenseCell`.
    """

    def __init__(
        self,
        space: CellSpace,
        channels: int,
        cells: int,
        classes: int,
        image_channels: int = 3,
        partial: int = 1,
    ):
        super().__init__(lambda width: DenseCell(space, width, partial), channels, cells, classes, image_channels)
        self.space, self.partial = space, partial

    def extra_repr(self) -> str:
        return str(self.space)

    def forward(self, x_BCHW: Tensor, p_EO: Tensor) -> Tensor:
        """Logits [B, classes] of images under the operation probabilities of the cells."""
        return self.run(x_BCHW, p_EO)

    def mixed_operations(self, size: int) -> Iterator[tuple[int, int, MixedOperation, tuple[int, int, int]]]:
        """As `reference.Supernet.mixed_operations`."""
        for stage, cells in enumerate(self.stages):
            size = -(-size // 2) if stage else size
            for cell in cells:
                for edge, operations in enumerate(cell.edges):
                    yield 0, edge, operations, (cell.channels // self.partial, size, size)
