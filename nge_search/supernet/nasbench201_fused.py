"""NAS-Bench-201's supernet in its fast form: the function of `nasbench201.DenseSupernet`.

All edges that leave a node share its ReLU and its average; a 1x1 convolution and its normalisation are folded into
one matrix (`folding`), the normalisation of a 3x3 convolution into a scale and a bias; all that ends in a node is
one sum of products (`cell_function`). Operations of P are ordered skip, average, 1x1, 3x3; `none` adds nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d
from nge_search.operations import ModuleList
from nge_search.supernet import folding
from nge_search.supernet.cell_function import Plan, mix
from nge_search.supernet.folding import Moments, wide
from nge_search.supernet.kernels.contract import Kernels
from nge_search.supernet.nasbench201 import DenseCell, DenseSupernet
from nge_search.supernet.setting import Setting
from nge_search.supernet.stacking import StackedCell, StackedNetwork, move, require_known
from nge_search.supernet.stage import EdgeGradients, Given, needed

_ORDER = ("skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")


class DenseWeights(NamedTuple):
    """Of the edges that leave a node; gradients come in the same form.

    Attributes:
        p: [E, 4], wide.
        pointwise: of 1x1 convolutions [E, C, C], wide.
        kernels: of 3x3 convolutions [E, C, C, 3, 3], in the type of maps; gradients as a list.
    """

    p: Tensor
    pointwise: Tensor
    kernels: Sequence[Tensor]


class _Divided:
    """`cell_function.Divided`; weights: pointwise [E, C, C, 1, 1] and 3x3 kernels [E, C, C, 3, 3] of a cell."""

    def __init__(self, counts: Sequence[int], p_EO: Tensor, weights: Sequence[Tensor]):
        pointwise, kernels = weights
        self.parts = list(
            zip(p_EO.split(counts), pointwise.flatten(2).to(p_EO.dtype).split(counts), kernels.split(counts))
        )

    def stage(self, s: int) -> DenseWeights:
        return DenseWeights(*self.parts[s])

    def gradients(self, stages: Sequence[DenseWeights], weights: Sequence[Tensor]) -> list[Tensor]:
        pointwise = torch.cat([own.pointwise for own in stages])
        kernels = torch.stack([kernel for own in stages for kernel in own.kernels])
        return [x.to(weight.dtype).view(weight.shape) for x, weight in zip((pointwise, kernels), weights)]


@dataclass(frozen=True)
class DenseStage:
    """A node and the later ones, to each of which an edge leaves; as `stage.Stage`."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    eps: float
    stride = 1

    def begin(
        self, setting: Setting, images: Sequence[Tensor], weights: DenseWeights, given: Given | None
    ) -> DensePass:
        return DensePass(setting, self, images, weights, given)


