"""Settings of predictors of accuracy: `nge predict train`, and `nge predict bench`, which compares them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import ClassVar

from nge_search.errors import UserError, nearest
from nge_search.settings.base import Section, option
from nge_search.settings.names import PREDICTORS, SPACES
from nge_search.settings.run import RunningConfig

#: How labels are divided into those to train on and those to test.
SPLITS = ("halves", "folds", "hashes")
_BUDGET = re.compile(r"(\d{1,9}|\d{1,3}(?:\.\d{1,6})?\s?%)")
_MOST_SEEDS = 1000


@dataclass
class LabelsSection(Section):
    """Architectures with their accuracies: from a CSV, or from a table."""

    prefix: ClassVar[str] = "labels"

    file: str = option(
        "",
        "CSV with the columns `architecture` (a notation, or a published name) and `accuracy` (percent).",
        free_on_resume=True,
        path=True,
    )
    table: str = option(
        "",
        "Table of accuracies in place of a CSV: a folder that `nge table` wrote, or a file that it reads.",
        free_on_resume=True,
        path=True,
    )
    column: str = option("", "Column of the table that is predicted, such as cifar10_test_200.")
    space: str = option(
        "", "Name of the space that the architectures must be of; empty: that of the CSV's first, or the table's."
    )

    def check(self) -> None:
        if self.space and self.space not in SPACES:
            raise self.refuse("space", f"allowed are {', '.join(SPACES)}{nearest(self.space, SPACES)}")
        if self.file and self.table:
            raise self.refuse("file", f"{self.key('table')} is set, too; labels come from one of them")
        if self.file and self.column:
            raise self.refuse(
                "column", f"a CSV's labels are in its column `accuracy`; leave {self.key('column')} out"
            )

    def require_given(self) -> None:
        """Raise UserError unless there is something to read."""
        if not self.file and not self.table:
            raise self.refuse(
                "file", f"give a CSV with the columns architecture and accuracy, or {self.key('table')}=TABLE"
            )
        if self.table and not self.column:
            raise self.refuse(
                "column", "name the column of the table that is predicted; `nge table TABLE` lists them"
            )


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
        True, "Estimate the quality with a quarter and a half of the labels, too: what would more of them bring?"
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


@dataclass
class BenchSection(Section):
    """Which predictors are compared, on how many labels, and how often."""

    prefix: ClassVar[str] = "bench"

    models: list[str] = option(
        ["ensemble"],
        "Predictors that are compared, each with the first, in pairs of equal seeds.",
        choices=PREDICTORS,
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

    def check(self) -> None:
        for name in ("models", "budgets", "seeds"):
            if not getattr(self, name):
                raise self.refuse(name, "give at least one")
        for name in ("models", "budgets"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise self.refuse(name, "one stands there twice")
        for text in self.budgets:
            if not _BUDGET.fullmatch(text) or not 0 < _budget(text, 100) <= 10**9 or _share(text) > 1:
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
