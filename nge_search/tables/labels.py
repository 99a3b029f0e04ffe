"""Architectures with the accuracies that were measured for them, checked: from a table, a CSV, or a search.

Legend: N architectures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.load import SPACES as KNOWN
from nge_search.architecture.load import Architecture, is_notation, load_architecture
from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json, read_json_lines
from nge_search.kinds import METRICS, SUMMARY, current_name
from nge_search.settings.labels import LabelsSection
from nge_search.spaces import SPACES, Code, Space
from nge_search.tables import open_table
from nge_search.tables.csv_rows import columns, convert_rows
from nge_search.tables.table import Table

ARCHITECTURE, ACCURACY = "architecture", "accuracy"


@dataclass(frozen=True)
class Labelled:
    """Distinct architectures of one space, each with a label.

    Attributes:
        space: of the architectures.
        codes: of each, as it was given first.
        label_N: accuracies in percent, float64, all finite.
        source: what they were read from.
        notices: what was done to them that a user should know, a line each.
    """

    space: Space
    codes: list[Code]
    label_N: np.ndarray
    source: str
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.codes)

    def digest(self, *more: np.ndarray) -> str:
        """What names the labels, by which a run that goes on tells that they are the same."""
        found = hashlib.sha256(self.space.name.encode())
        for code in self.codes:
            found.update(bytes(code))
        for label_N in (self.label_N, *more):
            found.update(label_N.tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class Lesson:
    """What something has learnt from, as it is told beside it.

    Attributes:
        source: the file, table or search.
        count: labels.
        lowest, highest: of them, in percent.
        seed: of the training.
    """

    source: str
    count: int
    lowest: float
    highest: float
    seed: int

    @staticmethod
    def of(labelled: Labelled, seed: int) -> Lesson:
        label_N = labelled.label_N
        return Lesson(labelled.source, len(labelled), float(label_N.min()), float(label_N.max()), seed)

    @staticmethod
    def read(learnt: Reader) -> Lesson:
        """That of a file; raises UserError where it is none."""
        return Lesson(
            plain(learnt.text("source"), 200),
            learnt.integer("labels", 2, 1 << 31),
            learnt.number("lowest", -1, 100),
            learnt.number("highest", -1, 100),
            learnt.integer("seed", 0, 1 << 31),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as `read` takes it."""
        ends = {"lowest": self.lowest, "highest": self.highest}
        return {"source": self.source, "labels": self.count, **ends, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.count} labels ({self.lowest:.2f} to {self.highest:.2f} %) of {self.source}"


def labels_of(section: LabelsSection) -> Labelled:
    """Those that settings name.

    Raises:
        UserError: no labels are named, or they cannot be used; see `read_labels`, `table_labels`, `run_labels`.
    """
    section.require_given()
    if section.file:
        return read_labels(section.file, section.space)
    if section.run:
        return run_labels(section.run, section.space)
    labelled = table_labels(open_table(section.table), section.column)
    if section.space and labelled.space.name != section.space:
        raise section.refuse("space", f"the architectures of {labelled.source} are of {labelled.space.name}")
    return labelled


def table_labels(table: Table, column: str) -> Labelled:
    """The labels of a table's column; repeated trainings are averaged, architectures without a figure left out.

    Raises:
        UserError: no such column, figures that are no accuracies in percent, or fewer than two.
    """
    label_N, source = table.column(column), f"the table of {table.source}"
    known = np.flatnonzero(~np.isnan(label_N)).tolist()
    for row in known:
        _check(label_N[row], f"{source} has {plain(column)}")
    _require_enough(len(known), source)
    notices = []
    if len(known) < len(table):
        notices.append(f"{len(table) - len(known)} of {len(table)} architectures have no {plain(column)}; left out")
    if table.repeats(column).ndim == 2:
        notices.append(f"{plain(column)} is the mean of up to {table.repeats(column).shape[1]} trainings")
    return _finished(table.space, [table.code(row) for row in known], label_N[known], source, notices)


def read_labels(path: str | Path, space: str = "") -> Labelled:
    """The labels of a CSV with the columns `architecture` (a notation) and `accuracy` (percent).

    Architectures that stand there several times, as their space counts them, have the mean of their accuracies, and
    a notice says so where these differ.

    Args:
        space: the name of the space that they must be of; empty: that of the first.

    Raises:
        UserError: no such file or columns, an unknown space, an architecture that is none or of another space, an
            accuracy that is no number from 0 to 100, or fewer than two architectures.
    """
    path, found = user_path(path), _Reading(space)
    _require_columns(path, ARCHITECTURE, ACCURACY)
    labels: dict[bytes, list[float]] = {}
    for key, label in convert_rows(path, lambda row: (found.take(row), _accuracy(row[ACCURACY] or ""))):
        labels.setdefault(key, []).append(label)
    _require_enough(len(labels), f"'{path}'")
    differing = [key for key, own in labels.items() if min(own) < max(own)]
    notices = []
    if differing:
        first = found.space.text(found.codes[differing[0]])
        notices.append(
            f"{len(differing)} architectures stand several times with different accuracies, of which the mean is "
            f"taken; the first is {plain(first, 200)}"
        )
    label_N = np.array([math.fsum(own) / len(own) for own in labels.values()])
    return _finished(found.space, list(found.codes.values()), label_N, f"'{path}'", notices)


