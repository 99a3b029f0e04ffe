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

from nge_search.architecture.cell_space import CellSpace
from nge_search.data import Batch, Dataset, Loader, load_dataset
from nge_search.data.own import origin_of
from nge_search.engine.cuda_graphs import Recorder, choose_record
from nge_search.engine.distributed import World
from nge_search.engine.logger import Logger
from nge_search.engine.loop import float_buffers
from nge_search.engine.optimisers import (
    build_sgd,
    clip_gradients,
    cosine,
    set_gradients,
    set_learning_rate,
    warm_up,
)
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.engine.sync_batchnorm import synchronise_statistics
from nge_search.engine.task import Task
from nge_search.gradient.architecture import ArchitectureOptimiser
from nge_search.gradient.averaging import EpochMean
from nge_search.gradient.cost import ExpectedCost, MeasuredCost
from nge_search.gradient.dirichlet import DirichletMixture
from nge_search.gradient.hypergradient import GradientOf, sgd_directions, unrolled_gradient
from nge_search.gradient.mixture import Mixture, Tempered
from nge_search.gradient.multiplier import SizeMultiplier
from nge_search.gradient.phases import build_phases
from nge_search.gradient.progress import TAGS, describe_epoch, epoch_figures, more_scalars
from nge_search.gradient.sampling import Sampler, score_gradient
from nge_search.gradient.stopping import EarlyStop
from nge_search.gradient.target import SizeTarget
from nge_search.metrics.classification import Meter
from nge_search.operation_registry import plugins_of
from nge_search.settings.data import DataSection
from nge_search.settings.search import SearchConfig, SearchSection
from nge_search.supernet import build_space, build_supernet, fuse, state_dict


