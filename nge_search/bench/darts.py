"""DARTS' evaluation networks and CIFAR input, plainly: the baseline of `nge bench retrain`, the oracle of tests.

A transcription of what DARTS' cnn/model.py and cnn/utils.py compute, operation by operation, sharing no layer with
`nge_search.networks`. Modules are made in the same order, so that parameters and buffers correspond one to one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.architecture.genotype import Cell, Genotype


def _convolve_twice(channels: int, size: int, stride: int) -> nn.Module:
    steps: list[nn.Module] = []
    for step in (stride, 1):
        steps += [
            nn.ReLU(inplace=False),
            nn.Conv2d(channels, channels, size, step, size // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
    return nn.Sequential(*steps)


def _convolve_dilated(channels: int, size: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(inplace=False),
        nn.Conv2d(channels, channels, size, stride, size - 1, dilation=2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


class _Halve(nn.Module):
    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], dim=1))


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else _Halve(channels, channels)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "conv_7x1_1x7":
        return nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels),
        )
    size = int(name[-1])
    return (_convolve_dilated if name.startswith("dil") else _convolve_twice)(channels, size, stride)


def _drop_path(x: Tensor, rate: float) -> Tensor:
    """Set whole images to zero with probability `rate`, and scale the others up, in place."""
    if rate > 0:
        kept = torch.empty(len(x), 1, 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - rate)
        x.div_(1 - rate)
        x.mul_(kept)
    return x


class _Cell(nn.Module):
    def __init__(self, cell: Cell, c_before: int, c_last: int, channels: int, reduction: bool, halve: bool):
        super().__init__()
        self.cell = cell

        def pointwise(c_in: int) -> nn.Module:
            return nn.Sequential(
                nn.ReLU(inplace=False), nn.Conv2d(c_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

        self.before = _Halve(c_before, channels) if halve else pointwise(c_before)
        self.last = pointwise(c_last)
        self.operations = nn.ModuleList(
            _operation(name, channels, 2 if reduction and source < 2 else 1) for name, source in cell.genes
        )

    def forward(self, before: Tensor, last: Tensor, rate: float) -> Tensor:
        states = [self.before(before), self.last(last)]
        for node in range(len(self.operations) // 2):
            total = 0
            for i in (2 * node, 2 * node + 1):
                operation = self.operations[i]
                y = operation(states[self.cell.genes[i][1]])
                if self.training and not isinstance(operation, nn.Identity):
                    y = _drop_path(y, rate)
                total = total + y
            states.append(total)
        return torch.cat([states[i] for i in self.cell.concat], dim=1)


class DartsNetwork(nn.Module):
    """The CIFAR network of DARTS, or with `imagenet` its ImageNet network.

    Attributes:
        drop_path: probability of dropping, in training.
    """

    def __init__(
        self, genotype: Genotype, channels: int, cells: int, classes: int, auxiliary: bool, imagenet: bool = False
    ):
        super().__init__()
        self.imagenet, self.head_at, self.drop_path = imagenet, 2 * cells // 3, 0.0
        if imagenet:
            self.stem0 = nn.Sequential(
                nn.Conv2d(3, channels // 2, 3, 2, 1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
                nn.Conv2d(channels // 2, channels, 3, 2, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.stem1 = nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels)
            )
        else:
            self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, 1, 1, bias=False), nn.BatchNorm2d(3 * channels))
        before = last = channels if imagenet else 3 * channels
        halve, width = imagenet, channels
        self.cells = nn.ModuleList()
        for position in range(cells):
            reduction = position in (cells // 3, 2 * cells // 3)
            width = 2 * width if reduction else width
            cell = genotype.reduce if reduction else genotype.normal
            self.cells.append(_Cell(cell, before, last, width, reduction, halve))
            before, last, halve = last, width * len(cell.concat), reduction
            if position == self.head_at:
                c_head = last
        if auxiliary:
            self.head = nn.Sequential(
                nn.ReLU(),
                nn.AvgPool2d(5, stride=2 if imagenet else 3, padding=0, count_include_pad=False),
                nn.Conv2d(c_head, 128, 1, bias=False),
                nn.BatchNorm2d(128),
                nn.ReLU(),
                nn.Conv2d(128, 768, 2, bias=False),
                *([] if imagenet else [nn.BatchNorm2d(768)]),
                nn.ReLU(),
            )
            self.head_classifier = nn.Linear(768, classes)
        self.auxiliary = auxiliary
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        head = None
        if self.imagenet:
            before = self.stem0(x)
            last = self.stem1(before)
        else:
            before = last = self.stem(x)
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last, self.drop_path)
            if i == self.head_at and self.auxiliary and self.training:
                head = self.head_classifier(self.head(last).flatten(1))
        return self.classifier(self.pool(last).flatten(1)), head
