"""ENAS' macro networks: layers with skip connections (Pham et al., 2018, Section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import reduction_positions
from nge_search.architecture.graph import Graph
from nge_search.operations import FactorizedReduce, ModuleList
from nge_search.spaces.enas_macro import KIND

#: Channels of the networks that ENAS' search trained on CIFAR-10; and layers stand there once.
CHANNELS, REPEATS = 36, 1


class ConvBNReLU(nn.Sequential):
    """Convolution of stride 1 that keeps the resolution, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int):
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
        )


class SeparableConvBNReLU(nn.Sequential):
    """Depthwise convolution, pointwise convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, kernel: int):
        super().__init__(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


def build_operation(name: str, channels: int) -> nn.Module:
    """An operation of `spaces.enas_macro.OPERATIONS`, of stride 1; outputs are at least 0 where inputs are."""
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, 1, padding=1)
    kind, size = name.rsplit("_", 1)
    kernel = int(size[0])
    return (
        SeparableConvBNReLU(channels, kernel) if kind == "dw_sep_conv" else ConvBNReLU(channels, channels, kernel)
    )


class EnasMacroLayer(nn.Module):
    """What a layer reads, concatenated; a 1x1 convolution, with which ENAS' operations begin; the operation."""

    def __init__(self, name: str, sources: int, channels: int):
        super().__init__()
        self.project = ConvBNReLU(sources * channels, channels, 1)
        self.operation = build_operation(name, channels)

    def forward(self, heard: list[Tensor]) -> Tensor:
        """[B, C, H, W] from what its sources give, each of that form."""
        return self.operation(self.project(torch.cat(heard, dim=1)))


class EnasMacroNetwork(nn.Module):
    """Stem, the layers of a network, and a classifier.

    Behind the first and the second third of all layers, everything that later layers still read is halved in
    resolution and doubled in channels, each by a reduction of its own.

    Args:
        graphs: the space's graph of a network.
        channels: of the stem and the first layers.
        cells: how many times the layers stand one behind the other; the output of one time is the next one's input.
    """

    drop_slots, compiled = 0, False

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        channels: int = CHANNELS,
        cells: int = REPEATS,
        classes: int = 10,
        image_channels: int = 3,
    ):
        super().__init__()
        graph = self.graph = graphs[KIND]
        self.order = range(1, len(graph.nodes) - 1)
        self.stem = ConvBNReLU(image_channels, channels, 3)
        self.layers: ModuleList[EnasMacroLayer] = ModuleList()
        self.reductions = nn.ModuleDict()
        reducing = reduction_positions(cells * len(self.order))
        for layer in [*self.order] * cells:
            if len(self.layers) in reducing:
                halving = {str(node): FactorizedReduce(channels, 2 * channels) for node in self._read_from(layer)}
                self.reductions[str(len(self.layers))] = nn.ModuleDict(halving)
                channels *= 2
            self.layers.append(EnasMacroLayer(graph.nodes[layer].name, len(graph.sources(layer)), channels))
        self.classifier = nn.Linear(channels, classes)

    @property
    def cells(self) -> list[EnasMacroLayer]:
        """The layers, in order: what is compiled at a time."""
        return list(self.layers)

    def _read_from(self, layer: int) -> list[int]:
        """The nodes before `layer` that it or a later one reads."""
        later = {source for reader in self.order[layer - 1 :] for source in self.graph.sources(reader)}
        return sorted(source for source in later if source < layer)

    def extra_repr(self) -> str:
        return f"reductions={[int(position) for position in self.reductions]}"

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, None]:
        """Logits [B, classes]; there is no auxiliary head, and no operation that drop-path may drop."""
        last = self.stem(x_BCHW)
        states: dict[int, Tensor] = {}
        for position, module in enumerate(self.layers):
            layer = self.order[position % len(self.order)]
            if layer == 1:
                states = {0: last}
            if str(position) in self.reductions:
                states = {int(node): halve(states[int(node)]) for node, halve in self._reductions(position)}
            last = states[layer] = module([states[source] for source in self.graph.sources(layer)])
        return self.classifier(last.mean(dim=(2, 3))), None

    def _reductions(self, position: int) -> Iterable[tuple[str, nn.Module]]:
        halving = self.reductions[str(position)]
        assert isinstance(halving, nn.ModuleDict)
        return halving.items()
