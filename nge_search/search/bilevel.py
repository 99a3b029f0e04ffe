"""Gradient search: a supernet's weights and the embedding that gives P, trained in turn.

`epochwise` is Algorithm 1 of the NGE paper: with P computed once, a pass over the training half moves the
weights; then a pass over the validation half, P computed anew at each step, moves X and Theta alone.
`batchwise` is DARTS' alternation: each step moves first the embedding, then the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nge_search.data import Batch, Feed
from nge_search.embedding import build_embedding
from nge_search.engine.checkpoint import load_module
from nge_search.engine.distributed import World
from nge_search.engine.logbook import Logbook
from nge_search.engine.loop import Task, float_buffers
from nge_search.engine.meters import Meter
from nge_search.engine.optimisers import build_sgd, clip_gradients, cosine, set_learning_rate
from nge_search.engine.precision import forward_context, weight_dtype
from nge_search.engine.sync_batchnorm import synchronise_statistics
from nge_search.graph import CellSpace
from nge_search.schema import SearchConfig
from nge_search.search.cost import ExpectedCost
from nge_search.search.hypergradient import sgd_directions, unrolled_gradient
from nge_search.search.phases import build_phases
from nge_search.search.progress import epoch_figures, publish_epoch
from nge_search.supernet import Supernet


class BilevelSearch(Task):
    """Supernet, embedding, their optimisers and the phases that move them.

    Args:
        train, valid: shuffled feeds of the two halves; evaluation: the validation half, in order, unaugmented.
    """

    def __init__(
        self,
        config: SearchConfig,
        classes: int,
        image_channels: int,
        image_size: int,
        train: Feed,
        valid: Feed,
        evaluation: Feed,
        world: World,
    ):
        self.config, self.world = config, world
        self.train, self.valid, self.evaluation = train, valid, evaluation
        self.space = CellSpace(config.supernet.nodes, tuple(config.supernet.operations))
        dtype = weight_dtype(config.precision)
        supernet = Supernet(
            self.space,
            config.supernet.channels,
            config.supernet.cells,
            classes,
            image_channels,
            config.supernet.stem_multiplier,
        )
        self.cost = ExpectedCost(supernet, image_size)
        if config.supernet.sync_statistics and world.size > 1:
            synchronise_statistics(supernet)
        self.supernet = supernet.to(world.device, dtype, memory_format=torch.channels_last)
        self.embedding = build_embedding(config.embedding, self.space).to(world.device, dtype)
        self.weights = list(self.supernet.parameters())
        section = config.search
        self.weight_optimiser = build_sgd(
            self.weights, section.learning_rate, section.momentum, section.weight_decay
        )
        self.embedding_optimiser = self._build_adam()
        self.cost_gradients = [g.to(world.device, dtype) for g in self.cost.relative_gradients()]

        self.epochs = section.epochs
        self.phases = build_phases(self)
        self.meters = {name: Meter(world.device) for name in ("train", "architecture", "valid")}
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)
        self.entropy_weight = 0.0
        self.p_constant: tuple[Tensor, Tensor] | None = None

    def _build_adam(self) -> torch.optim.Adam:
        settings = self.config.embedding
        node_vectors = self.embedding.node_vectors()
        others = [p for p in self.embedding.parameters() if all(p is not x for x in node_vectors)]
        groups = [{"params": others, "weight_decay": settings.weight_decay}]
        if node_vectors:
            decay = settings.weight_decay if settings.weight_decay_on_x else 0.0
            groups.append({"params": node_vectors, "weight_decay": decay})
        betas = (settings.beta1, settings.beta2)
        return torch.optim.Adam(groups, lr=settings.learning_rate, betas=betas, fused=True)

    # -- what the phases do

    @torch.no_grad()
    def probabilities(self) -> tuple[Tensor, Tensor]:
        """P of the two kinds of cell, each [E, O], as constants."""
        p_normal_EO, p_reduce_EO = self.embedding()
        return p_normal_EO, p_reduce_EO

    def _loss(self, batch: Batch, p: Sequence[Tensor], meter: Meter | None) -> Tensor:
        """This rank's part of the batch's mean loss: its images' sum divided by the images of all ranks."""
        with forward_context(self.config.precision, self.world.device):
            logits_BK = self.supernet(batch.images_BCHW, *p)
        if self.config.precision == "bf16":
            logits_BK = logits_BK.float()
        loss_sum = functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum")
        if meter is not None:
            meter.update(logits_BK.detach(), batch.labels_B, loss_sum.detach())
        return loss_sum / batch.total

    def weight_step(self, batch: Batch, p: tuple[Tensor, Tensor]) -> None:
        """One SGD step on the weights with P held constant."""
        loss = self._loss(batch, p, self.meters["train"])
        loss.backward()
        self.world.sum_gradients(self.weights)
        norm = clip_gradients(self.weights, self.config.search.clip)
        self.weight_optimiser.step()
        self.weight_optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss.detach())

    def architecture_step(self, valid: Batch, train: Batch | None) -> None:
        """One Adam step on X and Theta; the weights and their optimiser are as before. `train`: second order."""
        p = self.embedding()
        leaves = [matrix.detach().requires_grad_() for matrix in p]
        if train is None:
            gradients = self._gradient(valid, leaves, self.meters["architecture"])(leaves)
            self.world.sum_tensors(gradients)
        else:
            gradients = self._second_order(valid, train, leaves)
        self._add_regularisers(gradients, leaves)
        self.embedding_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(p, gradients)
        self.embedding_optimiser.step()
        self.embedding_optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.stack([torch.isfinite(g).all() for g in gradients]).all()

    def _gradient(
        self, batch: Batch, leaves: list[Tensor], meter: Meter | None
    ) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """A function from tensors to the gradients of this batch's loss, of this rank, with respect to them."""

        def gradient(inputs: Sequence[Tensor]) -> list[Tensor]:
            with torch.enable_grad():
                loss = self._loss(batch, leaves, meter)
                found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
            return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found)]

        return gradient

    def _second_order(self, valid: Batch, train: Batch, leaves: list[Tensor]) -> list[Tensor]:
        def summed(gradient: Callable[[Sequence[Tensor]], list[Tensor]]) -> Callable[..., list[Tensor]]:
            def over_ranks(inputs: Sequence[Tensor]) -> list[Tensor]:
                gradients = gradient(inputs)
                self.world.sum_tensors(gradients)
                return gradients

            return over_ranks

        def directions(gradients: list[Tensor]) -> list[Tensor]:
            return sgd_directions(self.weight_optimiser, dict(zip(self.weights, gradients)))

        saved = [buffer.clone() for buffer in float_buffers(self.supernet)]
        gradients = unrolled_gradient(
            self.weights,
            leaves,
            summed(self._gradient(train, leaves, None)),
            summed(self._gradient(valid, leaves, self.meters["architecture"])),
            directions,
            self.weight_optimiser.param_groups[0]["lr"],
        )
        torch._foreach_copy_(float_buffers(self.supernet), saved)
        return gradients

    @torch.no_grad()
    def _add_regularisers(self, gradients: list[Tensor], leaves: list[Tensor]) -> None:
        if self.config.search.cost_weight:
            torch._foreach_add_(gradients, self.cost_gradients, alpha=self.config.search.cost_weight)
        if self.entropy_weight:
            for gradient, p_EO in zip(gradients, leaves):
                tiny = torch.finfo(p_EO.dtype).tiny
                gradient.add_(p_EO.clamp_min(tiny).log() + 1, alpha=self.entropy_weight / len(p_EO))

    @torch.no_grad()
    def evaluation_step(self, batch: Batch, p: tuple[Tensor, Tensor]) -> None:
        if len(batch.labels_B):  # a rank's part of the last batch may be empty
            self._loss(batch, p, self.meters["valid"])

    def start_epoch(self, epoch: int) -> None:
        """Learning rate and entropy weight of `epoch`: functions of the epoch alone."""
        section = self.config.search
        rate = cosine(epoch, section.epochs, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.weight_optimiser, rate)
        self.entropy_weight = section.entropy_weight * (1 - epoch / section.epochs)
        self.supernet.train()

    # -- what the loop asks of a task

    def state_dict(self) -> dict[str, Any]:
        return {
            "supernet": self.supernet.state_dict(),
            "embedding": self.embedding.state_dict(),
            "weight_optimiser": self.weight_optimiser.state_dict(),
            "embedding_optimiser": self.embedding_optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.supernet, state["supernet"], source)
        load_module(self.embedding, state["embedding"], source)
        self.weight_optimiser.load_state_dict(state["weight_optimiser"])
        self.embedding_optimiser.load_state_dict(state["embedding_optimiser"])

    def local_buffers(self) -> list[Tensor]:
        return float_buffers(self.supernet)

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            result = meter.result(self.world)
            row.update({f"{name}_{figure}": result[figure] for figure in ("loss", "top1") if figure in result})
        row["learning_rate"] = self.weight_optimiser.param_groups[0]["lr"]
        row["embedding_learning_rate"] = self.embedding_optimiser.param_groups[0]["lr"]
        row.update(epoch_figures(self.embedding, self.space, self.cost, self.config))
        return row

    def publish(self, logbook: Logbook, row: dict[str, Any], step: int) -> None:
        publish_epoch(logbook, row, step, self.epochs)
