"""The supernet in its fast form: the function of `reference.Supernet`, in fewer and larger steps.

All edges that leave a node share its pools and one read by their depthwise convolutions; normalisations are folded
into pointwise products (`folding`); all that ends in a node is one sum of products. Weights of all edges of a cell
are stacked in one tensor per kind; `to_textbook` and `from_textbook` convert, exactly, to the reference's names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d
from nge_search.genotype import INPUT_NODES
from nge_search.operations import DilConv, FactorizedReduce, SepConv, is_pool
from nge_search.supernet.folding import folded, scaled, wide
from nge_search.supernet.operators import (
    Maps,
    Observed,
    Setting,
    Terms,
    combine,
    convolve,
    normalise,
    pointwise,
    share,
)
from nge_search.supernet.reference import MixedCell, Supernet

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class _Statistics(nn.Module):
    """Running mean and variance of stacked batch normalisations: [n, C] each, and their counts [n]."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]):
        super().__init__()
        self.momentum = norms[0].momentum
        for name in _STATISTICS:
            self.register_buffer(name, torch.stack([getattr(norm, name) for norm in norms]))


class _Stage:
    """Nodes whose leaving edges are computed together, because all are known at once.

    Attributes:
        sources: the nodes; edges: the slice of the cell's edges, in its order, that leave them.
        targets: of each of those edges; per_source: how many leave each node; stride: of their operations.
    """

    def __init__(self, sources: Sequence[int], vertices: int, first_edge: int, stride: int):
        own = [list(range(max(source + 1, INPUT_NODES), vertices)) for source in sources]
        self.sources, self.stride, self.per_source = sources, stride, len(own[0])
        self.targets = [target for targets in own for target in targets]
        self.edges = slice(first_edge, first_edge + len(self.targets))


