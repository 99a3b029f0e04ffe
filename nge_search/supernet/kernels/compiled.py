"""`contract.Kernels` on a CPU, for float32 and float64: tensors handed to the tasks of `cpu` by address."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.native.simd import Strip
from nge_search.native.threads import run
from nge_search.supernet import folding
from nge_search.supernet.folding import Folded, FoldGradients, Moments
from nge_search.supernet.kernels.compiled_convolution import CompiledConvolution, Fields
from nge_search.supernet.kernels.contract import Convolution
from nge_search.supernet.kernels.cpu import combine, pointwise, pool, small, sums
from nge_search.supernet.kernels.cpu.decorators import CHUNK
from nge_search.supernet.kernels.memory import Memory
from nge_search.supernet.kernels.workspace import NONE, Workspace, addresses, dense, each, rows


class CompiledKernels:
    """For one network, whose maps share a memory."""

    def __init__(self, memory: Memory):
        self._workspace = Workspace(memory)

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._workspace.memory.empty(shape, like)

    def convolution(
        self, weights: Sequence[Tensor], dilations: Sequence[int], first: Sequence[int], stride: int
    ) -> Convolution:
        return CompiledConvolution(self._workspace, weights, dilations, first, stride)

    def combine(
        self,
        zs: Sequence[Tensor],
        rights: Sequence[Tensor],
        xs: Sequence[Tensor],
        scales: Sequence[Tensor],
        bias: Tensor,
    ) -> Tensor:
        first = (*zs, *xs)[0]
        out = self.empty(first.shape, first)
        run(
            combine.combine(self._workspace.strip(first)), torch.get_num_threads(), **_combined(first, zs, xs),
            matrices=each(rights), scales=each(scales), bias=bias.data_ptr(), out=out.data_ptr(),
        )  # fmt: skip
        return out

    def combine_backward(
        self, zs: Sequence[Tensor], xs: Sequence[Tensor], dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = dense([dy])[0].shape[3]
        threads, strip = torch.get_num_threads(), self._workspace.strip(dy)
        found = self._workspace.sums.zeros(threads, 1 + len(xs) + len(zs) * channels, channels)
        scratch = self._workspace.scratch.words((channels + 1) * strip.channels * dy.element_size(), threads)
        run(
            combine.combine_backward(strip), threads, **_combined(dy, zs, xs), **scratch,
            dy=dy.data_ptr(), sums=rows(found),
        )  # fmt: skip
        total = self._workspace.total(found)
        return total[0], total[1 : 1 + len(xs)], total[1 + len(xs) :].view(len(zs), channels, channels)

    def pointwise(
        self, nodes: Sequence[Tensor], weights: Sequence[Tensor], observe: bool
    ) -> tuple[Tensor, Tensor | None]:
        depths, halves = [weight.shape[1] for weight in weights], len(weights)
        batch, height, width, _ = nodes[0].shape
        out = self.empty((batch, (height - 1) // halves + 1, (width - 1) // halves + 1, sum(depths)), nodes[0])
        rights = [weight.transpose(1, 2).contiguous() for weight in weights]
        strip, threads, given = self._preprocessing(nodes, depths, rights)
        found, targets = self._workspace.sums.wanted(observe, threads, 2, sum(depths))
        run(pointwise.pointwise(strip), threads, **given, out=out.data_ptr(), sums=targets)
        return out, found.sum(dim=0) if observe else None

    def sums_with(self, dh: Tensor, h: Tensor) -> Tensor:
        batch, height, width, channels = dense([dh, h])[0].shape
        threads = torch.get_num_threads()
        found = self._workspace.sums.zeros(threads, 2, channels)
        run(
            sums.sums_with(self._workspace.strip(dh)), threads, images=batch, count=height * width,
            channels=channels, y=dh.data_ptr(), h=h.data_ptr(), sums=rows(found),
        )  # fmt: skip
        return found.sum(dim=0)

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
        depths, channels = [weight.shape[1] for weight in weights], nodes[0].shape[-1]
        strip, threads, given = self._preprocessing(nodes, depths, weights)
        found, targets = self._workspace.sums.wanted(need_weights, threads, len(nodes) * channels * sum(depths))
        dx = [self.empty(node.shape, node) for node in nodes] if need_nodes else None
        dense([dh, h])
        run(
            pointwise.pointwise_backward(strip), threads, **given, dh=dh.data_ptr(), h=h.data_ptr(),
            coefficients=coefficients.data_ptr(), wanted=int(need_nodes), dxs=NONE if dx is None else addresses(dx),
            sums=targets,
        )  # fmt: skip
        if not need_weights:
            return dx, None
        parts = found.sum(dim=0).split([len(nodes) * channels * depth for depth in depths])
        return dx, [part.view(len(nodes), channels, -1).transpose(1, 2) for part in parts]

    def _preprocessing(
        self, nodes: Sequence[Tensor], depths: Sequence[int], matrices: Sequence[Tensor]
    ) -> tuple[Strip, int, Fields]:
        """Strip, threads, and the fields that both passes of a pointwise convolution begin with."""
        batch, height, width, channels = dense(nodes)[0].shape
        threads, strip = torch.get_num_threads(), self._workspace.strip(nodes[0], *depths)
        numbers = CHUNK * (channels + max(depths)) + (channels + 2) * strip.channels
        given: Fields = {
            **self._workspace.scratch.words(numbers * nodes[0].element_size(), threads),
            "images": batch,
            "height": height,
            "width": width,
            "channels": channels,
            "nodes": len(nodes),
            "halves": len(depths),
            "xs": addresses(nodes),
            "depths": np.array(depths, dtype=np.int64),
            "matrices": each(matrices),
        }
        return strip, threads, given

    def pool(
        self, images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None, observe: bool
    ) -> Tensor | None:
        threads, strip = torch.get_num_threads(), self._workspace.strip(images[0])
        found, targets = self._workspace.sums.wanted(observe, threads, len(images), 4, images[0].shape[3])
        run(pool.pool(strip), threads, **_pooling(images, stride, maxima, averages), sums=targets)
        return found.sum(dim=0) if observe else None

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
        of_maxima, of_averages, of_images = (NONE if scale is None else rows(scale, 2) for scale in scales)
        run(
            pool.pool_backward(self._workspace.strip(dx[0])), torch.get_num_threads(),
            **_pooling(images, stride, maxima, averages),
            readers=len(dys[0]), dys=np.stack([addresses(dense(own)) for own in dys]),
            scales_maxima=int(scales[0] is not None), max_scales=of_maxima,
            scales_averages=int(scales[1] is not None), average_scales=of_averages,
            scales_images=int(scales[2] is not None), skip_scales=of_images,
            slopes=rows(slopes, 2).view(pool.SLOPES), dxs=addresses(dense(dx)),
        )  # fmt: skip

    def moments(self, sums: Tensor, count: Tensor, kinds: int, first: int, last: int) -> Moments:
        _, maps, _, channels = sums.shape
        found = maps // kinds * (last - first)
        mean, covariance = self.empty((found, channels), sums), self.empty((found, channels, channels), sums)
        small.moment_rows(*_arrays(sums, count), kinds, first, last, *_arrays(mean, covariance))
        return Moments(mean, covariance, count)

    def fold(self, weight: Tensor, p: Tensor | None, of_z: Moments, eps: float, dtype: torch.dtype) -> Folded:
        """One pass over each matrix, after MKL's products."""
        products, outputs, inputs = weight.shape
        like = weight.new_empty(0, dtype=dtype)
        product = torch.bmm(weight, of_z.covariance, out=self.empty(weight.shape, weight))
        matrix, right = self.empty(weight.shape, like), self.empty((products, inputs, outputs), like)
        y_mean, y_variance, deviation, bias = torch.empty(4, products, outputs, dtype=torch.float64).unbind(0)
        chances = weight.new_ones(products) if p is None else p
        given = _arrays(weight, chances, of_z.mean, product)
        small.fold_rows(*given, eps, *_arrays(y_mean, y_variance, deviation, matrix, right, bias))
        return Folded(weight, p, of_z.mean, product, y_mean, y_variance, deviation, matrix, right, bias)

    def fold_backward(self, folded: Folded, d_right: Tensor, d_bias: Tensor) -> FoldGradients:
        weight, mean, product = folded.weight, folded.mean, folded.product
        if mean is None or product is None:
            return folding.fold_backward(folded, d_right, d_bias)
        d_weight, d_product = self.empty(weight.shape, weight), self.empty(weight.shape, weight)
        d_p, d_mean = weight.new_empty(len(weight)), torch.empty_like(mean)
        chances = weight.new_ones(len(weight)) if folded.p is None else folded.p
        given = _arrays(weight, chances, mean, product, folded.y_mean, folded.deviation, d_right, d_bias)
        small.unfold_rows(*given, *_arrays(d_weight, d_p, d_mean, d_product))
        d_covariance = self.empty((len(weight), weight.shape[2], weight.shape[2]), weight)
        torch.bmm(weight.transpose(1, 2), d_product, out=d_covariance)
        return FoldGradients(d_weight, d_p, d_mean, d_covariance)

    def owe_moments(
        self,
        of_z: Moments,
        d_mean: Tensor,
        d_covariance: Tensor,
        slope: Tensor,
        constant: Tensor,
        kinds: int,
        first: int,
    ) -> None:
        given = _arrays(of_z.mean, of_z.count, d_mean, d_covariance)
        small.owe_rows(*given, kinds, first, *_arrays(slope, constant))


def _combined(like: Tensor, zs: Sequence[Tensor], xs: Sequence[Tensor]) -> Fields:
    """The fields that both passes of a node begin with."""
    batch, height, width, channels = like.shape
    return {
        "images": batch,
        "count": height * width,
        "channels": channels,
        "products": len(zs),
        "scaled": len(xs),
        "zs": addresses(dense(zs)),
        "xs": addresses(dense(xs)),
    }


def _pooling(images: Sequence[Tensor], stride: int, maxima: Tensor | None, averages: Tensor | None) -> Fields:
    """The fields that both passes of pooling begin with."""
    batch, height, width, channels = images[0].shape
    return {
        "batch": batch,
        "height": height,
        "width": width,
        "channels": channels,
        "stride": stride,
        "inputs": len(images),
        "has_maxima": int(maxima is not None),
        "has_averages": int(averages is not None),
        "xs": addresses(dense(images)),
        "maxima": NONE if maxima is None else rows(maxima),
        "averages": NONE if averages is None else rows(averages),
    }


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy() for tensor in tensors]
