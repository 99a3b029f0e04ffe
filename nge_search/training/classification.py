"""Training a derived classifier: what a step does, and the phases of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional

from nge_search.data import Batch, Dataset, Loader
from nge_search.data.own import origin_of
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser, read_best
from nge_search.engine.distributed import World
from nge_search.engine.logger import Logger
from nge_search.engine.optimisers import SCHEDULES, build_sgd, clip_gradients, set_learning_rate, warm_up
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.engine.sync_batchnorm import synchronise_statistics
from nge_search.json_reader import Reader
from nge_search.keyed_random import Stream, uniform
from nge_search.kinds import EVALUATION
from nge_search.metrics.classification import Meter, Outcomes
from nge_search.networks.classifier import drop_path_factors
from nge_search.networks.families import Trainable
from nge_search.settings.classification import EvalConfig
from nge_search.training.continuation import Plan
from nge_search.training.evaluation import describe_evaluation
from nge_search.training.mixup import Mixing
from nge_search.training.phases import (
    EvaluationPhase,
    PlannedTraining,
    TrainPhase,
    classified,
    with_averaged_statistics,
)

#: Compiled forms of the cells that may exist: a few shapes of batches, for each shape of cell.
_COMPILED_FORMS = 256


class ClassifierTraining(PlannedTraining):
    """A network, its optimiser, the loaders of training and test images, and what is known of the best epoch.

    Attributes:
        ema: the average of the weights, or None.
        unreadable: images that were skipped so far, and why; of all ranks once `state_dict` was called.
        best: the epoch with the highest test accuracy, and that accuracy; for the record, nothing is chosen by it.
    """

    tags: ClassVar[Mapping[str, str]] = {
        "train_loss": "loss/train",
        "test_loss": "loss/test",
        "ema_loss": "loss/ema",
        "train_top1": "top1/train",
        "test_top1": "top1/test",
        "test_top5": "top5/test",
        "ema_top1": "top1/ema",
        "learning_rate": "learning_rate/weights",
        "drop_path": "drop_path",
    }
    config: EvalConfig
    network: Trainable
    meters: dict[str, Meter]
    outcomes: Outcomes
    document = EVALUATION
    pictures = "nge_search.report.tensorboard:evaluation_pictures"

    def __init__(
        self, config: EvalConfig, network: Trainable, train: Loader, test: Loader, dataset: Dataset, world: World
    ):
        self.config, self.world, self.dataset = config, world, dataset
        self.fingerprint, self.origin = dataset.fingerprint, origin_of(dataset, config.data)
        self.train, self.test = train, test
        section = config.train
        network = network.to(world.device, weight_dtype(config.precision))
        flat = all(tensor.ndim != 5 for tensor in network.state_dict().values())  # torch has another format for 3-d
        self.network = network.to(memory_format=torch.channels_last) if flat else network
        if section.sync_statistics and world.size > 1:
            synchronise_statistics(self.network)
        self.weights = list(self.network.parameters())
        self.optimiser = build_sgd(self.weights, section.learning_rate, section.momentum, section.weight_decay)
        self.ema = ModelEmaV3(self.network, section.ema_decay, use_warmup=True) if section.ema_decay else None
        self.updates = 0
        self.mixing = Mixing.configured(section, len(dataset.classes), config.seed)
        if section.compile:
            _compile(self.network)
        self.drop_path = torch.zeros((), dtype=torch.float64, device=world.device)
        self.epochs, self.evaluate_every, self.plan = section.epochs, section.evaluate_every, Plan(section)
        self.last_drop_path, self.averages = config.network.drop_path, self.ema is not None
        self.best: dict[str, Any] = {}
        self.phases = [TrainPhase(self), EvaluationPhase(self, "test", self.network)]
        if self.ema:
            self.phases.append(EvaluationPhase(self, "ema", self.ema.module))
        self.meters = {phase.name: Meter(world.device, len(dataset.classes)) for phase in self.phases}
        self.outcomes = Outcomes(len(dataset.test), world.device)
        self.unreadable: dict[str, str] = {}
        self._told: set[str] = set()
        self.found = {}
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def train_step(self, batch: Batch, epoch: int) -> None:
        """One SGD step on this rank's part of a global batch, in `train.accumulate` pieces."""
        section = self.config.train
        pieces = batch.cut(section.accumulate, self.world.rank, self.world.size)
        loss = torch.zeros_like(self.drop_path)
        for part, piece in enumerate(with_averaged_statistics(self.network, pieces)):
            loss += self._add_gradients(piece, epoch, self.world.rank * len(pieces) + part)
        self.world.sum_gradients(self.weights)
        norm = clip_gradients(self.weights, section.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss)
        self.updates += 1
        if self.ema:
            self.ema.update(self.network, self.updates)

    def _add_gradients(self, batch: Batch, epoch: int, part: int) -> Tensor:
        """Add the gradients of the mean loss that are due to a part of the step's images; returns its own part."""
        section = self.config.train
        images_BCHW, targets = batch.images_BCHW, batch.labels_B
        if self.mixing:
            images_BCHW, targets = self.mixing(images_BCHW, batch.labels_B, self.updates, part)
        with forward_context(self.config.precision, self.world.device):
            logits_BK, auxiliary_BK = self.network(images_BCHW, self._keep(batch, epoch))
        logits_BK = full_precision(logits_BK)

        def loss_of(logits_BK: Tensor) -> Tensor:
            smoothing = section.label_smoothing if self.mixing is None else 0.0  # mixed targets are smooth already
            return functional.cross_entropy(logits_BK, targets, reduction="sum", label_smoothing=smoothing)

        loss_sum = loss_of(logits_BK)
        self.meters["train"].update(logits_BK.detach(), batch.labels_B, loss_sum.detach())
        if auxiliary_BK is not None:
            loss_sum = loss_sum + self.config.network.auxiliary_weight * loss_of(full_precision(auxiliary_BK))
        loss = loss_sum / batch.total
        loss.backward()
        return loss.detach()

    @torch.no_grad()
    def test_step(self, name: str, network: nn.Module, batch: Batch) -> None:
        """Add this rank's part of a test batch to the counts of the phase `name`."""
        if len(batch.labels_B) == 0:
            return
        logits_BK, losses_B = classified(network, batch, self.config.precision, self.world.device)
        self.meters[name].update(logits_BK, batch.labels_B, losses_B.double().sum())
        if name == "test":
            self.outcomes.update(logits_BK, losses_B, batch.index_B)

    def _keep(self, batch: Batch, epoch: int) -> Tensor | None:
        """Drop-path's factors, drawn per image and operation from (seed, epoch, image): [B, drop_slots]."""
        if self.config.network.drop_path == 0 or self.network.drop_slots == 0:
            return None
        slots = self.network.drop_slots
        keys = batch.index_B[:, None] * slots + torch.arange(slots, device=batch.index_B.device)
        drawn = uniform(
            keys.reshape(-1),
            seed=self.config.seed,
            epoch=epoch,
            stream=Stream.DROP_PATH,
            dtype=weight_dtype(self.config.precision),
        )
        return drop_path_factors(drawn.view(keys.shape), self.drop_path)

    def start_epoch(self, epoch: int) -> None:
        """Learning rate and drop-path rate of `epoch`: functions of the epoch alone (DARTS' schedules)."""
        (rate,) = self.rates(epoch)
        set_learning_rate(self.optimiser, rate * warm_up(epoch, self.config.train.warmup_epochs))
        self.drop_path.fill_(self.drop_path_rate(epoch))

    def initial_rates(self) -> tuple[float, ...]:
        return (self.config.train.learning_rate,)

    def rates(self, epoch: int) -> tuple[float, ...]:
        section, added = self.config.train, self.plan.at(epoch)
        if added is not None:
            share = (epoch - added.first) / (added.epochs - added.first)
            return (added.rate(0, share, section.learning_rate_min),)
        falling = SCHEDULES[section.schedule]
        return (falling(epoch, self.plan.original, section.learning_rate, section.learning_rate_min),)

    def drop_path_rate(self, epoch: int) -> float:
        last, added = self.config.network.drop_path, self.plan.at(epoch)
        return last * epoch / self.plan.original if added is None else added.drop_path_rate(epoch, last)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "updates": self.updates,
            "best": dict(self.best),
            "unreadable": self._gather_unreadable(),
            **self.plan.state_dict(),
        }

    def _gather_unreadable(self) -> dict[str, str]:
        """All images that could not be read and were skipped, on any rank."""
        if self.config.data.corrupt == "skip":
            own = {**self.unreadable, **self.train.images.unreadable, **self.test.images.unreadable}
            everyone = self.world.gather_objects(own)
            self.unreadable = {name: why for found in everyone for name, why in sorted(found.items())}
        return dict(self.unreadable)

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.network, state.get("network"), source)
        load_optimiser(self.optimiser, state.get("optimiser"), source)
        if self.ema:
            load_module(self.ema.module, state.get("ema"), source)
        self.updates = Reader(source, state).integer("updates", 0, 1 << 53)
        self.best = read_best(state, "top1", self.epochs, source)
        self.plan.load_state_dict(state, 1, source)
        self.unreadable = Reader(source, state).texts("unreadable")
        self._told = set(self.unreadable)

    def networks(self) -> list[nn.Module]:
        return [self.network, *([self.ema.module] if self.ema else [])]

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), **({"ema": self.ema.module} if self.ema else {})}

    def exactness(self) -> dict[str, Any]:
        return {"train.compile": self.config.train.compile}

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            row.update({f"{name}_{figure}": value for figure, value in meter.result(self.world).items()})
        row["learning_rate"] = self.optimiser.param_groups[0]["lr"]
        row["drop_path"] = self.drop_path_rate(epoch)
        if self.unreadable:
            row["unreadable_images"] = len(self.unreadable)
        self.found = {}
        if not self.evaluates(epoch):
            return row
        if not self.best or row["test_top1"] > self.best["top1"]:
            self.best = {"epoch": epoch, "top1": row["test_top1"]}
        predicted_N, losses_N = self.outcomes.result(self.world)
        if self.world.is_main:
            labels_N = self.dataset.test.labels_N
            self.found = describe_evaluation(epoch, self.dataset, labels_N, predicted_N, losses_N)
        return row

    def publish(self, logger: Logger, row: dict[str, Any], step: int) -> None:
        for name in sorted(self.unreadable.keys() - self._told):
            logger.say(f"skipped an image: {self.unreadable[name]}")
        self._told.update(self.unreadable)
        super().publish(logger, row, step)

    def line(self, row: dict[str, Any]) -> str:
        shown = {"test_top1": "test top-1", "ema_top1": "of averaged weights"}
        figures = "".join(f", {words} {row[figure]:.2f} %" for figure, words in shown.items() if figure in row)
        return f"train loss {row['train_loss']:.4g}{figures}"


def _compile(network: Trainable) -> None:
    """Compile each cell by itself: cells of one shape share their code, and no whole network is traced."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_FORMS)
    network.compiled = True
    for cell in network.cells:
        cell.compile(dynamic=False)
