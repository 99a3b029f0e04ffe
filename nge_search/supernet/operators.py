"""The large operations of a cell under autograd, which sees small matrices only.

The gradient of a stored map has two parts: through its moments (a slope and a constant), and from the product that
reads it. Neither is formed on its own: a product leaves what it owes with the maps (the gradient of its result and
its matrix), and the backward pass of the operation that made the maps, which runs after those of all products because
their matrices depend on its moments, computes both where it needs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nge_search.engine.distributed import sum_over_ranks
from nge_search.supernet.folding import wide
from nge_search.supernet.kernels import choose, empty


@dataclass
class Setting:
    """What all operations of a cell share: whether they observe moments, and over all ranks."""

    observe: bool
    synchronised: bool


@dataclass
class Observed:
    """Moments over all positions (and ranks), differentiable; without observation empty.

    Attributes:
        mean: [N, C]; spread: covariances [N, C, C], or variances [N, C]; count: [1], the positions.
        nothing: zero, to be added to the bias of what is made of the maps: so gradients come without moments, too.
    """

    mean: Tensor
    spread: Tensor
    count: Tensor
    nothing: Tensor


@dataclass
class Maps:
    """The outputs of depthwise convolutions: map j = e * kinds + k is z[k][e].

    Attributes:
        z: per kind [E, B, H, W, C].
        owed: per map the gradient [B, H, W, C] of a product's result, and its matrix [C_out, C_in].
    """

    z: list[Tensor] = field(default_factory=list)
    owed: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def map(self, j: int) -> Tensor:
        return self.z[j % len(self.z)][j // len(self.z)]

    def release(self) -> None:
        self.z, self.owed = [], {}


@dataclass
class _Source:
    """Products of stored maps, as the input of convolutions: `which` of them are read."""

    maps: Maps
    which: Sequence[int]


def _mean(sums: list[Tensor], positions: int, setting: Setting) -> Tensor:
    """Divide sums over this rank's positions in place by their number, over all ranks; returns the number."""
    count = sums[0].new_full((1,), positions)
    if setting.synchronised:
        sum_over_ranks([*sums, count])
    for total in sums:
        total /= count
    return count


def _slopes(
    mean: Tensor, d_mean: Tensor, d_spread: Tensor, count: Tensor, setting: Setting
) -> tuple[Tensor, Tensor]:
    """Slope and constant: through its moments, a map z has the gradient z @ slope + constant."""
    if setting.synchronised:
        d_mean, d_spread = d_mean.clone(), d_spread.clone()  # autograd's own stay
        sum_over_ranks([d_mean, d_spread])
    if d_spread.dim() == mean.dim():
        slope = 2 * d_spread / count
        return slope, d_mean / count - mean * slope
    slope = (d_spread + d_spread.transpose(-1, -2)) / count
    return slope, d_mean / count - (mean[..., None, :] @ slope)[..., 0, :]


