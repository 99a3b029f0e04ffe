"""The embedding and what moves it: P's gradient, the regularisers, Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding import build_embedding
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser
from nge_search.engine.distributed import World
from nge_search.engine.precision import weight_dtype
from nge_search.settings.search import SearchConfig


class ArchitectureOptimiser:
    """P as a trainable function of X and Theta.

    Gradients are taken with respect to P, summed over the ranks there (small matrices), and carried
    through the embedding on every rank alike.

    Args:
        cost_gradients: gradients of the expected cost with respect to each P, [E, O].

    Attributes:
        embedding: the module that gives P.
        finite: a boolean scalar on the device, cleared by a gradient that is not finite.
    """

    def __init__(self, config: SearchConfig, space: CellSpace, world: World, cost_gradients: Sequence[Tensor]):
        dtype = weight_dtype(config.precision)
        self.embedding = build_embedding(config.embedding, space).to(world.device, dtype)
        self.cost_gradients = [gradient.to(world.device, dtype) for gradient in cost_gradients]
        self.cost_weight = config.search.cost_weight
        self.first_entropy_weight = self.entropy_weight = config.search.entropy_weight
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)
        self.optimiser = self._build_adam(config)

    def _build_adam(self, config: SearchConfig) -> torch.optim.Adam:
        settings = config.embedding
        node_vectors = self.embedding.node_vectors()
        others = [p for p in self.embedding.parameters() if all(p is not x for x in node_vectors)]
        groups = [{"params": others, "weight_decay": settings.weight_decay}]
        if node_vectors:
            decay = settings.weight_decay if settings.weight_decay_on_x else 0.0
            groups.append({"params": node_vectors, "weight_decay": decay})
        betas = (settings.beta1, settings.beta2)
        capturable = self.finite.device.type == "cuda"  # its step may be part of a CUDA graph
        return torch.optim.Adam(groups, lr=settings.learning_rate, betas=betas, fused=True, capturable=capturable)

    @torch.no_grad()
    def probabilities(self) -> tuple[Tensor, ...]:
        """P of each kind of cell [E, O], as constants."""
        return self.embedding()

    def anneal(self, progress: float) -> None:
        """Let the entropy bonus fall linearly with the progress of the search, from 0 to 1."""
        self.entropy_weight = self.first_entropy_weight * (1 - progress)

    def step(self, gradient: Callable[[list[Tensor]], list[Tensor]]) -> None:
        """One Adam step on X and Theta.

        Args:
            gradient: from the matrices P, as leaves, to the gradients of the loss over all ranks with respect to
                them.
        """
        matrices = self.embedding()
        leaves = [p_EO.detach().requires_grad_() for p_EO in matrices]
        gradients = gradient(leaves)
        self._add_regularisers(gradients, leaves)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(matrices, gradients)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.stack([torch.isfinite(g_EO).all() for g_EO in gradients]).all()

    @torch.no_grad()
    def _add_regularisers(self, gradients: list[Tensor], leaves: list[Tensor]) -> None:
        """Expected cost (linear in P), and minus the mean entropy of the rows of P: (log P + 1) / E."""
        if self.cost_weight:
            for gradient_EO, cost_EO in zip(gradients, self.cost_gradients):
                gradient_EO.add_(cost_EO, alpha=self.cost_weight)
        if self.entropy_weight:
            for gradient_EO, p_EO in zip(gradients, leaves):
                log_EO = p_EO.clamp_min(torch.finfo(p_EO.dtype).tiny).log()
                gradient_EO.add_(log_EO + 1, alpha=self.entropy_weight / len(p_EO))

    def state_dict(self) -> dict[str, Any]:
        return {"embedding": self.embedding.state_dict(), "embedding_optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.embedding, state.get("embedding"), source)
        load_optimiser(self.optimiser, state.get("embedding_optimiser"), source)
