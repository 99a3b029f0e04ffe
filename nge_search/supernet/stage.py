"""All that leaves some nodes of a cell, forward and backward, without autograd.

The gradient of a stored map has two parts: through its moments (a slope and a constant), and from the product that
reads it. Neither is formed on its own: the backward pass of the convolution that made the map computes both where
it needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nge_search.supernet import folding
from nge_search.supernet.folding import Folded, FoldGradients, Moments, wide
from nge_search.supernet.kernels.contract import Convolution, Mix
from nge_search.supernet.module_pass import ModulePass
from nge_search.supernet.setting import Setting


@dataclass(frozen=True)
class Stage:
    """Nodes whose leaving edges are computed together, because all are known at once; as many from each.

    Each edge has `separable` convolutions of two steps, one-step ones of some `dilations` (the "direct" ones), the
    pools of its node, the node itself, if `skip`, and what `modules` compute. If the stage halves the image, its
    skip connections do as well, with two more direct convolutions each, which read every even pixel, and every odd
    one.

    Attributes:
        sources: the nodes; targets: of each edge, by source; pools: whether there are maxima, and averages.
        modules: of each edge those of operations that have no fast form; as many of each, perhaps none.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    halving: bool
    separable: int
    dilations: tuple[int, ...]
    pools: tuple[bool, bool]
    skip: bool
    eps: float
    modules: Sequence[Sequence[nn.Module]] = ()

    @property
    def by_modules(self) -> int:
        """Operations of each edge that have no fast form."""
        return len(self.modules[0]) if self.modules else 0

    @property
    def part_counts(self) -> list[int]:
        """Of an edge's parts those that are its node, its pools, and what modules give."""
        return [int(self.skips), sum(self.pools), self.by_modules]

    @property
    def stride(self) -> int:
        return 2 if self.halving else 1

    @property
    def skips(self) -> bool:
        """Whether an edge has its node itself as a part."""
        return self.skip and not self.halving

    @property
    def split_skip(self) -> bool:
        return self.skip and self.halving

    @property
    def all_dilations(self) -> tuple[int, ...]:
        """Of all convolutions that read nodes: first steps of separable ones, and direct ones."""
        return (1,) * self.separable + self.dilations + (1, 1) * self.split_skip

    @property
    def inner_kinds(self) -> int:
        return self.separable + self.direct

    @property
    def direct(self) -> int:
        return len(self.dilations) + 2 * self.split_skip

    @property
    def per_node(self) -> int:
        """Edges that leave each node."""
        return len(self.targets) // len(self.sources)

    def begin(
        self, setting: Setting, images: Sequence[Tensor], weights: StageWeights, given: Given | None
    ) -> StagePass:
        """The stage's part of a pass, forward."""
        return StagePass(setting, self, images, weights, given)


class StageWeights(NamedTuple):
    """Of a stage's edges; gradients come in the same form.

    Attributes:
        p: [E, operations], wide, in the order skip, maxima, averages, separable, dilated, by modules.
        inner_taps: of first steps, then of direct convolutions without the skip connections'; outer_taps: of second
            steps; per kind [E, C, 1, K, K].
        first, last, direct: pointwise weights of first and second steps and of direct convolutions, wide,
            [E * kinds, C, C], as far as there are such.
        modules: of the modules, as `module_pass.weights_of` orders them; they are read there.
    """

    p: Tensor
    inner_taps: Sequence[Tensor]
    outer_taps: Sequence[Tensor]
    first: Tensor | None
    last: Tensor | None
    direct: Tensor | None
    modules: Sequence[Tensor] = ()


Given = dict[str, tuple[Tensor, Tensor]]


class EdgeGradients(NamedTuple):
    """What a stage's backward pass is given for each edge.

    Attributes:
        dy: of the sum that the edge ends in, [B, H, W, C].
        rights: of its products [products, C_in, C_out]; scales: of its parts [parts, C]; bias: [C], all wide.
    """

    dy: Tensor
    rights: Tensor
    scales: Tensor
    bias: Tensor


