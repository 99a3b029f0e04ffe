"""Operations of a cell that have no fast form: each is computed by its own module, under an autograd of its own.

What a module gives for an edge counts as one more part of the sum that the edge ends in, scaled by its probability,
like the node itself or a pool of it. Gradients of P and of sums are those of parts; those of images and weights
come from the module.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nge_search.supernet.setting import Setting


class ModulePass:
    """The modules of a stage in one pass. Buffers move as the modules move them.

    Args:
        modules: of each edge, by source, as many of each.
        images: of the sources, [B, H, W, C].

    Attributes:
        outputs: of each edge and module, [B, H', W', C].
    """

    def __init__(self, setting: Setting, modules: Sequence[Sequence[nn.Module]], images: Sequence[Tensor]):
        self.modules = modules
        self.per_node = len(modules) // len(images)
        self.sources = [image.permute(0, 3, 1, 2).detach() for image in images]
        like = images[0]
        low = like.dtype if like.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
        self._results: list[list[Tensor]] = []
        with (
            torch.set_grad_enabled(setting.differentiate),
            torch.autocast(like.device.type, low, enabled=like.dtype == low, cache_enabled=False),
        ):
            for source in self.sources:
                source.requires_grad_(setting.differentiate)
            for edge, own in enumerate(modules):
                self._results.append([module(self.sources[edge // self.per_node]) for module in own])
        self.outputs = [
            [y.detach().permute(0, 2, 3, 1).to(like.dtype).contiguous() for y in own] for own in self._results
        ]

    def backward(
        self, p_EK: Tensor, dys: Sequence[Tensor], dx: Sequence[Tensor] | None, need_weights: bool
    ) -> list[Tensor]:
        """Gradients of all weights, as `weights_of` orders them, where they are needed; adds those of images to dx.

        Args:
            p_EK: of each edge and module.
            dys: of the sums that edges end in, [B, H', W', C].
        """
        found: list[Tensor] = []
        for edge, (own, results) in enumerate(zip(self.modules, self._results)):
            node = edge // self.per_node
            dy = dys[edge].permute(0, 3, 1, 2)
            for k, (module, y) in enumerate(zip(own, results)):
                weights = list(module.parameters()) if need_weights else []
                inputs = ([] if dx is None else [self.sources[node]]) + weights
                gradients = [torch.zeros_like(x) for x in inputs]
                if inputs and y.requires_grad:
                    given = (p_EK[edge, k].to(dy.dtype) * dy).to(y.dtype)
                    gradients = list(torch.autograd.grad(y, inputs, given, materialize_grads=True))
                if dx is not None:
                    dx[node].add_(gradients.pop(0).permute(0, 2, 3, 1))
                found += gradients
        self._results = []
        return found


def weights_of(modules: Sequence[Sequence[nn.Module]]) -> list[Tensor]:
    """All weights of some edges' modules, by edge and module."""
    return [weight for own in modules for module in own for weight in module.parameters()]