class FusedCell(nn.Module):
    """`reference.MixedCell` in the fast form; edges are stacked by their source and then by their target."""

    def __init__(self, cell: MixedCell):
        super().__init__()
        self.space, self.channels, self.reduction = cell.space, cell.channels, cell.reduction
        self.preprocess0, self.preprocess1 = cell.preprocess0, cell.preprocess1
        self.order = sorted(range(len(self.space.edges)), key=lambda edge: self.space.edges[edge])
        self.stages: list[_Stage] = []
        for sources in (range(INPUT_NODES), *([s] for s in range(INPUT_NODES, self.space.vertices - 1))):
            first = self.stages[-1].edges.stop if self.stages else 0
            stride = 2 if self.reduction and not self.stages else 1
            self.stages.append(_Stage(sources, self.space.vertices, first, stride))
        self.synchronised = isinstance(self.preprocess1[-1], SyncedBatchNorm2d)
        self.eps = self.preprocess1[-1].eps
        self.names: dict[str, list[str]] = {}  # stacked name -> the reference's names, in order of the stack
        self._adopt(dict(cell.named_modules()))

    def _adopt(self, reference: dict[str, nn.Module]) -> None:
        """Stack the weights and statistics of the reference's operations."""
        operations = self.space.operations
        place = {operation: operations.index(operation) for operation in operations}
        paths = {o: [f"edges.{edge}.{place[o]}" for edge in self.order] for o in operations}
        of_type = {o: reference[paths[o][0]] for o in operations}
        self.separable = [o for o in operations if isinstance(of_type[o], SepConv)]
        self.dilated = [o for o in operations if isinstance(of_type[o], DilConv)]
        self.pools = [o for o in operations if is_pool(o)]
        self.skip = "skip_connect" in operations
        self.dilations = [of_type[o][1].dilation[0] for o in self.dilated]  # type: ignore[index]

        def stack(name: str, operations: Sequence[str], suffix: str, part: int) -> None:
            every = zip(*(paths[operation] for operation in operations))
            self._stack(reference, name, [f"{path}{suffix}.{part}" for edge in every for path in edge])

        for operation in self.separable:
            stack(f"{operation}_first_depthwise", [operation], ".0", 1)
            stack(f"{operation}_last_depthwise", [operation], ".1", 1)
        for operation in self.dilated:
            stack(f"{operation}_last_depthwise", [operation], "", 1)
        for part, kind in ((2, "pointwise"), (3, "norm")):
            if self.separable:
                stack(f"first_{kind}", self.separable, ".0", part)
                stack(f"separable_{kind}", self.separable, ".1", part)
            if self.dilated:
                stack(f"dilated_{kind}", self.dilated, "", part)
        if self.pools:
            stack("pool_norm", self.pools, "", 1)
        if self.skip and self.reduction:
            halving = [path for path in paths["skip_connect"] if isinstance(reference[path], FactorizedReduce)]
            for half in ("even", "odd"):
                self._stack(reference, f"skip_{half}", [f"{path}.{half}" for path in halving])
            self._stack(reference, "skip_norm", [f"{path}.bn" for path in halving])
            # what the halves read, as depthwise convolutions of stride 2: every even pixel, and every odd one
            even = self.skip_even.new_ones(len(halving), self.channels, 1, 1, 1)
            odd = functional.pad(even, (2, 0, 2, 0))
            for name, taps in (("even_taps", even), ("odd_taps", odd)):
                self.register_buffer(name, taps.detach().clone(), persistent=False)

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

    def forward(self, before: list[Tensor], last: list[Tensor], p_EO: Tensor) -> list[Tensor]:
        """The inner nodes, each [B, H, W, C], from those of the last two cells; together they are the output."""
        setting = Setting(self.training, self.synchronised)
        with torch.autocast(p_EO.device.type, enabled=False):  # which would round statistics and P to bfloat16
            states = [
                _preprocess(setting, *given) for given in ((self.preprocess0, before), (self.preprocess1, last))
            ]
            return self._mix(setting, states, p_EO[self.order])

    def _mix(self, setting: Setting, states: list[Tensor], p_EO: Tensor) -> list[Tensor]:
        """The inner nodes from the cell's two preprocessed inputs."""
        weights = {name: weight for name, weight in self.named_parameters(recurse=False)}
        weights.update(self.named_buffers(recurse=False))
        terms = [Terms() for _ in range(self.space.vertices)]
        seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for stage in self.stages:
            for source in stage.sources:
                if source >= INPUT_NODES:
                    states.append(combine(terms[source]))
            edges = _Edges(self, setting, stage, [states[source] for source in stage.sources], weights, p_EO, seen)
            if self.pools or (self.skip and stage.stride == 1):
                edges.share(terms)
            if self.separable or self.dilated or (self.skip and stage.stride == 2):
                edges.convolve(terms)
        states.append(combine(terms[-1]))
        for name, moments in seen.items():
            together = (torch.cat(parts) for parts in zip(*(rows[:2] for rows in moments)))
            _move(getattr(self, name), *together, moments[0][2])
        return states[INPUT_NODES:]


