"""What a run folder holds, read leniently: a file that is missing or broken costs its part, not the report."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nge_search import kinds, yaml_reader
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture, read_architecture
from nge_search.errors import UserError, from_os_error, plain
from nge_search.files import read_text, user_path
from nge_search.json_reader import MOST_VALUES, count_values, read_json, read_json_lines
from nge_search.report.parts.evaluation import Evaluation, read_evaluation
from nge_search.report.parts.numbers import number
from nge_search.report.parts.segmentation import Masks, Segmentation, read_masks, read_segmentation

Row = dict[str, Any]
_Found = TypeVar("_Found")

_LAST_EPOCH = 1e9
_LONGEST_TEXT = 4096
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class RunFolder:
    """`path` is the folder as the user gave it. `rows` are in order of epoch, one per epoch, the last written.

    Their "epoch" (in a table: query) is counted from 1, as people do, and not from 0 as in metrics.jsonl. What was
    found is `architecture`. `summary` is None while the run is unfinished; `notes` says in one line each what could
    not be read.
    """

    path: Path
    kind: str
    config_text: str
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: tuple[Row, ...]
    summary: dict[str, Any] | None
    architecture: Architecture | None
    genotype_saved: bool
    evaluation: Evaluation | None
    segmentation: Segmentation | None
    masks: Masks | None
    notes: tuple[str, ...]

    @property
    def graphs(self) -> dict[str, Graph] | None:
        """The cells that were found."""
        return self.architecture.graphs if self.architecture else None

    @property
    def genotype(self) -> Genotype | None:
        """What was found, where it is in DARTS' notation."""
        return self.architecture.genotype if self.architecture else None

    @property
    def notation(self) -> str:
        """What was found in its space's own notation; empty where that is the genotype."""
        return self.architecture.text if self.architecture else ""

    def setting(self, key: str) -> Any:
        """The value of a setting in config.yaml, by its dotted key, or None."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

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


def read_run_folder(directory: str | Path) -> RunFolder:
    """Read everything the report shows.

    Raises:
        UserError: not a run folder, or one that cannot be read.
    """
    directory = user_path(directory)
    if not directory.is_dir():
        raise UserError(f"'{directory}' is not a folder; give the folder of a run, such as runs/search/cifar10")
    if not (directory / "config.yaml").is_file() and not (directory / "metrics.jsonl").is_file():
        raise UserError(f"'{directory}' holds neither config.yaml nor metrics.jsonl; it is not the folder of a run")
    reader = _Reader(directory)
    config_text = reader.text("config.yaml", yaml_reader.LARGEST_BYTES)
    rows = reader.rows()
    summary = reader.json_object("summary.json")
    architecture = reader.architecture(reader.genotypes(summary, rows))
    config = reader.parse_config(config_text)
    return RunFolder(
        path=directory,
        kind=_kind(summary, rows, architecture, config),
        config_text=config_text,
        config=config,
        environment=reader.json_object("environment.json") or {},
        rows=rows,
        summary=summary,
        architecture=architecture,
        genotype_saved=(directory / "genotype.json").is_file(),
        evaluation=reader.found("evaluation.json", read_evaluation),
        segmentation=reader.found("segmentation.json", read_segmentation),
        masks=reader.found("dataset.json", read_masks),
        notes=tuple(reader.notes),
    )


@dataclass
class _Reader:
    directory: Path
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def _leaving_out(self, name: str) -> Iterator[Path]:
        """The path of a file; what makes it unusable becomes a note. UserError where it cannot be read at all."""
        path = self.directory / name
        try:
            yield path
        except OSError as error:
            raise from_os_error(error) or UserError(f"cannot read '{path}': {error.strerror}") from None
        except UserError as error:
            self.notes.append(f"{name} is left out: {error}.")

    def text(self, name: str, limit: int) -> str:
        """The text of a file of at most `limit` bytes; empty where there is none."""
        if os.path.lexists(self.directory / name):
            with self._leaving_out(name) as path:
                return read_text(path, limit, errors="replace")
        return ""

    def json_object(self, name: str) -> dict[str, Any] | None:
        if not os.path.lexists(self.directory / name):
            return None
        with self._leaving_out(name) as path:
            return read_json(path)
        return None

    def rows(self) -> tuple[Row, ...]:
        """The rows of metrics.jsonl. An epoch that a resumed run wrote again counts once, as written last."""
        rows: dict[float, Row] = {}
        if os.path.lexists(self.directory / "metrics.jsonl"):
            with self._leaving_out("metrics.jsonl") as path:
                self._read_rows(path, rows)
        return tuple(rows[epoch] for epoch in sorted(rows))

    def _read_rows(self, path: Path, rows: dict[float, Row]) -> None:
        """Fill `rows`, by epoch."""
        broken, values, last, is_row = 0, 0, 0.0, True
        for line, row in read_json_lines(path):
            if not line.strip():
                continue
            broken += not is_row  # the last line may be half written
            is_row = isinstance(row, dict)
            values += count_values(line)
            if values > MOST_VALUES or len(rows) == _MOST_ROWS:
                self.notes.append(f"metrics.jsonl: only its first {len(rows)} rows are shown.")
                break
            if is_row:
                epoch = number(row.get("epoch")) + 1  # the file counts from 0
                last = epoch if abs(epoch) <= _LAST_EPOCH else last + 1
                rows[last] = {**row, "epoch": last}
        if broken:
            self.notes.append(f"metrics.jsonl: {broken} line(s) are not JSON objects and are left out.")

    def genotypes(self, summary: dict[str, Any] | None, rows: tuple[Row, ...]) -> list[tuple[str, Any]]:
        """From genotype.json, from the summary, from the last row that has one."""
        candidates = [("genotype.json", self.json_object("genotype.json"))]
        candidates.append(("summary.json", (summary or {}).get("genotype")))
        candidates += [("metrics.jsonl", row["genotype"]) for row in reversed(rows) if row.get("genotype")][:1]
        return candidates

    def architecture(self, candidates: list[tuple[str, Any]]) -> Architecture | None:
        """The first that is one."""
        for source, document in candidates:
            if document:
                try:
                    return read_architecture(document, source)
                except UserError as error:
                    self.notes.append(f"The cells are not drawn from {error}")
        return None

    def found(self, name: str, read: Callable[[dict[str, Any]], tuple[_Found | None, list[str]]]) -> _Found | None:
        """What `read` makes of a file that says what the last test found."""
        document = self.json_object(name)
        if document is None:
            return None
        found, notes = read(document)
        self.notes += [f"{name}: {note}" for note in notes]
        return found

    def parse_config(self, text: str) -> dict[str, Any]:
        """Settings, and sections of settings; without what is no value of a setting."""
        try:
            config = yaml_reader.parse_yaml(text, "config.yaml")
        except UserError as error:
            self.notes.append(f"{plain(str(error), 200)}; it is shown as it is.")
            return {}
        if not isinstance(config, dict):
            return {}
        sections = {key: _settings(value) for key, value in config.items() if isinstance(value, dict)}
        return {**_settings(config), **sections}


def _settings(section: dict[Any, Any]) -> dict[Any, Any]:
    """The scalars of a section that are short enough to be shown."""
    return {key: value for key, value in section.items() if _is_shown(value)}


def _is_shown(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    if isinstance(value, int):
        return abs(value) < 1 << 64  # more digits than Python prints, in the end
    return value is None or isinstance(value, float)


def _kind(
    summary: dict[str, Any] | None, rows: tuple[Row, ...], architecture: Architecture | None, config: dict[str, Any]
) -> str:
    """The name of a kind, or what another version called it: as recorded, else as rows and configuration tell."""
    for document in (summary or {}, *reversed(rows)):
        if isinstance(document.get("kind"), str):
            known = kinds.find(document["kind"])
            return known.name if known else document["kind"]
    keys = frozenset().union(*rows)
    if isinstance(config.get("task"), str) and (told := kinds.of_settings(config)):
        return told.name
    if keys & {"p_normal", "p_cell", "architecture_loss", "entropy_normal", "embedding_learning_rate"}:
        return "search"
    if keys & {"train_pixel_accuracy", "test_miou"}:
        return "segmentation"
    if keys & {"test_loss", "test_top1", "drop_path"}:
        return "eval"
    return "search" if architecture else "run"
