"""A run as its report shows it: its folder, read leniently, and the figures in it as numbers to draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from nge_search.engine.run_reader import RunReader
from nge_search.errors import UserError
from nge_search.kinds import CONFIG, DATASET, EVALUATION, GENOTYPE, METRICS, SEGMENTATION
from nge_search.report.parts.evaluation import Evaluation, read_evaluation
from nge_search.report.parts.numbers import number
from nge_search.report.parts.segmentation import Masks, Segmentation, read_masks, read_segmentation

_Found = TypeVar("_Found")


class Run(RunReader):
    """What pages are made of. `notes` is complete once a page has asked for all that it shows."""

    def __init__(self, folder: str | Path):
        """The run in a folder; UserError where there is none."""
        super().__init__(folder, lenient=True)
        if not self.path.is_dir():
            raise UserError(f"'{self.path}' is not a folder; give the folder of a run, such as runs/search/cifar10")
        if not (self.path / CONFIG).is_file() and not (self.path / METRICS).is_file():
            raise UserError(f"'{self.path}' holds neither {CONFIG} nor {METRICS}; it is not the folder of a run")

    @cached_property
    def genotype_saved(self) -> bool:
        """Whether there is a genotype.json, from which what was found can be trained."""
        return (self.path / GENOTYPE).is_file()

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """What the last test of a retraining found."""
        return self._found(EVALUATION, self.document(EVALUATION), read_evaluation)

    @cached_property
    def segmentation(self) -> Segmentation | None:
        """What the last test of a segmentation found."""
        return self._found(SEGMENTATION, self.document(SEGMENTATION), read_segmentation)

    @cached_property
    def masks(self) -> Masks | None:
        """What a segmentation's masks hold."""
        return self._found(DATASET, self.dataset, read_masks)

    def _found(
        self,
        name: str,
        document: dict[str, Any] | None,
        read: Callable[[dict[str, Any]], tuple[_Found | None, list[str]]],
    ) -> _Found | None:
        """What `read` makes of the content of a file."""
        if document is None:
            return None
        found, notes = read(document)
        self.notes += [f"{name}: {note}" for note in notes]
        return found

    def points(self, key: str, sparse: bool = False) -> list[tuple[float, float]]:
        """(epoch, value) of `key`; empty where no row has a number.

        Where a row lacks it, the value is NaN, or, if `sparse`, there is no point.
        """
        points = [(row["epoch"], number(row.get(key))) for row in self.rows if key in row or not sparse]
        return points if any(math.isfinite(value) for _, value in points) else []

    def last(self, key: str) -> float:
        """The last finite value of `key`, or NaN."""
        return next((value for _, value in reversed(self.points(key)) if math.isfinite(value)), math.nan)

    def figure(self, key: str) -> float:
        """`key` from the summary, else its last value in the rows, else NaN."""
        value = number((self.summary or {}).get(key))
        return value if math.isfinite(value) else self.last(key)
