"""`contract.Convolution` on a CPU: tensors handed to `cpu.convolution` by address."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.native.simd import Strip
from nge_search.native.threads import run
from nge_search.supernet.kernels.contract import Mix
from nge_search.supernet.kernels.cpu import convolution as tasks
from nge_search.supernet.kernels.workspace import NONE, Workspace, addresses, dense, rows

Fields = dict[str, int | np.ndarray]


class CompiledConvolution:
    """Kernels by their taps, and where each reads: what a pass and its gradient share.

    Args:
        weights, dilations, first, stride: as `contract.Kernels.convolution` takes them.
    """

    def __init__(
        self,
        workspace: Workspace,
        weights: Sequence[Tensor],
        dilations: Sequence[int],
        first: Sequence[int],
        stride: int,
    ):
        edges = len(weights[0])
        self._workspace = workspace
        self._taps = [w.detach().flatten(2).transpose(1, 2).contiguous() for w in weights]
        self._ws = np.stack([rows(taps) for taps in self._taps], axis=1).reshape(-1)
        self._sizes = [w.shape[-1] for w in weights]
        self._kinds = np.array(list(zip(self._sizes, dilations)) * edges, dtype=tasks.KIND)
        self._first = np.array(first, dtype=np.int64)
        self._stride = stride
        self._border = max(d * (k - 1) // 2 for k, d in zip(self._sizes, dilations))

    def _given(self, images: Sequence[Tensor], mix: Mix | None, z: Sequence[Tensor]) -> tuple[Strip, int, Fields]:
        """Strip, threads, and the fields that both passes begin with."""
        x = dense(images)[0]
        strip, threads = self._workspace.strip(x), torch.get_num_threads()
        batch, height, width, channels = x.shape
        size = tasks.scratch_bytes(
            strip, (batch, height, width, channels), self._stride, self._border, max(self._sizes)
        )
        return (
            strip,
            threads,
            {
                **self._workspace.scratch.words(size, threads),
                "batch": batch,
                "height": height,
                "width": width,
                "channels": channels,
                "stride": self._stride,
                "border": self._border,
                "inputs": len(images),
                "outputs": len(self._ws),
                "xs": addresses(images),
                "mixed": int(mix is not None),
                "mix": _linear(mix),
                "ws": self._ws,
                "kinds": self._kinds,
                "first": self._first,
                "zs": np.stack([rows(part) for part in z], axis=1).reshape(-1),
            },
        )

    def forward(
        self, images: Sequence[Tensor], mix: Mix | None, observe: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        batch, height, width, channels = images[0].shape
        edges, kinds = len(self._taps[0]), len(self._taps)
        size = (height - 1) // self._stride + 1, (width - 1) // self._stride + 1
        z = list(self._workspace.memory.empty((kinds, edges, batch, *size, channels), images[0]).unbind(0))
        strip, threads, given = self._given(images, mix, z)
        sums, targets = self._workspace.sums.wanted(observe, threads, edges * kinds, channels + 1, channels)
        run(tasks.convolve(strip), threads, **given, sums=targets)
        return z, sums if observe else None

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
        strip, threads, given = self._given(images, mix, z)
        channels, edges = images[0].shape[3], len(self._taps[0])
        areas = [size**2 * channels * need for size, need in zip(self._sizes, need_weights)]
        weights = edges * sum(areas)
        mixing = (len(images), channels + 1, channels) if mix is not None and dx is not None else (0, 0, 0)
        sums = self._workspace.sums.zeros(threads, weights + math.prod(mixing))
        dw, dmix = sums[:, :weights], sums[:, weights:].unflatten(1, mixing)
        starts = np.cumsum([0, *areas])[:-1] * edges
        places = 8 * (starts + np.arange(edges)[:, None] * np.array(areas)).reshape(-1)
        wanted = np.tile(np.array(need_weights, dtype=bool), edges)
        shares = sums.data_ptr() + 8 * sums.stride(0) * np.arange(threads)[:, None]
        mixes = 8 * (np.arange(mixing[0]) * mixing[1] * mixing[2] + weights)
        run(
            tasks.convolve_backward(strip), threads, **given,
            dys=addresses(dense([dy for dy, _ in owed])), owed=_owed(owed, slope, constant),
            wanted=int(dx is not None), dxs=NONE if dx is None else addresses(dense(dx)),
            dws=np.where(wanted, shares + places, 0), dmix=shares + mixes, more=int(accumulate),
        )  # fmt: skip
        parts = dw.sum(dim=0).to(images[0].dtype).split([edges * area for area in areas])
        d_weights = [
            part.view(edges, -1, channels).transpose(1, 2).reshape(edges, channels, 1, size, size) if need else None
            for part, size, need in zip(parts, self._sizes, need_weights)
        ]
        return d_weights, self._workspace.total(dmix) if mixing[0] else None


def _linear(mix: Mix | None) -> np.ndarray:
    found = np.zeros(0 if mix is None else len(mix[0]), dtype=tasks.LINEAR)
    if mix is not None:
        found["matrix"], found["bias"] = rows(mix[0]), rows(mix[1])
    return found


def _owed(owed: Sequence[tuple[Tensor, Tensor]], slope: Tensor | None, constant: Tensor) -> np.ndarray:
    found = np.zeros(len(owed), dtype=tasks.OWED)
    found["matrix"], found["constant"] = addresses([matrix for _, matrix in owed]), rows(constant)
    if slope is not None:
        found["slope"] = rows(slope)
    return found