class DensePass:
    """All that leaves a node in one pass; arguments and attributes as `stage.StagePass`.

    Kinds of normalisation: "pointwise" and "kernel", [E, C].
    """

    def __init__(
        self,
        setting: Setting,
        stage: DenseStage,
        images: Sequence[Tensor],
        weights: DenseWeights,
        given: Given | None,
    ):
        self.setting, self.stage, self.images, self.weights = setting, stage, images, weights
        self.like, self.kernels = images[0], setting.kernels
        self.seen: Given = {}
        self.rectified = torch.relu_(self.kernels.empty(self.like.shape, self.like).copy_(self.like))
        self.average = self.kernels.empty((1, *self.like.shape), self.like)
        self.kernels.pool(images, 1, None, self.average, False)
        self.maps_3x3 = [self._convolve(kernel) for kernel in weights.kernels]
        self.count: Tensor | None = None
        self._normalise(given)
        p, dtype = weights.p[:, :, None].expand(-1, -1, self.like.shape[-1]), self.like.dtype
        self.rights = [(right[None],) for right in self.folded.right]
        self.scales = torch.stack([p[:, 0], p[:, 1], self.scale], dim=1).to(dtype)
        self.biases = self.folded.bias - self.scale * self.mean

    def _convolve(self, kernel: Tensor) -> Tensor:
        image = self.rectified.permute(0, 3, 1, 2)
        return torch.conv2d(image, kernel.to(image.dtype), padding=1).permute(0, 2, 3, 1).contiguous()

    def _normalise(self, given: Given | None) -> None:
        """Fold 1x1 convolutions; scale [E, C], mean and deviation of 3x3 ones."""
        p, pointwise = self.weights.p, self.weights.pointwise
        fold = pointwise, p[:, 2].contiguous()
        if given is None:
            sums = [self._sums([self.rectified], [], self.rectified)]
            sums += [self._sums([], [y], y) for y in self.maps_3x3]
            self.count = self.setting.add_ranks(sums, self.like[..., 0].numel())
            of_z = folding.moments(sums[0][None, None], self.count, 1, 0, 1)
            mean, covariance = (x.expand(len(p), *x.shape[1:]) for x in (of_z.mean, of_z.covariance))
            shared = Moments(mean, covariance, self.count)
            self.moments, self.folded = of_z, self.kernels.fold(*fold, shared, self.stage.eps, self.like.dtype)
            self.mean, second = (torch.stack(sums[1:]) / self.count).unbind(1)
            variance = (second - self.mean**2).clamp_min_(0)
            self.seen = {
                "pointwise": (self.folded.y_mean, self.folded.y_variance),
                "kernel": (self.mean, variance),
            }
        else:
            (y_mean, y_variance), (self.mean, variance) = (
                [x.to(p.dtype) for x in given[name]] for name in ("pointwise", "kernel")
            )
            self.folded = folding.fold_given(*fold, y_mean, y_variance, self.stage.eps, self.like.dtype)
        self.deviation = torch.rsqrt(variance + self.stage.eps)
        self.scale = p[:, 3:] * self.deviation

    def _sums(self, zs: list[Tensor], xs: list[Tensor], dy: Tensor) -> Tensor:
        """Sums over positions [1 + n, C] of dy, and of its products with the channels of z, or with x."""
        of_dy, of_x, of_z = self.kernels.combine_backward(zs, xs, dy)
        return torch.cat([of_dy[None], of_x, of_z.flatten(0, 1)]).to(wide(self.like))

    def parts(self, edge: int) -> list[Tensor]:
        """What is scaled and added to an edge's target."""
        return [self.images[0], self.average[0], self.maps_3x3[edge]]

    def maps(self, edge: int) -> list[Tensor]:
        """What an edge's products read."""
        return [self.rectified]

    def backward(
        self, gradients: Sequence[EdgeGradients], dx: Sequence[Tensor] | None, need_weights: bool
    ) -> DenseWeights:
        """Gradients of the weights (no kernels if not needed); that of the node is written to dx, if given."""
        d_scales, d_bias = (torch.stack([getattr(own, name) for own in gradients]) for name in ("scales", "bias"))
        dys, dtype = [own.dy for own in gradients], self.like.dtype
        change = self.kernels.fold_backward(self.folded, torch.cat([own.rights for own in gradients]), d_bias)
        d_scale = d_scales[:, 2] - d_bias * self.mean
        d_p = torch.stack(
            [*d_scales[:, :2].sum(dim=2).unbind(1), change.p, (d_scale * self.deviation).sum(dim=1)], dim=1
        )
        if dx is None and not need_weights:
            return DenseWeights(d_p, change.weight, [])
        slope, constant = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        if self.count is not None:
            d_mean, d_variance = -d_bias * self.scale, -0.5 * d_scale * self.scale * self.deviation**2
            of_z = [x for x in (change.mean, change.covariance) if x is not None]
            self.setting.add_ranks([d_mean, d_variance, *of_z], 0)
            slope = d_variance * (2 / self.count)
            constant = d_mean / self.count - slope * self.mean
        factors, constant = torch.stack([self.scale, slope], dim=1).to(dtype), constant.to(dtype)
        found = []
        for e, kernel in enumerate(self.weights.kernels):
            owed = self.kernels.combine([], [], [dys[e], self.maps_3x3[e]], [factors[e]], constant[e])
            found.append(self._convolve_backward(owed, kernel, dx is not None, need_weights))
        if dx is not None:
            self._node_backward(dys, needed(d_input for d_input, _ in found), change, dx[0])
        return DenseWeights(d_p, change.weight, needed(d_kernel for _, d_kernel in found))

    def _convolve_backward(
        self, dy: Tensor, kernel: Tensor, need_input: bool, need_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        d_input, d_kernel, _ = torch.ops.aten.convolution_backward(
            dy.permute(0, 3, 1, 2), self.rectified.permute(0, 3, 1, 2), kernel.to(dy.dtype), None,
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [need_input, need_weight, False],
        )  # fmt: skip
        return d_input.permute(0, 2, 3, 1).contiguous() if need_input else None, d_kernel

    def _node_backward(
        self, dys: list[Tensor], d_inputs: list[Tensor], change: folding.FoldGradients, dx: Tensor
    ) -> None:
        """Write the node's gradient to dx: of its ReLU by all convolutions, of itself and its average."""
        channels = self.like.shape[-1]
        zs, rights, constant = list(dys), [self.folded.matrix], self.like.new_zeros(channels)
        if change.mean is not None and change.covariance is not None:
            slope, constants = self.like.new_empty(1, channels, channels), self.like.new_empty(1, channels)
            owed = change.mean.sum(dim=0, keepdim=True), change.covariance.sum(dim=0, keepdim=True)
            self.kernels.owe_moments(self.moments, *owed, slope, constants, 1, 0)
            zs, rights, constant = [*zs, self.rectified], [*rights, slope], constants[0]
        ones = self.like.new_ones(len(d_inputs), channels)
        d_rectified = self.kernels.combine(zs, rights, d_inputs, [ones], constant)
        scales = self.scales.transpose(0, 1).contiguous()[:, None]
        slopes = self.like.new_zeros(1, 4, channels)
        pooled = self.images, 1, None, self.average
        self.kernels.pool_backward(*pooled, [dys], [None, scales[1], scales[0]], slopes, [dx])
        dx.add_(torch.ops.aten.threshold_backward(d_rectified, self.rectified, 0))


class FusedDenseCell(StackedCell):
    """`DenseCell` in the fast form; edges are stacked by their source and then by their target."""

    pointwise: nn.Parameter
    kernel: nn.Parameter

    def __init__(self, cell: DenseCell):
        super().__init__()
        self.space = cell.space
        self.order = sorted(range(len(self.space.edges)), key=lambda edge: self.space.edges[edge])
        reference = dict(cell.named_modules())
        for name, operation in (("pointwise", "nor_conv_1x1"), ("kernel", "nor_conv_3x3")):
            paths = [f"edges.{edge}.{self.space.operations.index(operation)}" for edge in self.order]
            self.stack(reference, name, [f"{path}.1" for path in paths])
            self.stack(reference, f"{name}_norm", [f"{path}.2" for path in paths])
        norm = next(module for module in cell.modules() if isinstance(module, nn.BatchNorm2d))
        self.synchronised = isinstance(norm, SyncedBatchNorm2d)
        self.counts = [self.space.nodes - source for source in range(self.space.nodes)]
        stages = [
            DenseStage((source,), tuple(range(source + 1, self.space.vertices)), norm.eps)
            for source in range(self.space.nodes)
        ]
        self.plan = Plan(stages, self.space.inputs, 1, functools.partial(_Divided, self.counts), cell.partial)

    def forward(self, kernels: Kernels, x: Tensor, p_EO: Tensor) -> Tensor:
        """The last node from the first, [B, H, W, C]; p_EO as `FusedDenseSupernet` orders it."""
        setting = Setting(self.training, self.synchronised, kernels)
        with torch.autocast(p_EO.device.type, enabled=False):  # which would round statistics and P to bfloat16
            given = None if setting.observe else self._given()
            (node,), observed = mix(setting, self.plan, given, [x], p_EO, [self.pointwise, self.kernel])
            if observed.count is not None:
                for name in ("pointwise", "kernel"):
                    mean, variance = (torch.cat(parts) for parts in zip(*(own[name] for own in observed.stages)))
                    move(getattr(self, f"{name}_norm"), mean, variance, observed.count)
        return node

    def _given(self) -> list[Given]:
        """Running statistics by stage."""
        found: list[Given] = [{} for _ in self.counts]
        for name in ("pointwise", "kernel"):
            norm = getattr(self, f"{name}_norm")
            parts = zip(norm.running_mean.split(self.counts), norm.running_var.split(self.counts))
            for own, part in zip(found, parts):
                own[name] = part
        return found


class FusedDenseSupernet(StackedNetwork):
    """`DenseSupernet` in the fast form, with the weights of one.

    Raises:
        UserError: an operation that is not of NAS-Bench-201, is named twice, or is missing (`none` may be).
    """

    def __init__(self, supernet: DenseSupernet):
        require_known(supernet.space.operations, ("none", *_ORDER), _ORDER)
        super().__init__(supernet)
        self.stem, self.reductions = supernet.stem, supernet.reductions
        self.norm, self.classifier = supernet.norm, supernet.classifier
        self.stages = ModuleList(ModuleList(FusedDenseCell(cell) for cell in cells) for cells in supernet.stages)
        self.take_order(self.stages[0][0].order, [self.space.operations.index(name) for name in _ORDER])

    def mix(self, x_BCHW: Tensor, *matrices: Tensor) -> Tensor:
        (p_EO,) = matrices
        x_BCHW = self.stem(x_BCHW)
        kernels = self.backends.choose(x_BCHW)
        for stage, cells in enumerate(self.stages):
            if stage:
                x_BCHW = self.reductions[stage - 1](x_BCHW)
            x = x_BCHW.permute(0, 2, 3, 1).contiguous()
            for cell in cells:
                x = cell(kernels, x, p_EO)
            x_BCHW = x.permute(0, 3, 1, 2)
        return self.classifier(torch.relu(self.norm(x_BCHW)).mean(dim=(2, 3)))
