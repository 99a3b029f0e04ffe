"""Settings of the training of a derived network: `train_eval.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.names import NETWORKS, SCHEDULES, TASKS
from nge_search.settings.optimisation import NetworkTrainSection
from nge_search.settings.run import CommandConfig

_PUBLISHED_NETWORKS = NETWORKS[2:]


@dataclass
class NetworkSection(Section):
    """The classifier that a derived cell is stacked into."""

    prefix: ClassVar[str] = "network"

    genotype: str = option(
        "darts_v2",
        "A genotype: published name, JSON file, or finished search's run folder.",
        free_on_resume=True,  # the cells themselves are compared
        path=True,
    )
    kind: str = option(
        "cifar",
        "cifar: a stem at full resolution; imagenet: a stem of stride 8; nasbench101, nasbench201: the networks "
        "that these benchmarks trained, of their own cells in three stages.",
        choices=NETWORKS,
    )
    channels: int = option(36, "Channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(20, "Number of cells; those at 1/3 and 2/3 of the depth reduce.", at_least=1, at_most=200)
    stem_multiplier: int = option(
        3, "Channels of the stem of network.kind=cifar, in units of network.channels.", at_least=1, at_most=16
    )
    auxiliary: bool = option(False, "Train an auxiliary head at 2/3 of the depth (needs images of about 32x32).")
    auxiliary_weight: float = option(0.4, "Weight of the auxiliary head's loss.", at_least=0)
    weights: str = option(
        "",
        "Start from these weights: an exported folder, a .safetensors file or a run folder; empty: at random.",
        path=True,
    )
    reset_classifier: bool = option(
        False, "Leave the classifier of network.weights out, as for other classes, and train a new one."
    )
    drop_path: float = option(
        0.0,
        "Probability of dropping an operation's output per image, reached linearly at the end.",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        if self.kind not in _PUBLISHED_NETWORKS:
            return
        if self.cells % 3:
            raise self.refuse("cells", f"{self.key('kind')}={self.kind} has three stages; set a multiple of 3")
        for name in ("auxiliary", "drop_path"):
            if getattr(self, name):
                raise self.refuse(name, f"networks of {self.key('kind')}={self.kind} have none; leave it out")


@dataclass
class TrainSection(NetworkTrainSection):
    """How a classifier is trained."""

    schedule: str = option(
        "cosine", "How the learning rate falls, epoch by epoch: cosine or linear.", choices=SCHEDULES
    )
    warmup_epochs: int = option(
        0,
        "First epochs, in which the learning rate is multiplied by (epoch + 1) / train.warmup_epochs.",
        at_least=0,
    )
    label_smoothing: float = option(0.0, "Label smoothing of the training loss.", at_least=0, below=1)
    mixup: float = option(0.0, "timm's mixup: alpha of its Beta distribution; 0: none.", at_least=0)
    cutmix: float = option(0.0, "timm's cutmix: alpha of its Beta distribution; 0: none.", at_least=0)
    ema_decay: float = option(
        0.0, "Decay per step of an average of the weights, evaluated beside them; 0: none.", at_least=0, below=1
    )
    compile: bool = option(
        False, "Compile the cells with torch.compile: takes minutes at first, pays on GPUs.", free_on_resume=True
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

    def check(self) -> None:
        if self.network.auxiliary and not self.data.facts.auxiliary:
            raise self.network.refuse(
                "auxiliary", f"an auxiliary head does not fit the images of data.name={self.data.name}"
            )
        if self.network.reset_classifier and not self.network.weights:
            raise self.network.refuse("reset_classifier", "there is nothing to reset without network.weights=")
