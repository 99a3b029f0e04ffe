"""The supernet in its fast form: the function of `reference.Supernet`, in fewer and larger steps.

All edges that leave a node share its pools and one read by their depthwise convolutions; normalisations are folded
into pointwise products (`folding`); all that ends in a node is one sum of products. Weights of all edges of a cell
are stacked in one tensor per kind; `to_textbook` and `from_textbook` convert, exactly, to the reference's names.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.engine.sync_batchnorm import SyncedBatchNorm2d
from nge_search.operations import DilConv, FactorizedReduce, ModuleList, Preprocess, SepConv, is_pool
from nge_search.settings.names import INPUT_NODES
from nge_search.supernet.cell_function import Observed, Plan, mix
from nge_search.supernet.kernels.contract import Kernels
from nge_search.supernet.module_pass import weights_of
from nge_search.supernet.preprocess import fork, preprocess
from nge_search.supernet.reference import MixedCell, Supernet
from nge_search.supernet.setting import Setting
from nge_search.supernet.stacking import StackedCell, StackedNetwork, Statistics, move, require_known, running
from nge_search.supernet.stage import Given, Stage, StageWeights, needed


class _Divided:
    """`cell_function.Divided` for `Stage`.

    Weights are stacked by edge: taps of first steps, of dilated convolutions and of second steps, per kind
    [E, C, 1, K, K]; pointwise weights of first steps, second steps and dilated convolutions
    [E * kinds, C, C, 1, 1], as far as there are such; where skip connections halve, those of their even and odd
    pixels [2 E, C, C] for the first stage's edges; then those of modules, by edge. P's edges are by source and then
    target, its operations as in `StageWeights.p`.
    """

    def __init__(self, stages: Sequence[Stage], p_EO: Tensor, weights: Sequence[Tensor]):
        owned = [len(weights_of(stage.modules)) for stage in stages]
        own, weights = weights[len(weights) - sum(owned) :], weights[: len(weights) - sum(owned)]
        ends = list(itertools.accumulate(owned))
        self.of_modules = [own[end - count : end] for end, count in zip(ends, owned)]
        self.counts = [len(stage.targets) for stage in stages]
        self.separable, self.dilated = stages[0].separable, len(stages[0].dilations)
        self.p = p_EO.split(self.counts)
        taps = 2 * self.separable + self.dilated
        self.taps = [weight.split(self.counts) for weight in weights[:taps]]
        kinds = [self.separable] * 2 * (self.separable > 0) + [self.dilated] * (self.dilated > 0)
        pointwise = [weight.flatten(2).to(p_EO.dtype) for weight in weights[taps:]]
        self.halves = pointwise[len(kinds)] if stages[0].split_skip else None
        self.pointwise = [
            weight.split([count * kind for count in self.counts]) for weight, kind in zip(pointwise, kinds)
        ]

    def stage(self, s: int) -> StageWeights:
        taps, pointwise = [part[s] for part in self.taps], [part[s] for part in self.pointwise]
        inner = self.separable + self.dilated
        first, last = pointwise[:2] if self.separable else (None, None)
        direct = pointwise[-1] if self.dilated else None
        if s == 0 and self.halves is not None:
            direct = self._with_halves(direct)
        return StageWeights(self.p[s], taps[:inner], taps[inner:], first, last, direct, self.of_modules[s])

    def _with_halves(self, direct: Tensor | None) -> Tensor:
        assert self.halves is not None
        halves = self.halves.unflatten(0, (-1, 2))
        if direct is not None:
            halves = torch.cat([direct.unflatten(0, (len(halves), -1)), halves], dim=1)
        return halves.flatten(0, 1)

    def gradients(self, stages: Sequence[StageWeights], weights: Sequence[Tensor]) -> list[Tensor]:
        """Those of all stages, stacked as the cell's weights are, in their types."""
        columns = [[*own.inner_taps, *own.outer_taps] for own in stages]
        found = [torch.cat(parts) for parts in zip(*columns)]
        first, last = needed(own.first for own in stages), needed(own.last for own in stages)
        direct = needed(own.direct for own in stages)
        halves: list[Tensor] = []
        if self.halves is not None:  # of the first stage alone, which then has direct weights
            every = direct[0].unflatten(0, (self.counts[0], -1))
            direct[0], halves = every[:, :-2].flatten(0, 1), [every[:, -2:].flatten(0, 1)]
        if self.separable:
            found += [torch.cat(first), torch.cat(last)]
        if self.dilated:
            found.append(torch.cat(direct))
        own = [x for stage in stages for x in stage.modules]
        return [x.to(weight.dtype).view(weight.shape) for x, weight in zip(found + halves + own, weights)]


