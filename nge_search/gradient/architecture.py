"""The embedding and what moves it: P's gradient, the regularisers, Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding import EdgeWeights, build_embedding
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser
from nge_search.engine.distributed import World
from nge_search.engine.optimisers import step_capturable
from nge_search.engine.precision import weight_dtype
from nge_search.gradient import dirichlet
from nge_search.gradient.multiplier import SizeMultiplier
from nge_search.gradient.regularisers import anchor_gradient, beta_decay_gradient, entropy_gradient
from nge_search.settings.search import SearchConfig


class ArchitectureOptimiser:
    """P as a trainable function of X and Theta, and weights of edges with logits of their own, if there are such.

    Gradients are taken with respect to what mixtures are made of (`mixing`), summed over the ranks there (small
    matrices), and carried through the embedding on every rank alike.

    Args:
        cost_gradients: gradients of the expected cost with respect to each P, [E, O].
        multiplier: what leads to a wanted size, if one is wanted.

    Attributes:
        embedding: the module that gives P.
        edge_weights: the module that gives weights of edges, or None.
        finite: a boolean scalar on the device, cleared by a gradient that is not finite.
    """

    def __init__(
        self,
        config: SearchConfig,
        space: CellSpace,
        world: World,
        cost_gradients: Sequence[Tensor],
        multiplier: SizeMultiplier | None = None,
    ):
        dtype, section = weight_dtype(config.precision), config.search
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)
        self.dtype = dtype
        self.embedding = build_embedding(config.embedding, space).to(world.device, dtype)
        self.edge_weights = None
        if section.edge_normalisation:
            self.edge_weights = EdgeWeights(space).to(world.device, dtype)
        self.weigh_costs(cost_gradients)
        self.cost_weight, self.multiplier = section.cost_weight, multiplier
        self.first_entropy_weight = self.entropy_weight = section.entropy_weight
        self.last_beta_weight, self.beta_weight = section.beta_weight, 0.0
        self.dirichlet = section.mixture == "dirichlet"
        self.anchor_weight = section.anchor_weight if self.dirichlet else 0.0
        self.optimiser = self._build_adam(config)

    def weigh_costs(self, cost_gradients: Sequence[Tensor]) -> None:
        """Take gradients of an expected cost with respect to each P, [E, O]."""
        self.cost_gradients = [gradient.to(self.finite.device, self.dtype) for gradient in cost_gradients]

    @property
    def modules(self) -> list[nn.Module]:
        """What is trained."""
        return [self.embedding] if self.edge_weights is None else [self.embedding, self.edge_weights]

    def _build_adam(self, config: SearchConfig) -> torch.optim.Adam:
        settings = config.embedding
        node_vectors = self.embedding.node_vectors()
        every = (parameter for module in self.modules for parameter in module.parameters())
        others = [p for p in every if all(p is not x for x in node_vectors)]
        groups = [{"params": others, "weight_decay": settings.weight_decay}]
        if node_vectors:
            decay = settings.weight_decay if settings.weight_decay_on_x else 0.0
            groups.append({"params": node_vectors, "weight_decay": decay})
        betas = (settings.beta1, settings.beta2)
        capturable = self.finite.device.type == "cuda"  # its step may be part of a CUDA graph
        return torch.optim.Adam(groups, lr=settings.learning_rate, betas=betas, fused=True, capturable=capturable)

    @torch.no_grad()
    def probabilities(self) -> tuple[Tensor, ...]:
        """P of each kind of cell [E, O], as constants: rows sum to one."""
        return tuple(map(self._mean, self._matrices(self.embedding.logits())))

    @torch.no_grad()
    def mixing(self) -> tuple[Tensor, ...]:
        """What mixtures are made of, as constants, by kind of cell.

        P [E, O], or under search.mixture=dirichlet concentrations; then weights of edges [E], if there are such.
        """
        return tuple(self._outputs(self.embedding.logits()))

    @torch.no_grad()
    def strengths(self) -> tuple[Tensor, ...]:
        """What cells are derived from: P times the weight of the edge."""
        return self._strengths(self.mixing())

    def _strengths(self, outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`strengths` of what mixtures are made of."""
        kinds = len(outputs) if self.edge_weights is None else len(outputs) // 2
        found, edges = tuple(map(self._mean, outputs[:kinds])), outputs[kinds:]
        return tuple(p_EO * own_E[:, None] for p_EO, own_E in zip(found, edges)) if edges else found

    def _outputs(self, logits: Sequence[Tensor]) -> list[Tensor]:
        return self._matrices(logits) + list(self.edge_weights() if self.edge_weights else ())

    def _matrices(self, logits: Sequence[Tensor]) -> list[Tensor]:
        if self.dirichlet:
            return [dirichlet.concentrations(logits_EO) for logits_EO in logits]
        return [torch.softmax(logits_EO, dim=1) for logits_EO in logits]

    def _mean(self, matrix_EO: Tensor) -> Tensor:
        return dirichlet.mean(matrix_EO) if self.dirichlet else matrix_EO

    def anneal(self, progress: float, progress_of_p: float = 0.0) -> None:
        """Let the entropy bonus fall with the search's progress, and beta-decay rise with P's (from 0 to 1)."""
        self.entropy_weight = self.first_entropy_weight * (1 - progress)
        self.beta_weight = self.last_beta_weight * progress_of_p

    def step(self, gradient: Callable[[list[Tensor]], list[Tensor]]) -> None:
        """One Adam step on X and Theta.

        Args:
            gradient: from what mixtures are made of (`mixing`), as leaves, to the gradients of the loss over all
                ranks with respect to them.
        """
        logits = self.embedding.logits()
        outputs = self._outputs(logits)
        leaves = [x.detach().requires_grad_() for x in outputs]
        gradients = gradient(leaves)
        if self.multiplier is not None:
            self._lead_to_size(self.multiplier, gradients, leaves)
        self._add_regularisers(gradients, leaves)
        self.optimiser.zero_grad(set_to_none=True)
        if self.beta_weight:
            outputs += logits
            gradients = gradients + [self.beta_weight * beta_decay_gradient(x.detach()) for x in logits]
        torch.autograd.backward(outputs, gradients)
        step_capturable(self.optimiser)
        self.optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.stack([torch.isfinite(g).all() for g in gradients]).all()

    @torch.no_grad()
    def _lead_to_size(self, multiplier: SizeMultiplier, gradients: list[Tensor], leaves: list[Tensor]) -> None:
        """Add to the loss's gradients what leads to cells of the wanted size."""
        directions = multiplier.directions
        if self.dirichlet:
            directions = [dirichlet.mean_backward(c_EO, d_EO) for c_EO, d_EO in zip(leaves, directions)]
        multiplier.push(gradients[: len(directions)], self._strengths(leaves), directions)

    @torch.no_grad()
    def _add_regularisers(self, gradients: list[Tensor], leaves: list[Tensor]) -> None:
        """Those of expected cost, of P's entropy as a bonus, and of the divergence from even distributions."""
        for gradient_EO, x_EO, cost_EO in zip(gradients, leaves, self.cost_gradients):
            if self.cost_weight or self.entropy_weight:
                owed_EO = self.cost_weight * cost_EO
                owed_EO += self.entropy_weight * entropy_gradient(self._mean(x_EO))
                gradient_EO += dirichlet.mean_backward(x_EO, owed_EO) if self.dirichlet else owed_EO
            if self.anchor_weight:
                gradient_EO.add_(anchor_gradient(x_EO), alpha=self.anchor_weight)

    def state_dict(self) -> dict[str, Any]:
        state = {"embedding": self.embedding.state_dict(), "embedding_optimiser": self.optimiser.state_dict()}
        return state if self.edge_weights is None else {**state, "edge_weights": self.edge_weights.state_dict()}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.embedding, state.get("embedding"), source)
        if self.edge_weights is not None:
            load_module(self.edge_weights, state.get("edge_weights"), source)
        load_optimiser(self.optimiser, state.get("embedding_optimiser"), source)
