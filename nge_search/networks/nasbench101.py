"""NAS-Bench-101's networks: three stacks of three cells, operations on vertices (Ying et al., 2019, Section 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nge_search.architecture.graph import Graph
from nge_search.operations import ModuleList
from nge_search.spaces.nasbench101 import CELLS_PER_STACK, KERNELS, STACKS, STEM, vertex_channels

#: Of the published networks: channels of the stem and the first stack, and three cells in each of three stacks.
CHANNELS, CELLS = STEM, STACKS * CELLS_PER_STACK

_MOMENTUM, _EPSILON = 0.003, 1e-5  # TensorFlow's 0.997 is the share that is kept


class ConvBNReLU(nn.Sequential):
    """Convolution of stride 1 that keeps the resolution, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int):
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(c_out, eps=_EPSILON, momentum=_MOMENTUM),
            nn.ReLU(),
        )


class NasBench101Cell(nn.Module):
    """A cell of a pruned graph.

    The input reaches a vertex through a 1x1 convolution to its width; of a wider inner vertex the first channels
    are taken. Inner vertices that feed the output are concatenated, and what the input feeds it is added.
    """

    def __init__(self, graph: Graph, c_in: int, c_out: int):
        super().__init__()
        self.graph, self.widths = graph, vertex_channels(graph, c_in, c_out)
        self.last = len(graph.nodes) - 1
        self.projections = nn.ModuleDict(
            {str(vertex): ConvBNReLU(c_in, self.widths[vertex], 1) for vertex in sorted(graph.targets(0))}
        )
        self.operations = nn.ModuleList(
            self._operation(graph.nodes[vertex].name, self.widths[vertex]) for vertex in range(1, self.last)
        )

    @staticmethod
    def _operation(name: str, channels: int) -> nn.Module:
        if name in KERNELS:
            return ConvBNReLU(channels, channels, KERNELS[name])
        return nn.MaxPool2d(3, stride=1, padding=1)

    def extra_repr(self) -> str:
        edges = ", ".join(f"{edge.source}-{edge.target}" for edge in self.graph.edges)
        return f"edges=({edges}), widths={self.widths}"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        states = [x_BCHW]
        for vertex, operation in enumerate(self.operations, start=1):
            width = self.widths[vertex]
            heard = [states[source][:, :width] for source in sorted(self.graph.sources(vertex)) if source]
            states.append(operation(self._with_input(vertex, x_BCHW, heard)))
        feeding = [states[source] for source in sorted(self.graph.sources(self.last)) if source]
        return self._with_input(self.last, x_BCHW, [torch.cat(feeding, dim=1)] if feeding else [])

    def _with_input(self, vertex: int, x_BCHW: Tensor, heard: list[Tensor]) -> Tensor:
        """The sum of what a vertex hears from inner vertices, and of the projected input where that feeds it."""
        if str(vertex) in self.projections:
            heard = [*heard, self.projections[str(vertex)](x_BCHW)]
        return sum(heard[1:], heard[0])


class NasBench101Network(nn.Module):
    """Stem, stacks of cells with 2x2 max pooling and twice the channels from one to the next, classifier.

    Args:
        graphs: of the space's one kind of cell, pruned: operations on vertices, input first and output last.
        channels: of the stem and the first stack.
        cells: number of cells, a multiple of three.
        classes: number of classes.
        image_channels: channels of the images.
    """

    drop_slots, compiled = 0, False

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        channels: int = CHANNELS,
        cells: int = CELLS,
        classes: int = 10,
        image_channels: int = 3,
    ):
        super().__init__()
        self.stem = ConvBNReLU(image_channels, channels, 3)
        self.stacks: ModuleList[ModuleList[NasBench101Cell]] = ModuleList()
        before = channels
        for stack in range(STACKS):
            width = channels * 2**stack
            inputs = [before] + [width] * (cells // STACKS - 1)
            self.stacks.append(ModuleList(NasBench101Cell(graphs["cell"], c_in, width) for c_in in inputs))
            before = width
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.classifier = nn.Linear(before, classes)

    @property
    def cells(self) -> list[NasBench101Cell]:
        """All cells, in order."""
        return [cell for stack in self.stacks for cell in stack]

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits [B, classes]; there is no auxiliary head, and no operation that drop-path may drop."""
        x_BCHW = self.stem(x_BCHW)
        for stack, cells in enumerate(self.stacks):
            if stack:
                x_BCHW = self.pool(x_BCHW)
            for cell in cells:
                x_BCHW = cell(x_BCHW)
        return self.classifier(x_BCHW.mean(dim=(2, 3))), None
