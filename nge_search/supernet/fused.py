"""The supernet in its fast form: the function of `reference.Supernet`, in fewer and larger steps.

All edges that leave a node share its pools and one read by their depthwise convolutions; normalisations are folded
into pointwise products (`folding`); all that ends in a node is one sum of products. Weights of all edges of a cell
are stacked in one tensor per kind; `to_textbook` and `from_textbook` convert, exactly, to the reference's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d
from nge_search.genotype import INPUT_NODES
from nge_search.operations import DilConv, FactorizedReduce, SepConv, is_pool
from nge_search.supernet.depthwise import depthwise, depthwise_backward
from nge_search.supernet.folding import Maps, Moments, batch_product, folded, moments, passage, product, scaled
from nge_search.supernet.reference import MixedCell, Supernet

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class _Depthwise(torch.autograd.Function):
    """Depthwise convolutions of relu(inputs): rows [m, M', n * C], one block of channels each.

    Args:
        plan: per convolution (which input, stride, dilation).
        size: batch, height and width of the outputs; M' = their product.
        count: number of inputs; the rest of `tensors` are weights.
        tensors: images [i, B, H, W, C], i = 1 serves all m rows; per convolution weights [m, C, 1, K, K].
    """

    @staticmethod
    def forward(
        ctx: Any, plan: Sequence[tuple[int, int, int]], size: tuple[int, int, int], count: int, *tensors: Tensor
    ) -> Tensor:
        inputs, weights = tensors[:count], tensors[count:]
        channels = inputs[0].shape[-1]
        rows = inputs[0].new_empty(len(weights[0]), *size, len(plan) * channels)
        for n, (which, stride, dilation) in enumerate(plan):
            block = rows[..., n * channels : (n + 1) * channels]
            weight = weights[n].to(rows.dtype)
            depthwise(inputs[which].unbind(0), weight, block.unbind(0), stride, dilation)
        ctx.plan, ctx.size, ctx.count = plan, size, count
        ctx.save_for_backward(*tensors)
        return rows.flatten(1, 3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weights = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        need = ctx.needs_input_grad[3:]
        channels = inputs[0].shape[-1]
        gradient = gradient.unflatten(1, ctx.size)
        input_gradients: list[Tensor | None] = [None] * len(inputs)
        weight_gradients = []
        for n, (which, stride, dilation) in enumerate(ctx.plan):
            found = input_gradients[which]
            more = found is not None
            if need[which] and not more:
                found = input_gradients[which] = torch.empty_like(inputs[which])
            block = gradient[..., n * channels : (n + 1) * channels]
            weight = weights[n].to(gradient.dtype)
            weight_gradient = depthwise_backward(
                inputs[which].unbind(0),
                weight,
                block.unbind(0),
                stride,
                dilation,
                found.unbind(0) if found is not None else None,
                more,
                need[ctx.count + n],
            )
            weight_gradients.append(None if weight_gradient is None else weight_gradient.to(weights[n].dtype))
        return None, None, None, *input_gradients, *weight_gradients


class _Statistics(nn.Module):
    """Running mean and variance of stacked batch normalisations: [n, C] each, and their counts [n]."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]):
        super().__init__()
        self.momentum = norms[0].momentum
        for name in _STATISTICS:
            self.register_buffer(name, torch.stack([getattr(norm, name) for norm in norms]))

    def running(self, rows: slice) -> tuple[Tensor, Tensor]:
        return self.running_mean[rows], self.running_var[rows]

    @torch.no_grad()
    def update(self, rows: slice, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move rows towards a batch's mean and biased variance, each [n, C] or [1, C] for all alike."""
        unbiased = variance * (count / (count - 1))
        for running, observed in ((self.running_mean[rows], mean), (self.running_var[rows], unbiased)):
            running.lerp_(observed.to(running.dtype).expand_as(running), self.momentum)
        self.num_batches_tracked[rows] += 1


@dataclass
class _Leaving:
    """What the edges that leave a node read, to be multiplied and summed at their targets.

    Attributes:
        row: of `maps`, that an edge (counted from 0 among those of its source) reads.
        matrices: [E, K, C]; biases: [E, C].
    """

    maps: Maps
    row: Callable[[int], int]
    matrices: Tensor
    biases: Tensor


class FusedCell(nn.Module):
    """`reference.MixedCell` in the fast form; edges are stacked by their source and then by their target."""

    def __init__(self, cell: MixedCell):
        super().__init__()
        self.space, self.channels, self.reduction = cell.space, cell.channels, cell.reduction
        self.preprocess0, self.preprocess1 = cell.preprocess0, cell.preprocess1
        self.order = sorted(range(len(self.space.edges)), key=lambda edge: self.space.edges[edge])
        self.edges_from = [self.space.vertices - max(s + 1, INPUT_NODES) for s in range(self.space.vertices - 1)]
        self.synchronised = isinstance(self.preprocess1[-1], SyncedBatchNorm2d)
        self.eps = self.preprocess1[-1].eps
        self.names: dict[str, list[str]] = {}  # stacked name -> the reference's names, in order of the stack
        self.convolutions: list[tuple[str, int]] = []  # operation and dilation
        self.pools: list[str] = []
        reference = dict(cell.named_modules())
        for position, operation in enumerate(self.space.operations):
            paths = [f"edges.{edge}.{position}" for edge in self.order]
            first = reference[paths[0]]
            if isinstance(first, (DilConv, SepConv)):
                parts = [("last", "")] if isinstance(first, DilConv) else [("first", ".0"), ("last", ".1")]
                self.convolutions.append((operation, first[1].dilation[0] if isinstance(first, DilConv) else 1))
                for part, suffix in parts:
                    stem = f"{operation}_{part}"
                    self._stack(reference, f"{stem}_depthwise", [f"{path}{suffix}.1" for path in paths])
                    self._stack(reference, f"{stem}_pointwise", [f"{path}{suffix}.2" for path in paths])
                    self._stack(reference, f"{stem}_norm", [f"{path}{suffix}.3" for path in paths])
            elif is_pool(operation):
                self.pools.append(operation)
                self._stack(reference, f"{operation}_norm", [f"{path}.1" for path in paths])
            elif self.reduction:
                halving = [path for path in paths if isinstance(reference[path], FactorizedReduce)]
                for half in ("even", "odd"):
                    self._stack(reference, f"skip_{half}", [f"{path}.{half}" for path in halving])
                self._stack(reference, "skip_norm", [f"{path}.bn" for path in halving])

    def _stack(self, reference: dict[str, nn.Module], name: str, paths: list[str]) -> None:
        modules = [reference[path] for path in paths]
        if isinstance(modules[0], nn.BatchNorm2d):
            setattr(self, name, _Statistics(modules))  # type: ignore[arg-type]
            for buffer in _STATISTICS:
                self.names[f"{name}.{buffer}"] = [f"{path}.{buffer}" for path in paths]
        else:
            weights = torch.stack([module.weight.detach() for module in modules])  # type: ignore[union-attr]
            self.register_parameter(name, nn.Parameter(weights))
            self.names[name] = [f"{path}.weight" for path in paths]

    def forward(self, before_BCHW: Tensor, last_BCHW: Tensor, p_EO: Tensor) -> Tensor:
        states = [_images(self.preprocess0(before_BCHW)), _images(self.preprocess1(last_BCHW))]
        with torch.autocast(p_EO.device.type, enabled=False):  # which would round statistics and P to bfloat16
            return self._mix(states, p_EO)

    def _mix(self, states: list[Tensor], p_EO: Tensor) -> Tensor:
        """The cell's output from its two preprocessed inputs, to which the inner nodes are appended."""
        batch, height, width, channels = states[0].shape
        if self.reduction:
            height, width = (height + 1) // 2, (width + 1) // 2
        rows_p = p_EO[self.order].split(self.edges_from)
        weights = {name: w.split(self._sizes(name)) for name, w in self.named_parameters(recurse=False)}
        terms: list[list[tuple[Maps, int]]] = [[] for _ in range(self.space.vertices)]
        matrices: list[list[Tensor]] = [[] for _ in terms]
        biases: list[list[Tensor]] = [[] for _ in terms]

        def finish(node: int) -> None:
            y_MC = product(terms[node], matrices[node], torch.stack(biases[node]).sum(dim=0))
            states.append(y_MC.view(batch, height, width, channels))

        for source in range(self.space.vertices - 1):
            if source >= INPUT_NODES:
                finish(source)
            p = dict(zip(self.space.operations, rows_p[source].unbind(1)))
            own = {name: parts[source] for name, parts in weights.items() if source < len(parts)}
            for leaving in self._leave(source, states[source], own, p):
                targets = range(max(source + 1, INPUT_NODES), self.space.vertices)
                parts = zip(targets, leaving.matrices.unbind(0), leaving.biases.unbind(0))
                for edge, (target, matrix, bias) in enumerate(parts):
                    terms[target].append((leaving.maps, leaving.row(edge)))
                    matrices[target].append(matrix)
                    biases[target].append(bias)
        finish(self.space.vertices - 1)
        return torch.cat(states[INPUT_NODES:], dim=3).permute(0, 3, 1, 2)

    def _sizes(self, name: str) -> list[int]:
        return self.edges_from[:INPUT_NODES] if name.startswith("skip_") else self.edges_from

    def _leave(self, source: int, h: Tensor, w: dict[str, Tensor], p: dict[str, Tensor]) -> list[_Leaving]:
        """All operations on node h [B, H, W, C], for the edges that leave it; w and p are those edges' shares."""
        stride = 2 if self.reduction and source < INPUT_NODES else 1
        first = sum(self.edges_from[:source])
        edges = slice(first, first + self.edges_from[source])
        found = []
        if self.pools or "skip_connect" in p:
            found.append(self._share(h, stride, edges, w, p))
        if self.convolutions:
            found.append(self._convolve(h, stride, edges, w, p))
        return found

    def _share(self, h: Tensor, stride: int, edges: slice, w: dict[str, Tensor], p: dict[str, Tensor]) -> _Leaving:
        """Skip connections and pools: their maps depend on the source alone."""
        x_BCHW, parts = h.permute(0, 3, 1, 2), []
        if "skip_connect" in p:
            parts += [h] if stride == 1 else _halves(x_BCHW)
        skips = len(parts)
        for pool in self.pools:
            if pool == "max_pool_3x3":
                pooled = functional.max_pool2d(x_BCHW, 3, stride, padding=1)
            else:
                pooled = functional.avg_pool2d(x_BCHW, 3, stride, padding=1, count_include_pad=False)
            parts.append(_images(pooled))
        rows = torch.cat(parts, dim=3).flatten(0, 2)[None]
        maps = Maps(rows.detach(), len(parts), self.synchronised)
        observed = self._observe(rows, maps) if skips != len(parts) or skips == 2 else passage(rows, maps)
        eye = torch.eye(self.channels, dtype=observed.nothing.dtype, device=h.device)
        matrices, biases = [], [observed.nothing.expand(edges.stop - edges.start, self.channels)]
        if skips == 1:
            matrices.append(p["skip_connect"].to(eye.dtype)[:, None, None] * eye)
        elif skips == 2:  # a half has zero rows where the other writes; their mean and variance are zero
            even, odd = w["skip_even"].flatten(2), w["skip_odd"].flatten(2)
            both = torch.stack(
                [functional.pad(even, (0, 0, 0, odd.shape[1])), functional.pad(odd, (0, 0, even.shape[1], 0))]
            )
            if self.training:
                k, b, mean, variance = folded(both, p["skip_connect"], *observed.blocks(slice(0, 2), 1), self.eps)
                self.skip_norm.update(edges, mean.sum(dim=0), variance.sum(dim=0), observed.count)
                b = b.sum(dim=0)
            else:
                k, b = scaled(both, p["skip_connect"], *self.skip_norm.running(edges), self.eps)
            matrices += k.unbind(0)
            biases.append(b)
        for block, pool in enumerate(self.pools, start=skips):
            norm = getattr(self, f"{pool}_norm")
            if self.training:
                k, b, mean, variance = folded(
                    eye[None], p[pool], *observed.blocks(slice(block, block + 1)), self.eps
                )
                norm.update(edges, mean, variance, observed.count)
            else:
                k, b = scaled(eye[None], p[pool], *norm.running(edges), self.eps)
            matrices.append(k)
            biases.append(b)
        return _Leaving(maps, lambda edge: 0, torch.cat(matrices, dim=1), torch.stack(biases).sum(dim=0))

    def _convolve(
        self, h: Tensor, stride: int, edges: slice, w: dict[str, Tensor], p: dict[str, Tensor]
    ) -> _Leaving:
        """Separable and dilated convolutions, up to their last pointwise product."""
        batch, height, width, _ = h.shape
        size = (batch, (height - 1) // stride + 1, (width - 1) // stride + 1)
        inputs, plan = [h[None]], []
        for name, dilation in self.convolutions:
            if f"{name}_first_depthwise" not in w:
                plan.append((0, stride, dilation))
                continue
            plan.append((len(inputs), 1, 1))
            rows = _Depthwise.apply([(0, stride, 1)], size, 1, h[None], w[f"{name}_first_depthwise"])
            maps = Maps(rows.detach(), 1, self.synchronised)
            observed = self._observe(rows, maps)
            weight, norm = w[f"{name}_first_pointwise"].flatten(2), getattr(self, f"{name}_first_norm")
            if self.training:
                k, b, mean, variance = folded(weight, None, observed.mean, observed.covariance, self.eps)
                norm.update(edges, mean, variance, observed.count)
            else:
                k, b = scaled(weight, None, *norm.running(edges), self.eps)
            inputs.append(batch_product(maps, k, b + observed.nothing).unflatten(1, size))
        names = [name for name, _ in self.convolutions]
        lasts = [w[f"{name}_last_depthwise"] for name in names]
        rows = _Depthwise.apply(plan, size, len(inputs), *inputs, *lasts)
        maps = Maps(rows.detach(), len(names), self.synchronised)
        observed = self._observe(rows, maps)
        weight = torch.stack([w[f"{name}_last_pointwise"].flatten(2) for name in names], dim=1)
        norms = [getattr(self, f"{name}_last_norm") for name in names]
        chances = torch.stack([p[name] for name in names], dim=1)
        if self.training:
            mean, covariance = (x.unflatten(0, (-1, len(names))) for x in (observed.mean, observed.covariance))
            k, b, mean, variance = folded(weight, chances, mean, covariance, self.eps)
            for n, norm in enumerate(norms):
                norm.update(edges, mean[:, n], variance[:, n], observed.count)
        else:
            running = (torch.stack(x, dim=1) for x in zip(*(norm.running(edges) for norm in norms)))
            k, b = scaled(weight, chances, *running, self.eps)
        return _Leaving(maps, lambda edge: edge, k.flatten(1, 2), b.sum(dim=1) + observed.nothing)

    def _observe(self, rows: Tensor, maps: Maps) -> Moments:
        return moments(rows, maps) if self.training else passage(rows, maps)


def _images(x_BCHW: Tensor) -> Tensor:
    """[B, H, W, C], contiguous."""
    return x_BCHW.permute(0, 2, 3, 1).contiguous()


def _halves(x_BCHW: Tensor) -> list[Tensor]:
    """What the two 1x1 convolutions of FactorizedReduce read, each [B, H', W', C]."""
    x_BHWC = functional.relu(x_BCHW).permute(0, 2, 3, 1)
    height, width = x_BHWC.shape[1:3]
    odd = functional.pad(x_BHWC[:, 1::2, 1::2], (0, 0, 0, width % 2, 0, height % 2))
    return [x_BHWC[:, ::2, ::2], odd]


class FusedSupernet(nn.Module):
    """`reference.Supernet` in the fast form, with the weights of one."""

    def __init__(self, supernet: Supernet):
        super().__init__()
        self.space = supernet.space
        self.stem, self.classifier = supernet.stem, supernet.classifier
        self.cells = nn.ModuleList(FusedCell(cell) for cell in supernet.cells)
        self.textbook_names = list(supernet.state_dict())

    def forward(self, x_BCHW: Tensor, p_normal_EO: Tensor, p_reduce_EO: Tensor) -> Tensor:
        """Logits [B, classes] of images under the operation probabilities of the two kinds of cell."""
        before = last = self.stem(x_BCHW)
        for cell in self.cells:
            before, last = last, cell(before, last, p_reduce_EO if cell.reduction else p_normal_EO)
        return self.classifier(last.mean(dim=(2, 3)))

    def _stacks(self) -> dict[str, list[str]]:
        return {
            f"cells.{i}.{name}": [f"cells.{i}.{part}" for part in parts]
            for i, cell in enumerate(self.cells)
            for name, parts in cell.names.items()
        }

    def to_textbook(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by this module's names (weights, buffers, momenta), by the reference's names; views."""
        stacks, found = self._stacks(), {}
        for name, tensor in tensors.items():
            found.update(zip(stacks[name], tensor.unbind(0)) if name in stacks else [(name, tensor)])
        return found

    def from_textbook(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The reverse of `to_textbook`."""
        found, left = {}, dict(tensors)
        for name, parts in self._stacks().items():
            if parts[0] in left:
                found[name] = torch.stack([left.pop(part) for part in parts])
        return {**left, **found}
