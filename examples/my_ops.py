"""Three operations of one's own, for `plugins=[my_ops]` in this folder (README, "Own operations").

python ../train_search.py --config ../configs/search/digits.yaml plugins=[my_ops] \\
    supernet.operations=[skip_connect,max_pool_3x3,sep_conv_3x3,ghost_conv,drift,blur]
"""

import torch
from torch import Tensor, nn

from nge_search import register_operation


class GhostConv(nn.Module):
    """Half of the channels by a 1x1 convolution, the others from those by a depthwise one (Han et al., 2020)."""

    def __init__(self, channels: int, stride: int, affine: bool):
        super().__init__()
        half = (channels + 1) // 2
        self.first = nn.Conv2d(channels, half, 1, stride, bias=False)
        self.ghosts = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(torch.relu(x))
        both = torch.cat([first, self.ghosts(first)], dim=1)
        return self.norm(both[:, : x.shape[1]])


class Drift(nn.Module):
    """A 1x1 convolution divided by the level of its input, which is averaged over training: state in buffers."""

    level: Tensor
    calls: Tensor

    def __init__(self, channels: int, stride: int, affine: bool):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 1, stride)
        self.register_buffer("level", torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.detach().abs().mean().to(self.level.dtype)
            self.calls += 1
        return self.convolution(x) / (0.1 + self.level)


def blur(channels: int, stride: int, affine: bool) -> nn.Module:
    """A 5x5 average; affine is for normalisations, of which it has none."""
    return nn.AvgPool2d(5, stride, padding=2, count_include_pad=False)


register_operation("ghost_conv", GhostConv)
register_operation("drift", Drift)
register_operation("blur", blur, parameter_free=True)