class _Maps:
    """Depthwise convolutions j = e * kinds + k of some inputs, [E, B, H, W, C] per kind in `z`.

    Args:
        convolution: of the setting's kernels.
        mix: see its `forward`.
        groups: how many kinds are normalised alike, from the first on; their moments are apart.
    """

    def __init__(
        self,
        setting: Setting,
        convolution: Convolution,
        images: Sequence[Tensor],
        mix: Mix | None,
        groups: Sequence[int],
    ):
        self.setting, self.convolution, self.mix = setting, convolution, mix
        self.kernels = setting.kernels
        self.z, sums = convolution.forward(images, mix, setting.observe)
        self.moments: list[Moments] = []
        self.first = [sum(groups[:i]) for i in range(len(groups))]
        if sums is not None:
            if setting.synchronised:
                sums = sums.sum(dim=0, keepdim=True)
            sums = sums.to(wide(sums))
            count = setting.add_ranks([sums], self.map(0)[..., 0].numel())
            for first, size in zip(self.first, groups):
                self.moments.append(self.kernels.moments(sums, count, len(self.z), first, first + size))

    def map(self, j: int) -> Tensor:
        return self.z[j % len(self.z)][j // len(self.z)]

    def backward(
        self,
        images: Sequence[Tensor],
        owed: Sequence[tuple[Tensor, Tensor]],
        changes: Sequence[FoldGradients],
        dx: Sequence[Tensor] | None,
        accumulate: bool,
        need_weights: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """As `Convolution.backward`; changes: gradients of the folds of its groups."""
        like, channels = self.z[0], self.z[0].shape[-1]
        slope, constant = None, like.new_zeros(len(owed), channels)
        if self.moments:
            slope = self.kernels.empty((len(owed), channels, channels), like)
            if self.setting.synchronised:
                every = [x for change in changes for x in (change.mean, change.covariance) if x is not None]
                self.setting.add_ranks(every, 0)
            for first, own, change in zip(self.first, self.moments, changes):
                assert change.mean is not None
                assert change.covariance is not None
                self.kernels.owe_moments(own, change.mean, change.covariance, slope, constant, len(self.z), first)
        return self.convolution.backward(
            images, self.mix, self.z, owed, slope, constant, dx, accumulate, need_weights
        )


def _weight_of(changes: dict[str, FoldGradients], name: str) -> Tensor | None:
    """The gradient of a stack of pointwise weights, where there is one."""
    return changes[name].weight if name in changes else None


class StagePass:
    """A stage in one pass.

    Args:
        images: of the sources, [B, H, W, C].
        given: without observation, running mean and variance of each kind of normalisation: "first", "last",
            "direct" [E * kinds, C], "pool" [E * pools, C].

    Attributes:
        rights: per edge, of the products that end in its target, in stacks [products, C_in, C_out]; scales: of the
            parts that do [E, parts, C], both in the type of maps; biases: [E, C], wide.
        seen: with observation, the batch's mean and variance by the names of `given`, and `count`, the positions.
    """

    def __init__(
        self, setting: Setting, stage: Stage, images: Sequence[Tensor], weights: StageWeights, given: Given | None
    ):
        self.setting, self.stage, self.images, self.given = setting, stage, images, given
        self.like, self.kernels = images[0], setting.kernels
        self.folds: dict[str, Folded] = {}
        self.seen: Given = {}
        self.count: Tensor | None = None
        self.inner: _Maps | None = None
        self.outer: _Maps | None = None
        edges, channels = len(stage.targets), self.like.shape[-1]
        self.biases = weights.p.new_zeros(edges, channels)
        self._split_p(weights.p)
        rights = []
        if stage.inner_kinds:
            self.inner = self._convolve_nodes(weights)
        if stage.separable:
            self.outer = self._convolve_again(weights)
            rights.append(self._fold("last", self.outer, 0, weights.last, self.separable_p))
        if stage.direct:
            rights.append(self._fold("direct", self.inner, -1, weights.direct, self.direct_p))
        self.rights = list(zip(*rights)) or [()] * edges
        scales = [self.skip_p[:, :, None].expand(-1, -1, channels), *self._pool()]
        self.by_modules: ModulePass | None = None
        if stage.by_modules:
            self.by_modules = ModulePass(setting, stage.modules, images)
            scales.append(self.module_p[:, :, None].expand(-1, -1, channels))
        self.scales = torch.cat(scales, dim=1).to(self.like.dtype)

    def _split_p(self, p: Tensor) -> None:
        stage = self.stage
        kinds = int(stage.skip), sum(stage.pools), stage.separable, len(stage.dilations), stage.by_modules
        skip, pools, separable, dilated, self.module_p = p.split(kinds, dim=1)
        self.pool_p, self.separable_p = pools, separable
        self.skip_p = skip[:, : int(stage.skips)]
        self.direct_p = torch.cat([dilated, skip, skip], dim=1) if stage.split_skip else dilated

    def _convolve_nodes(self, weights: StageWeights) -> _Maps:
        stage, taps = self.stage, list(weights.inner_taps)
        if stage.split_skip:
            even = self.like.new_ones(len(stage.targets), self.like.shape[-1], 1, 1, 1)
            taps += [even, torch.nn.functional.pad(even, (2, 0, 2, 0))]
        first = [i * stage.per_node * stage.inner_kinds for i in range(len(self.images) + 1)]
        convolution = self.kernels.convolution(taps, stage.all_dilations, first, stage.stride)
        groups = [size for size in (stage.separable, stage.direct) if size]
        return _Maps(self.setting, convolution, self.images, None, groups)

    def _convolve_again(self, weights: StageWeights) -> _Maps:
        """The second steps of separable convolutions, which read normalised products of the first."""
        stage = self.stage
        self._fold("first", self.inner, 0, weights.first, None)
        folded = self.folds["first"]
        count = len(stage.targets) * stage.separable
        convolution = self.kernels.convolution(weights.outer_taps, (1,) * stage.separable, range(count + 1), 1)
        mix = folded.right, folded.bias.to(self.like.dtype)
        return _Maps(self.setting, convolution, self._firsts(), mix, [stage.separable])

    def _firsts(self) -> list[Tensor]:
        """The maps of first steps, by edge and kind."""
        assert self.inner is not None
        own, kinds = range(self.stage.separable), self.stage.inner_kinds
        return [self.inner.map(e * kinds + k) for e in range(len(self.stage.targets)) for k in own]

    def _fold(
        self, name: str, maps: _Maps | None, group: int, weight: Tensor | None, p: Tensor | None
    ) -> Iterable[Tensor]:
        """Fold a group's normalisation; returns each edge's matrices, and adds its biases if it ends in a node."""
        assert maps is not None
        assert weight is not None
        chances, eps, dtype = None if p is None else p.flatten(), self.stage.eps, self.like.dtype
        if self.given is not None:
            y_mean, y_variance = (x.to(weight.dtype) for x in self.given[name])
            folded = folding.fold_given(weight, chances, y_mean, y_variance, eps, dtype)
        else:
            folded = self.kernels.fold(weight, chances, maps.moments[group], eps, dtype)
            self.seen[name], self.count = (folded.y_mean, folded.y_variance), maps.moments[group].count
        self.folds[name] = folded
        edges = len(self.biases)
        if p is not None:
            self.biases += folded.bias.view(edges, -1, folded.bias.shape[1]).sum(dim=1)
        return folded.right.unflatten(0, (edges, -1)).unbind(0)

    # -- pools

    def _pool(self) -> list[Tensor]:
        """Scales [E, pools, C] of normalised pools, if there are any; adds their biases."""
        stage, self.maxima, self.averages = self.stage, None, None
        if not any(stage.pools):
            return []
        batch, height, width, channels = self.like.shape
        size = (height - 1) // stage.stride + 1, (width - 1) // stage.stride + 1
        shape = len(self.images), batch, *size, channels
        self.maxima, self.averages = (
            self.kernels.empty(shape, self.like) if wanted else None for wanted in stage.pools
        )
        sums = self.kernels.pool(self.images, stage.stride, self.maxima, self.averages, self.setting.observe)
        if self.given is not None:
            mean, variance = (
                x.to(self.pool_p.dtype).unflatten(0, (len(self.pool_p), -1)) for x in self.given["pool"]
            )
        else:
            assert sums is not None
            sums = sums.to(self.pool_p.dtype).unflatten(1, (2, 2))[:, self._used_pools()]
            self.count = self.pool_count = self.setting.add_ranks([sums], batch * size[0] * size[1])
            every = (sums / self.pool_count)[:, None].expand(-1, stage.per_node, -1, -1, -1).flatten(0, 1)
            mean, second = every.unbind(2)
            variance = (second - mean**2).clamp_min_(0)
            self.seen["pool"] = mean.flatten(0, 1), variance.flatten(0, 1)
        self.pool_mean, self.pool_deviation = mean, torch.rsqrt(variance + stage.eps)
        scale = self.pool_p[:, :, None] * self.pool_deviation
        self.biases -= (scale * mean).sum(dim=1)
        return [scale]

    def _used_pools(self) -> slice:
        """Which of maxima and averages there are."""
        maxima, averages = self.stage.pools
        return slice(0 if maxima else 1, 2 if averages else 1)

    def _pools_backward(
        self, d_scales: Tensor, d_biases: Tensor, dys: Sequence[Tensor], dx: Sequence[Tensor] | None
    ) -> Tensor:
        """Write the gradients of nodes from pools and skip connections to dx; returns that of P [E, pools]."""
        stage, d_p = self.stage, d_scales.sum(dim=2)  # without pools empty
        slopes = self.like.new_zeros(len(self.images), 2, 2, self.like.shape[-1])
        if any(stage.pools):
            d_scales = d_scales - d_biases[:, None] * self.pool_mean
            d_p = (d_scales * self.pool_deviation).sum(dim=2)
        if any(stage.pools) and self.given is None:
            scale, per_node = self.pool_p[:, :, None] * self.pool_deviation, (len(self.images), stage.per_node)
            d_mean = (-d_biases[:, None] * scale).unflatten(0, per_node).sum(dim=1)
            d_variance = (-0.5 * d_scales * scale * self.pool_deviation**2).unflatten(0, per_node).sum(dim=1)
            self.setting.add_ranks([d_mean, d_variance], 0)
            slope = d_variance * (2 / self.pool_count)
            constant = d_mean / self.pool_count - slope * self.pool_mean[:: stage.per_node]
            slopes[:, self._used_pools()] = torch.stack([slope, constant], dim=2).to(slopes.dtype)
        if dx is not None:
            by_node = [dys[i : i + stage.per_node] for i in range(0, len(dys), stage.per_node)]
            parts = iter(self.scales.transpose(0, 1).contiguous().unflatten(1, (len(dx), -1)))
            skip_scale = next(parts) if stage.skips else None
            scales = [next(parts) if wanted else None for wanted in stage.pools]
            pooled = self.images, stage.stride, self.maxima, self.averages
            self.kernels.pool_backward(*pooled, by_node, [*scales, skip_scale], slopes.flatten(1, 2), dx)
        return d_p

    # -- what ends in the targets, and comes back from there

    def parts(self, edge: int) -> list[Tensor]:
        """The node that an edge leaves, its maxima and averages, and what modules give, as far as they are used."""
        i = edge // self.stage.per_node
        own = [self.images[i]] if self.stage.skips else []
        own += [pooled[i] for pooled in (self.maxima, self.averages) if pooled is not None]
        return own if self.by_modules is None else own + self.by_modules.outputs[edge]

    def maps(self, edge: int) -> list[Tensor]:
        """What an edge's products read: second steps of separable convolutions, then direct ones."""
        stage, found = self.stage, []
        if self.outer is not None:
            found += [self.outer.map(edge * stage.separable + k) for k in range(stage.separable)]
        if self.inner is not None:
            kinds = stage.inner_kinds
            found += [self.inner.map(edge * kinds + k) for k in range(stage.separable, kinds)]
        return found

    def backward(
        self, gradients: Sequence[EdgeGradients], dx: Sequence[Tensor] | None, need_weights: bool
    ) -> StageWeights:
        """Gradients of the weights (no taps if not needed); those of the images are written to dx, if given."""
        stage, edges = self.stage, len(self.stage.targets)
        dys = [own.dy for own in gradients]
        d_scales = torch.stack([own.scales for own in gradients])
        d_biases = torch.stack([own.bias for own in gradients])
        of_skip, of_pools, of_modules = d_scales.split(stage.part_counts, dim=1)
        d_skip = of_skip.sum(dim=2)
        shared = stage.skips or any(stage.pools)
        d_pools = self._pools_backward(of_pools, d_biases, dys, dx) if shared else d_skip[:, :0]
        changes: dict[str, FoldGradients] = {}

        def unfold(name: str, d_rights: Tensor, d_bias: Tensor) -> FoldGradients:
            changes[name] = self.kernels.fold_backward(self.folds[name], d_rights, d_bias)
            return changes[name]

        def unfold_products(name: str, first: int, last: int) -> FoldGradients:
            rights = [own.rights[first:last] for own in gradients]
            like = rights[0]
            together = self.kernels.empty((edges, *like.shape), like)
            torch.stack(rights, out=together)
            return unfold(name, together.flatten(0, 1), d_biases)

        owed: dict[int, tuple[Tensor, Tensor]] = {}
        inner_changes = []
        outer_taps, inner_taps = list[Tensor](), list[Tensor]()
        if self.outer is not None:
            change = unfold_products("last", 0, stage.separable)
            products = [(dys[n // stage.separable], m) for n, m in enumerate(self.folds["last"].matrix)]
            sources = self._firsts()
            dv = self.kernels.empty((len(sources), *sources[0].shape), sources[0]).unbind(0)
            need = [need_weights] * stage.separable
            found, d_mix = self.outer.backward(sources, products, [change], dv, False, need)
            assert d_mix is not None
            outer_taps = needed(found)
            self.outer.z = []
            d_mix = d_mix.to(d_biases.dtype)
            inner_changes.append(unfold("first", d_mix[:, 1:], d_mix[:, 0]))
            for n, product in enumerate(zip(dv, self.folds["first"].matrix)):
                owed[n // stage.separable * stage.inner_kinds + n % stage.separable] = product
        if stage.direct:
            inner_changes.append(unfold_products("direct", stage.separable, stage.separable + stage.direct))
            for n, m in enumerate(self.folds["direct"].matrix):
                e, k = divmod(n, stage.direct)
                owed[e * stage.inner_kinds + stage.separable + k] = dys[e], m
        if self.inner is not None and (dx is not None or need_weights):
            kinds = stage.separable + len(stage.dilations)
            need = [need_weights] * kinds + [False] * (2 * stage.split_skip)
            products = [owed[j] for j in range(len(owed))]
            found, _ = self.inner.backward(self.images, products, inner_changes, dx, shared, need)
            inner_taps = needed(found[:kinds])
        of_weights = self._modules_backward(dys, dx, shared or self.inner is not None, need_weights)
        d_p = [d_skip, d_pools] + [
            changes[name].p.view(edges, -1) for name in ("last", "direct") if name in changes
        ]
        first, last, direct = (_weight_of(changes, name) for name in ("first", "last", "direct"))
        p_EO = torch.cat([*self._join_skip(d_p), of_modules.sum(dim=2)], dim=1)
        return StageWeights(p_EO, inner_taps, outer_taps, first, last, direct, of_weights)

    def _modules_backward(
        self, dys: Sequence[Tensor], dx: Sequence[Tensor] | None, written: bool, need_weights: bool
    ) -> list[Tensor]:
        """Gradients of the modules' weights; adds those of the images to dx, if something was written there."""
        if self.by_modules is None:
            return []
        for own in () if written else dx or ():
            own.zero_()
        return self.by_modules.backward(self.module_p, dys, dx, need_weights)

    def _join_skip(self, d_p: list[Tensor]) -> list[Tensor]:
        """P's gradients in P's order: a skip connection that is two convolutions owes to both."""
        if not self.stage.split_skip:
            return d_p
        return [d_p[-1][:, -2:].sum(dim=1, keepdim=True), *d_p[1:-1], d_p[-1][:, :-2]]


def needed(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    """Those that there are."""
    return [gradient for gradient in gradients if gradient is not None]
