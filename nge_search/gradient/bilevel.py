"""Gradient search: a supernet's weights and the embedding that gives P, trained in turn.

`epochwise` is Algorithm 1 of the NGE paper: with P computed once, a pass over the training half moves the
weights; then a pass over the validation half, P computed anew at each step, moves X and Theta alone.
`batchwise` is DARTS' alternation: each step moves first the embedding, then the weights.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.data import Batch, Dataset, Loader
from nge_search.engine.cuda_graphs import Recorder, choose_record
from nge_search.engine.distributed import World
from nge_search.engine.logger import Logger
from nge_search.engine.loop import float_buffers
from nge_search.engine.optimisers import build_sgd, clip_gradients, cosine, set_gradients, set_learning_rate
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.engine.sync_batchnorm import synchronise_statistics
from nge_search.engine.task import Task
from nge_search.gradient.architecture import ArchitectureOptimiser
from nge_search.gradient.cost import ExpectedCost
from nge_search.gradient.hypergradient import GradientOf, sgd_directions, unrolled_gradient
from nge_search.gradient.phases import build_phases
from nge_search.gradient.progress import TAGS, describe_epoch, epoch_figures, more_scalars
from nge_search.gradient.sampling import Sampler, score_gradient
from nge_search.metrics.classification import Meter
from nge_search.settings.search import SearchConfig
from nge_search.supernet import build_space, build_supernet, fuse, state_dict


class BilevelSearch(Task):
    """Supernet, embedding, their optimisers and the phases that move them.

    Args:
        train, valid: shuffled loaders of the two halves; evaluation: the validation half, in order, unaugmented.
    """

    unit = "images"
    tags = TAGS
    pictures = "nge_search.report.tensorboard:search_pictures"
    meters: Mapping[str, Meter]

    def __init__(
        self,
        config: SearchConfig,
        dataset: Dataset,
        train: Loader,
        valid: Loader,
        evaluation: Loader,
        world: World,
    ):
        self.config, self.world, self.dataset = config, world, dataset
        self.fingerprint, self.origin = dataset.fingerprint, f"data.root={config.data.root}"
        self.train, self.valid, self.evaluation = train, valid, evaluation
        self.space = build_space(config.supernet)
        dtype = weight_dtype(config.precision)
        supernet = build_supernet(config.supernet, self.space.cell_space, len(dataset.classes), dataset.channels)
        self.cost = ExpectedCost(supernet, dataset.image_size)
        if config.supernet.sync_statistics and world.size > 1:
            synchronise_statistics(supernet)
        supernet = supernet.to(world.device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fused = config.supernet.kernel == "fused"
        self.supernet: nn.Module = fuse(supernet) if fused else supernet
        self.architecture = ArchitectureOptimiser(
            config, self.space.cell_space, world, self.cost.relative_gradients()
        )
        section = config.search
        self.sampler = None
        if section.mixture == "sampled":
            draws = section.draws if section.gradient == "score" else 1
            self.sampler = Sampler(
                self.space.cell_space, section.temperature, config.seed, world.device, dtype, draws
            )
        self.weights = list(self.supernet.parameters())
        self.weight_optimiser = build_sgd(
            self.weights, section.learning_rate, section.momentum, section.weight_decay
        )
        self.epochs = section.epochs
        self.recorder = Recorder(choose_record(section.cuda_graphs, world), section.cuda_graphs == "always")
        self.phases = build_phases(self)
        self.meters = {name: Meter(world.device) for name in ("train", "architecture", "valid")}
        self.found = {}
        self.finite = self.architecture.finite  # one flag, cleared by either kind of step

    def loss(self, batch: Batch, p: Sequence[Tensor], meter: Meter | None = None) -> Tensor:
        """This rank's part of the batch's mean loss, under P or, where operations are sampled, a draw from it."""
        return self.loss_under(batch, p if self.sampler is None else self.sampler(p), meter)

    def loss_under(self, batch: Batch, p: Sequence[Tensor], meter: Meter | None) -> Tensor:
        """The sum over this rank's images divided by the images of all ranks."""
        with forward_context(self.config.precision, self.world.device):
            logits_BK = self.supernet(batch.images_BCHW, *p)
        logits_BK = full_precision(logits_BK)
        loss_sum = functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum")
        if meter is not None:
            meter.update(logits_BK.detach(), batch.labels_B, loss_sum.detach())
        return loss_sum / batch.total

    def differentiate(self, loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of the sum of all ranks' losses with respect to `inputs`."""
        gradients = list(torch.autograd.grad(loss, list(inputs), materialize_grads=True))
        self.world.sum_tensors(gradients)
        return gradients

    def weight_step(self, batch: Batch, p: Sequence[Tensor]) -> None:
        """One SGD step on the weights with P held constant."""
        loss = self.loss(batch, p, self.meters["train"])
        set_gradients(self.weights, self.differentiate(loss, self.weights))
        norm = clip_gradients(self.weights, self.config.search.clip)
        self.weight_optimiser.step()
        self.weight_optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss.detach())

    def architecture_step(self, valid: Batch, train: Batch | None) -> None:
        """One Adam step on X and Theta; the weights and their optimiser are as before. `train`: second order."""

        def gradient(leaves: list[Tensor]) -> list[Tensor]:
            if self.config.search.gradient == "score":
                return self._score_gradient(valid, leaves)
            of_valid = self._gradient(valid, leaves, self.meters["architecture"])
            if train is None:
                return of_valid(leaves)
            return self._second_order(of_valid, self._gradient(train, leaves, None), leaves)

        self.architecture.step(gradient)

    def _gradient(
        self, batch: Batch, leaves: list[Tensor], meter: Meter | None
    ) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """A function from tensors to the gradients of this batch's loss, over all ranks, with respect to them."""

        def gradient(inputs: Sequence[Tensor]) -> list[Tensor]:
            frozen = not any(x is self.weights[0] for x in inputs)
            with torch.enable_grad(), self._frozen_weights() if frozen else contextlib.nullcontext():
                return self.differentiate(self.loss(batch, leaves, meter), inputs)

        return gradient

    @torch.no_grad()
    def _score_gradient(self, batch: Batch, matrices: list[Tensor]) -> list[Tensor]:
        """`sampling.score_gradient` of this step's draws, each on the whole batch, over all ranks."""
        assert self.sampler is not None
        draws = [self.sampler(matrices, draw) for draw in range(self.sampler.draws)]
        losses_K = torch.stack([self.loss_under(batch, own, self.meters["architecture"]) for own in draws])
        self.world.sum_tensors([losses_K])
        return score_gradient(losses_K, draws, matrices)

    @contextlib.contextmanager
    def _frozen_weights(self) -> Iterator[None]:
        """Within this context no pass computes weight gradients."""
        try:
            for weight in self.weights:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in self.weights:
                weight.requires_grad_(True)

    def _second_order(self, of_valid: GradientOf, of_train: GradientOf, leaves: list[Tensor]) -> list[Tensor]:
        """The hypergradient; running statistics are kept out of its extra passes."""

        def directions(gradients: list[Tensor]) -> list[Tensor]:
            return sgd_directions(self.weight_optimiser, dict(zip(self.weights, gradients)))

        saved = [buffer.clone() for buffer in float_buffers(self.supernet)]
        rate = self.weight_optimiser.param_groups[0]["lr"]
        gradients = unrolled_gradient(self.weights, leaves, of_train, of_valid, directions, rate)
        torch._foreach_copy_(float_buffers(self.supernet), saved)
        return gradients

    @torch.no_grad()
    def evaluation_step(self, batch: Batch, p: Sequence[Tensor]) -> None:
        if len(batch.labels_B):  # a rank's part of the last batch may be empty
            self.loss(batch, p, self.meters["valid"])

    def trains_architecture(self, epoch: int) -> bool:
        """Whether the warm-up of the weights is over."""
        return epoch >= self.config.search.warmup_epochs

    def start_epoch(self, epoch: int) -> None:
        """Learning rate and entropy weight of `epoch`: functions of the epoch alone."""
        section = self.config.search
        rate = cosine(epoch, section.epochs, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.weight_optimiser, rate)
        self.architecture.anneal(epoch / section.epochs)
        self.supernet.train()

    # -- what the loop asks of a task

    def state_dict(self) -> dict[str, Any]:
        return {
            "supernet": state_dict.supernet_state(self.supernet),
            "weight_optimiser": state_dict.optimiser_state(self.supernet, self.weight_optimiser),
            **self.architecture.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        state_dict.load_supernet(self.supernet, state.get("supernet"), source)
        state_dict.load_optimiser(self.supernet, self.weight_optimiser, state.get("weight_optimiser"), source)
        self.architecture.load_state_dict(state, source)

    def local_buffers(self) -> list[Tensor]:
        return state_dict.running_statistics(self.supernet)

    def exactness(self) -> dict[str, Any]:
        return {"supernet.kernel": self.config.supernet.kernel}

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            result = meter.result(self.world)
            row.update({f"{name}_{figure}": result[figure] for figure in ("loss", "top1") if figure in result})
        row["learning_rate"] = self.weight_optimiser.param_groups[0]["lr"]
        row["embedding_learning_rate"] = self.architecture.optimiser.param_groups[0]["lr"]
        row.update(epoch_figures(self.architecture.embedding, self.space, self.cost, self.config))
        return row

    def line(self, row: dict[str, Any]) -> str:
        return describe_epoch(row, self.space)

    def scalars(self, row: dict[str, Any]) -> dict[str, float]:
        return {**super().scalars(row), **more_scalars(row, self.space)}

    def publish(self, logger: Logger, row: dict[str, Any], step: int) -> None:
        super().publish(logger, row, step)
        logger.text("genotype", f"```\n{json.dumps(row['genotype'], indent=2)}\n```", step)
