"""What the loop trains: a task, the phases of its epochs, and what a task's batches and counts must have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from nge_search.engine.logger import Logger
from nge_search.metrics.ranks import Ranks
from nge_search.registry import resolve


class AnyBatch(Protocol):
    """This rank's part of a batch: a named tuple of tensors and numbers."""

    @property
    def total(self) -> int:
        """How many of what the task is trained on (images, for one) the batch holds, over all ranks."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Counts(Protocol):
    """Something that is counted on every rank and adds up over ranks."""

    @property
    def sums(self) -> Tensor:
        """All that is counted, as one vector of float64."""
        ...

    def reset(self) -> None: ...


class Figures(Counts, Protocol):
    """Counts of a phase, and what they come to. `shown`: which figures a log step shows, where there are such."""

    shown: ClassVar[tuple[str, ...]]

    def result(self, ranks: Ranks) -> dict[str, float]:
        """The figures over all ranks, by name; empty if nothing was counted."""
        ...


class Phase(ABC):
    """A stretch of an epoch in which every step does the same. `trains`: its batches count as throughput."""

    name: str
    trains = True

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """How many steps the phase has in `epoch`; 0 leaves it out."""

    @abstractmethod
    def start(self, epoch: int) -> None:
        """Prepare; called again when a run resumes inside the phase, so it must not depend on progress."""

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[tuple[AnyBatch, ...]]:
        """What the steps from `first` on take: one batch from each set of data that a step uses."""

    @abstractmethod
    def step(self, *batches: Any) -> None:
        """Do one step on what `batches` handed out, without reading anything back from the device."""

    def finish(self, epoch: int) -> None:  # noqa: B027 - an optional hook
        """Called right after the last step; again if the run is killed before the next checkpoint."""


class Task(ABC):
    """What is trained, and what an epoch shows of it.

    Attributes:
        epochs: how many.
        phases: in the order in which every epoch runs them.
        meters: by phase name.
        outcomes: of what is evaluated, one by one, or None; reset with the meters.
        finite: a boolean scalar on the device, cleared by a step whose loss or gradient is not finite.
        unit: what batches hold: `<unit>_per_second` is the throughput.
        fingerprint: of the data; a checkpoint that was trained on other data is refused.
        origin: the setting that names the data, and its value.
        tags: what figures of an epoch are called in TensorBoard.
        found: on rank 0, what the epoch's evaluation found beside figures; empty if there was none.
        document: the file that keeps `found`.
        pictures: "module:function" from an epoch's row and `found` to pictures by tag, uint8 [H, W, 3].
    """

    epochs: int
    phases: Sequence[Phase]
    meters: Mapping[str, Figures]
    outcomes: Counts | None = None
    finite: Tensor
    unit: ClassVar[str]
    fingerprint: str = ""
    origin: str = ""
    tags: ClassVar[Mapping[str, str]]
    found: dict[str, Any]
    document: ClassVar[str] = ""
    pictures: ClassVar[str] = ""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that training changes and that is the same on every rank."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], source: str) -> None: ...

    def take_up(self, before: Mapping[str, Any], epoch: int, source: str, end: int | None = None) -> str:
        """Adapt to a number of epochs that was changed since the checkpoint that was just loaded.

        Args:
            before: the settings of the checkpoint.
            epoch: the first that had not begun then, from 0.
            source: what messages call the checkpoint.
            end: after how many epochs the run was to end, where it was asked to stop early.

        Returns:
            A line that tells the user what follows from it; empty where nothing was changed.
        """
        return ""

    def modules(self) -> dict[str, nn.Module]:
        """What is being trained, by name, for whoever looks in."""
        return {}

    @abstractmethod
    def local_buffers(self) -> list[Tensor]:
        """Floating-point tensors that may differ between ranks inside an epoch."""

    def exactness(self) -> dict[str, Any]:
        """Settings that may change on resume and whose change alters rounding."""
        return {}

    @abstractmethod
    def epoch_row(self, epoch: int) -> dict[str, Any]:
        """The figures of a finished epoch, for metrics.jsonl; called on every rank."""

    @abstractmethod
    def line(self, row: dict[str, Any]) -> str:
        """An epoch's figures for the console, without its number and throughput."""

    def scalars(self, row: dict[str, Any]) -> dict[str, float]:
        """An epoch's figures for TensorBoard, by tag."""
        speed = {f"{self.unit}_per_second": f"speed/{self.unit}_per_second"}
        tags = {**self.tags, **speed, "peak_memory_mb": "memory/peak_mb"}
        return {tag: row[figure] for figure, tag in tags.items() if figure in row}

    def publish(self, logger: Logger, row: dict[str, Any], step: int) -> None:
        """Show a finished epoch to the user and in TensorBoard, and keep what was found; rank 0 only."""
        speed = f"{self.unit}/s {row[f'{self.unit}_per_second']:.4g}"
        logger.say(f"epoch {row['epoch'] + 1}/{self.epochs} done, {self.line(row)}, {speed}")
        if self.found:
            logger.document(self.document, self.found)
        logger.scalars(self.scalars(row), step)
        if self.pictures and logger.pictures:
            for tag, rgb_HWC in resolve(self.pictures)(row, self.found).items():
                logger.image(tag, rgb_HWC, step)
