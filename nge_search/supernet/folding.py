"""Batch normalisation folded into the matrix product before it, from the moments of the product's input.

With y = W z, the batch mean of y is W m and its variance diag(W S W^T), where m and S are mean and covariance of z.
So p * BN(y) = K z + b with K = p / sqrt(var + eps) W and b = -K m: neither y nor BN(y) need exist, and the sum over
all operations that end in one node is one product. Here are the small matrices only, in wide precision, with their
gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def wide(device: torch.device) -> torch.dtype:
    """The type of small matrices: float64 costs little on a CPU."""
    return torch.float64 if device.type == "cpu" else torch.float32


@dataclass
class Folded:
    """p * BN(W z) = matrix z + bias, and what its gradient needs; N products of C_in channels.

    Attributes:
        weight, matrix: W and K [N, C_out, C_in]; p: [N] or None.
        mean: of z [N, C_in]; product: W S [N, C_out, C_in]; both None under given statistics.
        y_mean, y_variance, deviation: of y, the last 1 / sqrt(variance + eps) [N, C_out].
    """

    weight: Tensor
    p: Tensor | None
    mean: Tensor | None
    product: Tensor | None
    y_mean: Tensor
    y_variance: Tensor
    deviation: Tensor
    matrix: Tensor
    bias: Tensor


def _scaled(
    weight: Tensor,
    p: Tensor | None,
    mean: Tensor | None,
    product: Tensor | None,
    y: tuple[Tensor, Tensor],
    eps: float,
) -> Folded:
    deviation = torch.rsqrt(y[1] + eps)
    scale = deviation if p is None else deviation * p[:, None]
    return Folded(weight, p, mean, product, *y, deviation, scale[..., None] * weight, -scale * y[0])


def fold(weight: Tensor, p: Tensor | None, mean: Tensor, covariance: Tensor, eps: float) -> Folded:
    """From mean [N, C_in] and covariance [N, C_in, C_in] of z, all in one wide type."""
    product = weight @ covariance
    y = (weight @ mean[..., None])[..., 0], (product * weight).sum(dim=-1).clamp_min_(0)
    return _scaled(weight, p, mean, product, y, eps)


def fold_given(weight: Tensor, p: Tensor | None, y_mean: Tensor, y_variance: Tensor, eps: float) -> Folded:
    """Under given mean and variance [N, C_out] of y."""
    return _scaled(weight, p, None, None, (y_mean, y_variance), eps)


@dataclass
class FoldGradients:
    """Of W, of p, and unless statistics were given of the mean and the (symmetric) covariance of z."""

    weight: Tensor
    p: Tensor
    mean: Tensor | None
    covariance: Tensor | None


def fold_backward(folded: Folded, d_matrix: Tensor, d_bias: Tensor) -> FoldGradients:
    """From the gradients of matrix and bias."""
    w, deviation = folded.weight, folded.deviation
    scale = deviation if folded.p is None else deviation * folded.p[:, None]
    d_scale = (d_matrix * w).sum(dim=-1) - d_bias * folded.y_mean
    d_p, d_w = (d_scale * deviation).sum(dim=-1), scale[..., None] * d_matrix
    if folded.mean is None or folded.product is None:
        return FoldGradients(d_w, d_p, None, None)
    d_y_mean = -scale * d_bias
    d_variance = -0.5 * d_scale * scale * deviation**2  # of scale = p / sqrt(variance + eps)
    d_w.addcmul_(folded.product, 2 * d_variance[..., None]).baddbmm_(d_y_mean[..., None], folded.mean[:, None])
    d_mean = torch.bmm(d_y_mean[:, None], w)[:, 0]
    return FoldGradients(d_w, d_p, d_mean, torch.bmm(w.transpose(1, 2), d_variance[..., None] * w))
