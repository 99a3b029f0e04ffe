"""Settings of predictors of accuracy: `nge predict train`, and `nge predict bench`, which compares them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from nge_search.errors import UserError
from nge_search.settings.base import Section, option
from nge_search.settings.labels import LabelsSection
from nge_search.settings.names import (
    ANYTIME_PREDICTORS,
    BREAKINGS,
    NETWORK_PREDICTORS,
    PREDICTORS,
    READOUTS,
    UPDATES_FROM,
)
from nge_search.settings.run import RunningConfig

#: How labels are divided into those to train on and those to test.
SPLITS = ("halves", "folds", "hashes")
_BUDGET = re.compile(r"(\d{1,9}|\d{1,3}(?:\.\d{1,6})?\s?%)")
_MOST_SEEDS = 1000


@dataclass
class OptionsSection(Section):
    """What predictors that are networks do otherwise than published; null: as published."""

    prefix: ClassVar[str] = "options"

    members: int | None = option(
        None, "Number of networks that are trained side by side, whose scores are averaged.", at_least=1, at_most=64
    )
    analytic: bool | None = option(None, "Give analytic features to the head, beside the encoding.")
    epochs: int | None = option(None, "Number of epochs of training.", at_least=1, at_most=100_000)
    batch_size: int | None = option(None, "Number of architectures in a batch.", at_least=2, at_most=1 << 20)
    learning_rate: float | None = option(None, "Adam's learning rate, which is constant.", above=0, at_most=10)
    steps: int | None = option(
        None,
        "Number T of forward passes of TA-GATES or GATES; with 1, TA-GATES is its matched control.",
        at_least=1,
        at_most=32,
    )
    step_size: float | None = option(
        None, "Scale s of the updates of operations' embeddings (TA-GATES).", at_least=0, at_most=10
    )
    breaking: str | None = option(
        None,
        "How operations of one type are told apart (TA-GATES): none; random: by noise; add, concat: by zero-cost "
        "saliencies, which takes a forward and backward pass for each architecture.",
        choices=BREAKINGS,
    )
    breaking_scale: float | None = option(
        None, "Scale beta of what options.breaking=add adds.", at_least=0, at_most=1000
    )
    update_inputs: str | None = option(
        None, "What an update is told: of o, the embedding, f and b, what was seen forward and backward, as ofb."
    )
    stop_gradients: str | None = option(
        None, "Inputs of an update, of o, f and b, that no gradients pass, as of; none: gradients pass all."
    )
    update_from: str | None = option(
        None, "Place where an update sees what passed: nodes, or messages on edges.", choices=UPDATES_FROM
    )
    update_parameter_free: bool | None = option(
        None, "Update the embeddings of operations without weights, too (no mask)."
    )
    readout: str | None = option(
        None, "What of a graph is the encoding: its output, or the mean over nodes.", choices=READOUTS
    )
    cache: str = option(
        "", "Folder that keeps zero-cost saliencies between runs; empty: none.", free_on_resume=True, path=True
    )

    def given(self) -> dict[str, Any]:
        """What is not as published, by name; without the cache."""
        names = [item.name for item in fields(self) if item.name != "cache"]
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {**found, "stop_gradients": ""} if self.stop_gradients == "none" else found

    def check(self) -> None:
        for name in ("update_inputs", "stop_gradients"):
            value = self.given().get(name)
            if value is not None and "".join(letter for letter in "ofb" if letter in value) != value:
                raise self.refuse(name, "give some of the letters o, f, b, in this order")
        if self.update_inputs == "":
            raise self.refuse("update_inputs", "give at least one of o, f and b")

    def require_taken(self, models: Sequence[str]) -> None:
        """Raise UserError if there are options and none of the models takes them."""
        if (given := self.given()) and not set(models) & {*NETWORK_PREDICTORS, *ANYTIME_PREDICTORS}:
            taking = ", ".join(NETWORK_PREDICTORS)
            raise self.refuse(next(iter(given)), f"{', '.join(models)}: no options of networks; {taking} have them")


@dataclass
class PredictSection(Section):
    """What is trained, and how its quality is estimated."""

    prefix: ClassVar[str] = "predict"

    model: str = option(
        "ensemble",
        "Predictor that is trained: ta_gates, gates, gcn, lstm, mlp: networks on graphs or decisions; xgboost: "
        "boosted trees; nasbowl: a process on subtrees; analytic_gp: processes on analytic features; flow: "
        "networks with these; ensemble: both.",
        choices=PREDICTORS,
    )
    folds: int = option(
        5,
        "Number of parts of the labels, each predicted by what the others have taught, to estimate the quality.",
        at_least=2,
        at_most=1000,
    )
    curve: bool = option(
        True, "Estimate the quality with a quarter and a half of the labels, too, to see what more of them bring."
    )


@dataclass
class PredictConfig(RunningConfig):
    """Settings of `nge predict train`."""

    kind: ClassVar[str] = "predict"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (
        *("model", "space", "labels", "source", "folds", "kendall_tau", "interval", "seconds"),
    )

    labels: LabelsSection = field(default_factory=LabelsSection)
    predict: PredictSection = field(default_factory=PredictSection)
    options: OptionsSection = field(default_factory=OptionsSection)

    def check(self) -> None:
        self.options.require_taken([self.predict.model])


@dataclass
class BenchSection(Section):
    """Which predictors are compared, on how many labels, and how often."""

    prefix: ClassVar[str] = "bench"

    models: list[str] = option(
        ["ensemble"],
        "Predictors that are compared, each with the first, in pairs of equal seeds; with bench.half those that "
        "predict both accuracies.",
        choices=(*PREDICTORS, *ANYTIME_PREDICTORS[:-1]),
    )
    budgets: list[str] = option(
        ["1%", "5%", "10%"],
        "Numbers of labels that predictors learn from: counts, or shares of those to train on, as 0.5%.",
    )
    seeds: list[str] = option(
        ["3"], "Number of seeds for each of bench.budgets, or one number for all; a seed divides, and trains."
    )
    first_seed: int = option(0, "First of the seeds; the others follow it.", at_least=0, at_most=10**6)
    split: str = option(
        "halves",
        "How labels are divided: halves: at random, the second half tests; folds: each part tests once what the "
        "others taught; hashes: by two lists of NAS-Bench-101's hashes.",
        choices=SPLITS,
    )
    folds: int = option(10, "Number of parts, if bench.split=folds.", at_least=2, at_most=1000)
    train_hashes: str = option(
        "", "CSV whose column `hash` lists the cells to train on, in order.", free_on_resume=True, path=True
    )
    test_hashes: str = option(
        "", "CSV whose column `hash` lists the cells to test.", free_on_resume=True, path=True
    )
    classes: bool = option(
        False, "Keep architectures that compute the same on one side of the division (halves and folds)."
    )
    score: str = option(
        "", "Column of the table by which predictors are judged, unseen by them; empty: labels.column."
    )

    half: str = option(
        "",
        "Column of the table with accuracies half-way through training, predicted beside those at the end; empty: "
        "none.",
    )

    def check(self) -> None:
        offered = ANYTIME_PREDICTORS if self.half else PREDICTORS
        if other := [name for name in self.models if name not in offered]:
            word = "with" if self.half else "without"
            known = ", ".join(offered)
            raise self.refuse("models", f"{other[0]} is none {word} {self.key('half')}; there are {known}")
        self.require_distinct("models", "budgets")
        if not self.seeds:
            raise self.refuse("seeds", "give at least one")
        for text in self.budgets:
            if not _BUDGET.fullmatch(text) or _share(text) > 1 or _budget(text, 10**9) < 1:
                raise self.refuse("budgets", f"'{text}' is neither a number of labels, as 39, nor a share, as 0.5%")
        if not all(re.fullmatch(r"[1-9]\d{0,3}", text) and int(text) <= _MOST_SEEDS for text in self.seeds):
            raise self.refuse("seeds", f"give whole numbers from 1 to {_MOST_SEEDS}")
        if len(self.seeds) not in (1, len(self.budgets)):
            raise self.refuse(
                "seeds", f"give one number, or {len(self.budgets)}, one for each of {self.key('budgets')}"
            )
        lists = bool(self.train_hashes), bool(self.test_hashes)
        if any(lists) != (self.split == "hashes") or any(lists) != all(lists):
            raise self.refuse(
                "split", f"{self.key('train_hashes')} and {self.key('test_hashes')} go with hashes alone"
            )
        if self.classes and self.split == "hashes":
            raise self.refuse("classes", "the lists of hashes divide already")

    def labels(self, budget: str, pool: int) -> int:
        """How many labels one of `budgets` is, of so many to train on: shares are rounded down, as TA-GATES does.

        Raises:
            UserError: fewer than two, or more than there are.
        """
        count = _budget(budget, pool)
        if not 2 <= count <= pool:
            raise UserError(
                f"{self.key('budgets')}: '{budget}' is {count} of {pool} labels to train on; give 2 to {pool}"
            )
        return count

    def seeds_of(self, position: int) -> range:
        """The seeds of the budget at a position."""
        count = int(self.seeds[position if len(self.seeds) > 1 else 0])
        return range(self.first_seed, self.first_seed + count)


def _share(text: str) -> float:
    """Of the labels to train on; 0 for a count."""
    return float(text.rstrip("% ")) / 100 if text.endswith("%") else 0.0


def _budget(text: str, pool: int) -> int:
    return math.floor(_share(text) * pool + 1e-9) if text.endswith("%") else int(text)


@dataclass
class PredictBenchConfig(RunningConfig):
    """Settings of `nge predict bench`."""

    kind: ClassVar[str] = "predict_bench"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("space", "source", "architectures", "results", "comparisons", "seconds")

    labels: LabelsSection = field(default_factory=LabelsSection)
    bench: BenchSection = field(default_factory=BenchSection)
    options: OptionsSection = field(default_factory=OptionsSection)

    def check(self) -> None:
        self.options.require_taken(self.bench.models)