class BilevelSearch(Task):
    """Supernet, embedding, their optimisers and the phases that move them.

    Attributes:
        load: loads the images anew, at other sizes perhaps, for short trainings.

    Args:
        train, valid: shuffled loaders of the two halves; evaluation: the validation half, in order, unaugmented.
    """

    unit = "images"
    tags = TAGS
    pictures = "nge_search.report.tensorboard:search_pictures"
    meters: Mapping[str, Meter]
    load: Callable[[DataSection], Dataset] = staticmethod(load_dataset)

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
        self.fingerprint, self.origin = dataset.fingerprint, origin_of(dataset, config.data)
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
        section = config.search
        self.target: SizeTarget | None = None
        self.multiplier: SizeMultiplier | None = None
        if section.target is not None:
            self.target = SizeTarget(section, self.space, dataset.channels, len(dataset.classes))
            steps = (valid if section.loop == "epochwise" else train).steps
            self.multiplier = SizeMultiplier(self.target.sizes, self.target.wanted, steps, world.device, dtype)
        self.latency = MeasuredCost(supernet, dataset.image_size) if section.cost == "latency" else None
        owed = self.cost.relative_gradients()  # where latency is weighed, until that is measured or loaded
        self.architecture = ArchitectureOptimiser(config, self.space.cell_space, world, owed, self.multiplier)
        self.mixture = build_mixture(section, self.space.cell_space, config.seed, world.device, dtype)
        self.early_stop = EarlyStop(section, self.space) if section.stop_count else None
        shapes = [table.shape for table in self.space.cell_space.tables]
        self.mean = EpochMean(shapes) if section.average else None
        self.weights = list(self.supernet.parameters())
        self.weight_optimiser = build_sgd(
            self.weights, section.learning_rate, section.momentum, section.weight_decay
        )
        self.epochs = section.epochs
        graphs = cuda_graphs(section, self.space.cell_space)
        self.recorder = Recorder(choose_record(graphs, world), graphs == "always")
        self.phases = build_phases(self)
        self.meters = {name: Meter(world.device) for name in ("train", "architecture", "valid")}
        self.found = {}
        self.finite = self.architecture.finite  # one flag, cleared by either kind of step

    def loss(self, batch: Batch, p: Sequence[Tensor], meter: Meter | None = None) -> Tensor:
        """This rank's part of the batch's mean loss, under what `mix` makes of `ArchitectureOptimiser.mixing`."""
        return self.loss_under(batch, self.mix(p), meter)

    def mix(self, p: Sequence[Tensor], draw: int = 0) -> Sequence[Tensor]:
        """The weights of operations [E, O] of each kind of cell in this step; rows sum to their edges' weights."""
        kinds = len(self.space.cell_space.kinds)
        matrices, edges = p[:kinds], p[kinds:]
        weights = matrices if self.mixture is None else self.mixture(matrices, draw)
        return [w_EO * own_E[:, None] for w_EO, own_E in zip(weights, edges)] if edges else weights

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
        assert self.mixture is not None
        draws = [self.mix(matrices, draw) for draw in range(self.mixture.draws)]
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
        return epoch >= self.config.search.first_of_p

    def progress_of_p(self, epoch: int) -> float:
        """From 0 in the first epoch in which P learns, and before, to 1 in the last."""
        section = self.config.search
        first, last = section.first_of_p, section.epochs - 1
        return max(0.0, (epoch - first) / (last - first)) if last > first else 1.0

    def start_epoch(self, epoch: int) -> None:
        """Learning rates, temperature and weights of losses of `epoch`: functions of the epoch alone."""
        section, of_p = self.config.search, self.progress_of_p(epoch)
        rate = cosine(epoch, section.epochs, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.weight_optimiser, rate)
        rise = warm_up(max(0, epoch - section.first_of_p), section.embedding_warmup_epochs)
        set_learning_rate(self.architecture.optimiser, rise * self.config.embedding.learning_rate)
        self.architecture.anneal(epoch / section.epochs, of_p)
        if self.latency is not None and not self.latency.known:
            self.latency.measure(self.world)
            self.architecture.weigh_costs(self.latency.relative_gradients())
        if self.mixture is not None:
            self.mixture.temperature = section.temperature + of_p * (section.last_temperature - section.temperature)
        self.supernet.train()

    def ends(self, epoch: int) -> bool:
        """Whether `epoch`, once its training is done, is the last one. Reads back to the host where it may stop."""
        return epoch + 1 == self.epochs or self._stops(epoch)

    def _stops(self, epoch: int) -> bool:
        stop = self.early_stop
        return stop is not None and self.trains_architecture(epoch) and stop.met(self._strengths_in(epoch))

    def _strengths_in(self, epoch: int) -> tuple[Tensor, ...]:
        """What cells are derived from at the end of an epoch that is not yet part of the mean."""
        found = self.architecture.strengths()
        if self.mean is None or not self.trains_architecture(epoch):
            return found
        return self.mean.value(beside=found)

    def strengths(self) -> tuple[Tensor, ...]:
        """What cells are derived from at the end of the search [E, O], for each kind of cell."""
        return self.architecture.strengths() if self.mean is None else self.mean.value()

    # -- what the loop asks of a task

    def state_dict(self) -> dict[str, Any]:
        return {
            "supernet": state_dict.supernet_state(self.supernet),
            "weight_optimiser": state_dict.optimiser_state(self.supernet, self.weight_optimiser),
            **self.architecture.state_dict(),
            **({} if self.early_stop is None else {"early_stop": self.early_stop.state_dict()}),
            **({} if self.multiplier is None else {"target": self.multiplier.state_dict()}),
            **({} if self.latency is None else {"latency": self.latency.state_dict()}),
            **({} if self.mean is None else {"mean": self.mean.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        state_dict.load_supernet(self.supernet, state.get("supernet"), source)
        state_dict.load_optimiser(self.supernet, self.weight_optimiser, state.get("weight_optimiser"), source)
        self.architecture.load_state_dict(state, source)
        if self.early_stop is not None:
            self.early_stop.load_state_dict(state.get("early_stop"), source)
            self.epochs = self.early_stop.epochs or self.epochs
        if self.multiplier is not None:
            self.multiplier.load_state_dict(state.get("target"), source)
        if self.latency is not None:
            self.latency.load_state_dict(state.get("latency"), source)
            if self.latency.known:  # the first epoch had begun
                self.architecture.weigh_costs(self.latency.relative_gradients())
        if self.mean is not None:
            self.mean.load_state_dict(state.get("mean"), source)

    def modules(self) -> dict[str, nn.Module]:
        return {"supernet": self.supernet, "embedding": self.architecture.embedding}

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
        strengths = self._strengths_in(epoch)
        row.update(epoch_figures(self.architecture, strengths, self.space, self.cost, self.config, self.target))
        if self.latency is not None:
            row["expected_latency"] = self.latency.expected(*self.architecture.probabilities())
        if self.mean is not None and self.trains_architecture(epoch):
            self.mean.add(self.architecture.strengths())
        if self.multiplier is not None:
            row["target_multiplier"] = float(self.multiplier.value)
        if self.early_stop is not None and self.trains_architecture(epoch):
            self.early_stop.end_epoch(epoch, strengths, row["genotype"])
            self.epochs = self.early_stop.epochs or self.epochs
            row.update({"stopped": text} if (text := self.early_stop.text()) else {})
        return row

    def found_in(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a search found whose last row this is: the row's architecture, or that kept by an early stop."""
        stop = self.early_stop
        return stop.kept if stop is not None and stop.epochs and stop.kept else row["genotype"]

    def line(self, row: dict[str, Any]) -> str:
        return describe_epoch(row, self.space)

    def scalars(self, row: dict[str, Any]) -> dict[str, float]:
        return {**super().scalars(row), **more_scalars(row, self.space)}

    def publish(self, logger: Logger, row: dict[str, Any], step: int) -> None:
        super().publish(logger, row, step)
        logger.text("genotype", f"```\n{json.dumps(row['genotype'], indent=2)}\n```", step)


def cuda_graphs(settings: SearchSection, space: CellSpace) -> str:
    """`search.cuda_graphs`; auto is never where plugins' operations are searched: a replay may not repeat these."""
    known = settings.cuda_graphs != "auto" or not plugins_of(space.operations)
    return settings.cuda_graphs if known else "never"


def build_mixture(
    settings: SearchSection, space: CellSpace, seed: int, device: torch.device, dtype: torch.dtype
) -> Mixture | None:
    """Of `search.mixture`; None where the supernet adds up all operations by P as it is."""
    if settings.mixture == "sampled":
        draws = settings.draws if settings.gradient == "score" else 1
        return Sampler(space, settings.temperature, seed, device, dtype, draws)
    if settings.mixture == "dirichlet":
        return DirichletMixture(space, seed, device, dtype)
    as_it_is = settings.temperature == settings.last_temperature == 1
    return None if as_it_is else Tempered(settings.temperature)
