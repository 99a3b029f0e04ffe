"""What every training of a derived network has: passes over training and test images, steps in several parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.data import Batch, Loader
from nge_search.engine.distributed import World
from nge_search.engine.loop import average_buffers, float_buffers
from nge_search.engine.precision import forward_context, full_precision
from nge_search.engine.task import Phase, Task
from nge_search.json_reader import Reader
from nge_search.training.continuation import Plan, describe


class NetworkTraining(Task):
    """A network with the loaders of its training and test images.

    Attributes:
        evaluate_every: epochs between evaluations; 0: after the last only.
    """

    unit = "images"

    evaluate_every = 1
    network: nn.Module
    train: Loader
    test: Loader
    world: World

    @abstractmethod
    def train_step(self, batch: Batch, epoch: int) -> None:
        """One SGD step on this rank's part of a global batch."""

    @abstractmethod
    def test_step(self, name: str, network: nn.Module, batch: Batch) -> None:
        """Add this rank's part of a test batch to the counts of the phase `name`."""

    def start_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch alone."""

    def networks(self) -> list[nn.Module]:
        """All that have running statistics."""
        return [self.network]

    def evaluates(self, epoch: int) -> bool:
        """Whether `epoch` ends with an evaluation."""
        every = self.evaluate_every
        return epoch + 1 == self.epochs or (every > 0 and (epoch + 1) % every == 0)

    def local_buffers(self) -> list[Tensor]:
        return [buffer for network in self.networks() for buffer in float_buffers(network)]

    def average_statistics(self) -> None:
        """Make running statistics those of all ranks."""
        for network in self.networks():
            average_buffers(network, self.world)


class PlannedTraining(NetworkTraining):
    """A training to which epochs may be added while it runs, or after it.

    Attributes:
        plan: its epochs, those that were added among them.
        last_drop_path: drop-path's probability at the end; 0: there is none.
        averages: whether the weights are averaged.
    """

    plan: Plan
    last_drop_path = 0.0
    averages = False

    @abstractmethod
    def initial_rates(self) -> tuple[float, ...]:
        """The learning rates with which the training begins, one for each group of weights."""

    @abstractmethod
    def rates(self, epoch: int) -> tuple[float, ...]:
        """The learning rates at the end of an epoch, by group and without warm-up."""

    def drop_path_rate(self, epoch: int) -> float:
        """Drop-path's probability in an epoch."""
        return 0.0

    def take_up(self, before: Mapping[str, Any], epoch: int, source: str, end: int | None = None) -> str:
        planned = Reader(source, dict(before)).section("train").integer("epochs", 1, 1 << 31)
        initial = self.initial_rates()
        added = self.plan.take_up(planned, epoch, self.rates, initial, self.drop_path_rate, source, end)
        if added is None:
            return ""
        return describe(added, self.plan.section.learning_rate_min, self.last_drop_path, self.averages)

    def modules(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def evaluates(self, epoch: int) -> bool:
        return super().evaluates(epoch) or self.plan.ended(epoch)


class TrainPhase(Phase):
    """A pass over the training images."""

    name = "train"

    def __init__(self, task: NetworkTraining):
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
        self.task.average_statistics()


class EvaluationPhase(Phase):
    """Every test image once, in evaluation mode, by one of the task's networks."""

    trains = False

    def __init__(self, task: NetworkTraining, name: str, network: nn.Module):
        self.task, self.name, self.network = task, name, network

    def steps(self, epoch: int) -> int:
        return self.task.test.steps if self.task.evaluates(epoch) else 0

    def start(self, epoch: int) -> None:
        self.task.start_epoch(epoch)
        self.network.eval()

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return ((batch,) for batch in self.task.test.iterate(epoch, first))

    def step(self, *batches: Batch) -> None:
        self.task.test_step(self.name, self.network, batches[0])


@torch.no_grad()
def classified(network: nn.Module, batch: Batch, precision: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """A network's logits of a batch [B, K], and its cross-entropy losses [B], both in full precision."""
    with forward_context(precision, device):
        logits_BK, _ = network(batch.images_BCHW)
    logits_BK = full_precision(logits_BK)
    return logits_BK, functional.cross_entropy(logits_BK, batch.labels_B, reduction="none")


def with_averaged_statistics(network: nn.Module, pieces: list[Batch]) -> Iterator[Batch]:
    """Hand out the pieces of a step so that running statistics become what ranks would have made of them.

    Every piece starts from the statistics before the step; after it they are the mean of what the pieces left.
    """
    if len(pieces) == 1:
        yield pieces[0]
        return
    buffers, averaged = list(network.buffers()), float_buffers(network)
    before = [buffer.clone() for buffer in buffers]
    sums = [torch.zeros_like(buffer) for buffer in averaged]
    for piece in pieces:
        for buffer, old in zip(buffers, before):
            buffer.copy_(old)
        yield piece
        torch._foreach_add_(sums, averaged)
    torch._foreach_div_(sums, len(pieces))
    torch._foreach_copy_(averaged, sums)
