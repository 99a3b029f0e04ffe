"""Batch normalisation folded into the matrix product before it, from the moments of the product's input.

With y = W z, the batch mean of y is W m and its variance diag(W S W^T), where m and S are mean and covariance of z.
So p * BN(y) = K z + b with K = p / sqrt(var + eps) W and b = -K m: neither y nor BN(y) need exist, and the sum over
all operations that end in one node is one product. Here are the small matrices only, in wide precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def wide(device: torch.device) -> torch.dtype:
    """The type of small matrices: float64 costs little on a CPU."""
    return torch.float64 if device.type == "cpu" else torch.float32


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, p: Tensor | None, mean: Tensor, covariance: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        w = weight.to(mean.dtype)
        product = w @ covariance
        y_mean = (w @ mean[..., None])[..., 0]
        y_variance = (product * w).sum(dim=-1).clamp_min_(0)
        deviation = torch.rsqrt(y_variance + eps)
        scale = deviation if p is None else deviation * p.to(w.dtype)[..., None]
        ctx.save_for_backward(w, p, mean, product, y_mean, deviation, scale)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(y_mean, y_variance)
        return scale[..., None] * w, -scale * y_mean, y_mean, y_variance

    @staticmethod
    def backward(ctx: Any, d_matrix: Tensor, d_bias: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        w, p, mean, product, y_mean, deviation, scale = ctx.saved_tensors
        d_scale = (d_matrix * w).sum(dim=-1) - d_bias * y_mean
        d_mean = -scale * d_bias
        d_p = None if p is None else (d_scale * deviation).sum(dim=-1).to(p.dtype)
        d_variance = d_scale * scale * deviation**2 * -0.5  # of scale = p / sqrt(variance + eps)
        d_w = None
        if ctx.needs_input_grad[0]:
            d_w = scale[..., None] * d_matrix + d_mean[..., None] * mean[..., None, :]
            d_w = (d_w + 2 * d_variance[..., None] * product).to(ctx.dtype)
        if not ctx.needs_input_grad[2]:
            return d_w, d_p, None, None, None
        d_z_mean = (d_mean[..., None, :] @ w)[..., 0, :]
        return d_w, d_p, d_z_mean, w.transpose(-1, -2) @ (d_variance[..., None] * w), None


def folded(weight: Tensor, p: Tensor | None, mean: Tensor, covariance: Tensor, eps: float) -> tuple[Tensor, ...]:
    """K and b of p * BN(W z), and mean and biased variance of y = W z, which carry no gradient.

    Args:
        weight: [..., C_out, C_in]; p: [...]; mean: [..., C_in]; covariance: [..., C_in, C_in], symmetric.

    Returns:
        K [..., C_out, C_in]; b, mean and variance [..., C_out].
    """
    return _Folded.apply(weight, p, mean, covariance, eps)


def scaled(weight: Tensor, p: Tensor | None, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """K and b of p * (W z - mean) / sqrt(variance + eps), under given statistics."""
    kind = wide(weight.device) if weight.dtype != torch.float64 else torch.float64
    scale = torch.rsqrt(variance.to(kind) + eps)
    if p is not None:
        scale = scale * p.to(kind)[..., None]
    return scale[..., None] * weight.to(kind), -scale * mean.to(kind)