class _Convolve(torch.autograd.Function):
    """Inputs: images, or with a source matrices [I, C_out, C_in] and biases [I, C]; then weights per kind."""

    @staticmethod
    def forward(
        ctx: Any, setting: Setting, maps: Maps, plan: tuple, source: _Source | None, inputs: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        dilations, first, stride = plan
        weights = tensors[inputs:]
        ctx.owing, mix = None, None
        if source is None:
            images = tensors[:inputs]
        else:
            images = [source.maps.map(j) for j in source.which]
            ctx.owing = tensors[0].to(images[0].dtype)
            mix = ctx.owing.transpose(1, 2).contiguous(), tensors[1].to(images[0].dtype)
        kernels = choose(images[0])
        ctx.convolution = kernels.Convolution(weights, dilations, first, stride)
        maps.z, sums = ctx.convolution.forward(images, mix, setting.observe)
        ctx.setting, ctx.maps, ctx.source, ctx.mix, ctx.inputs = setting, maps, source, mix, inputs
        ctx.save_for_backward(*(images if source is None else ()))
        kind = wide(images[0].device)
        if sums is None:
            return (torch.zeros((), dtype=kind, device=images[0].device),)
        batch, height, width, _ = maps.map(0).shape
        sums = sums.to(kind)
        ctx.count = _mean([sums], batch * height * width, setting)
        mean = ctx.mean = sums[:, 0].contiguous()
        covariance = torch.baddbmm(sums[:, 1:], mean[:, :, None], mean[:, None], alpha=-1)
        ctx.mark_non_differentiable(ctx.count)
        return mean, covariance, ctx.count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        setting, maps, source, mix, inputs = ctx.setting, ctx.maps, ctx.source, ctx.mix, ctx.inputs
        images = ctx.saved_tensors if source is None else [source.maps.map(j) for j in source.which]
        like, slope = maps.map(0), None
        owed = [maps.owed[j] for j in range(len(maps.owed))]
        constant = like.new_zeros(len(owed), like.shape[-1])
        if setting.observe:
            slope, constant = _slopes(ctx.mean, *gradients[:2], ctx.count, setting)
            slope, constant = slope.to(like.dtype), constant.to(like.dtype)
        need = ctx.needs_input_grad[5:]
        dx = empty((len(images), *images[0].shape), images[0]) if any(need[:inputs]) else None
        d_weights, d_mix = ctx.convolution.backward(images, mix, maps.z, owed, slope, constant, dx, need[inputs:])
        maps.release()
        d_inputs: Sequence[Tensor | None] = [None] * inputs
        if source is None and dx is not None:
            d_inputs = dx.unbind(0)
        elif source is not None and dx is not None:
            source.maps.owed.update(zip(source.which, zip(dx.unbind(0), ctx.owing.unbind(0))))
            d_inputs = [part.to(wide(dx.device)) for part in (d_mix[:, 1:].transpose(1, 2), d_mix[:, 0])]
        return (None,) * 5 + (*d_inputs, *d_weights)


def convolve(
    setting: Setting,
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    first: Sequence[int],
    stride: int = 1,
    source: tuple[Maps, Sequence[int]] | None = None,
) -> tuple[Maps, Observed]:
    """Depthwise convolutions of the ReLU of some inputs, "same" padding, and their moments.

    Args:
        inputs: images [B, H, W, C]; with a source, matrices [I, C_out, C_in] and biases [I, C_out], and input i is
            the product of the source's map which[i] with matrix i, plus bias i.
        weights: per kind [E, C, 1, K, K], with its dilation; output j = e * kinds + k.
        first: input i serves outputs first[i] to first[i + 1] - 1.
    """
    maps = Maps()
    found = _Convolve.apply(
        setting, maps, (dilations, first, stride), source and _Source(*source), len(inputs), *inputs, *weights
    )
    return maps, _observed(found)


def _observed(found: tuple[Tensor, ...]) -> Observed:
    if len(found) == 1:
        empty = found[0].new_empty(0)
        return Observed(empty, empty, empty, found[0])
    return Observed(*found, found[0].new_zeros(()))


@dataclass
class Shared:
    """What the edges that leave some nodes share: the nodes themselves (for skip connections) and their pools.

    Attributes:
        images: nodes, where they are read; maxima, averages: [I, B, H, W, C], where they are.
        owed: per node and edge, the gradient of a sum's result and the parts' scales [parts, C] in it.
    """

    images: Sequence[Tensor] = ()
    maxima: Tensor | None = None
    averages: Tensor | None = None
    owed: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def parts(self, i: int) -> list[Tensor]:
        """Skip connection, maximum and average of node i, as far as they are used."""
        own = [self.images[i]] if self.images else []
        return own + [pooled[i] for pooled in (self.maxima, self.averages) if pooled is not None]

    def release(self) -> None:
        self.owed, self.images = {}, ()
        self.maxima = self.averages = None


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        setting: Setting,
        shared: Shared,
        pools: tuple[bool, bool],
        skip: bool,
        stride: int,
        *images: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, height, width, channels = images[0].shape
        shape = (len(images), batch, (height - 1) // stride + 1, (width - 1) // stride + 1, channels)
        shared.maxima, shared.averages = (empty(shape, images[0]) if wanted else None for wanted in pools)
        shared.images = images if skip else ()
        kernels, kind = choose(images[0]), wide(images[0].device)
        observe = setting.observe and any(pools)
        sums = None
        if any(pools):
            sums = kernels.pool(images, stride, shared.maxima, shared.averages, observe)
        ctx.setting, ctx.shared, ctx.stride, ctx.skip, ctx.observe = setting, shared, stride, skip, observe
        ctx.which = [k for k, wanted in enumerate(pools) if wanted]
        ctx.save_for_backward(*images)
        if sums is None:
            return (torch.zeros((), dtype=kind, device=images[0].device),)
        sums = sums.to(kind).unflatten(1, (2, 2))[:, ctx.which]
        ctx.count = _mean([sums], shape[1] * shape[2] * shape[3], setting)
        mean = ctx.mean = sums[:, :, 0].contiguous()
        ctx.mark_non_differentiable(ctx.count)
        return mean, (sums[:, :, 1] - mean**2).clamp_min(0), ctx.count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        shared, images = ctx.shared, ctx.saved_tensors
        slopes = images[0].new_zeros(len(images), 4, images[0].shape[-1])
        if ctx.observe:
            slope, constant = _slopes(ctx.mean, *gradients[:2], ctx.count, ctx.setting)
            for place, k in enumerate(ctx.which):
                slopes[:, 2 * k], slopes[:, 2 * k + 1] = slope[:, place], constant[:, place]
        edges = len(shared.owed) // len(images)
        dys = [[shared.owed[i, e][0] for e in range(edges)] for i in range(len(images))]
        owed = torch.stack([shared.owed[i, e][1] for i in range(len(images)) for e in range(edges)])
        columns = iter(owed.unflatten(0, (-1, edges)).unbind(2))  # per part [I, T, C]
        skip_scale = next(columns).contiguous() if ctx.skip else None
        scales = [next(columns).contiguous() if k in ctx.which else None for k in range(2)]
        dx = empty((len(images), *images[0].shape), images[0])
        choose(dx).pool_backward(
            images, ctx.stride, shared.maxima, shared.averages, dys, [*scales, skip_scale], slopes, dx
        )
        shared.release()
        return (None,) * 5 + dx.unbind(0)


def share(
    setting: Setting, images: Sequence[Tensor], pools: tuple[bool, bool], skip: bool, stride: int
) -> tuple[Shared, Observed]:
    """3x3 maxima and averages of images (which of them: `pools`), with mean and variance [I, pools, C]."""
    shared = Shared()
    return shared, _observed(_Share.apply(setting, shared, pools, skip, stride, *images))


@dataclass
class Terms:
    """What ends in one node: products of maps (maps and which j), and scaled parts of shared ones (and i, e)."""

    maps: list[tuple[Maps, Sequence[int]]] = field(default_factory=list)
    matrices: list[Tensor] = field(default_factory=list)
    shared: list[tuple[Shared, int, int]] = field(default_factory=list)
    scales: list[Tensor] = field(default_factory=list)
    biases: list[Tensor] = field(default_factory=list)

    def inputs(self) -> tuple[list[Tensor], list[Tensor]]:
        """The maps, and the parts, in the order of their matrices and scales."""
        zs = [maps.map(j) for maps, which in self.maps for j in which]
        return zs, [part for shared, i, _ in self.shared for part in shared.parts(i)]


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, terms: Terms, products: int, bias: Tensor, *small: Tensor) -> Tensor:
        zs, xs = terms.inputs()
        first = (*zs, *xs)[0]
        channels = first.shape[-1]
        matrices, scales = first.new_empty(0, channels, channels), first.new_empty(0, channels)
        if products:
            matrices = torch.cat(small[:products]).to(first.dtype)
        if len(small) > products:
            scales = torch.cat(small[products:]).to(first.dtype)
        ctx.terms, ctx.matrices, ctx.scales, ctx.wide = terms, matrices, scales, bias.dtype
        right = matrices.transpose(1, 2).contiguous()
        return choose(first).combine(zs, right, xs, scales, bias.to(first.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        terms, dy = ctx.terms, dy.contiguous()
        zs, xs = terms.inputs()
        found = choose(dy).combine_backward(zs, xs, dy)
        d_bias, d_scales, d_matrices = (part.to(ctx.wide) for part in found)
        matrices = iter(ctx.matrices.unbind(0))
        for maps, which in terms.maps:
            maps.owed.update((j, (dy, next(matrices))) for j in which)
        sizes = [len(shared.parts(i)) for shared, i, _ in terms.shared]
        for (shared, i, e), scales in zip(terms.shared, ctx.scales.split(sizes)):
            shared.owed[i, e] = dy, scales
        per_matrix = d_matrices.transpose(1, 2).split([len(which) for _, which in terms.maps])
        return None, None, d_bias, *per_matrix, *d_scales.split(sizes)


def combine(terms: Terms) -> Tensor:
    """[B, H, W, C]: the sum of matrix [C_out, C_in] times map, scale [C] times part, and biases [C]."""
    bias = torch.stack(terms.biases).sum(dim=0)
    return _Combine.apply(terms, len(terms.matrices), bias, *terms.matrices, *terms.scales)


class _Pointwise(torch.autograd.Function):
    """Inputs: nodes, then weights [C_out, nodes * C_in, 1, 1]: of all pixels, or of even and of odd ones."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        nodes, weights = tensors[:count], tensors[count:]
        halve = len(weights) == 2
        batch, height, width, _ = nodes[0].shape
        size = (batch, (height + 1) // 2, (width + 1) // 2) if halve else (batch, height, width)
        ctx.count, ctx.size = count, size
        ctx.save_for_backward(*tensors)
        rows, columns = math.prod(size), [len(weight) for weight in weights]
        y = empty((*size, sum(columns)), nodes[0])
        for part, target in enumerate(y.view(rows, -1).split(columns, dim=1)):
            for i, (node, matrix) in enumerate(zip(nodes, _per_node(weights[part], count))):
                x = _rectified(node, size, part if halve else None)
                torch.addmm(target, x, matrix.t(), beta=float(i > 0), out=target)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        nodes, weights = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        need = ctx.needs_input_grad[1:]
        halve = len(weights) == 2
        d_nodes = [empty(node.shape, node) if wanted else None for node, wanted in zip(nodes, need)]
        if halve:
            for d_node in d_nodes:
                d_node is None or d_node.zero_()
        found = []
        for part, d_part in enumerate(dy.flatten(0, 2).split([len(weight) for weight in weights], dim=1)):
            columns = []
            for node, d_node, matrix in zip(nodes, d_nodes, _per_node(weights[part], ctx.count)):
                x = _rectified(node, ctx.size, part if halve else None)
                if need[ctx.count + part]:
                    columns.append(d_part.t() @ x)
                if d_node is None:
                    continue
                change = empty(x.shape, x) if halve else d_node.view(x.shape)
                torch.mm(d_part, matrix, out=change)
                torch.ops.aten.threshold_backward.grad_input(change, x, 0, grad_input=change)
                if halve:
                    target = d_node[:, part::2, part::2]
                    target.copy_(change.view(*ctx.size, -1)[:, : target.shape[1], : target.shape[2]])
            weight = weights[part]
            found.append(torch.cat(columns, dim=1).to(weight.dtype).view(weight.shape) if columns else None)
        return None, *d_nodes, *found


def _per_node(weight: Tensor, nodes: int) -> tuple[Tensor, ...]:
    return weight.flatten(1).split(weight.shape[1] // nodes, dim=1)


def _rectified(x: Tensor, size: tuple[int, int, int], part: int | None) -> Tensor:
    """The ReLU of all pixels, or of the even (0) or odd (1) ones, padded with zeros: [B * H * W, C]."""
    found = empty((*size, x.shape[-1]), x)
    if part is None:
        torch.clamp_min(x, 0, out=found)
    else:
        pixels = x[:, part::2, part::2]
        found.zero_()[:, : pixels.shape[1], : pixels.shape[2]].copy_(pixels).clamp_min_(0)
    return found.flatten(0, 2)


def pointwise(nodes: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """A 1x1 convolution of the ReLU of concatenated nodes, or with two weights the halves of FactorizedReduce."""
    return _Pointwise.apply(len(nodes), *nodes, *weights)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, setting: Setting, y: Tensor, eps: float) -> tuple[Tensor, ...]:
        rows = y.flatten(0, 2)
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        mean, variance = (x.to(wide(y.device)) for x in (mean, variance))
        count = mean.new_full((1,), len(rows))
        if setting.synchronised:  # of unequal shares: by their sums
            first, second = mean * count, (variance + mean**2) * count
            sum_over_ranks([first, second, count])
            mean = first / count
            variance = (second / count - mean**2).clamp_min_(0)
        deviation = torch.rsqrt(variance + eps)
        h = torch.sub(rows, mean.to(y.dtype), out=empty(rows.shape, y)).mul_(deviation.to(y.dtype)).view(y.shape)
        ctx.setting, ctx.deviation, ctx.count = setting, deviation, count
        ctx.save_for_backward(h)
        ctx.mark_non_differentiable(mean, variance, count)
        return h, mean, variance, count

    @staticmethod
    def backward(ctx: Any, dh: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        (h,) = ctx.saved_tensors
        rows, change = h.flatten(0, 2), dh.flatten(0, 2)
        dy = torch.mul(rows, change, out=empty(rows.shape, rows))
        sums = [change.sum(dim=0).to(ctx.deviation.dtype), dy.sum(dim=0).to(ctx.deviation.dtype)]
        if ctx.setting.synchronised:
            sum_over_ranks(sums)
        first, second = (total / ctx.count * ctx.deviation for total in sums)
        torch.mul(change, ctx.deviation.to(dy.dtype), out=dy)
        dy.sub_(first.to(dy.dtype)).addcmul_(rows, second.to(dy.dtype), value=-1)
        return None, dy.view(h.shape), None


def normalise(setting: Setting, y: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y - mean) / sqrt(variance + eps) per channel, and without gradient mean, biased variance and their count."""
    return _Normalise.apply(setting, y, eps)
