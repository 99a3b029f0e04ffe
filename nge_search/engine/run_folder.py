"""The folder of a run: whose it is, whether it is new, unfinished or finished, and its small files."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nge_search.engine import run_files
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.run_lock import RunLock
from nge_search.engine.run_reader import RunReader
from nge_search.errors import RunFailure, UserError, plain
from nge_search.files import write_all, write_atomic, write_json
from nge_search.json_reader import read_json_lines
from nge_search.kinds import CONFIG, METRICS, SUMMARY, current_name, find
from nge_search.settings.load import differences, grown, inputs, to_yaml
from nge_search.settings.run import RunningConfig


class RunFolder:
    """An opened and locked run folder.

    Attributes:
        path: the folder.
        checkpoints: its checkpoints.
        summary: of a finished run, else None.
    """

    def __init__(self, config: RunningConfig):
        """Create or reopen `config.run.dir`. Until `begin` nothing is written there but the lock.

        Raises:
            UserError: it is locked, holds something else than a run, or holds a run of another kind or
                with other settings.
        """
        self.path = Path(config.run.dir)
        self._config = config
        self._begun = self._goes_on = False
        self._refuse_unusable()
        if config.run.overwrite:
            self._refuse_own_inputs()
        self._lock = RunLock(self.path)
        try:
            self._refuse_unusable()  # now that nobody else changes it
            self.checkpoints = CheckpointFolder(self.path / run_files.CHECKPOINTS)
            self.summary = None
            if not config.run.overwrite:
                self.summary = self._read_summary()
                if self.summary is not None or self.checkpoints.newest_first():
                    self._refuse_other_settings()
                if self.summary is not None and grown(RunReader(self.path).config or {}, config):
                    self._require_checkpoint()
                    self.summary, self._goes_on = None, True
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unlock; a folder that was made for a run that never began goes away again."""
        self._lock.release(keep=self._begun)

    def begin(self) -> None:
        """Mark the folder as ours, and under run.overwrite delete the old run.

        Called once data and settings are known to be usable.
        """
        self._refuse_unusable()
        run_files.write_mark(self.path, self._config.kind)
        self._begun = True
        run_files.delete_leftovers(self.path)
        if self._config.run.overwrite:
            run_files.delete_run(self.path)

    def _refuse_own_inputs(self) -> None:
        """Raise UserError if what the run is to read would be deleted by run.overwrite."""
        own = os.path.realpath(self.path)
        for key, value in inputs(self._config):
            found = os.path.realpath(value)
            if own in (found, os.path.dirname(found)) and os.path.exists(found) and key != "data.root":
                raise UserError(
                    f"{key}={value} is in the run folder that run.overwrite=true would delete; set another run.dir="
                )

    def require_present(self) -> None:
        """Raise RunFailure if the folder is no longer the one that the run began in: it is not made anew."""
        if not self._lock.holds_folder or run_files.read_mark(self.path) is None:
            raise RunFailure(
                f"run folder '{self.path}' was deleted or replaced while the run worked in it; the run ends here, "
                f"and writes nothing more; restore the folder, or start the run again"
            )

    def write_config(self) -> None:
        """Write config.yaml; a run that had finished, and goes on with more epochs, is unfinished from now on."""
        self.require_present()
        if self._goes_on:
            (self.path / SUMMARY).unlink(missing_ok=True)
        write_atomic(self.path / CONFIG, to_yaml(self._config))

    def write_json(self, name: str, document: Any) -> None:
        self.require_present()
        write_json(self.path / name, document)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, whose presence means that the run finished."""
        self.summary = summary
        self.write_json(SUMMARY, summary)

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    def truncate_metrics(self, rows: int) -> None:
        """Keep the first `rows` rows: later ones were written after the checkpoint that a run resumes from.

        Raises:
            UserError: rows that the checkpoint knows of are missing.
        """
        there = os.path.lexists(self.metrics_path)
        kept: list[bytes] = []
        intact, more = 0, False
        for line, row in read_json_lines(self.metrics_path) if there else ():
            more = len(kept) == rows
            if more:
                break
            kept.append(line)
            intact += row is not None
        if intact < rows:
            raise UserError(
                f"{self.metrics_path} is damaged: it holds {intact} of {rows} recorded epochs; restore it, or "
                f"start anew with run.overwrite=true"
            )
        if more or not there:
            self.require_present()
            write_atomic(self.metrics_path, b"".join(kept))

    def recorded_rows(self) -> list[dict[str, Any]]:
        """The rows of an unfinished run of these settings, without a last one that was cut off; none to start anew.

        Raises:
            UserError: other settings, or rows that are none.
        """
        if self._config.run.overwrite or not os.path.lexists(self.metrics_path):
            return []
        found = [row for _, row in read_json_lines(self.metrics_path)]
        rows = found[:-1] if found and found[-1] is None else found
        if not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{self.metrics_path} is damaged; start anew with run.overwrite=true")
        if rows:
            self._refuse_other_settings(required=True)
        return rows

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add a row to metrics.jsonl, which `truncate_metrics` has made; a row that does not fit is taken back."""
        self.require_present()
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = None
        try:
            descriptor = os.open(self.metrics_path, flags)
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, json.dumps(row).encode() + b"\n")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        except OSError as error:
            error.filename = str(self.metrics_path)
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _refuse_unusable(self) -> None:
        if os.path.lexists(self.path) and self.path.is_dir():
            run_files.refuse_foreign(self.path)
            run_files.refuse_odd_entries(self.path)

    def _read_summary(self) -> dict[str, Any] | None:
        path = self.path / SUMMARY
        try:
            summary = RunReader(self.path).summary
        except UserError as error:
            raise UserError(f"{error}; delete it to go on from the last checkpoint") from None
        if summary is None:
            return None
        if "kind" not in summary:
            raise UserError(f"{path} is damaged; delete it to go on from the last checkpoint")
        if current_name(summary["kind"]) != self._config.kind:
            raise UserError(
                f"run folder '{self.path}' holds a run of kind {plain(summary['kind'])}, not {self._config.kind}; "
                f"set another run.dir="
            )
        if not set(self._config.figures) <= summary.keys():
            raise UserError(f"{path} is damaged; delete it to go on from the last checkpoint")
        return summary

    def _refuse_other_settings(self, required: bool = False) -> None:
        """`required`: nothing else tells the settings, as a checkpoint would."""
        path = self.path / CONFIG
        try:
            old = RunReader(self.path).config
        except UserError:
            raise UserError(f"{path} is damaged; start anew with run.overwrite=true") from None
        if old is not None:
            self.refuse_other_config(old, f"run folder '{self.path}'")
        elif required or self.summary is not None:  # without one, the checkpoint tells the settings
            raise UserError(
                f"{path} is missing or damaged, so nothing tells whether this run has these settings; "
                "restore it, set another run.dir=, or start anew with run.overwrite=true"
            )

    def _require_checkpoint(self) -> None:
        """Raise UserError where a finished run is to go on and has left nothing to go on from."""
        if not self.checkpoints.newest_first():
            raise UserError(
                f"run folder '{self.path}' has finished, and '{self.checkpoints.folder}' holds no checkpoint to go "
                f"on from; restore it, set another run.dir=, or run.overwrite=true"
            )

    def refuse_other_config(
        self, old: dict[str, Any], source: str, checkpoint: Mapping[str, Any] | None = None
    ) -> None:
        """Raise UserError, naming keys that differ, unless `old` may be continued.

        Of an unfinished run the number of epochs may fall, too: to any that leaves something to train after what
        the `checkpoint` (by default the newest) has, and back to what that was trained for.
        """
        different = differences(self._with_fewer_epochs(old, checkpoint), self._config)
        if different:
            raise UserError(
                f"{source} belongs to another configuration: {different}; use what it was, another "
                f"run.dir=, or run.overwrite=true"
            )

    def _with_fewer_epochs(self, old: dict[str, Any], checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
        """`old` with the number of epochs that is set now, where that is fewer; UserError where it may not be."""
        known = find(self._config.kind)
        part, _, name = ("" if known is None else known.unit[2]).partition(".")
        section, before = getattr(self._config, part, None), old.get(part)
        if self.summary is not None or section is None or not isinstance(before, dict):
            return old
        growing = [one.name for one in dataclasses.fields(section) if one.metadata.get("may_grow")]
        epochs, now = before.get(name), getattr(section, name)
        if name not in growing or type(epochs) is not int or now >= epochs:
            return old
        ended, planned = _progress(checkpoint or self.checkpoints.load_newest()[0] or {}, part, name)
        if now <= ended and now != planned:
            raise UserError(
                f"{part}.{name}={now}: run '{self.path}' has ended {ended} epochs; set at least {ended + 1}"
            )
        return {**old, part: {**before, name: now}}


def _progress(checkpoint: Mapping[str, Any], part: str, name: str) -> tuple[int, Any]:
    """After how many epochs a checkpoint was saved, and how many the setting `name` of a section asked for then."""
    place, settings = checkpoint.get("position"), checkpoint.get("config")
    ended = place.get("epoch") if isinstance(place, dict) else None
    section = settings.get(part) if isinstance(settings, dict) else None
    return ended if type(ended) is int else 0, section.get(name) if isinstance(section, dict) else None


class Stopwatch:
    """Seconds of a run, over all its resumptions."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def restore(self, seconds: float) -> None:
        self._before, self._start = seconds, time.perf_counter()
