"""The large operations of a cell under autograd, which sees small matrices only.

The gradient of a stored map has two parts: through its moments (a slope and a constant), and from the product that
reads it. Neither is formed on its own: a product leaves what it owes with the maps (the gradient of its result and
its matrix), and the backward pass of the operation that made the maps, which runs after those of all products
because it made their matrices too, computes both where it needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nge_search.engine.distributed import sum_over_ranks
from nge_search.supernet import folding
from nge_search.supernet.folding import Folded, FoldGradients, wide
from nge_search.supernet.kernels import choose, empty


@dataclass
class Setting:
    """What all operations of a cell share: whether they observe moments, and over all ranks."""

    observe: bool
    synchronised: bool


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
class Plan:
    """What leaves some nodes: I nodes, E edges (as many from each node), all of one stride.

    Each edge has `separable` convolutions of two steps, `direct` ones of one step (dilations apart), with what a
    halving skip connection reads as the last two; pools of its node (maximum and average: which), and the node
    itself, if `skip`. Operations are counted in this order everywhere: skip, pools, separable, direct.
    """

    nodes: int
    edges: int
    stride: int
    separable: int
    dilations: Sequence[int]
    pools: tuple[bool, bool]
    skip: bool
    eps: float

    @property
    def direct(self) -> int:
        return len(self.dilations)

    @property
    def first_kinds(self) -> int:
        return self.separable + self.direct


@dataclass
class Leaving:
    """The edges of a plan in one pass: what is stored for the products and sums at their targets, and owed to it.

    Attributes:
        given: without observation, running mean and variance of each kind of normalisation ("first", "separable",
            "direct" [E * kinds, C], "pool" [I * pools, C]).
        seen: with observation, the batch's, and `count`, the positions.
        inner, outer: maps of first steps and direct convolutions, and of second steps.
        images: nodes that are read themselves; maxima, averages: [I, B, H, W, C], where they are used.
        owed: per edge, the gradient of a sum's result and the scales [parts, C] of the node's parts in it.
    """

    plan: Plan
    given: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    seen: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    count: Tensor | None = None
    inner: Maps = field(default_factory=Maps)
    outer: Maps = field(default_factory=Maps)
    images: Sequence[Tensor] = ()
    maxima: Tensor | None = None
    averages: Tensor | None = None
    owed: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def parts(self, edge: int) -> list[Tensor]:
        """The node that an edge leaves, its maxima and averages, as far as they are used."""
        i = edge * self.plan.nodes // self.plan.edges
        own = [self.images[i]] if self.plan.skip else []
        return own + [pooled[i] for pooled in (self.maxima, self.averages) if pooled is not None]

    def maps(self, edge: int) -> list[Tensor]:
        """What an edge's products read: second steps of separable convolutions, then direct ones."""
        plan = self.plan
        own = [self.outer.map(edge * plan.separable + k) for k in range(plan.separable)]
        return own + [self.inner.map(edge * plan.first_kinds + k) for k in range(plan.separable, plan.first_kinds)]

    def owe(self, edge: int, dy: Tensor, matrices: Sequence[Tensor], scales: Tensor) -> None:
        """Leave the gradient of the sum that an edge ends in, with its products' matrices and parts' scales."""
        plan = self.plan
        for k, matrix in enumerate(matrices):
            if k < plan.separable:
                self.outer.owed[edge * plan.separable + k] = dy, matrix
            else:
                self.inner.owed[edge * plan.first_kinds + k] = dy, matrix
        self.owed[edge] = dy, scales


def _mean(sums: Tensor, positions: int, setting: Setting) -> Tensor:
    """Divide sums over this rank's positions in place by their number, over all ranks; returns the number."""
    count = sums.new_full((1,), positions)
    if setting.synchronised:
        sum_over_ranks([sums, count])
    sums /= count
    return count


@dataclass
class _Moments:
    """Of some maps: mean [N, C], covariance [N, C, C], and the count of positions [1]."""

    mean: Tensor
    covariance: Tensor
    count: Tensor


