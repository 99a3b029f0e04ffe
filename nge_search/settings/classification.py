"""Settings of the training of a derived network: `train_eval.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.exported import settings_of_export
from nge_search.settings.names import BENCHMARK_NETWORKS, EXPORTED, NETWORKS, SCHEDULES, TASKS, THREE_STAGES
from nge_search.settings.optimisation import NetworkTrainSection
from nge_search.settings.run import CommandConfig


@dataclass
class NetworkSection(Section):
    """The classifier that a derived cell is stacked into."""

    prefix: ClassVar[str] = "network"

    genotype: str = option(
        "darts_v2",
        "Architecture to train: published name, JSON file, text as DARTS or NNI writes it, or run "
        "folder of a finished search.",
        free_on_resume=True,  # the cells themselves are compared
        path=True,
    )
    kind: str = option(
        "cifar",
        "Network that the cell is stacked into: cifar: a stem at full resolution; imagenet: a stem of stride 8; "
        "nasbench101, nasbench201: the networks that these benchmarks trained, of their own cells in three stages; "
        "enas_macro: ENAS' layers one behind the other.",
        choices=NETWORKS,
    )
    channels: int = option(36, "Number of channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(
        20,
        "Number of cells; those at 1/3 and 2/3 of the depth reduce. With network.kind=enas_macro a cell is all six "
        "layers, and ENAS has one.",
        at_least=1,
        at_most=200,
    )
    stem_multiplier: int = option(
        3, "Number of channels of network.kind=cifar's stem, in units of network.channels.", at_least=1, at_most=16
    )
    auxiliary: bool = option(False, "Train an auxiliary head at 2/3 of the depth (needs images of about 32x32).")
    auxiliary_weight: float = option(0.4, "Weight of the auxiliary head's loss in the training loss.", at_least=0)
    weights: str = option(
        "",
        "Weights to start from: an exported folder, a .safetensors file or a run folder; empty: random ones. An "
        "exported folder sets genotype, kind and sizes, too, unless the command line does.",
        path=True,
    )
    reset_classifier: bool = option(
        False, "Leave out the classifier of network.weights, which is of other classes, and train a new one."
    )
    drop_path: float = option(
        0.0,
        "Probability of dropping an operation's output for an image, to which it rises linearly from 0 by the end.",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        if self.kind not in BENCHMARK_NETWORKS:
            return
        if self.kind in THREE_STAGES and self.cells % 3:
            raise self.refuse("cells", f"{self.key('kind')}={self.kind} has three stages; set a multiple of 3")
        for name in ("auxiliary", "drop_path"):
            if getattr(self, name):
                raise self.refuse(name, f"networks of {self.key('kind')}={self.kind} have none; leave it out")


@dataclass
class TrainSection(NetworkTrainSection):
    """How a classifier is trained."""

    schedule: str = option(
        "cosine",
        "Schedule by which the learning rate falls, epoch by epoch; constant: it does not.",
        choices=SCHEDULES,
    )
    warmup_epochs: int = option(
        0,
        "Number of first epochs, in which the learning rate is multiplied by (epoch + 1) / train.warmup_epochs.",
        at_least=0,
    )
    label_smoothing: float = option(
        0.0,
        "Share of each label that smoothing spreads over all classes in the training loss.",
        at_least=0,
        below=1,
    )
    mixup: float = option(0.0, "Alpha of the Beta distribution of timm's mixup; 0: no mixup.", at_least=0)
    cutmix: float = option(0.0, "Alpha of the Beta distribution of timm's cutmix; 0: no cutmix.", at_least=0)
    ema_decay: float = option(
        0.0,
        "Decay per step of an average of the weights, which is evaluated beside them; 0: no average.",
        at_least=0,
        below=1,
    )
    compile: bool = option(
        False,
        "Compile the cells with torch.compile, which takes minutes at first and pays on GPUs.",
        free_on_resume=True,
    )

    def check(self) -> None:
        super().check()
        if self.warmup_epochs > self.epochs:
            raise self.refuse("warmup_epochs", f"more than {self.key('epochs')}={self.epochs}")


@dataclass
class EvalConfig(CommandConfig):
    """Settings of `train_eval.py` (`nge eval`)."""

    kind: ClassVar[str] = "eval"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("top1_error", "params", "macs", "epochs", "seconds")

    task: str = option("classification", "What is trained; each has settings of its own.", choices=TASKS)
    network: NetworkSection = field(default_factory=NetworkSection)
    train: TrainSection = field(default_factory=TrainSection)

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        sizes = ("channels", "cells", "stem_multiplier")
        return settings_of_export(given, tuple(EXPORTED), sizes)

    def check(self) -> None:
        if self.network.auxiliary and not self.data.facts.auxiliary:
            raise self.network.refuse(
                "auxiliary", f"an auxiliary head does not fit the images of data.name={self.data.name}"
            )
        if self.network.reset_classifier and not self.network.weights:
            raise self.network.refuse("reset_classifier", "there is nothing to reset without network.weights=")
