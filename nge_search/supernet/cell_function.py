"""The nodes of a cell from its inputs, as one operation under autograd.

A cell is given by its stages, in order: each has `sources` and `targets` as `Stage`, and `begin`, which gives the
stage's part of a pass, with what `StagePass` has. Stages are computed when the nodes that they leave are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nge_search.supernet.by_pass import ByPass
from nge_search.supernet.folding import wide
from nge_search.supernet.kernels.contract import Kernels
from nge_search.supernet.setting import Setting
from nge_search.supernet.stage import EdgeGradients, Given


class Divided(Protocol):
    """A cell's P and stacked weights, divided by stage."""

    def stage(self, s: int) -> Any:
        """Those of a stage, as its `begin` takes them; gradients come in the same form, that of P as `p`."""

    def gradients(self, stages: Sequence[Any], weights: Sequence[Tensor]) -> list[Tensor]:
        """Those of all stages, stacked as the cell's weights are, in their types."""


@dataclass(frozen=True)
class Plan:
    """What of a cell is the same in all passes.

    Attributes:
        stages: in order.
        inputs: nodes that are given.
        outputs: nodes that are wanted, the last ones.
        divide: from P [E, O], wide, and stacked weights.
        parts: into so many are channels divided, of which one passes the operations.
    """

    stages: Sequence[Any]
    inputs: int
    outputs: int
    divide: Callable[[Tensor, Sequence[Tensor]], Divided]
    parts: int = 1


@dataclass
class Observed:
    """What a pass tells of normalisations: per stage as `StagePass.seen`, and the number of positions."""

    stages: list[Given] = field(default_factory=list)
    count: Tensor | None = None


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, setting: Setting, plan: Plan, given: Sequence[Given] | None, observed: Observed, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = plan.inputs
        ctx.save_for_backward(*tensors[inputs + 1 :])
        states, (p_EO, *weights) = [x.detach() for x in tensors[:inputs]], tensors[inputs:]
        past = None
        if plan.parts > 1:
            past, p_EO = ByPass(plan.stages, plan.parts, p_EO[:, -1]), p_EO[:, :-1]
        ctx.weights, ctx.passes, ctx.plan, ctx.past = plan.divide(p_EO, weights), [], plan, past
        ctx.kernels = kernels = setting.kernels
        for s, stage in enumerate(plan.stages):
            if stage.sources[-1] >= inputs:
                states.append(_combine(kernels, ctx.passes, stage.sources[-1], past))
            images = [states[source] for source in stage.sources]
            if past is not None:
                images = [past.take(*own, stage.stride == 2) for own in zip(stage.sources, images)]
            ctx.passes.append(
                stage.begin(setting, images, ctx.weights.stage(s), given[s] if given is not None else None)
            )
            observed.stages.append(ctx.passes[-1].seen)
        observed.count = next((own.count for own in ctx.passes if own.count is not None), None)
        states.append(_combine(kernels, ctx.passes, len(states), past))
        # other tensors than those that passes hold: outputs know this operation, and it must not know them
        return tuple(state.detach() for state in states[-plan.outputs :])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        weights, plan, passes, first = ctx.saved_tensors, ctx.plan, ctx.passes, ctx.plan.inputs
        past: ByPass | None = ctx.past
        inputs, need_weights = ctx.needs_input_grad[4:][:first], any(ctx.needs_input_grad[5 + first :])
        dys: list[Any] = [None] * (plan.stages[-1].targets[-1] + 1 - len(outer)) + list(outer)
        gradients: list[dict[int, EdgeGradients]] = [{} for _ in plan.stages]
        found: list[Any] = []
        target = len(dys) - 1
        for stage in reversed(plan.stages):
            while target > stage.sources[-1]:
                dy = dys[target] if past is None else past.spread(dys[target], _ending(passes, target))
                _spread(ctx.kernels, passes, gradients, target, dy)
                target -= 1
            last = passes.pop()
            dx = [ctx.kernels.empty(x.shape, x) for x in last.images] if any(inputs) or target >= first else None
            own = gradients.pop()
            found.append(last.backward([own[e] for e in range(len(own))], dx, need_weights))
            for source, change in zip(stage.sources, dx or ()):
                before = dys[source]
                change = change if past is None else past.join(source, change)
                dys[source] = change if before is None else change.add_(before)
        found.reverse()
        d_weights = ctx.weights.gradients(found, weights) if need_weights else [None] * len(weights)
        d_p = torch.cat([own.p for own in found])
        if past is not None:
            d_p = torch.cat([d_p, past.d_weights_E[:, None]], dim=1)
        return None, None, None, None, *dys[:first], d_p, *d_weights


def _ending(passes: Sequence[Any], target: int) -> list[tuple[int, int]]:
    """The edges that end in a node: by pass, and number in it."""
    return [(s, e) for s, own in enumerate(passes) for e, t in enumerate(own.stage.targets) if t == target]


def _combine(kernels: Kernels, passes: Sequence[Any], target: int, past: ByPass | None) -> Tensor:
    """A node [B, H, W, C]: the sum over its edges of products, scaled parts and biases, and what goes by these."""
    edges = [(passes[s], e) for s, e in _ending(passes, target)]
    like = passes[0].like
    zs, xs = [z for own, e in edges for z in own.maps(e)], [x for own, e in edges for x in own.parts(e)]
    bias = torch.stack([own.biases[e] for own, e in edges]).sum(dim=0).to(like.dtype)
    rights, scales = [right for own, e in edges for right in own.rights[e]], [own.scales[e] for own, e in edges]
    node = kernels.combine(zs, rights, xs, scales, bias)
    return node if past is None else past.node(node, _ending(passes, target))


def _spread(
    kernels: Kernels,
    passes: Sequence[Any],
    gradients: Sequence[dict[int, EdgeGradients]],
    target: int,
    dy: Tensor,
) -> None:
    """Hand each edge that ends in a node, by pass and number, its part of the node's gradient."""
    like = passes[0].like
    edges = _ending(passes, target)
    zs, xs = [passes[s].maps(e) for s, e in edges], [passes[s].parts(e) for s, e in edges]
    dy = dy.contiguous()
    found = kernels.combine_backward([z for own in zs for z in own], [x for own in xs for x in own], dy)
    d_bias, d_scales, d_rights = (part.to(wide(like)) for part in found)
    parts = d_rights.split([len(own) for own in zs]), d_scales.split([len(own) for own in xs])
    for (s, e), right, scale in zip(edges, *parts):
        gradients[s][e] = EdgeGradients(dy, right, scale, d_bias)


def mix(
    setting: Setting,
    plan: Plan,
    given: Sequence[Given] | None,
    images: Sequence[Tensor],
    p_EO: Tensor,
    weights: Sequence[Tensor],
) -> tuple[list[Tensor], Observed]:
    """The wanted nodes of a cell, each [B, H, W, C], and what was observed of normalisations.

    Args:
        given: without observation, running statistics by stage.
        images: the cell's inputs [B, H, W, C].
        p_EO, weights: as `plan.divide` takes them; where channels are divided, P has one more column, the weights
            of edges.
    """
    observed = Observed()
    return list(_Mix.apply(setting, plan, given, observed, *images, p_EO, *weights)), observed
