"""How weights are trained, in a search and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.names import CONTINUATIONS


@dataclass
class SgdSection(Section):
    """How weights are trained: SGD with momentum under a falling learning rate."""

    learning_rate: float = option(0.025, "SGD's initial learning rate for the weights.", at_least=0)
    learning_rate_min: float = option(0.0, "SGD's learning rate at the end of its schedule.", at_least=0)
    momentum: float = option(0.9, "SGD's momentum for the weights.", at_least=0, below=1)
    weight_decay: float = option(3e-4, "L2 penalty on the weights.", at_least=0)
    clip: float = option(
        5.0, "Largest norm of the weights' gradient, above which it is clipped; 0: no clipping.", at_least=0
    )

    def check(self) -> None:
        if self.learning_rate_min > self.learning_rate:
            raise self.refuse("learning_rate_min", f"above {self.key('learning_rate')}={self.learning_rate}")


@dataclass
class NetworkTrainSection(SgdSection):
    """What all trainings of a derived network have."""

    prefix: ClassVar[str] = "train"

    epochs: int = option(
        600,
        "Number of epochs of the training, which may be raised on a run, finished or not.",
        at_least=1,
        may_grow=True,
    )
    batch_size: int = option(128, "Number of images per step, over all ranks together.", at_least=2)
    accumulate: int = option(
        1,
        "Number of parts in which every process takes its share of a step, one after another: less memory, the "
        "result of as many times more processes.",
        at_least=1,
    )
    eval_batch_size: int = option(256, "Number of images per evaluation step, over all ranks together.", at_least=1)
    evaluate_every: int = option(
        1, "Number of epochs between evaluations; 0: after the last only, which is always evaluated.", at_least=0
    )
    continuation: str = option(
        "constant",
        "Course of the learning rate in epochs by which train.epochs was raised; constant: stays at the present "
        "rate; cosine: falls from it to train.learning_rate_min; restart: falls so from the initial rate.",
        choices=CONTINUATIONS,
        free_on_resume=True,
    )
    sync_statistics: bool = option(
        False, "Compute batch-normalisation statistics over all ranks instead of each rank's own images."
    )
