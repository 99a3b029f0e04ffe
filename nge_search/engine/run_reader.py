"""Run folders, read: all that a run has left, for reports, exports, commands and runs that build on it.

A strict reader refuses what it cannot read. A lenient one leaves it out and keeps a note of it: a file that is
missing or broken costs its part, not the report.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from nge_search import kinds, yaml_reader
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture, load_genotype, read_architecture
from nge_search.errors import UserError, from_os_error, plain
from nge_search.files import read_text, user_path
from nge_search.json_reader import MOST_VALUES, Reader, count_values, read_json, read_json_lines
from nge_search.kinds import CONFIG, DATASET, ENVIRONMENT, GENOTYPE, METRICS, SUMMARY
from nge_search.recipes import Images, retrain_command
from nge_search.settings.load import differences, flatten, grown
from nge_search.settings.run import RunningConfig

Row = dict[str, Any]
_Read = TypeVar("_Read")

_LAST_EPOCH = 1e9
_LONGEST_TEXT = 4096
_MOST_ROWS = 100_000


@dataclass(frozen=True)
class Saved:
    """The newest undamaged checkpoint of a run.

    Attributes:
        state: its parts, to take values from; `state.source` is its file.
        damaged: a line for each newer file that was passed over.
    """

    state: Reader
    damaged: tuple[str, ...]

    @property
    def kind(self) -> Any:
        """What it says that the run is of: a name, or whatever a stranger put there."""
        return self.state.document.get("kind")


class RunReader:
    """One run folder; its files are read when they are first asked for, and then kept.

    Attributes:
        path: the folder.
        lenient: whether what cannot be read is left out; a strict reader raises UserError, or OSError.
        notes: of a lenient reader, in one line each, what was left out and why.
    """

    def __init__(self, folder: str | Path, lenient: bool = False):
        self.path = user_path(folder)
        self.lenient = lenient
        self.notes: list[str] = []

    @cached_property
    def kind(self) -> str:
        """The name of the run's kind, or what another version called it; empty where nothing tells.

        Told by the summary, the task in the settings, the mark, the rows, the sections of the settings: of a run
        that replaced one of another kind, earlier versions left the mark as it was.
        """
        given = (self.summary or {}).get("kind")
        if isinstance(given, str):
            return kinds.current_name(given)
        by_settings = kinds.of_settings(self.config or {})
        by_task = by_settings if isinstance(self.setting("task"), str) else None
        known = by_task or self._marked() or kinds.of_rows(set().union(*self.rows)) or by_settings
        return known.name if known else ""

    def _marked(self) -> kinds.Kind | None:
        from nge_search.engine.run_files import read_mark  # and torch with it, which reports do without

        return kinds.find((read_mark(self.path) or {}).get("kind"))

    @cached_property
    def config_text(self) -> str:
        """config.yaml as it is written; empty where there is none."""
        errors = "replace" if self.lenient else "strict"
        return self.read(CONFIG, lambda path: read_text(path, yaml_reader.LARGEST_BYTES, errors)) or ""

    @cached_property
    def config(self) -> dict[Any, Any] | None:
        """The settings in config.yaml, unchecked; None where it has none.

        A lenient reader's are without what cannot be shown as the value of a setting.
        """
        try:
            config = yaml_reader.parse_yaml(self.config_text, CONFIG if self.lenient else str(self.path / CONFIG))
        except UserError as error:
            self._leave_out(f"{plain(str(error), 200)}; it is shown as it is.", error)
            return None
        if not isinstance(config, dict):
            return None
        return _shown(config) if self.lenient else config

    def setting(self, key: str) -> Any:
        """The value of a setting in config.yaml, by its dotted key, or None."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None while the run is unfinished."""
        return self.document(SUMMARY)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The content of environment.json; empty where there is none."""
        return self.document(ENVIRONMENT) or {}

    @cached_property
    def dataset(self) -> dict[str, Any] | None:
        """The content of dataset.json: what the run has recorded of its images."""
        return self.document(DATASET)

    def document(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a file of the folder; None where there is no such file."""
        return self.read(name, read_json)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of metrics.jsonl in order of epoch. One that a resumed run wrote again counts as written last.

        Their "epoch" (in a table: query) is counted from 1, as people do, and not from 0 as in the file.
        """
        rows: dict[float, Row] = {}
        self.read(METRICS, lambda path: self._collect(path, rows))
        return tuple(rows[epoch] for epoch in sorted(rows))

    def _collect(self, path: Path, rows: dict[float, Row]) -> None:
        """Fill `rows`, by epoch."""
        broken, values, last, is_row = 0, 0, 0.0, True
        for line, row in read_json_lines(path):
            if not line.strip():
                continue
            broken += not is_row  # the last line may be half written
            is_row = isinstance(row, dict)
            values += count_values(line)
            if values > MOST_VALUES or len(rows) == _MOST_ROWS:
                self._leave_out(f"{METRICS}: only its first {len(rows)} rows are shown.")
                break
            if is_row:
                last = _epoch(row, last + 1)
                rows[last] = {**row, "epoch": last}
        if broken:
            self._leave_out(f"{METRICS}: {broken} line(s) are not JSON objects and are left out.")

    def row(self, epoch: int | None = None) -> Row:
        """The row of an epoch, counted from 1, or of the last one recorded; there may be any number of rows.

        Raises:
            UserError: no such row, or no rows at all.
        """
        path = self.path / METRICS
        if not path.exists():
            raise UserError(f"'{self.path}' holds no {METRICS}; give the run folder of a search")
        found: Row = {}
        first = last = 0
        for _, row in read_json_lines(path):  # what is no JSON is a last line that a crash cut short
            given = row.get("epoch") if isinstance(row, dict) else None
            if type(given) is not int or not 0 <= given < _LAST_EPOCH:
                continue
            number = given + 1
            first, last = min(first or number, number), max(last, number)
            if number == (last if epoch is None else epoch):
                found = {**row, "epoch": number}
        if not last:
            raise UserError(f"{path} records no finished epoch yet")
        if not found:
            recorded = f"{first} to {last}, counted from 1"
            raise UserError(f"{path} records epochs {recorded}, not {plain(str(epoch))}")
        return found

    @cached_property
    def architecture(self) -> Architecture | None:
        """What was found or trained: from genotype.json, else the summary, else the last row that has it."""
        for source, document in self._architectures():
            if document:
                try:
                    return read_architecture(document, source)
                except UserError as error:
                    self._leave_out(f"The architecture is not taken from {error}", error)
        return None

    def _architectures(self) -> Iterator[tuple[str, Any]]:
        yield GENOTYPE, self.document(GENOTYPE)
        yield SUMMARY, (self.summary or {}).get("genotype")
        yield METRICS, next((row["genotype"] for row in reversed(self.rows) if row.get("genotype")), None)

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

    def saved_genotype(self) -> Genotype:
        """The cells in genotype.json; UserError, of a lenient reader too, where it has none in DARTS' notation."""
        return load_genotype(self.path / GENOTYPE)

    def described_images(self) -> Reader:
        """dataset.json, to take values from; UserError where there is none."""
        if self.dataset is None:
            raise UserError(
                f"'{self.path}' has no {DATASET}; repeat the training with this version, or add the file"
            )
        return Reader(str(self.path / DATASET), self.dataset)

    def searched_images(self) -> Images | None:
        """What a search recorded of its images; None where it recorded nothing that can be used."""
        try:
            images = Reader(DATASET, self.dataset or {})
            device = Reader(ENVIRONMENT, self.environment).text("device")
            count, side = images.integer("train_images", 1, 1 << 40), images.integer("image_size", 1, 1 << 16)
        except (UserError, OSError):
            return None
        return Images(count, side, device == "cpu")

    def retraining(self) -> str:
        """The line that trains what was found, in the network that it is meant for (`retrain_command`)."""
        plugins = self.genotype.plugins.values() if self.genotype else ()
        sizes = (self.summary or {}).get("target")
        return retrain_command(self.path, self.setting("data"), self.searched_images(), plugins, sizes)

    def checkpoint(self) -> Saved | None:
        """The newest undamaged checkpoint, read anew at each call; None where there is none.

        Raises:
            UserError: all of them are damaged.
        """
        from nge_search.engine.checkpoint import CheckpointFolder  # and torch with it, which reports do without
        from nge_search.engine.run_files import CHECKPOINTS

        state, path, damaged = CheckpointFolder(self.path / CHECKPOINTS).load_newest()
        return None if state is None else Saved(Reader(str(path), state), tuple(damaged))

    def read(self, name: str, read: Callable[[Path], _Read]) -> _Read | None:
        """What `read` makes of a file; None where there is none, or, leniently, none that can be used."""
        path = self.path / name
        if not os.path.lexists(path):
            return None
        try:
            return read(path)
        except OSError as error:
            if not self.lenient:
                raise
            raise from_os_error(error) or UserError(f"cannot read '{path}': {error.strerror}") from None
        except UserError as error:
            self._leave_out(f"{name} is left out: {error}.", error)
        return None

    def _leave_out(self, note: str, error: UserError | None = None) -> None:
        """Leave something out, with a note; a strict reader raises `error` instead, or the note."""
        if not self.lenient:
            raise error or UserError(f"'{self.path}': {note}")
        self.notes.append(note)


