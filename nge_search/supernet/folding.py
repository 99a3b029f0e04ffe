"""Batch normalisation folded into the matrix product before it, from the moments of the product's input.

With y = W z, the batch mean of y is W m and its variance diag(W S W^T), where m and S are mean and covariance of z.
So p * BN(y) = K z + b with K = p / sqrt(var + eps) W and b = -K m: neither y nor BN(y) need exist, and the sum over
all operations that end in one node is one product. Here are the small matrices only, in wide precision, with their
gradients. N products of C_in channels with C_out results are stacked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def wide(x: Tensor) -> torch.dtype:
    """The type of small matrices that belong to maps or numbers like x: float64 costs little on a CPU."""
    return torch.float64 if x.device.type == "cpu" or x.dtype == torch.float64 else torch.float32


@dataclass
class Moments:
    """Of some maps: mean [N, C], covariance [N, C, C], and the count of positions [1]."""

    mean: Tensor
    covariance: Tensor
    count: Tensor


def moments(sums: Tensor, count: Tensor, kinds: int, first: int, last: int) -> Moments:
    """Of kinds `first` to `last - 1` of maps j = e * kinds + k.

    Args:
        sums: [shares, j, 1 + C, C], wide: sums over positions of z, and of z z^T (upper triangle).
    """
    some = sums.sum(dim=0).unflatten(0, (-1, kinds))[:, first:last].flatten(0, 1) / count
    mean, upper = some[:, 0].contiguous(), some[:, 1:].triu()
    covariance = upper + upper.triu(1).transpose(1, 2) - mean[:, :, None] * mean[:, None]
    return Moments(mean, covariance, count)


@dataclass
class Folded:
    """p * BN(W z) = matrix z + bias, and what its gradient needs.

    Attributes:
        weight: W [N, C_out, C_in]; p: [N] or None.
        mean: of z [N, C_in]; product: W S [N, C_out, C_in]; both None under given statistics.
        y_mean, y_variance, deviation: of y, the last 1 / sqrt(variance + eps) [N, C_out].
        matrix, right: K [N, C_out, C_in] and its transpose, both contiguous, in the type of maps; bias: [N, C_out].
    """

    weight: Tensor
    p: Tensor | None
    mean: Tensor | None
    product: Tensor | None
    y_mean: Tensor
    y_variance: Tensor
    deviation: Tensor
    matrix: Tensor
    right: Tensor
    bias: Tensor


def _scaled(
    weight: Tensor,
    p: Tensor | None,
    mean: Tensor | None,
    product: Tensor | None,
    y: tuple[Tensor, Tensor],
    eps: float,
    dtype: torch.dtype,
) -> Folded:
    deviation = torch.rsqrt(y[1] + eps)
    scale = deviation if p is None else deviation * p[:, None]
    matrix = (scale[..., None] * weight).to(dtype)
    right = matrix.transpose(1, 2).contiguous()
    return Folded(weight, p, mean, product, *y, deviation, matrix, right, -scale * y[0])


def fold(weight: Tensor, p: Tensor | None, of_z: Moments, eps: float, dtype: torch.dtype) -> Folded:
    """From the moments of z; everything in one wide type, but matrices for maps in `dtype`."""
    product = weight @ of_z.covariance
    y = (weight @ of_z.mean[..., None])[..., 0], (product * weight).sum(dim=-1).clamp_min_(0)
    return _scaled(weight, p, of_z.mean, product, y, eps, dtype)


def fold_given(
    weight: Tensor, p: Tensor | None, y_mean: Tensor, y_variance: Tensor, eps: float, dtype: torch.dtype
) -> Folded:
    """Under given mean and variance [N, C_out] of y."""
    return _scaled(weight, p, None, None, (y_mean, y_variance), eps, dtype)


@dataclass
class FoldGradients:
    """Of W, of p, and unless statistics were given of the mean and the (symmetric) covariance of z."""

    weight: Tensor
    p: Tensor
    mean: Tensor | None
    covariance: Tensor | None


def fold_backward(folded: Folded, d_right: Tensor, d_bias: Tensor) -> FoldGradients:
    """From the gradients of `right` [N, C_in, C_out], and of the bias [M, C_out] of each N / M products."""
    w, deviation, d_matrix = folded.weight, folded.deviation, d_right.transpose(1, 2)
    d_bias = d_bias[:, None].expand(-1, len(w) // len(d_bias), -1).flatten(0, 1)
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


def owe_moments(
    of_z: Moments, d_mean: Tensor, d_covariance: Tensor, slope: Tensor, constant: Tensor, kinds: int, first: int
) -> None:
    """Write what maps owe to their moments, for kinds from `first` on of maps j = e * kinds + k.

    The gradient of position z_j is z_j @ slope[j] + constant[j]; slope: [j, C, C], constant: [j, C].
    """
    wide_slope = d_covariance * (2 / of_z.count)
    wide_constant = d_mean / of_z.count - (of_z.mean[:, None] @ wide_slope)[:, 0]
    for target, found in ((slope, wide_slope), (constant, wide_constant)):
        parts = target.unflatten(0, (-1, kinds))
        own = found.unflatten(0, (len(parts), -1))
        parts[:, first : first + own.shape[1]] = own.to(target.dtype)
