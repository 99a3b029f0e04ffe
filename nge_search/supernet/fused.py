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
from nge_search.supernet.folding import wide
from nge_search.supernet.operators import Leaving, Plan, Setting, combine, leave, normalise, pointwise
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
        sources: the nodes; targets: of each edge that leaves them; stride: of their operations.
    """

    def __init__(self, sources: Sequence[int], vertices: int, stride: int):
        self.sources, self.stride = sources, stride
        self.targets = [t for source in sources for t in range(max(source + 1, INPUT_NODES), vertices)]


class FusedCell(nn.Module):
    """`reference.MixedCell` in the fast form; edges are stacked by their source and then by their target."""

    def __init__(self, cell: MixedCell):
        super().__init__()
        self.space, self.channels, self.reduction = cell.space, cell.channels, cell.reduction
        self.preprocess0, self.preprocess1 = cell.preprocess0, cell.preprocess1
        self.order = sorted(range(len(self.space.edges)), key=lambda edge: self.space.edges[edge])
        self.stages = []
        for sources in (range(INPUT_NODES), *([s] for s in range(INPUT_NODES, self.space.vertices - 1))):
            halving = self.reduction and not self.stages
            self.stages.append(_Stage(sources, self.space.vertices, 2 if halving else 1))
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
            return self._mix(setting, states, p_EO)

    def _mix(self, setting: Setting, states: list[Tensor], p_EO: Tensor) -> list[Tensor]:
        """The inner nodes from the cell's two preprocessed inputs; p as `FusedSupernet._ordered` gives it."""
        counts = [len(stage.targets) for stage in self.stages]
        every = dict(self.named_parameters(recurse=False))
        weights = {name: weight.split(self._rows(name, counts)) for name, weight in every.items()}
        into: list[list[tuple[Leaving, int, Tensor, Tensor, Tensor]]] = [[] for _ in range(self.space.vertices)]
        passed = []

        def finish(node: int) -> None:
            leavings, edges, *small = zip(*into[node])
            states.append(combine(list(zip(leavings, edges)), *small))

        for s, (stage, p) in enumerate(zip(self.stages, p_EO.split(counts))):
            for source in stage.sources:
                if source >= INPUT_NODES:
                    finish(source)
            own = {name: parts[s] for name, parts in weights.items() if s < len(parts)}
            leaving = Leaving(self._plan(stage))
            if not setting.observe:
                leaving.given = self._given(sum(counts[:s]), counts[s])
            images = [states[source] for source in stage.sources]
            found = leave(
                setting, leaving, images, self._p(stage, p), self._taps(stage, own), self._pointwise(stage, own)
            )
            for edge, (target, *small) in enumerate(zip(stage.targets, *(x.unbind(0) for x in found))):
                into[target].append((leaving, edge, *small))  # type: ignore[arg-type]
            passed.append(leaving)
        finish(self.space.vertices - 1)
        if setting.observe:
            self._observe(passed)
        return states[INPUT_NODES:]

    def _rows(self, name: str, counts: list[int]) -> list[int]:
        """How many rows of a stacked weight belong to each stage."""
        if name.startswith("skip_"):
            return counts[:1]
        kinds = {"first_pointwise": len(self.separable), "separable_pointwise": len(self.separable)}
        kinds["dilated_pointwise"] = len(self.dilated)
        return [count * kinds.get(name, 1) for count in counts]

    def _halves(self, stage: _Stage) -> bool:
        return self.skip and stage.stride == 2

    def _plan(self, stage: _Stage) -> Plan:
        return Plan(
            nodes=len(stage.sources),
            edges=len(stage.targets),
            stride=stage.stride,
            separable=len(self.separable),
            dilations=self.dilations + [1, 1] * self._halves(stage),
            pools=("max_pool_3x3" in self.pools, "avg_pool_3x3" in self.pools),
            skip=self.skip and stage.stride == 1,
            eps=self.eps,
        )

    def _p(self, stage: _Stage, p: Tensor) -> Tensor:
        """P in a plan's order; where a skip connection halves, it counts as two direct convolutions."""
        return torch.cat([p[:, 1:], p[:, :1], p[:, :1]], dim=1) if self._halves(stage) else p

    def _taps(self, stage: _Stage, weights: dict[str, Tensor]) -> list[Tensor]:
        taps = [weights[f"{name}_first_depthwise"] for name in self.separable]
        taps += [weights[f"{name}_last_depthwise"] for name in self.dilated]
        if self._halves(stage):
            taps += [self.even_taps, self.odd_taps]
        return taps + [weights[f"{name}_last_depthwise"] for name in self.separable]

    def _pointwise(self, stage: _Stage, weights: dict[str, Tensor]) -> list[Tensor]:
        found = [weights[f"{part}_pointwise"].flatten(2) for part in ("first", "separable") if self.separable]
        direct = (
            [weights["dilated_pointwise"].flatten(2).unflatten(0, (-1, len(self.dilated)))] if self.dilated else []
        )
        if self._halves(stage):  # each half has zero rows where the other writes
            even, odd = (weights[f"skip_{half}"].flatten(2) for half in ("even", "odd"))
            halves = functional.pad(even, (0, 0, 0, odd.shape[1])), functional.pad(odd, (0, 0, even.shape[1], 0))
            direct.append(torch.stack(halves, dim=1))
        return found + ([torch.cat(direct, dim=1).flatten(0, 1)] if direct else [])

    def _given(self, first: int, count: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Running statistics of some edges, as `Leaving` names them."""

        def running(name: str, kinds: int) -> list[Tensor]:
            norm, rows = getattr(self, name), slice(first * kinds, (first + count) * kinds)
            return [
                norm.running_mean[rows].unflatten(0, (count, -1)),
                norm.running_var[rows].unflatten(0, (count, -1)),
            ]

        found = {}
        for name in ("first", "separable"):
            if self.separable:
                found[name] = running(f"{name}_norm", len(self.separable))
        direct = [running("dilated_norm", len(self.dilated))] if self.dilated else []
        if first == 0 and self._halves(self.stages[0]):
            mean, variance = running("skip_norm", 1)
            split = torch.arange(self.channels, device=mean.device) < self.skip_even.shape[1]
            direct.append([torch.cat([mean * split, mean * ~split], dim=1), variance.expand(-1, 2, -1)])
        if direct:
            found["direct"] = [torch.cat(parts, dim=1) for parts in zip(*direct)]
        if self.pools:
            found["pool"] = [self._sorted_pools(x) for x in running("pool_norm", len(self.pools))]
        return {name: (mean.flatten(0, 1), variance.flatten(0, 1)) for name, (mean, variance) in found.items()}

    def _sorted_pools(self, x: Tensor) -> Tensor:
        """[E, pools, ...] between the space's order and that of a plan, which has maxima first."""
        return x if self.pools[0] == "max_pool_3x3" else x.flip(1)

    def _observe(self, passed: list[Leaving]) -> None:
        """Move running statistics towards those that a pass has seen."""
        count = passed[0].count
        if count is None:
            return
        edges = [leaving.plan.edges for leaving in passed]
        seen: dict[str, list[list[Tensor]]] = {}
        for leaving, rows in zip(passed, edges):
            for name, moments in leaving.seen.items():
                parts = [x.unflatten(0, (rows, -1)) for x in moments]
                if name == "direct" and self._halves(self.stages[0]) and leaving is passed[0]:
                    seen["skip_norm"] = [[x[:, -2:].sum(dim=1, keepdim=True) for x in parts]]
                    parts = [x[:, :-2] for x in parts]
                seen.setdefault("dilated_norm" if name == "direct" else f"{name}_norm", []).append(parts)
        for name, every in seen.items():
            mean, variance = (torch.cat(parts) for parts in zip(*every))
            if name == "pool_norm":
                mean, variance = self._sorted_pools(mean), self._sorted_pools(variance)
            if mean.shape[1]:
                _move(getattr(self, name), mean.flatten(0, 1), variance.flatten(0, 1), count)


def _preprocess(setting: Setting, module: nn.Module, nodes: list[Tensor]) -> Tensor:
    """What ReLUConvBN or FactorizedReduce computes of concatenated nodes."""
    if isinstance(module, FactorizedReduce):
        norm: nn.BatchNorm2d = module.bn
        height, width = nodes[0].shape[1:3]
        even = [node[:, ::2, ::2].contiguous() for node in nodes]
        odd = [functional.pad(node[:, 1::2, 1::2], (0, 0, 0, width % 2, 0, height % 2)) for node in nodes]
        y = torch.cat([pointwise(even, module.even.weight), pointwise(odd, module.odd.weight)], dim=3)
    else:
        _, convolution, norm = module  # type: ignore[misc]
        y = pointwise(nodes, convolution.weight)
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
        p_normal_EO, p_reduce_EO = self._ordered(p_normal_EO), self._ordered(p_reduce_EO)
        for cell in self.cells:
            before, last = last, cell(before, last, p_reduce_EO if cell.reduction else p_normal_EO)
        return self.classifier(torch.cat([node.mean(dim=(1, 2)) for node in last], dim=1))

    def _ordered(self, p_EO: Tensor) -> Tensor:
        """P with edges by source and operations as `operators.Plan` counts them, in wide precision."""
        cell = self.cells[0]
        names = ["skip_connect"] * cell.skip + sorted(cell.pools, reverse=True) + cell.separable + cell.dilated
        columns = [self.space.operations.index(name) for name in names]
        return p_EO[cell.order][:, columns].to(wide(p_EO.device))

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