class _Steps:
    """Depthwise convolutions of some inputs, and the gradients of all."""

    def __init__(
        self,
        setting: Setting,
        maps: Maps,
        images: Sequence[Tensor],
        mix: tuple[Tensor, Tensor] | None,
        convolution: Any,
    ):
        self.setting, self.maps, self.mix, self.convolution = setting, maps, mix, convolution
        maps.z, sums = convolution.forward(images, mix, setting.observe)
        self.moments: _Moments | None = None
        if sums is not None:
            batch, height, width, _ = maps.map(0).shape
            sums = sums.to(wide(sums.device))
            count = _mean(sums, batch * height * width, setting)
            mean = sums[:, 0].contiguous()
            upper = sums[:, 1:].triu()
            covariance = upper + upper.triu(1).transpose(1, 2) - mean[:, :, None] * mean[:, None]
            self.moments = _Moments(mean, covariance, count)

    def backward(
        self,
        images: Sequence[Tensor],
        d_mean: Tensor | None,
        d_covariance: Tensor | None,
        dx: Sequence[Tensor] | None,
        accumulate: bool,
        need_weights: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor | None]:
        maps, moments, like = self.maps, self.moments, self.maps.map(0)
        owed = [maps.owed[j] for j in range(len(maps.owed))]
        slope, constant = None, like.new_zeros(len(owed), like.shape[-1])
        if moments is not None and d_mean is not None and d_covariance is not None:
            if self.setting.synchronised:
                sum_over_ranks([d_mean, d_covariance])
            wide_slope = d_covariance * (2 / moments.count)
            constant = (d_mean / moments.count - (moments.mean[:, None] @ wide_slope)[:, 0]).to(like.dtype)
            slope = wide_slope.to(like.dtype)
        found = self.convolution.backward(
            images, self.mix, maps.z, owed, slope, constant, dx, accumulate, need_weights
        )
        maps.release()
        return found


def _kinds(x: Tensor, kinds: int, first: int, last: int) -> Tensor:
    """Of [E * kinds, ...] those of some kinds, [E * (last - first), ...]."""
    return x.unflatten(0, (-1, kinds))[:, first:last].flatten(0, 1)


