"""Batch normalisation folded into the matrix product before it, from the moments of the product's input.

With y = W z, the batch mean of y is W m and its variance diag(W S W^T), where m and S are mean and covariance of z.
So p * BN(y) = K z + b with K = p / sqrt(var + eps) W and b = -K m: neither y nor BN(y) need exist, and the sum over
all operations that end in one node is one product.

Autograd sees small matrices only: `moments` gives m and S, `folded` is plain arithmetic on them, `product` applies
K and b. The gradient of z has a part from each; products leave theirs with the `Maps` of z, and the backward pass
of `moments`, which runs after all of them, writes the sum once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nge_search.engine.distributed import sum_over_ranks


class Maps:
    """Activations that products read, and what their backward passes still owe them.

    Args:
        rows: matrices [R, M, K], each the left factor of products.
        blocks: K / C, the groups of channels within a row that have a covariance of their own.
        synchronised: moments span all ranks.
    """

    def __init__(self, rows_RMK: Tensor, blocks: int, synchronised: bool):
        self.rows_RMK: Tensor | None = rows_RMK
        self.blocks = blocks
        self.synchronised = synchronised
        self.owed: list[tuple[int | None, Tensor, Tensor]] = []

    def sums(self) -> tuple[Tensor, Tensor]:
        """Over positions, of each block: of its channels [G, C] and of their products [G, C, C]; G = R * blocks."""
        assert self.rows_RMK is not None
        positions = self.rows_RMK.shape[1]
        parts = [self.rows_RMK] if self.blocks == 1 else self.rows_RMK.unflatten(2, (self.blocks, -1)).unbind(0)
        firsts, seconds = [], []
        for part in parts:
            z_GMC = part if self.blocks == 1 else part.transpose(0, 1)
            z_GMC = z_GMC.float() if z_GMC.element_size() < 4 else z_GMC
            ones = z_GMC.new_ones(1, 1, positions).expand(len(z_GMC), -1, -1)
            firsts.append(torch.bmm(ones, z_GMC)[:, 0])
            seconds.append(torch.bmm(z_GMC.transpose(1, 2), z_GMC))
        return torch.cat(firsts), torch.cat(seconds)

    def settle(self, gradient_RMK: Tensor) -> None:
        """Add the products' parts to the gradient of the rows, and let go of everything."""
        for row, dy, matrix in self.owed:
            if row is None:
                gradient_RMK.baddbmm_(dy, matrix.transpose(1, 2))
            else:
                gradient_RMK[row].addmm_(dy, matrix.t())
        self.owed.clear()
        self.rows_RMK = None


