"""A cell's preprocessing, ReLUConvBN or FactorizedReduce, as one operation under autograd; and `fork`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.supernet.folding import wide
from nge_search.supernet.kernels.contract import Kernels
from nge_search.supernet.setting import Setting


class _Preprocess(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        setting: Setting,
        given: tuple[Tensor, Tensor] | None,
        eps: float,
        halves: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        weights, nodes = tensors[:halves], tensors[halves:]
        kind = wide(nodes[0])
        h, sums = setting.kernels.pointwise(nodes, _by_node(weights, nodes), given is None)
        if given is None:
            assert sums is not None
            sums = sums.to(kind)
            count = setting.add_ranks([sums], h[..., 0].numel())
            mean, second = (sums / count).unbind(0)
            variance = (second - mean**2).clamp_min_(0)
        else:
            mean, variance = (x.to(kind) for x in given)
            count = None
        deviation = torch.rsqrt(variance + eps)
        torch.addcmul((-mean * deviation).to(h.dtype), h, deviation.to(h.dtype), out=h)
        ctx.setting, ctx.count, ctx.halves = setting, count, halves
        ctx.save_for_backward(h, deviation, *tensors)
        if count is None:
            return (h,)
        ctx.mark_non_differentiable(mean, variance, count)
        return h, mean, variance, count

    @staticmethod
    def backward(ctx: Any, dh: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        h, deviation, *tensors = ctx.saved_tensors
        weights, nodes, dh = tensors[: ctx.halves], tensors[ctx.halves :], dh.contiguous()
        kernels = ctx.setting.kernels
        coefficients = torch.stack([deviation, torch.zeros_like(deviation), torch.zeros_like(deviation)])
        if ctx.count is not None:
            sums = kernels.sums_with(dh, h).to(deviation.dtype)
            ctx.setting.add_ranks([sums], 0)
            coefficients[1:] = -sums.flip(0) * (deviation / ctx.count)
        need = any(ctx.needs_input_grad[4 + ctx.halves :]), any(ctx.needs_input_grad[4 : 4 + ctx.halves])
        given = nodes, _by_node(weights, nodes), dh, h, coefficients.to(h.dtype), *need
        d_nodes, d_weights = kernels.pointwise_backward(*given)
        if d_weights is None:
            d_weights = [None] * len(weights)
        else:
            d_weights = [d.transpose(0, 1).reshape(w.shape).to(w.dtype) for d, w in zip(d_weights, weights)]
        return None, None, None, None, *d_weights, *(d_nodes or [None] * len(nodes))


def _by_node(weights: Sequence[Tensor], nodes: Sequence[Tensor]) -> list[Tensor]:
    """Weights [C_out, nodes * C_in, 1, 1] as [nodes, C_out, C_in]."""
    return [w.to(nodes[0].dtype).view(len(w), len(nodes), -1).transpose(0, 1).contiguous() for w in weights]


def preprocess(
    setting: Setting,
    weights: Sequence[Tensor],
    nodes: Sequence[Tensor],
    given: tuple[Tensor, Tensor] | None,
    eps: float,
) -> tuple[Tensor, ...]:
    """Batch normalisation of 1x1 convolutions of the ReLU of concatenated nodes [B, H, W, C_in].

    With two weights [C_out, nodes * C_in, 1, 1], as in FactorizedReduce: the first reads the pixels with even
    coordinates, the second those with odd ones, zeros beyond the border, and their results are concatenated.

    Args:
        given: without observation, running mean and variance [C_out].

    Returns:
        The image [B, H', W', C_out], and if they were observed its mean and biased variance before normalisation,
        and the number of positions.
    """
    return _Preprocess.apply(setting, given, eps, len(weights), *weights, *nodes)


class _Fork(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *nodes: Tensor) -> tuple[Tensor, ...]:
        ctx.kernels = kernels
        return tuple(node.view_as(node) for node in nodes * 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = len(gradients) // 2
        pairs = zip(gradients[:count], gradients[count:])
        return None, *(torch.add(x, y, out=ctx.kernels.empty(x.shape, x)) for x, y in pairs)


def fork(kernels: Kernels, nodes: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The same nodes for two readers; autograd would sum their gradients in fresh memory, which costs more."""
    both = _Fork.apply(kernels, *nodes)
    return list(both[: len(nodes)]), list(both[len(nodes) :])
