"""`contract.Kernels` by PyTorch's own, for any device and type; sums of low precision are in float32.

Maps of all edges lie side by side in memory, [B, H, W, E, C]: the depthwise convolutions of one kind are one
grouped convolution over E * C channels, in the layout that `memory_format` measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nge_search.supernet import folding
from nge_search.supernet.kernels.contract import Convolution, Mix
from nge_search.supernet.kernels.memory import Memory
from nge_search.supernet.memory_format import Layouts, convolve, convolve_backward


def _nchw(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2)


def _together(maps: Sequence[Tensor]) -> Tensor:
    """Maps [B, H, W, C] as one image [B, E * C, H, W], channels last."""
    return _nchw(torch.cat(list(maps), dim=3))


def _apart(x: Tensor, edges: int) -> Tensor:
    """[B, E * C, H, W] as [E, B, H, W, C]; a view where memory is channels last."""
    return x.permute(0, 2, 3, 1).unflatten(3, (edges, -1)).permute(3, 0, 1, 2, 4)


def _summable(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


class TorchConvolution:
    """Kernels per kind [E, C, 1, K, K], their dilations, and the inputs that they read."""

    def __init__(
        self,
        layouts: Layouts,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        first: Sequence[int],
        stride: int,
    ):
        self._layouts, self._weights, self._dilations, self._stride = layouts, weights, dilations, stride
        self._owner = [i for i in range(len(first) - 1) for _ in range(first[i], first[i + 1])]

    def _inputs(self, k: int) -> list[int]:
        return self._owner[k :: len(self._weights)]

    def _settings(self, k: int) -> tuple[list[int], list[int], list[int]]:
        dilation = self._dilations[k]
        return [self._stride] * 2, [dilation * (self._weights[k].shape[-1] - 1) // 2] * 2, [dilation] * 2

    def _read(self, images: Sequence[Tensor], mix: Mix | None, k: int) -> Tensor:
        """The ReLU of what convolutions of a kind read, [B, E * C, H, W]."""
        which = self._inputs(k)
        if mix is None:
            rectified = {i: functional.relu(images[i]) for i in set(which)}
            return _together([rectified[i] for i in which])
        x = [torch.addmm(mix[1][i], images[i].flatten(0, 2), mix[0][i]).view(images[i].shape) for i in which]
        return _together(x).relu_()

    def forward(
        self, images: Sequence[Tensor], mix: Mix | None, observe: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        z, sums = [], []
        for k, weight in enumerate(self._weights):
            x = self._read(images, mix, k)
            given = x, weight.to(x.dtype).flatten(0, 1), self._settings(k)
            z.append(_apart(convolve(*given, self._layouts.fastest(*given)), len(weight)))
            if observe:
                rows = _summable(z[-1].flatten(1, 3))
                sums.append(torch.cat([rows.sum(dim=1, keepdim=True), rows.transpose(1, 2) @ rows], dim=1))
        return z, torch.stack(sums, dim=1).flatten(0, 1)[None] if observe else None

    def backward(
        self,
        images: Sequence[Tensor],
        mix: Mix | None,
        z: Sequence[Tensor],
        owed: Sequence[tuple[Tensor, Tensor]],
        slope: Tensor | None,
        constant: Tensor,
        dx: Sequence[Tensor] | None,
        accumulate: bool,
        need_weights: Sequence[bool],
    ) -> tuple[list[Tensor | None], Tensor | None]:
        kinds, d_weights = len(self._weights), list[Tensor | None]()
        totals: list[Tensor | None] = [None] * len(images)
        for k, weight in enumerate(self._weights):
            gradients = []
            for e in range(len(weight)):
                j = e * kinds + k
                dy, matrix = owed[j]
                g = torch.addmm(constant[j], dy.flatten(0, 2), matrix)
                if slope is not None:
                    g = g.addmm_(z[k][e].flatten(0, 2), slope[j])
                gradients.append(g.view(dy.shape))
            x = self._read(images, mix, k)
            given = x, weight.to(x.dtype).flatten(0, 1), self._settings(k)
            need = [dx is not None, need_weights[k], False]
            d_input, d_weight, _ = convolve_backward(
                _together(gradients), *given, self._layouts.fastest(*given), need
            )
            d_weights.append(None if d_weight is None else d_weight.view(weight.shape).to(weight.dtype))
            if d_input is not None:
                d_input = torch.where(x > 0, d_input, torch.zeros_like(d_input))
                for i, part in zip(self._inputs(k), _apart(d_input, len(weight))):
                    total = totals[i]
                    totals[i] = part if total is None else total + part
        if dx is None:
            return d_weights, None
        for target, total in zip(dx, totals):
            assert total is not None
            target.add_(total) if accumulate else target.copy_(total)
        if mix is None:
            return d_weights, None
        found = []
        for image, gradient in zip(images, dx):
            rows, change = (_summable(part.flatten(0, 2)) for part in (image, gradient))
            found.append(torch.cat([change.sum(dim=0, keepdim=True), rows.t() @ change]))
        return d_weights, torch.stack(found)


class TorchKernels:
    """For one network, whose maps share a memory."""

    def __init__(self, memory: Memory):
        self._memory, self._layouts = memory, Layouts()

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._memory.empty(shape, like)

    def convolution(
        self, weights: Sequence[Tensor], dilations: Sequence[int], first: Sequence[int], stride: int
    ) -> Convolution:
        return TorchConvolution(self._layouts, weights, dilations, first, stride)

    def combine(
        self,
        zs: Sequence[Tensor],
        rights: Sequence[Tensor],
        xs: Sequence[Tensor],
        scales: Sequence[Tensor],
        bias: Tensor,
    ) -> Tensor:
        right = torch.cat([*rights, *(torch.diag_embed(scale) for scale in scales if len(scale))]).flatten(0, 1)
        return torch.addmm(bias, _stacked(zs, xs), right).view((*zs, *xs)[0].shape)

    def combine_backward(
        self, zs: Sequence[Tensor], xs: Sequence[Tensor], dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels, change = dy.shape[-1], _summable(dy.flatten(0, 2))
        found = (_summable(_stacked(zs, xs)).t() @ change).view(-1, channels, channels)
        return change.sum(dim=0), found[len(zs) :].diagonal(dim1=1, dim2=2), found[: len(zs)]

    def pointwise(
        self, nodes: Sequence[Tensor], weights: Sequence[Tensor], observe: bool
    ) -> tuple[Tensor, Tensor | None]:
        x, parts = functional.relu(torch.cat(list(nodes), dim=3)), []
        for half, weight in enumerate(weights):
            parts.append(functional.linear(_pixels(x, half, len(weights)), weight.transpose(0, 1).flatten(1)))
        y = torch.cat(parts, dim=3)
        return y, self.sums_with(y, y) if observe else None

    def sums_with(self, dh: Tensor, h: Tensor) -> Tensor:
        change = _summable(dh.flatten(0, 2))
        return torch.stack([change.sum(dim=0), (change * _summable(h.flatten(0, 2))).sum(dim=0)])

    def pointwise_backward(
        self,
        nodes: Sequence[Tensor],
        weights: Sequence[Tensor],
        dh: Tensor,
        h: Tensor,
        coefficients: Tensor,
        need_nodes: bool,
        need_weights: bool,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        x, halves = functional.relu(torch.cat(list(nodes), dim=3)), len(weights)
        dy = torch.addcmul(torch.addcmul(coefficients[2], h, coefficients[1]), dh, coefficients[0])
        d_nodes = torch.zeros_like(x)
        d_weights = []
        for half, (weight, change) in enumerate(zip(weights, dy.split([w.shape[1] for w in weights], dim=3))):
            if need_nodes:
                target = d_nodes[:, half::halves, half::halves]
                found = change @ weight.transpose(0, 1).flatten(1)
                target.copy_(found[:, : target.shape[1], : target.shape[2]])
            if need_weights:
                rows = _summable(_pixels(x, half, halves).flatten(0, 2))
                d_weights.append(
                    (_summable(change.flatten(0, 2)).t() @ rows).unflatten(1, (len(nodes), -1)).transpose(0, 1)
                )
        every = d_nodes.masked_fill_(x <= 0, 0).chunk(len(nodes), dim=3)
        return [part.contiguous() for part in every] if need_nodes else None, d_weights if need_weights else None

    def pool(
        self, images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None, observe: bool
    ) -> Tensor | None:
        x = torch.cat([_nchw(image) for image in images])
        sums = x.new_zeros(
            len(images), 4, x.shape[1], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32
        )
        for k, target in enumerate((maxima, averages)):
            if target is None:
                continue
            pooled = functional.max_pool2d(x, 3, stride, padding=1) if k == 0 else _averaged(x, stride)
            target.copy_(pooled.permute(0, 2, 3, 1).unflatten(0, (len(images), -1)))
            rows = _summable(target.flatten(1, 3))
            sums[:, 2 * k], sums[:, 2 * k + 1] = rows.sum(dim=1), (rows * rows).sum(dim=1)
        return sums if observe else None

    def pool_backward(
        self,
        images: Sequence[Tensor],
        stride: int,
        maxima: Tensor | None,
        averages: Tensor | None,
        dys: Sequence[Sequence[Tensor]],
        scales: Sequence[Tensor | None],
        slopes: Tensor,
        dx: Sequence[Tensor],
    ) -> None:
        for i, image in enumerate(images):
            x = _nchw(image)

            def owed(scale: Tensor | None) -> Tensor:
                assert scale is not None
                return sum((dy * s for dy, s in zip(dys[i], scale[i])), start=torch.zeros_like(dys[i][0]))  # noqa: B023

            total = owed(scales[2]) if scales[2] is not None else torch.zeros_like(image)
            if maxima is not None:
                g = _nchw(owed(scales[0]) + maxima[i] * slopes[i, 0] + slopes[i, 1])
                window = ([3, 3], [stride] * 2, [1, 1], [1, 1], False)
                _, indices = torch.ops.aten.max_pool2d_with_indices(x, *window)
                total = total + torch.ops.aten.max_pool2d_with_indices_backward(g, x, *window, indices).permute(
                    0, 2, 3, 1
                )
            if averages is not None:
                g = _nchw(owed(scales[1]) + averages[i] * slopes[i, 2] + slopes[i, 3])
                change = torch.ops.aten.avg_pool2d_backward(g, x, [3, 3], [stride] * 2, [1, 1], False, False, None)
                total = total + change.permute(0, 2, 3, 1)
            dx[i].copy_(total)

    moments = staticmethod(folding.moments)
    fold = staticmethod(folding.fold)
    fold_backward = staticmethod(folding.fold_backward)
    owe_moments = staticmethod(folding.owe_moments)


def _stacked(zs: Sequence[Tensor], xs: Sequence[Tensor]) -> Tensor:
    """All maps side by side [B * H * W, (T + D) * C]: one product sums in the precision of its accumulator."""
    return torch.cat([z.flatten(0, 2) for z in (*zs, *xs)], dim=1)


def _pixels(x: Tensor, half: int, halves: int) -> Tensor:
    """[B, H, W, C]: all pixels, or of two halves those with even coordinates, and those with odd ones or zeros."""
    if halves == 1:
        return x
    height, width = x.shape[1:3]
    return functional.pad(x[:, half::2, half::2], (0, 0, 0, half * (width % 2), 0, half * (height % 2)))


def _averaged(x: Tensor, stride: int) -> Tensor:
    return functional.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)
