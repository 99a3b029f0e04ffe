"""Training a derived classifier: what a step does, and the phases of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nge_search.data import Batch, Feed
from nge_search.data.counter import Stream, uniform
from nge_search.engine.checkpoint import load_module
from nge_search.engine.distributed import World
from nge_search.engine.logbook import Logbook
from nge_search.engine.loop import Phase, Task, average_buffers, float_buffers
from nge_search.engine.meters import Meter
from nge_search.engine.optimisers import build_sgd, clip_gradients, cosine, set_learning_rate
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.networks.classifier import Classifier, drop_path_factors
from nge_search.schema import EvalConfig


class ClassifierTraining(Task):
    """A network, its optimiser, and the feeds of training and test images."""

    def __init__(self, config: EvalConfig, network: Classifier, train: Feed, test: Feed, world: World):
        self.config, self.world = config, world
        self.train, self.test = train, test
        dtype = weight_dtype(config.precision)
        self.network = network.to(world.device, dtype, memory_format=torch.channels_last)
        self.weights = list(self.network.parameters())
        section = config.train
        self.optimiser = build_sgd(self.weights, section.learning_rate, section.momentum, section.weight_decay)
        self.drop_path = 0.0
        self.epochs = section.epochs
        self.phases = [TrainPhase(self), EvaluationPhase(self)]
        self.meters = {name: Meter(world.device) for name in ("train", "test")}
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def train_step(self, batch: Batch, epoch: int) -> None:
        """One SGD step on this rank's part of a global batch."""
        section = self.config.train
        keep_BD = self._keep(batch, epoch)
        with forward_context(self.config.precision, self.world.device):
            logits_BK, auxiliary_BK = self.network(batch.images_BCHW, keep_BD)
        smoothing = section.label_smoothing
        logits_BK = full_precision(logits_BK)
        loss_sum = functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum", label_smoothing=smoothing)
        self.meters["train"].update(logits_BK.detach(), batch.labels_B, loss_sum.detach())
        if auxiliary_BK is not None:
            loss_sum = loss_sum + self.config.network.auxiliary_weight * functional.cross_entropy(
                full_precision(auxiliary_BK), batch.labels_B, reduction="sum", label_smoothing=smoothing
            )
        loss = loss_sum / batch.total
        loss.backward()
        self.world.sum_gradients(self.weights)
        norm = clip_gradients(self.weights, section.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss.detach())

    @torch.no_grad()
    def test_step(self, batch: Batch) -> None:
        """Add this rank's part of a test batch to the counts."""
        if len(batch.labels_B) == 0:
            return
        with forward_context(self.config.precision, self.world.device):
            logits_BK, _ = self.network(batch.images_BCHW)
        logits_BK = full_precision(logits_BK)
        loss_sum = functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum")
        self.meters["test"].update(logits_BK, batch.labels_B, loss_sum)

    def _keep(self, batch: Batch, epoch: int) -> Tensor | None:
        """Drop-path's factors, drawn per image and operation from (seed, epoch, image): [B, drop_slots]."""
        if self.drop_path == 0 or self.network.drop_slots == 0:
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
        section = self.config.train
        rate = cosine(epoch, section.epochs, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.optimiser, rate)
        self.drop_path = self.config.network.drop_path * epoch / section.epochs

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.network, state["network"], source)
        self.optimiser.load_state_dict(state["optimiser"])

    def local_buffers(self) -> list[Tensor]:
        return float_buffers(self.network)

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            row.update({f"{name}_{figure}": value for figure, value in meter.result(self.world).items()})
        row["learning_rate"] = self.optimiser.param_groups[0]["lr"]
        row["drop_path"] = self.drop_path
        return row

    def publish(self, logbook: Logbook, row: dict[str, Any], step: int) -> None:
        logbook.say(
            f"epoch {row['epoch'] + 1}/{self.epochs} done, train loss {row['train_loss']:.4g}, "
            f"test top-1 {row['test_top1']:.2f}, images/s {row['images_per_second']:.4g}"
        )
        tags = {
            "train_loss": "loss/train",
            "test_loss": "loss/test",
            "train_top1": "top1/train",
            "test_top1": "top1/test",
            "test_top5": "top5/test",
            "learning_rate": "learning_rate/weights",
            "drop_path": "drop_path",
            "images_per_second": "speed/images_per_second",
            "peak_memory_mb": "memory/peak_mb",
        }
        logbook.scalars({tag: row[figure] for figure, tag in tags.items() if figure in row}, step)


class TrainPhase(Phase):
    """A pass over the training images."""

    name = "train"

    def __init__(self, task: ClassifierTraining):
        self.task = task
        self.epoch = 0

    def steps(self, epoch: int) -> int:
        return self.task.train.steps

    def start(self, epoch: int) -> None:
        self.epoch = epoch
        self.task.start_epoch(epoch)
        self.task.network.train()

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return ((batch,) for batch in self.task.train.iterate(epoch, first))

    def step(self, *batches: Batch) -> None:
        self.task.train_step(batches[0], self.epoch)

    def finish(self, epoch: int) -> None:
        average_buffers(self.task.network, self.task.world)


class EvaluationPhase(Phase):
    """Every test image once, in evaluation mode."""

    name = "test"
    trains = False

    def __init__(self, task: ClassifierTraining):
        self.task = task

    def steps(self, epoch: int) -> int:
        return self.task.test.steps

    def start(self, epoch: int) -> None:
        self.task.start_epoch(epoch)
        self.task.network.eval()

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return ((batch,) for batch in self.task.test.iterate(epoch, first))

    def step(self, *batches: Batch) -> None:
        self.task.test_step(batches[0])
