"""What cells of DARTS' space are expected to reach: a ridge regression that ships with the package.

The file beside this module holds weights alone: no cell, no label. `experiments/ship_darts_predictor.py` makes it,
with `nge_search.predict.shipping`, from the 214 random cells that Yang, Esperança and Carlucci ("NAS evaluation is
frustratingly hard", ICLR 2020) have trained as DARTS' authors train theirs: on CIFAR-10, C=36, 20 cells, 600
epochs, cutout, drop path and an auxiliary head, each once.

Nothing here needs torch, so that commands which only print stay quick.

Legend: N architectures, F features.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import EDGES_PER_NODE, SPACE, Genotype
from nge_search.errors import UserError
from nge_search.json_reader import Reader, parse_json
from nge_search.predict.input_features import features_by_input, names_by_input

FORMAT = "nge-shipped-predictor/1"
FILE = "darts.json"
#: Of the file, in bytes.
LARGEST = 200_000

#: Probabilities of the intervals, in percent.
LEVELS = (50, 90)

#: Of the features, and of the cells that are judged.
CELLS = CellSpace()
NAMES = names_by_input(CELLS.kinds, CELLS.inputs)


@dataclass(frozen=True)
class Ridge:
    """A linear regression on standardised features: `intercept_` + weight_F . (x_F - mean_F) / deviation_F."""

    mean_F: np.ndarray
    deviation_F: np.ndarray
    weight_F: np.ndarray
    intercept: float

    def standardised(self, x_NF: np.ndarray) -> np.ndarray:
        return (x_NF - self.mean_F) / self.deviation_F

    def __call__(self, x_NF: np.ndarray) -> np.ndarray:
        """Of architectures: [N]."""
        return self.intercept + self.standardised(x_NF) @ self.weight_F

    def distance(self, x_NF: np.ndarray) -> np.ndarray:
        """How far features are from their means, in deviations, root mean square: [N]. About 1 for usual cells."""
        return np.sqrt((self.standardised(x_NF) ** 2).mean(axis=1))


@dataclass(frozen=True)
class Shipped:
    """The predictor of a space, and how good it is.

    Attributes:
        ridge: gives the test accuracy in percent.
        residuals: for each of `LEVELS` two residuals (accuracy less prediction) of cells left out, between which so
            many percent of them lie.
        farthest: the largest `Ridge.distance` of the cells that it was fitted to.
        tau: Kendall's tau on cells left out in ten folds, and its 90 % interval.
        trainings: how many it was fitted to.
        worst, best: accuracies in percent, between which those of the trainings lie, to one digit behind the point.
    """

    ridge: Ridge
    residuals: dict[int, tuple[float, float]]
    farthest: float
    tau: tuple[float, float, float]
    trainings: int
    worst: float
    best: float

    def text(self) -> str:
        """The content of the file: a line for each key."""
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.to_dict().items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def to_dict(self) -> dict[str, Any]:
        """As JSON; numbers with six digits, which are more than are known."""
        return {
            "format": FORMAT,
            "space": SPACE,
            "features": list(NAMES),
            **{name: _rounded(getattr(self.ridge, f"{name}_F")) for name in ("mean", "deviation", "weight")},
            "intercept": _rounded([self.ridge.intercept])[0],
            "residuals": {str(level): _rounded(self.residuals[level]) for level in LEVELS},
            "farthest": _rounded([self.farthest])[0],
            "tau": [round(value, 3) for value in self.tau],
            "trainings": self.trainings,
            "range": [self.worst, self.best],
        }

    @staticmethod
    def read(text: str, source: str = FILE) -> Shipped:
        """The predictor of a file's text.

        Raises:
            UserError: something else, or one for other features than this version's.
        """
        return Shipped.of(parse_json(text, source), source)

    @staticmethod
    def of(document: Any, source: str) -> Shipped:
        """The inverse of `to_dict`; UserError as of `read`."""
        if not isinstance(document, dict):
            raise UserError(f"{source} is damaged: not a JSON object")
        reader = Reader(source, document)
        reader.text("format", (FORMAT,))
        reader.text("space", (SPACE,))
        if tuple(reader.names("features")) != NAMES:
            raise UserError(f"{source} is for other features than this version has; make it anew")
        mean_F, weight_F = (np.array(reader.numbers(name, len(NAMES))) for name in ("mean", "weight"))
        deviation_F = np.array(reader.numbers("deviation", len(NAMES), above=0.0))
        residuals = reader.section("residuals")
        low, high = reader.numbers("range", 2)
        tau, tau_low, tau_high = reader.numbers("tau", 3)
        return Shipped(
            Ridge(mean_F, deviation_F, weight_F, reader.number("intercept", 0, 100)),
            {level: _pair(residuals.numbers(str(level), 2)) for level in LEVELS},
            reader.number("farthest", 0, math.inf),
            (tau, tau_low, tau_high),
            reader.integer("trainings", 2, 1 << 20),
            low,
            high,
        )


def _pair(values: list[float]) -> tuple[float, float]:
    low, high = values
    return low, high


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


@functools.cache
def shipped() -> Shipped:
    """That of DARTS' space."""
    return Shipped.read(resources.files("nge_search.predict").joinpath(FILE).read_text("utf-8"))