def use_of(run: str | Path, kind: str = "") -> str:
    """What the folder of a run is, and the command that uses it; empty if it is no run's.

    `kind` is that of the run; by default what its files tell.
    """
    reader = RunReader(run, lenient=True)
    known = kinds.find(kind or reader.kind)
    if known is None:
        return ""
    retrain = reader.retraining() if "{retrain}" in known.use else ""
    return f"the run folder of {known.use.format(run=shlex.quote(str(run)), retrain=retrain)}"


def _epoch(row: Row, otherwise: float) -> float:
    """The epoch of a row, counted from 1; `otherwise` where it has none that can be meant."""
    given = row.get("epoch")
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) < _LAST_EPOCH:
        return otherwise
    return float(given) + 1


def _shown(config: dict[Any, Any]) -> dict[Any, Any]:
    """Settings, and sections of settings; without what is no value of a setting."""
    sections = {key: _scalars(value) for key, value in config.items() if isinstance(value, dict)}
    return {**_scalars(config), **sections}


def _scalars(section: dict[Any, Any]) -> dict[Any, Any]:
    """The scalars of a section that are short enough to be shown."""
    return {key: value for key, value in section.items() if _is_shown(value)}


def _is_shown(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    if isinstance(value, int):
        return abs(value) < 1 << 64  # more digits than Python prints, in the end
    return value is None or isinstance(value, float)


def require_said(config: RunningConfig, given: Iterable[str | Mapping[str, Any]]) -> None:
    """Refuse that a finished run goes on because a config file, or a default, has more epochs than it was told to.

    What else is wrong with the folder or with other settings is left to the run to say.

    Args:
        given: what somebody has typed: `key=value` words, and mappings of settings.

    Raises:
        UserError: it would; says how to go on, and how to see what there is.
    """
    folder = Path(config.run.dir)
    if config.run.overwrite or not (folder / SUMMARY).is_file():
        return
    reader = RunReader(folder, lenient=True)
    if reader.summary is None or reader.config is None or kinds.current_name(reader.kind) != config.kind:
        return
    if differences(reader.config, config):
        return
    said: list[str] = []
    for one in given:
        said += [one.partition("=")[0]] if isinstance(one, str) else [key for key, _ in flatten(one)]
    for key, (before, now) in grown(reader.config, config).items():
        if not any(key == one or key.startswith(f"{one}.") for one in said):
            raise UserError(
                f"run folder '{folder}' has finished with {key}={before}; it is {now} where nothing is typed: add "
                f"{key}={now} to go on until then, or {key}={before} to see the result"
            )
