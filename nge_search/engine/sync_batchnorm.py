"""Batch normalisation with statistics over all ranks, on any device (`nn.SyncBatchNorm` is GPU-only), or frozen."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional


class _SyncedNormalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) with mean and biased variance over batch, height, width and ranks.

    Each rank contributes its count, mean and sum of squared deviations, merged as by Chan et al. (1979), so
    that no precision is lost where the mean is large. Ranks may hold different numbers of images.
    """

    @staticmethod
    def forward(ctx, x_BCHW: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x_BCHW if x_BCHW.dtype == torch.float64 else x_BCHW.float()
        count = wide.new_full((1,), wide.numel() / wide.shape[1])
        mean_C = wide.mean(dim=(0, 2, 3))
        deviation_C = (wide - mean_C.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3))
        local = torch.cat([count, mean_C, deviation_C])
        everyone = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, local)
        rows = torch.stack(everyone)
        count_R1, mean_RC, deviation_RC = rows.split([1, len(mean_C), len(mean_C)], dim=1)
        total = count_R1.sum()
        mean_C = (count_R1 * mean_RC).sum(dim=0) / total
        variance_C = (deviation_RC + count_R1 * (mean_RC - mean_C).square()).sum(dim=0) / total
        inverse_C = torch.rsqrt(variance_C + eps)
        normal_BCHW = (wide - mean_C.view(1, -1, 1, 1)) * inverse_C.view(1, -1, 1, 1)
        ctx.save_for_backward(normal_BCHW, inverse_C, total)
        ctx.mark_non_differentiable(mean_C, variance_C, total)
        return normal_BCHW.to(x_BCHW.dtype), mean_C, variance_C, total

    @staticmethod
    def backward(ctx, grad_BCHW: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        normal_BCHW, inverse_C, total = ctx.saved_tensors
        wide = grad_BCHW.to(normal_BCHW.dtype)
        sums = torch.cat([wide.sum(dim=(0, 2, 3)), (wide * normal_BCHW).sum(dim=(0, 2, 3))])
        dist.all_reduce(sums)
        plain_C, scaled_C = (sums / total).view(2, 1, -1, 1, 1)
        grad_input = (wide - plain_C - normal_BCHW * scaled_C) * inverse_C.view(1, -1, 1, 1)
        return grad_input.to(grad_BCHW.dtype), None


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics span all ranks; the same parameters and buffers."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        normal_BCHW, mean_C, variance_C, total = _SyncedNormalise.apply(x_BCHW, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            unbiased_C = variance_C * (total / (total - 1))
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum)
        if self.affine:
            shape = (1, -1, 1, 1)
            normal_BCHW = normal_BCHW * self.weight.view(shape) + self.bias.view(shape)
        return normal_BCHW.to(x_BCHW.dtype)  # weights of float32 would make float32 of bfloat16


def synchronise_statistics(module: nn.Module) -> None:
    """Turn every `nn.BatchNorm2d` inside `module` into a `SyncedBatchNorm2d`, in place."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that normalises by its running statistics in training too, and leaves them alone."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return functional.batch_norm(
            x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def freeze_statistics(module: nn.Module) -> None:
    """Turn every `nn.BatchNorm2d` inside `module` into a `FrozenBatchNorm2d`, in place; they do not train."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = FrozenBatchNorm2d
            child.requires_grad_(False)