class _Leave(torch.autograd.Function):
    """Matrices [E, products, C, C], scales [E, parts, C] and biases [E, C] of what leaves some nodes.

    Inputs: images of the nodes [B, H, W, C]; P [E, operations], wide; taps of first steps, of direct convolutions
    and of second steps, per kind [E, C, 1, K, K]; pointwise weights of first and second steps and direct
    convolutions, [E * kinds, C, C], as far as there are such.
    """

    @staticmethod
    def forward(ctx: Any, setting: Setting, leaving: Leaving, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan = leaving.plan
        images, p_EO = tensors[: plan.nodes], tensors[plan.nodes]
        like, kind = images[0], wide(images[0].device)
        kernels = ctx.kernels = choose(like)
        taps = tensors[plan.nodes + 1 :][: plan.first_kinds + plan.separable]
        pointwise = iter(weight.to(p_EO.dtype) for weight in tensors[plan.nodes + 1 + len(taps) :])
        skip_p, pool_p, separable_p, direct_p = p_EO.split(_operations(plan), dim=1)

        def fold(
            name: str, p: Tensor | None, moments: _Moments | None, kinds: int, first: int, last: int
        ) -> Folded:
            weight = next(pointwise)
            chances = None if p is None else p.flatten()
            if moments is None:
                return folding.fold_given(weight, chances, *(x.to(kind) for x in leaving.given[name]), plan.eps)
            mean, covariance = (_kinds(x, kinds, first, last) for x in (moments.mean, moments.covariance))
            found = kernels.fold(weight, chances, mean, covariance, plan.eps)
            leaving.seen[name], leaving.count = (found.y_mean, found.y_variance), moments.count
            return found

        ctx.folds, ctx.steps, matrices = {}, {}, []
        biases = like.new_zeros(plan.edges, like.shape[-1], dtype=kind)
        if plan.first_kinds:
            first = [i * plan.edges // plan.nodes * plan.first_kinds for i in range(plan.nodes + 1)]
            dilations = [1] * plan.separable + list(plan.dilations)
            convolution = kernels.Convolution(taps[: plan.first_kinds], dilations, first, plan.stride)
            steps = ctx.steps["inner"] = _Steps(setting, leaving.inner, images, None, convolution)
        if plan.separable:
            folds = ctx.folds["first"] = fold("first", None, steps.moments, plan.first_kinds, 0, plan.separable)
            count = plan.edges * plan.separable
            convolution = kernels.Convolution(taps[plan.first_kinds :], [1] * plan.separable, range(count + 1), 1)
            ctx.owing = folds.matrix.to(like.dtype)
            mix = ctx.owing.transpose(1, 2).contiguous(), folds.bias.to(like.dtype)
            again = ctx.steps["outer"] = _Steps(setting, leaving.outer, _firsts(leaving), mix, convolution)
            folds = ctx.folds["separable"] = fold(
                "separable", separable_p, again.moments, plan.separable, 0, plan.separable
            )
            matrices.append(folds.matrix.unflatten(0, (plan.edges, -1)))
            biases += folds.bias.view(plan.edges, plan.separable, -1).sum(dim=1)
        if plan.direct:
            folds = ctx.folds["direct"] = fold(
                "direct", direct_p, steps.moments, plan.first_kinds, plan.separable, plan.first_kinds
            )
            matrices.append(folds.matrix.unflatten(0, (plan.edges, -1)))
            biases += folds.bias.view(plan.edges, plan.direct, -1).sum(dim=1)
        scales = [skip_p[:, :, None].expand(-1, -1, like.shape[-1])]
        leaving.images = images if plan.skip else ()
        if any(plan.pools):
            leaving.maxima, leaving.averages = (_pooled(plan, like) if wanted else None for wanted in plan.pools)
            sums = kernels.pool(images, plan.stride, leaving.maxima, leaving.averages, setting.observe)
            scale, bias = _scale_pools(ctx, setting, leaving, pool_p, sums)
            scales.append(scale)
            biases += bias
        ctx.setting, ctx.leaving, ctx.dtypes = setting, leaving, [tensor.dtype for tensor in tensors]
        ctx.save_for_backward(*images)
        channels = like.shape[-1]
        every = torch.cat(matrices, dim=1) if matrices else biases.new_empty(plan.edges, 0, channels, channels)
        return every, torch.cat(scales, dim=1), biases

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        setting, leaving, images = ctx.setting, ctx.leaving, ctx.saved_tensors
        plan, (d_matrices, d_scales, d_biases) = leaving.plan, gradients
        need = list(ctx.needs_input_grad[2:])
        found: list[Tensor | None] = [None] * len(need)
        first_taps = plan.nodes + 1
        first_weights = first_taps + plan.first_kinds + plan.separable
        weights = iter(range(first_weights, len(need)))
        place = {name: next(weights) for name in ("first", "separable", "direct") if name in ctx.folds}
        d_p = [d_scales[:, : int(plan.skip)].sum(dim=2)]
        dx = [empty(image.shape, image) for image in images] if any(need[: plan.nodes]) else None
        shared = plan.skip or any(plan.pools)
        if shared:
            d_p.append(_share_backward(ctx, d_scales[:, int(plan.skip) :], d_biases, dx))

        def unfold(name: str, d_matrix: Tensor, d_bias: Tensor) -> FoldGradients:
            change = ctx.kernels.fold_backward(ctx.folds[name], d_matrix, d_bias)
            if need[place[name]]:
                found[place[name]] = change.weight.to(ctx.dtypes[place[name]])
            return change

        def spread(kinds: int) -> Tensor:
            return d_biases[:, None].expand(-1, kinds, -1).flatten(0, 1)

        means, covariances = [], []
        if plan.separable:
            change = unfold("separable", d_matrices[:, : plan.separable].flatten(0, 1), spread(plan.separable))
            d_p.append(change.p.view(plan.edges, -1))
            sources = _firsts(leaving)
            dv = empty((len(sources), *sources[0].shape), sources[0]).unbind(0)
            d_taps, d_mix = ctx.steps["outer"].backward(
                sources,
                change.mean,
                change.covariance,
                dv,
                False,
                need[first_taps + plan.first_kinds :][: plan.separable],
            )
            found[first_taps + plan.first_kinds : first_weights] = d_taps
            for n, (gradient, matrix) in enumerate(zip(dv, ctx.owing.unbind(0))):
                j = n // plan.separable * plan.first_kinds + n % plan.separable
                leaving.inner.owed[j] = gradient, matrix
            d_mix = d_mix.to(d_biases.dtype)
            change = unfold("first", d_mix[:, 1:].transpose(1, 2), d_mix[:, 0])
            means.append(change.mean)
            covariances.append(change.covariance)
        if plan.direct:
            change = unfold("direct", d_matrices[:, plan.separable :].flatten(0, 1), spread(plan.direct))
            d_p.append(change.p.view(plan.edges, -1))
            means.append(change.mean)
            covariances.append(change.covariance)
        if plan.first_kinds and (dx is not None or any(need[first_taps:first_weights])):
            d_mean = d_covariance = None
            if setting.observe:
                d_mean, d_covariance = (
                    torch.cat([x.unflatten(0, (plan.edges, -1)) for x in parts], dim=1).flatten(0, 1)
                    for parts in (means, covariances)
                )
            found[first_taps : first_taps + plan.first_kinds], _ = ctx.steps["inner"].backward(
                images, d_mean, d_covariance, dx, shared, need[first_taps:][: plan.first_kinds]
            )
        found[: plan.nodes] = dx or [None] * plan.nodes
        found[plan.nodes] = torch.cat(d_p, dim=1)
        leaving.inner.release()
        leaving.owed, leaving.images, leaving.maxima, leaving.averages = {}, (), None, None
        return None, None, *found


def _operations(plan: Plan) -> list[int]:
    return [int(plan.skip), sum(plan.pools), plan.separable, plan.direct]


def _firsts(leaving: Leaving) -> list[Tensor]:
    """The maps of first steps, by edge and kind."""
    plan = leaving.plan
    return [leaving.inner.map(e * plan.first_kinds + k) for e in range(plan.edges) for k in range(plan.separable)]


def _pooled(plan: Plan, like: Tensor) -> Tensor:
    batch, height, width, channels = like.shape
    size = (height - 1) // plan.stride + 1, (width - 1) // plan.stride + 1
    return empty((plan.nodes, batch, *size, channels), like)


def _scale_pools(
    ctx: Any, setting: Setting, leaving: Leaving, p_EO: Tensor, sums: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scales [E, pools, C] and bias [E, C] of normalised pools; means and deviations are kept for the way back."""
    plan = leaving.plan
    if sums is None:
        mean, variance = (x.to(p_EO.dtype).unflatten(0, (plan.edges, -1)) for x in leaving.given["pool"])
    else:
        which = [k for k, wanted in enumerate(plan.pools) if wanted]
        sums = sums.to(p_EO.dtype).unflatten(1, (2, 2))[:, which]
        some = leaving.maxima if leaving.maxima is not None else leaving.averages
        assert some is not None
        leaving.count = ctx.count = _mean(sums, some[0, ..., 0].numel(), setting)
        per_node = (plan.nodes, plan.edges // plan.nodes, len(which), sums.shape[-1])
        mean, second = (sums[:, None, :, k].expand(per_node).flatten(0, 1) for k in range(2))
        variance = (second - mean**2).clamp_min_(0)
        leaving.seen["pool"] = mean.flatten(0, 1), variance.flatten(0, 1)
    ctx.pool_p, ctx.pool_mean, ctx.pool_deviation = p_EO, mean, torch.rsqrt(variance + plan.eps)
    scale = p_EO[:, :, None] * ctx.pool_deviation
    return scale, -(scale * mean).sum(dim=1)


def _share_backward(ctx: Any, d_scale: Tensor, d_biases: Tensor, dx: Sequence[Tensor] | None) -> Tensor:
    """Writes the gradients of nodes from pools and skip connections to dx; returns that of P [E, pools]."""
    setting, leaving, images = ctx.setting, ctx.leaving, ctx.saved_tensors
    plan, d_p = leaving.plan, d_scale.sum(dim=2)  # without pools empty
    which = [k for k, wanted in enumerate(plan.pools) if wanted]
    slopes = images[0].new_zeros(plan.nodes, 4, images[0].shape[-1])
    if which:
        mean, deviation = ctx.pool_mean, ctx.pool_deviation
        d_scale = d_scale - d_biases[:, None] * mean
        d_p = (d_scale * deviation).sum(dim=2)
        if setting.observe:
            scale = ctx.pool_p[:, :, None] * deviation
            d_mean = (-d_biases[:, None] * scale).unflatten(0, (plan.nodes, -1)).sum(dim=1)
            d_variance = (-0.5 * d_scale * scale * deviation**2).unflatten(0, (plan.nodes, -1)).sum(dim=1)
            if setting.synchronised:
                sum_over_ranks([d_mean, d_variance])
            slope = d_variance * (2 / ctx.count)
            constant = d_mean / ctx.count - slope * mean.unflatten(0, (plan.nodes, -1))[:, 0]
            places = [2 * k for k in which]
            slopes[:, places] = slope.to(slopes.dtype)
            slopes[:, [place + 1 for place in places]] = constant.to(slopes.dtype)
    if dx is not None:
        per_node = plan.edges // plan.nodes
        dys = [[leaving.owed[i * per_node + e][0] for e in range(per_node)] for i in range(plan.nodes)]
        owed = torch.stack([leaving.owed[edge][1] for edge in range(plan.edges)], dim=1)  # [parts, E, C]
        parts = iter(owed.unflatten(1, (plan.nodes, per_node)).unbind(0))
        skip_scale = next(parts) if plan.skip else None
        scales = [next(parts) if wanted else None for wanted in plan.pools]
        ctx.kernels.pool_backward(
            images, plan.stride, leaving.maxima, leaving.averages, dys, [*scales, skip_scale], slopes, dx
        )
    return d_p


def leave(
    setting: Setting,
    leaving: Leaving,
    images: Sequence[Tensor],
    p_EO: Tensor,
    taps: Sequence[Tensor],
    pointwise: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """All operations of the edges that leave some nodes, up to the sums at their targets; see `_Leave`."""
    return _Leave.apply(setting, leaving, *images, p_EO, *taps, *pointwise)


class _Combine(torch.autograd.Function):
    """A node from its edges; inputs: matrices [products, C, C], scales [parts, C] and bias [C] of each edge."""

    @staticmethod
    def forward(ctx: Any, edges: Sequence[tuple[Leaving, int]], *small: Tensor) -> Tensor:
        count = len(edges)
        zs = [z for leaving, edge in edges for z in leaving.maps(edge)]
        xs = [x for leaving, edge in edges for x in leaving.parts(edge)]
        first = (*zs, *xs)[0]
        matrices = torch.cat(small[:count]).to(first.dtype)
        scales = torch.cat(small[count : 2 * count]).to(first.dtype)
        bias = torch.stack(small[2 * count :]).sum(dim=0)
        ctx.edges, ctx.matrices, ctx.scales, ctx.wide = edges, matrices, scales, bias.dtype
        right = matrices.transpose(1, 2).contiguous()
        return choose(first).combine(zs, right, xs, scales, bias.to(first.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        edges, dy = ctx.edges, dy.contiguous()
        zs = [leaving.maps(edge) for leaving, edge in edges]
        xs = [leaving.parts(edge) for leaving, edge in edges]
        sizes, widths = [len(own) for own in zs], [len(own) for own in xs]
        found = choose(dy).combine_backward([z for own in zs for z in own], [x for own in xs for x in own], dy)
        d_bias, d_scales, d_matrices = (part.to(ctx.wide) for part in found)
        parts = zip(edges, ctx.matrices.split(sizes), ctx.scales.split(widths))
        for (leaving, edge), matrices, scales in parts:
            leaving.owe(edge, dy, matrices.unbind(0), scales)
        return None, *d_matrices.transpose(1, 2).split(sizes), *d_scales.split(widths), *[d_bias] * len(edges)


def combine(
    edges: Sequence[tuple[Leaving, int]],
    matrices: Sequence[Tensor],
    scales: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> Tensor:
    """[B, H, W, C]: the sum over edges of matrix times map, scale times part, and bias."""
    return _Combine.apply(edges, *matrices, *scales, *biases)


class _Pointwise(torch.autograd.Function):
    """Inputs: nodes [B, H, W, C_in], and a weight [C_out, nodes * C_in]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *nodes: Tensor) -> Tensor:
        ctx.save_for_backward(weight, *nodes)
        return choose(nodes[0]).pointwise(nodes, _per_node(weight, nodes))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        weight, *nodes = ctx.saved_tensors
        need = any(ctx.needs_input_grad[1:]), ctx.needs_input_grad[0]
        given = nodes, _per_node(weight, nodes), dy.contiguous(), *need
        d_nodes, d_weight = choose(nodes[0]).pointwise_backward(*given)
        if d_weight is not None:
            d_weight = d_weight.transpose(0, 1).flatten(1).to(weight.dtype)
        return d_weight, *(d_nodes or [None] * len(nodes))


def _per_node(weight: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    return [part.to(nodes[0].dtype) for part in weight.chunk(len(nodes), dim=1)]


def pointwise(nodes: Sequence[Tensor], weight: Tensor) -> Tensor:
    """A 1x1 convolution [C_out, nodes * C_in, 1, 1] of the ReLU of concatenated nodes, [B, H, W, C_out]."""
    return _Pointwise.apply(weight.flatten(1), *nodes)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, setting: Setting, y: Tensor, eps: float) -> tuple[Tensor, ...]:
        rows = y.flatten(0, 2)
        mean = rows.mean(dim=0)
        h = torch.sub(rows, mean, out=empty(rows.shape, y))
        variance = torch.mul(h, h, out=empty(rows.shape, y)).mean(dim=0)
        mean, variance = (x.to(wide(y.device)) for x in (mean, variance))
        count = mean.new_full((1,), len(rows))
        if setting.synchronised:  # of unequal shares: by their sums
            first, second = mean * count, (variance + mean**2) * count
            sum_over_ranks([first, second, count])
            mean = first / count
            torch.sub(rows, mean.to(y.dtype), out=h)
            variance = (second / count - mean**2).clamp_min_(0)
        deviation = torch.rsqrt(variance + eps)
        h = h.mul_(deviation.to(y.dtype)).view(y.shape)
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
