"""In which order an epoch moves weights and embedding: the epoch-wise and the batch-wise loop, and evaluation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nge_search.data import Batch
from nge_search.engine.loop import average_buffers
from nge_search.engine.task import Phase

if TYPE_CHECKING:
    from nge_search.gradient.bilevel import BilevelSearch
    from nge_search.gradient.mixture import Mixture


def build_phases(task: BilevelSearch) -> list[Phase]:
    """The phases of every epoch under `search.loop`."""
    if task.config.search.loop == "epochwise":
        return [WeightPhase(task), ArchitecturePhase(task), EvaluationPhase(task)]
    return [AlternatingPhase(task), EvaluationPhase(task)]


class SearchPhase(Phase):
    """A phase of a bilevel search; `act` is its step, which may be recorded."""

    def __init__(self, task: BilevelSearch):
        self.task = task

    @property
    def kind(self) -> str:
        """What a step does; the first steps of each kind set up optimisers, and are not recorded."""
        return self.name

    def start(self, epoch: int) -> None:
        self.task.recorder.forget()
        self.task.start_epoch(epoch)

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        self.position = epoch, first
        return self.inputs(epoch, first)

    @abstractmethod
    def inputs(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        """As `Phase.batches`."""

    def step(self, *batches: Batch) -> None:
        if self.task.mixture is not None:
            self.draw(self.task.mixture)
        self.task.recorder.run(self.kind, self.act, batches)

    def draw(self, mixture: Mixture) -> None:
        """New weights of operations for a step."""
        epoch, step = self.position
        mixture.draw(self.task.phases.index(self), epoch, step)
        self.position = epoch, step + 1

    @abstractmethod
    def act(self, *batches: Batch) -> None:
        """Do a step without reading anything back from the device, nor making tensors from numbers of the host."""


class WeightPhase(SearchPhase):
    """Algorithm 1, lines 3-8: P fixed, all of the training half moves the weights."""

    name = "train"

    def steps(self, epoch: int) -> int:
        return self.task.train.steps

    def start(self, epoch: int) -> None:
        super().start(epoch)
        self.p = self.task.architecture.mixing()

    def inputs(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return ((batch,) for batch in self.task.train.iterate(epoch, first))

    def act(self, *batches: Batch) -> None:
        self.task.weight_step(batches[0], self.p)


class ArchitecturePhase(SearchPhase):
    """Algorithm 1, lines 9-14: P anew at each step, all of the validation half moves X and Theta."""

    name = "architecture"

    def steps(self, epoch: int) -> int:
        return self.task.valid.steps if self.task.trains_architecture(epoch) else 0

    def inputs(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        valid = self.task.valid.iterate(epoch, first)
        if self.task.config.search.order == "first":
            return ((batch,) for batch in valid)
        return zip(valid, self.task.train.endless(epoch, first))

    def act(self, *batches: Batch) -> None:
        self.task.architecture_step(batches[0], batches[1] if len(batches) > 1 else None)

    def finish(self, epoch: int) -> None:
        average_buffers(self.task.supernet, self.task.world)


class AlternatingPhase(SearchPhase):
    """DARTS' loop: a step of the embedding on validation images, then one of the weights on training images."""

    name = "train"

    def steps(self, epoch: int) -> int:
        return self.task.train.steps

    def start(self, epoch: int) -> None:
        super().start(epoch)
        self.moves_architecture = self.task.trains_architecture(epoch)

    @property
    def kind(self) -> str:
        return "train and architecture" if self.moves_architecture else "train"

    def inputs(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return zip(self.task.train.iterate(epoch, first), self.task.valid.endless(epoch, first))

    def act(self, *batches: Batch) -> None:
        train, valid = batches
        if self.moves_architecture:
            self.task.architecture_step(valid, train if self.task.config.search.order == "second" else None)
        self.task.weight_step(train, self.task.architecture.mixing())

    def finish(self, epoch: int) -> None:
        average_buffers(self.task.supernet, self.task.world)


class EvaluationPhase(SearchPhase):
    """The validation half through the supernet in evaluation mode, under the P of the epoch's end.

    Where operations are sampled, under the most probable ones; where weights are drawn, under their mean.
    """

    name = "valid"
    trains = False

    def steps(self, epoch: int) -> int:
        every = self.task.config.search.evaluate_every
        due = bool(every) and (epoch + 1) % every == 0
        return self.task.evaluation.steps if due or self.task.ends(epoch) else 0

    def start(self, epoch: int) -> None:
        super().start(epoch)
        self.task.supernet.eval()
        self.p = self.task.architecture.mixing()

    def inputs(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        return ((batch,) for batch in self.task.evaluation.iterate(epoch, first))

    def draw(self, mixture: Mixture) -> None:
        mixture.settle()

    def act(self, *batches: Batch) -> None:
        self.task.evaluation_step(batches[0], self.p)