@dataclass(frozen=True)
class Expectation:
    """What an architecture is expected to reach, in percent of test error.

    Attributes:
        error: the expected one.
        intervals: for each of `LEVELS` the lower and the upper end.
        unlike: whether its cells are farther from the usual than any that were trained.
        source: the predictor.
    """

    error: float
    intervals: dict[int, tuple[float, float]]
    unlike: bool
    source: Shipped

    def lines(self) -> list[str]:
        """In words: what, how sure, and from what."""
        shown = "; ".join(f"{level} %: {low:.2f} to {high:.2f}" for level, (low, high) in self.intervals.items())
        own, (tau, low, high) = self.source, self.source.tau
        lines = [
            f"expected test error {self.error:.2f} % ({shown}), if trained on CIFAR-10 as DARTS' authors do (C=36, "
            "20 cells, 600 epochs)",
            f"told from {own.trainings} such trainings of random cells, with errors of {100 - own.best:.1f} to "
            f"{100 - own.worst:.1f} %; Kendall tau {tau:.2f} (90 %: {low:.2f} to {high:.2f}) on unseen cells",
        ]
        if self.unlike:
            lines.append("these cells are unlike all of those: do not rely on the figure, nor on its intervals")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "test_error": round(self.error, 3),
            "intervals": {str(level): [round(end, 3) for end in ends] for level, ends in self.intervals.items()},
            "unlike_the_trained": self.unlike,
            "from": self.lines()[1],
        }


def expected(genotype: Genotype | None) -> Expectation | None:
    """What an architecture is expected to reach; None for one that is not of DARTS' space."""
    if genotype is None or not of_space(genotype):
        return None
    own, x_NF = shipped(), features_by_input([genotype.graphs()], CELLS.kinds)
    accuracy = float(own.ridge(x_NF)[0])
    intervals = {
        level: (100 - accuracy - high, 100 - accuracy - low) for level, (low, high) in own.residuals.items()
    }
    return Expectation(100 - accuracy, intervals, bool(own.ridge.distance(x_NF)[0] > own.farthest), own)


def of_space(genotype: Genotype) -> bool:
    """Whether both cells are of DARTS' space: four nodes that read two different ones, all in the output."""
    return all(
        sorted(cell.concat) == list(CELLS.inner)
        and cell.nodes == CELLS.nodes
        and all(operation in CELLS.operations for operation, _ in cell.genes)
        and all(len({source for _, source in cell.incoming(node)}) == EDGES_PER_NODE for node in CELLS.inner)
        for _, cell in genotype.cells()
    )
