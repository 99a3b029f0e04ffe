"""What a backend offers to the fused supernets; `backends` says which one computes where.

Maps are images [B, H, W, C] of one node, or of one edge and kind of convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from nge_search.supernet.folding import Folded, FoldGradients, Moments

#: Matrices [I, C_in, C_out] and biases [I, C_out].
Mix = tuple[Tensor, Tensor]


class Convolution(Protocol):
    """Depthwise convolutions of the ReLU of some inputs, of one size and stride; output j = e * kinds + k."""

    def forward(
        self, images: Sequence[Tensor], mix: Mix | None, observe: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The maps, per kind [E, B, H', W', C], and if observed sums [shares, E * kinds, 1 + C, C] of z and z z^T.

        Of the latter only the upper triangle is valid; all is overwritten by the next call.

        Args:
            images: [B, H, W, C] each.
            mix: matrices and biases; input i is image i times its matrix, plus its bias. Without it, image i.
        """

    def backward(
        self,
        images: Sequence[Tensor],
        mix: Mix | None,
        z: Sequence[Tensor],
        owed: Sequence[tuple[Tensor, Tensor]],
        slope: Tensor | None,
        constant: Tensor,
        dx: Sequence[Tensor] | None,
        accumulate: bool,
        need_weights: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """Gradients [E, C, 1, K, K] of the weights of the kinds that need them, and with dx that of mix.

        The latter is [I, 1 + C, C], biases first; without mix None.

        Args:
            images, mix, z: what `forward` was given, and the maps that it gave.
            owed: per map j (dy [B, H', W', C], matrix [C, C]): its gradient is dy @ matrix + z_j @ slope[j] +
                constant[j], with slope [j, C, C] (None: zeros) and constant [j, C].
            dx: receives the gradients of the inputs (what stands for images), like images; `accumulate`: adds them.
        """


class Kernels(Protocol):
    """The large operations of a cell, and memory for what they write."""

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialised contiguous tensor of the type and device of `like`, for maps."""

    def convolution(
        self, weights: Sequence[Tensor], dilations: Sequence[int], first: Sequence[int], stride: int
    ) -> Convolution:
        """Depthwise convolutions of several kinds.

        Args:
            weights: per kind [E, C, 1, K, K]; output j = e * kinds + k.
            dilations: per kind.
            first: input i serves outputs first[i] to first[i + 1] - 1.
        """

    def combine(
        self,
        zs: Sequence[Tensor],
        rights: Sequence[Tensor],
        xs: Sequence[Tensor],
        scales: Sequence[Tensor],
        bias: Tensor,
    ) -> Tensor:
        """bias [C] + sum of zs [B, H, W, C] times matrices [C_in, C_out] + sum of xs times scales [C].

        The matrices come in stacks, one after another, and so do scales.
        """

    def combine_backward(
        self, zs: Sequence[Tensor], xs: Sequence[Tensor], dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of bias [C], scales [D, C] and matrices [T, C_in, C_out]."""

    def pointwise(
        self, nodes: Sequence[Tensor], weights: Sequence[Tensor], observe: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Sum over nodes [B, H, W, C_in] of their ReLU times a weight.

        Args:
            weights: one [nodes, C_out, C_in], for all pixels, or two, for the pixels with even coordinates and
                those with odd ones (zeros beyond the border), whose results are concatenated.

        Returns:
            [B, H', W', C_out], and if observed [2, C_out]: its sum and that of its squares.
        """

    def sums_with(self, dh: Tensor, h: Tensor) -> Tensor:
        """Sums [2, C] over positions of dh and of dh * h, [B, H, W, C]."""

    def pointwise_backward(
        self,
        nodes: Sequence[Tensor],
        weights: Sequence[Tensor],
        dh: Tensor,
        h: Tensor,
        coefficients: Tensor,
        need_nodes: bool,
        need_weights: bool,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """Gradients of `pointwise`, where that of its result is a * dh + b * h + c.

        Args:
            coefficients: rows a, b, c [3, C_out].

        Returns:
            Those of the nodes, and of the weights, where they are needed.
        """

    def pool(
        self, images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None, observe: bool
    ) -> Tensor | None:
        """Write 3x3 maxima and averages (of the pixels inside) of images, each [I, B, H', W', C], where wanted.

        Returns:
            If observed sums [I, 4, C]: of maxima, of their squares, of averages, of theirs.
        """

    def pool_backward(
        self,
        images: Sequence[Tensor],
        stride: int,
        maxima: Tensor | None,
        averages: Tensor | None,
        dys: Sequence[Sequence[Tensor]],
        scales: Sequence[Tensor | None],
        slopes: Tensor,
        dx: Sequence[Tensor],
    ) -> None:
        """Write gradients dx of images, whose pools and which themselves entered sums with gradients dys [I][T].

        Args:
            scales: of maxima, averages and the images themselves in those sums, [I, T, C], or None where unused.
            slopes: [I, 4, C]: slope and constant of what maxima owe to their moments, then of averages.
        """

    def moments(self, sums: Tensor, count: Tensor, kinds: int, first: int, last: int) -> Moments:
        """`folding.moments`."""

    def fold(self, weight: Tensor, p: Tensor | None, of_z: Moments, eps: float, dtype: torch.dtype) -> Folded:
        """`folding.fold`."""

    def fold_backward(self, folded: Folded, d_right: Tensor, d_bias: Tensor) -> FoldGradients:
        """`folding.fold_backward`."""

    def owe_moments(
        self,
        of_z: Moments,
        d_mean: Tensor,
        d_covariance: Tensor,
        slope: Tensor,
        constant: Tensor,
        kinds: int,
        first: int,
    ) -> None:
        """`folding.owe_moments`."""