#: What is computed in a fast form, depthwise convolutions alike; every other operation by its own module.
_FAST = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class FusedCell(StackedCell):
    """`reference.MixedCell` in the fast form; edges are stacked by their source and then by their target.

    `channels` are those that pass the operations. Modules of operations without a fast form are the textbook's own,
    and stand where they stand there.
    """

    skip_even: nn.Parameter
    skip_odd: nn.Parameter
    skip_norm: Statistics

    def __init__(self, cell: MixedCell):
        super().__init__()
        self.space, self.channels, self.reduction = cell.space, cell.channels // cell.partial, cell.reduction
        self.preprocess0, self.preprocess1 = cell.preprocess0, cell.preprocess1
        self.order = sorted(range(len(self.space.edges)), key=lambda edge: self.space.edges[edge])
        self.synchronised = isinstance(self.preprocess1.bn, SyncedBatchNorm2d)
        self.eps = self.preprocess1.bn.eps
        self._adopt(dict(cell.named_modules()))
        self.stages = self._plan()
        divide = functools.partial(_Divided, self.stages)
        self.plan = Plan(self.stages, INPUT_NODES, self.space.nodes, divide, cell.partial)

    def _adopt(self, reference: dict[str, nn.Module]) -> None:
        """Stack the weights and statistics of the reference's operations."""
        operations = tuple(name for name in self.space.operations if name in _FAST)
        place = {operation: self.space.operations.index(operation) for operation in operations}
        paths = {o: [f"edges.{edge}.{place[o]}" for edge in self.order] for o in operations}
        of_type = {o: reference[paths[o][0]] for o in operations}
        self.separable = [o for o in operations if isinstance(of_type[o], SepConv)]
        self.dilated = [o for o in operations if isinstance(of_type[o], DilConv)]
        self.pools = [o for o in operations if is_pool(o)]
        self.skip = "skip_connect" in operations
        dilated = [module for module in of_type.values() if isinstance(module, DilConv)]
        self.dilations = [module.depthwise.dilation[0] for module in dilated]

        def stack(name: str, operations: Sequence[str], suffix: str, part: int) -> None:
            every = zip(*(paths[operation] for operation in operations))
            self.stack(reference, name, [f"{path}{suffix}.{part}" for edge in every for path in edge])

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
                self.stack(reference, f"skip_{half}", [f"{path}.{half}" for path in halving])
            self.stack(reference, "skip_norm", [f"{path}.bn" for path in halving])
        self.slow = [at for at, name in enumerate(self.space.operations) if name not in _FAST]
        self.edges = nn.ModuleDict()
        for edge in range(len(self.space.edges)) if self.slow else ():
            self.edges[str(edge)] = nn.ModuleDict({str(at): reference[f"edges.{edge}.{at}"] for at in self.slow})

    def lend_modules(self, cell: MixedCell) -> None:
        """Put the modules of operations without a fast form into a textbook's cell."""
        for edge, at in itertools.product(range(len(self.space.edges)), self.slow):
            cell.edges[edge][at] = self._module(edge, at)

    def _module(self, edge: int, at: int) -> nn.Module:
        return self.edges.get_submodule(f"{edge}.{at}")

    def _plan(self) -> list[Stage]:
        """The two inputs together, then node by node."""
        stages: list[Stage] = []
        last = self.space.vertices - 1
        edges = iter(self.order)
        for sources in (range(INPUT_NODES), *([source] for source in range(INPUT_NODES, last))):
            targets = tuple(t for s in sources for t in range(max(s + 1, INPUT_NODES), self.space.vertices))
            own = [[self._module(edge, at) for at in self.slow] for edge in itertools.islice(edges, len(targets))]
            stages.append(
                Stage(
                    sources=tuple(sources),
                    targets=targets,
                    halving=self.reduction and not stages,
                    separable=len(self.separable),
                    dilations=tuple(self.dilations),
                    pools=("max_pool_3x3" in self.pools, "avg_pool_3x3" in self.pools),
                    skip=self.skip,
                    eps=self.eps,
                    modules=own,
                )
            )
        return stages

    def forward(self, kernels: Kernels, before: list[Tensor], last: list[Tensor], p_EO: Tensor) -> list[Tensor]:
        """The inner nodes, each [B, H, W, C], from those of the last two cells; together they are the output.

        Args:
            p_EO: as `FusedSupernet.ordered` gives it.
        """
        setting = Setting(self.training, self.synchronised, kernels, torch.is_grad_enabled())
        with torch.autocast(p_EO.device.type, enabled=False):  # which would round statistics and P to bfloat16
            images = [
                _preprocess(setting, *given) for given in ((self.preprocess0, before), (self.preprocess1, last))
            ]
            given = None if setting.observe else [self._given(s) for s in range(len(self.stages))]
            nodes, observed = mix(setting, self.plan, given, images, p_EO, self._weights())
            if observed.count is not None:
                self._observe(observed)
        return nodes

    def _weights(self) -> list[Tensor]:
        """As `mix` takes them."""
        names = [f"{name}_first_depthwise" for name in self.separable]
        names += [f"{name}_last_depthwise" for name in self.dilated + self.separable]
        names += ["first_pointwise", "separable_pointwise"] * (self.separable != [])
        names += ["dilated_pointwise"] * (self.dilated != [])
        found = [getattr(self, name) for name in names]
        if self.stages[0].split_skip:  # each half has zero rows where the other writes
            even, odd = self.skip_even.flatten(2), self.skip_odd.flatten(2)
            halves = (
                functional.pad(even, (0, 0, 0, odd.shape[1])),
                functional.pad(odd, (0, 0, even.shape[1], 0)),
            )
            found.append(torch.stack(halves, dim=1).flatten(0, 1))
        return found + [weight for stage in self.stages for weight in weights_of(stage.modules)]

    def _norms(self, stage: Stage) -> dict[str, tuple[str, int]]:
        """Names of the kinds of normalisation in `StagePass.given`, where they are kept, and how many per edge."""
        found = {"first": ("first_norm", len(self.separable)), "last": ("separable_norm", len(self.separable))}
        found["pool"] = "pool_norm", len(self.pools)
        found["direct"] = "dilated_norm", len(self.dilated)
        return {name: (norm, kinds) for name, (norm, kinds) in found.items() if kinds}

    def _given(self, s: int) -> Given:
        """Running statistics of a stage's edges."""
        stage = self.stages[s]
        before, edges = sum(len(own.targets) for own in self.stages[:s]), len(stage.targets)
        found: Given = {}
        for name, (norm, kinds) in self._norms(stage).items():
            rows = slice(before * kinds, (before + edges) * kinds)
            mean, variance = (kept[rows] for kept in running(getattr(self, norm)))
            found[name] = (
                (self._sorted_pools(mean), self._sorted_pools(variance)) if name == "pool" else (mean, variance)
            )
        if stage.split_skip:
            mean, variance = (kept[:, None] for kept in running(self.skip_norm))
            own = torch.arange(self.channels, device=mean.device) < self.skip_even.shape[1]
            halves = torch.cat([mean * own, mean * ~own], dim=1), variance.expand(-1, 2, -1)
            direct = found.get("direct", (mean[:0], variance[:0]))
            joined = [
                torch.cat([x.view(edges, len(x) // edges, self.channels), half], dim=1).flatten(0, 1)
                for x, half in zip(direct, halves)
            ]
            found["direct"] = joined[0], joined[1]
        return found

    def _sorted_pools(self, x: Tensor) -> Tensor:
        """[E * pools, C] between the space's order and that of a stage, which has maxima first."""
        if self.pools[0] == "max_pool_3x3":
            return x
        return x.unflatten(0, (-1, len(self.pools))).flip(1).flatten(0, 1)

    def _observe(self, observed: Observed) -> None:
        """Move running statistics towards those that a pass has seen."""
        assert observed.count is not None
        seen, first = observed.stages, self.stages[0]
        if first.split_skip:
            parts = [x.unflatten(0, (len(first.targets), -1)) for x in seen[0]["direct"]]
            halves = [x[:, -2:].sum(dim=1) for x in parts]  # each is zero where the other writes
            move(self.skip_norm, halves[0], halves[1], observed.count)
            mean, variance = (x[:, :-2].flatten(0, 1) for x in parts)
            seen = [{**seen[0], "direct": (mean, variance)}, *seen[1:]]
        for name, (norm, _) in self._norms(first).items():
            mean, variance = (torch.cat(parts) for parts in zip(*(own[name] for own in seen)))
            if name == "pool":
                mean, variance = self._sorted_pools(mean), self._sorted_pools(variance)
            move(getattr(self, norm), mean, variance, observed.count)


def _preprocess(setting: Setting, module: Preprocess, nodes: list[Tensor]) -> Tensor:
    """What ReLUConvBN or FactorizedReduce computes of concatenated nodes."""
    if isinstance(module, FactorizedReduce):
        norm, weights = module.bn, [module.even.weight, module.odd.weight]
    else:
        norm, weights = module.bn, [module.convolution.weight]
    given = None if setting.observe else running(norm)
    h, *seen = preprocess(setting, weights, nodes, given, norm.eps)
    if seen:
        move(norm, *seen)
    return h


class FusedSupernet(StackedNetwork):
    """`reference.Supernet` in the fast form, with the weights of one.

    Raises:
        UserError: an operation that is named twice.
    """

    def __init__(self, supernet: Supernet):
        require_known(supernet.space.operations, supernet.space.operations)
        super().__init__(supernet)
        self.stem, self.classifier = supernet.stem, supernet.classifier
        self.cells = ModuleList(FusedCell(cell) for cell in supernet.cells)
        first = self.cells[0]
        names = ["skip_connect"] * first.skip + sorted(first.pools, reverse=True) + first.separable + first.dilated
        self.take_order(first.order, [*map(self.space.operations.index, names), *first.slow])
        assert isinstance(self.textbook, Supernet)
        for own, cell in zip(self.cells, self.textbook.cells):
            own.lend_modules(cell)
        tensors = itertools.chain(self.named_parameters(), self.named_buffers())
        self.lent = {name for name, _ in tensors if ".edges." in name}

    def mix(self, x_BCHW: Tensor, *matrices: Tensor) -> Tensor:
        p_normal_EO, p_reduce_EO = matrices
        x = self.stem(x_BCHW).permute(0, 2, 3, 1).contiguous()
        kernels = self.backends.choose(x)
        before, last = fork(kernels, [x])
        for i, cell in enumerate(self.cells):
            is_last = i == len(self.cells) - 1  # else the next cell reads the same
            last, again = (last, last) if is_last else fork(kernels, last)
            p_EO = p_reduce_EO if cell.reduction else p_normal_EO
            before, last = again, cell(kernels, before, last, p_EO)
        return self.classifier(torch.cat([node.mean(dim=(1, 2)) for node in last], dim=1))