class _Edges:
    """The edges that leave a stage's nodes, in one pass through a cell; E of them, from I nodes.

    Args:
        images: the nodes [B, H, W, C]; weights: the cell's, by name; p: [edges, operations] in the cell's order.
        seen: receives batch statistics by the name of their normalisations: mean, variance [E * kinds, C] and count.
    """

    def __init__(
        self,
        cell: FusedCell,
        setting: Setting,
        stage: _Stage,
        images: list[Tensor],
        weights: dict[str, Tensor],
        p_EO: Tensor,
        seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]],
    ):
        self.cell, self.setting, self.stage, self.images, self.seen = cell, setting, stage, images, seen
        self.weights, self.p_EO = weights, p_EO[stage.edges].to(wide(p_EO.device))

    def _p(self, operations: Sequence[str]) -> Tensor:
        """[E, operations]."""
        return self.p_EO[:, [self.cell.space.operations.index(operation) for operation in operations]]

    def _weight(self, name: str) -> Tensor:
        """[E, ...] of a weight that each edge has once."""
        return self.weights[name][self.stage.edges]

    def _weights(self, name: str, kinds: int) -> Tensor:
        """[E, kinds, ...] of a weight that several operations of each edge have."""
        return self.weights[name].unflatten(0, (-1, kinds))[self.stage.edges]

    def _running(self, name: str, kinds: int) -> tuple[Tensor, Tensor]:
        """Running mean and variance [E, kinds, C] of a kind of normalisations."""
        statistics, edges = getattr(self.cell, name), self.stage.edges
        found = (statistics.running_mean, statistics.running_var)
        mean, variance = (part.unflatten(0, (-1, kinds))[edges] for part in found)
        return mean, variance

    def share(self, terms: list[Terms]) -> None:
        """Skip connections and pools, which depend on the source alone."""
        cell, stage, setting = self.cell, self.stage, self.setting
        skip, nodes, count = cell.skip and stage.stride == 1, len(self.images), len(cell.pools)
        which = ("max_pool_3x3" in cell.pools, "avg_pool_3x3" in cell.pools)
        shared, observed = share(setting, self.images, which, skip, stage.stride)
        scales = []
        biases = observed.nothing.expand(len(stage.targets), cell.channels)
        if skip:
            scales.append(self._p(["skip_connect"])[:, :, None].expand(-1, -1, cell.channels))
        if cell.pools:
            if setting.observe:
                each = (nodes, stage.per_source, count, cell.channels)
                mean, variance = (x[:, None].expand(each).flatten(0, 1) for x in (observed.mean, observed.spread))
                if which[0] and cell.pools[0] != "max_pool_3x3":  # in the order of the space's operations
                    mean, variance = mean.flip(1), variance.flip(1)
                self._see("pool_norm", mean, variance, observed.count)
            else:
                mean, variance = (x.to(self.p_EO.dtype) for x in self._running("pool_norm", count))
            scale = self._p(cell.pools)[:, :, None] * torch.rsqrt(variance + cell.eps)
            biases = biases - (scale * mean).sum(dim=1)
            scales.append(scale if cell.pools[0] == "max_pool_3x3" or count == 1 else scale.flip(1))
        parts = zip(stage.targets, torch.cat(scales, dim=1).unbind(0), biases.unbind(0))
        for edge, (target, scale, bias) in enumerate(parts):
            terms[target].shared.append((shared, edge // stage.per_source, edge % stage.per_source))
            terms[target].scales.append(scale)
            terms[target].biases.append(bias)

    def convolve(self, terms: list[Terms]) -> None:
        """Separable and dilated convolutions, and skip connections of stride 2, up to their last product."""
        cell, stage, setting = self.cell, self.stage, self.setting
        first, last = len(cell.separable), len(cell.dilated)
        taps = [self._weight(f"{name}_first_depthwise") for name in cell.separable]
        taps += [self._weight(f"{name}_last_depthwise") for name in cell.dilated]
        dilations = [1] * first + cell.dilations
        halved = cell.skip and stage.stride == 2
        if halved:
            taps += [self.weights["even_taps"], self.weights["odd_taps"]]
            dilations += [1, 1]
        kinds = len(taps)
        leaving = [i * stage.per_source * kinds for i in range(len(self.images) + 1)]
        maps, observed = convolve(setting, self.images, taps, dilations, leaving, stage.stride)
        if first:
            matrices, biases = self._fold("first", cell.separable, None, *_kinds(observed, kinds, slice(0, first)))
            biases = (biases + observed.nothing).flatten(0, 1)
            which = [edge * kinds + kind for edge in range(len(stage.targets)) for kind in range(first)]
            taps = [self._weight(f"{name}_last_depthwise") for name in cell.separable]
            inner, inner_observed = convolve(
                setting,
                (matrices.flatten(0, 1), biases),
                taps,
                [1] * first,
                range(len(which) + 1),
                source=(maps, which),
            )
            found = _kinds(inner_observed, first, slice(0, first))
            self._leave(terms, inner, 0, self._fold("separable", cell.separable, self._p(cell.separable), *found))
        if last:
            found = _kinds(observed, kinds, slice(first, first + last))
            self._leave(terms, maps, first, self._fold("dilated", cell.dilated, self._p(cell.dilated), *found))
        if halved:
            found = _kinds(observed, kinds, slice(first + last, kinds))
            self._leave(terms, maps, first + last, self._fold_halves(*found))

    def _leave(self, terms: list[Terms], maps: Maps, kind: int, product: tuple[Tensor, Tensor]) -> None:
        """Add products of some kinds of maps, from `kind` on, to what ends in the edges' targets."""
        matrices, biases = product
        kinds, count = len(maps.z), matrices.shape[1]
        parts = zip(self.stage.targets, matrices.unbind(0), biases.sum(dim=1).unbind(0))
        for edge, (target, matrix, bias) in enumerate(parts):
            terms[target].maps.append((maps, [edge * kinds + kind + k for k in range(count)]))
            terms[target].matrices.append(matrix)
            terms[target].biases.append(bias)

    def _fold(
        self,
        name: str,
        operations: list[str],
        p: Tensor | None,
        mean: Tensor,
        covariance: Tensor,
        count: Tensor,
        nothing: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Matrices [E, kinds, C, C] and biases [E, kinds, C] of normalised pointwise products."""
        kinds, norm = len(operations), f"{name}_norm"
        weight = self._weights(f"{name}_pointwise", kinds).flatten(3)
        if not self.setting.observe:
            matrices, biases = scaled(weight, p, *self._running(norm, kinds), self.cell.eps)
            return matrices, biases + nothing
        matrices, biases, y_mean, y_variance = folded(weight, p, mean, covariance, self.cell.eps)
        self._see(norm, y_mean, y_variance, count)
        return matrices, biases

    def _fold_halves(
        self, mean: Tensor, covariance: Tensor, count: Tensor, nothing: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same of the two halves of FactorizedReduce; each has zero rows where the other writes."""
        even, odd = (self._weight(f"skip_{half}").flatten(2) for half in ("even", "odd"))
        parts = functional.pad(even, (0, 0, 0, odd.shape[1])), functional.pad(odd, (0, 0, even.shape[1], 0))
        weight, p = torch.stack(parts, dim=1), self._p(["skip_connect"]).expand(-1, 2)
        if not self.setting.observe:
            matrices, biases = scaled(weight, p, *self._running("skip_norm", 1), self.cell.eps)
            return matrices, biases / 2 + nothing
        matrices, biases, y_mean, y_variance = folded(weight, p, mean, covariance, self.cell.eps)
        self._see("skip_norm", y_mean.sum(dim=1), y_variance.sum(dim=1), count)
        return matrices, biases

    def _see(self, norm: str, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        rows = (x.detach().reshape(-1, x.shape[-1]) for x in (mean, variance))
        self.seen.setdefault(norm, []).append((*rows, count))


def _kinds(observed: Observed, kinds: int, which: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of some of the kinds of each edge's maps; count and `nothing`."""
    mean, covariance = observed.mean, observed.spread
    if len(mean):
        mean, covariance = (x.unflatten(0, (-1, kinds))[:, which] for x in (mean, covariance))
    return mean, covariance, observed.count, observed.nothing


def _preprocess(setting: Setting, module: nn.Module, nodes: list[Tensor]) -> Tensor:
    """What ReLUConvBN or FactorizedReduce computes of concatenated nodes."""
    if isinstance(module, FactorizedReduce):
        weights, norm = [module.even.weight, module.odd.weight], module.bn
    else:
        weights, norm = [module[1].weight], module[2]  # type: ignore[index]
    y = pointwise(nodes, [weight.to(nodes[0].dtype) for weight in weights])
    if not setting.observe:
        return (y - norm.running_mean.to(y.dtype)) * torch.rsqrt(norm.running_var + norm.eps).to(y.dtype)
    h, mean, variance, count = normalise(setting, y, norm.eps)
    _move(norm, mean, variance, count)
    return h


@torch.no_grad()
def _move(norm: nn.BatchNorm2d | _Statistics, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move running statistics towards a batch's mean and biased variance [..., C]."""
    unbiased = variance * (count / (count - 1))
    for running, observed in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.lerp_(observed.to(running.dtype), norm.momentum)
    norm.num_batches_tracked += 1


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
        before = last = [self.stem(x_BCHW).permute(0, 2, 3, 1).contiguous()]
        for cell in self.cells:
            before, last = last, cell(before, last, p_reduce_EO if cell.reduction else p_normal_EO)
        return self.classifier(torch.cat([node.mean(dim=(1, 2)) for node in last], dim=1))

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