def run_labels(path: str | Path, space: str = "") -> Labelled:
    """What a finished search in a table asked for, with its answers.

    Args:
        path: the run folder.
        space: the name of the space that the search must be in; empty: any.

    Raises:
        UserError: not the folder of such a search, or rows that are no queries with accuracies in percent.
    """
    path, found = user_path(path), _Reading(space)
    kind = read_json(path / SUMMARY).get("kind") if (path / SUMMARY).exists() else None
    if current_name(kind) != "queries":
        raise UserError(
            f"'{path}' is not the run folder of a finished search in a table (nge search with task=queries); "
            "there are no architectures with accuracies in it"
        )
    labels: dict[bytes, float] = {}
    for line, (_, row) in enumerate(read_json_lines(path / METRICS), 1):
        source = f"{path / METRICS} line {line}"
        if not isinstance(row, dict):
            raise UserError(f"{source} is damaged: not a JSON object")
        query = Reader(source, row)
        try:
            key, label = found.take({ARCHITECTURE: query.text("architecture")}), query.number("signal", -1, 100)
            _check(label, "the answer is")
        except UserError as error:
            raise UserError(str(error) if source in str(error) else f"{source}: {error}") from None
        labels.setdefault(key, label)
    source = f"the search '{path}'"
    _require_enough(len(labels), source)
    return _finished(found.space, list(found.codes.values()), np.array(list(labels.values())), source, ())


def read_architectures(path: str | Path, space: str = "") -> tuple[Space, list[Code]]:
    """The architectures of a CSV's column `architecture`, each once, in order; other columns are passed over.

    Raises:
        UserError: as of `read_labels`; none at all.
    """
    path, found = user_path(path), _Reading(space)
    _require_columns(path, ARCHITECTURE)
    for _ in convert_rows(path, found.take):
        pass
    if not found.codes:
        raise UserError(f"'{path}' holds no architecture")
    return found.space, list(found.codes.values())


def known_space(name: str) -> Space:
    """The space of a name; UserError for one that is unknown."""
    if name not in SPACES:
        raise UserError(f"space {shorten(name)} is unknown; known are {', '.join(SPACES)}{nearest(name, SPACES)}")
    return SPACES[name]()


class _Reading:
    """The distinct architectures of a file's rows, of one space: that of `name`, or of the first row."""

    def __init__(self, name: str):
        self._space = known_space(name) if name else None
        self.codes: dict[bytes, Code] = {}

    @property
    def space(self) -> Space:
        assert self._space is not None  # there is a row
        return self._space

    def take(self, row: dict[str, str]) -> bytes:
        """The key of a row's architecture."""
        found = _architecture(row[ARCHITECTURE] or "")
        if self._space is None:
            self._space = known_space(found.space)
        if found.space != self._space.name:
            raise UserError(f"an architecture of {found.space} among those of {self._space.name}")
        code = self._space.code_of(found)
        key = self._space.key(code)
        self.codes.setdefault(key, code)
        return key


def _architecture(text: str) -> Architecture:
    """That of a notation or a published name: rows of a file name no other files."""
    name = text.strip().lower().replace("-", "_")
    if name in PUBLISHED:
        return load_architecture(name)
    if not is_notation(text):
        raise UserError(f"{shorten(text)} is no architecture in the notation of {', '.join(KNOWN)}")
    return load_architecture(text)


def _accuracy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"the accuracy {shorten(text)} is not a number") from None
    _check(value, "the accuracy is")
    return value


def _check(value: float, words: str) -> None:
    if not 0 <= value <= 100:  # nor is NaN
        raise UserError(f"{words} {value:g}; labels are accuracies in percent, from 0 to 100")


def _require_columns(path: Path, *names: str) -> None:
    if not path.exists():
        raise UserError(f"'{path}' does not exist; give a CSV with the columns {' and '.join(names)}")
    given = columns(path)
    missing = [name for name in names if name not in given]
    if missing:
        shown = ", ".join(map(plain, given[:9])) or "none"
        raise UserError(f"'{path}' has no column {' and '.join(missing)}; in its first line are {shown}")


def _require_enough(count: int, source: str) -> None:
    if count < 2:
        raise UserError(f"{source} holds {count} architectures with a label; at least 2 are needed")


def _finished(
    space: Space, codes: list[Code], label_N: np.ndarray, source: str, notices: Iterable[str]
) -> Labelled:
    if 0 < label_N.max() <= 1:
        raise UserError(f"{source} has no label above 1; give accuracies in percent, 100 times a share")
    return Labelled(space, codes, label_N, source, tuple(notices))
