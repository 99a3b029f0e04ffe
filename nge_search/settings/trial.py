"""Settings of short trainings, by which architectures are judged; and of a single one: `nge eval task=trial`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from nge_search import operation_registry
from nge_search.settings.amounts import read_amount
from nge_search.settings.base import Section, option
from nge_search.settings.names import (
    EVALUATORS,
    SEARCH_OPERATIONS,
    SIGNALS,
    SPACES,
    TASKS,
    THREE_STAGES,
)
from nge_search.settings.optimisation import SgdSection
from nge_search.settings.run import CommandConfig


@dataclass
class TrialSection(SgdSection):
    """The short training by which an architecture is judged."""

    prefix: ClassVar[str] = "evaluator"

    steps: int = option(100, "Number of SGD steps of a short training.", at_least=1)
    batch_size: int = option(64, "Number of images per step of a short training.", at_least=2)
    images: int = option(
        0,
        "Largest number of images that a short training learns from, equally many per class, out of the part that "
        "trains weights; 0: all of them.",
        at_least=0,
    )
    valid_images: int = option(
        0,
        "Largest number of images that a short training is validated on, equally many per class, out of the part "
        "that trains the architecture; 0: all of them.",
        at_least=0,
    )
    side: int = option(
        0,
        "Side in pixels to which images are resized for short trainings; 0: data.image_size.",
        at_least=0,
        at_most=1024,
    )
    channels: int = option(8, "Number of channels of the first cell in a short training.", at_least=1, at_most=1024)
    macs: str | None = option(
        None,
        "Number of mult-adds of the network in a short training, such as 5M: every architecture gets the channels "
        "that bring it nearest, in place of evaluator.channels, so that all are compared at the same cost.",
    )
    cells: int = option(
        9,
        "Number of cells that a network has in a short training; a multiple of 3 in nasbench101 and nasbench201.",
        at_least=1,
        at_most=200,
    )
    signal: str = option(
        "valid_loss",
        "Figure by which short trainings are compared: valid_loss: the validation loss at the end; valid_top1: the "
        "validation accuracy; train_losses: the sum of all steps' training losses (training speed estimation).",
        choices=SIGNALS,
    )

    def check(self) -> None:
        super().check()
        if self.macs is not None:
            read_amount(self.macs, self.key("macs"))

    def check_space(self, space: str) -> None:
        """Raise UserError unless networks of the space can have so many cells."""
        if space in THREE_STAGES and self.cells % 3:
            raise self.refuse("cells", f"networks of {space} have three stages; set a multiple of 3")

    def label(self) -> str:
        """What the signal is, for people."""
        words = {
            "valid_loss": "validation loss",
            "valid_top1": "validation top-1",
            "train_losses": "sum of training losses",
        }
        return words[self.signal]


@dataclass
class TrialsSection(TrialSection):
    """Short trainings, one after the other or side by side."""

    processes: int = option(
        1,
        "Number of processes on this machine that short trainings run in side by side; 1: in the search's own, one "
        "after the other. With threads=0 each has its share of the machine's.",
        at_least=1,
        at_most=256,
        free_on_resume=True,
    )

    def check_operations(self, operations: Iterable[str]) -> None:
        """Raise UserError for operations that processes of their own cannot import."""
        if self.processes == 1:
            return
        plugins = operation_registry.plugins_of(operations)
        given = next((name for name, plugin in plugins.items() if plugin == operation_registry.PROGRAM), None)
        if given is not None:
            raise self.refuse(
                "processes",
                f"operation '{given}' was registered by a program or notebook, which no other process can import; "
                "put it into a module that plugins=[MODULE] names, or set it to 1",
            )


@dataclass
class EvaluatorSection(TrialsSection):
    """What answers the queries of a search."""

    kind: str = option(
        "table",
        "What judges an architecture: table: benchmark.table has its accuracy; training: a short training on the "
        "images of data.name.",
        choices=EVALUATORS,
    )
    space: str = option(
        "darts", "Space that evaluator.kind=training searches; a table has its own.", choices=SPACES
    )
    operations: list[str] = option(
        [*SEARCH_OPERATIONS],
        "Operations that evaluator.space=darts chooses from; also sep_conv_7x7, conv_7x1_1x7 and those of plugins.",
        choices=operation_registry.names,
    )
    pending: int = option(
        1,
        "Number of architectures that a strategy asks for before the first of them is answered, for "
        "evaluator.processes to work on side by side; what is found depends on it, and not on the processes.",
        at_least=1,
        at_most=256,
    )

    def check(self) -> None:
        super().check()
        if len(self.operations) < 2:
            raise self.refuse("operations", "a search needs at least two operations")
        self.require_distinct("operations")
        training = self.kind == "training"
        if self.operations != [*SEARCH_OPERATIONS] and not (training and self.space == SPACES[0]):
            where = f"{self.key('space')}={self.space}" if training else "a table"
            raise self.refuse("operations", f"fixed in {where}; leave it out")
        if not training:
            return
        self.check_space(self.space)
        self.check_operations(self.operations)
        if self.processes > self.pending:
            raise self.refuse(
                "processes",
                f"a strategy asks for {self.key('pending')}={self.pending} architectures at once; raise that, too",
            )


@dataclass
class TrialNetworkSection(Section):
    """What is trained for a short time."""

    prefix: ClassVar[str] = "network"

    genotype: str = option(
        "darts_v2",
        "Architecture to train: published name, notation, JSON file, text as DARTS or NNI writes it, or run "
        "folder of a finished search.",
        free_on_resume=True,  # the cells themselves are compared
        path=True,
    )


@dataclass
class TrialConfig(CommandConfig):
    """Settings of a single short training: `nge eval task=trial`."""

    kind: ClassVar[str] = "trial"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (*SIGNALS, "seconds", "data")

    task: str = option("trial", "What is trained; each has settings of its own.", choices=TASKS)
    network: TrialNetworkSection = field(default_factory=TrialNetworkSection)
    evaluator: TrialSection = field(default_factory=TrialSection)