@dataclass
class Moments:
    """Of the blocks of some maps, in wide precision; without statistics all but `nothing` are empty.

    Attributes:
        mean: [G, C]; covariance: [G, C, C]; count: [1], the positions; G = R * blocks, rows first.
        nothing: zero; through it what products owe reaches the rows when no statistics are used.
    """

    mean: Tensor
    covariance: Tensor
    count: Tensor
    nothing: Tensor

    def blocks(self, which: slice, more_dimensions: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and covariance of some groups, with dimensions of size 1 after the first."""
        mean, covariance = self.mean[which], self.covariance[which]
        for _ in range(more_dimensions):
            mean, covariance = mean[:, None], covariance[:, None]
        return mean, covariance


def _wide(device: torch.device) -> torch.dtype:
    """The type of small matrices: float64 costs nothing on a CPU."""
    return torch.float64 if device.type == "cpu" else torch.float32


class _Moments(torch.autograd.Function):
    """Mean and covariance of each block, over all positions (and ranks)."""

    @staticmethod
    def forward(ctx: Any, rows_RMK: Tensor, maps: Maps) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(rows_RMK.device)
        first_GC, second_GCC = (total.to(wide) for total in maps.sums())
        count = first_GC.new_full((1,), rows_RMK.shape[1])
        if maps.synchronised:
            sum_over_ranks([first_GC, second_GCC, count])
        mean_GC = first_GC / count
        covariance_GCC = second_GCC / count - mean_GC[:, :, None] * mean_GC[:, None]
        ctx.maps = maps
        ctx.save_for_backward(mean_GC, count)
        ctx.mark_non_differentiable(count)
        return mean_GC, covariance_GCC, count

    @staticmethod
    def backward(ctx: Any, d_mean_GC: Tensor, d_covariance_GCC: Tensor, _: Tensor) -> tuple[Tensor, None]:
        mean_GC, count = ctx.saved_tensors
        maps, rows = ctx.maps, ctx.maps.rows_RMK
        if maps.synchronised:
            d_mean_GC, d_covariance_GCC = d_mean_GC.clone(), d_covariance_GCC.clone()  # autograd's own stay
            sum_over_ranks([d_mean_GC, d_covariance_GCC])
        slope_GCC = (d_covariance_GCC + d_covariance_GCC.transpose(1, 2)) / count
        constant_GC = d_mean_GC / count - (mean_GC[:, None] @ slope_GCC)[:, 0]
        count_rows, _, width = rows.shape
        blocks, channels = maps.blocks, width // maps.blocks
        slope = slope_GCC.to(rows.dtype).view(count_rows, blocks, channels, channels)
        if blocks > 1:  # one product with a block-diagonal matrix
            diagonal = slope.new_zeros(count_rows, blocks, channels, blocks, channels)
            index = torch.arange(blocks, device=slope.device)
            diagonal[:, index, :, index] = slope.transpose(0, 1)
            slope = diagonal
        constant = constant_GC.to(rows.dtype).view(count_rows, 1, width)
        gradient = torch.baddbmm(constant, rows, slope.reshape(count_rows, width, width))
        maps.settle(gradient)
        return gradient, None


class _Passage(torch.autograd.Function):
    """Zero, through which what products owe to `maps` still reaches their rows when no moments are used."""

    @staticmethod
    def forward(ctx: Any, rows_RMK: Tensor, maps: Maps) -> Tensor:
        ctx.maps = maps
        return torch.zeros((), dtype=_wide(rows_RMK.device), device=rows_RMK.device)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        gradient = torch.zeros_like(ctx.maps.rows_RMK)
        ctx.maps.settle(gradient)
        return gradient, None


def passage(rows_RMK: Tensor, maps: Maps) -> Moments:
    """In place of `moments`, where running statistics are used: `nothing` must be added to each product's bias."""
    nothing = _Passage.apply(rows_RMK, maps)
    return Moments(nothing.new_empty(0), nothing.new_empty(0), nothing.new_empty(0), nothing)


def moments(rows_RMK: Tensor, maps: Maps) -> Moments:
    """Mean and covariance of the blocks of `maps`.

    Every `product` that reads `maps` must use them, in its matrix or bias: only then does the gradient of
    `rows_RMK` arrive.
    """
    mean, covariance, count = _Moments.apply(rows_RMK, maps)
    return Moments(mean, covariance, count, mean.new_zeros(()))


def folded(weight: Tensor, p: Tensor | None, mean: Tensor, covariance: Tensor, eps: float) -> tuple[Tensor, ...]:
    """K and b of p * BN(W z), and mean and biased variance of y = W z.

    Args:
        weight: [..., C_out, C_in]; p: [...]; mean: [..., C_in]; covariance: [..., C_in, C_in].

    Returns:
        K [..., C_in, C_out] (to be multiplied from the right), b, mean and variance [..., C_out].
    """
    weight = weight.to(mean.dtype)
    y_mean = (weight @ mean[..., None])[..., 0]
    y_variance = ((weight @ covariance) * weight).sum(dim=-1).clamp_min(0)
    return (*scaled(weight, p, y_mean, y_variance, eps), y_mean, y_variance)


def scaled(weight: Tensor, p: Tensor | None, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """K and b of p * (W z - mean) / sqrt(variance + eps), under given statistics."""
    scale = torch.rsqrt(variance + eps)
    if p is not None:
        scale = scale * p.to(scale.dtype)[..., None]
    return (scale[..., None] * weight.to(scale.dtype)).transpose(-1, -2), -scale * mean


class _Product(torch.autograd.Function):
    """y [M, C] = b + sum over terms of rows[r] K."""

    @staticmethod
    def forward(ctx: Any, terms: list[tuple[Maps, int]], bias_C: Tensor, *matrices: Tensor) -> Tensor:
        first = terms[0][0].rows_RMK
        assert first is not None
        matrices = tuple(matrix.to(first.dtype) for matrix in matrices)
        y_MC = None
        for (maps, row), matrix in zip(terms, matrices):
            z_MK = maps.rows_RMK[row]  # type: ignore[index]
            y_MC = torch.addmm(bias_C.to(first.dtype), z_MK, matrix) if y_MC is None else y_MC.addmm_(z_MK, matrix)
        ctx.terms = terms
        ctx.wide = bias_C.dtype
        ctx.save_for_backward(*matrices)
        return y_MC

    @staticmethod
    def backward(ctx: Any, dy_MC: Tensor) -> tuple[Tensor | None, ...]:
        gradients = []
        for (maps, row), matrix in zip(ctx.terms, ctx.saved_tensors):
            gradients.append(torch.mm(maps.rows_RMK[row].t(), dy_MC).to(ctx.wide))
            maps.owed.append((row, dy_MC, matrix))
        ones = dy_MC.new_ones(1, len(dy_MC))
        return None, torch.mm(ones, dy_MC)[0].to(ctx.wide), *gradients


def product(terms: list[tuple[Maps, int]], matrices: list[Tensor], bias_C: Tensor) -> Tensor:
    """y [M, C] = bias + sum of rows[r] [M, K] times matrix [K, C] over `terms` (maps and r)."""
    return _Product.apply(terms, bias_C, *matrices)


class _BatchProduct(torch.autograd.Function):
    """y [R, M, C] = rows K + b, row by row."""

    @staticmethod
    def forward(ctx: Any, maps: Maps, matrices_RKC: Tensor, bias_RC: Tensor) -> Tensor:
        rows = maps.rows_RMK
        assert rows is not None
        matrices = matrices_RKC.to(rows.dtype)
        ctx.maps, ctx.wide = maps, bias_RC.dtype
        ctx.save_for_backward(matrices)
        return torch.baddbmm(bias_RC.to(rows.dtype)[:, None], rows, matrices)

    @staticmethod
    def backward(ctx: Any, dy_RMC: Tensor) -> tuple[None, Tensor, Tensor]:
        (matrices,) = ctx.saved_tensors
        rows = ctx.maps.rows_RMK
        d_matrices = torch.bmm(rows.transpose(1, 2), dy_RMC).to(ctx.wide)
        ones = dy_RMC.new_ones(1, 1, dy_RMC.shape[1]).expand(len(dy_RMC), -1, -1)
        ctx.maps.owed.append((None, dy_RMC, matrices))
        return None, d_matrices, torch.bmm(ones, dy_RMC)[:, 0].to(ctx.wide)


def batch_product(maps: Maps, matrices_RKC: Tensor, bias_RC: Tensor) -> Tensor:
    """y [R, M, C] = rows [R, M, K] times matrices [R, K, C] plus bias."""
    return _BatchProduct.apply(maps, matrices_RKC, bias_RC)
