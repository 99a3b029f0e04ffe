"""The folder of a run: whose it is, whether it is new, unfinished or finished, and its small files."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from nge_search.config import first_difference, to_yaml
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.errors import UserError, plain
from nge_search.files import write_atomic, write_json
from nge_search.json_reader import read_json, read_json_lines
from nge_search.schema import RunningConfig

_OWN_FILES = (
    "config.yaml",
    "environment.json",
    "metrics.jsonl",
    "summary.json",
    "genotype.json",
    "dataset.json",
    "evaluation.json",
    "report.html",
)
_OWN_PATTERNS = ("genotype*.svg", "genotype*.png", ".*.tmp")
_OWN_FOLDERS = ("checkpoints", "tensorboard")


class RunLock:
    """One process at a time per run folder, by an advisory lock that the kernel drops with its holder.

    `lockf` and not `flock`: worker processes do not inherit it, so a killed run never stays locked.
    """

    def __init__(self, folder: Path):
        self._file = open(folder / ".lock", "a+")  # noqa: SIM115 - held until `release`
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise UserError(
                f"run folder '{folder}' is in use by another process ({holder or 'unknown'}); "
                f"wait for it, or set another run.dir="
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


class RunFolder:
    """An opened and locked run folder.

    Attributes:
        path: the folder.
        checkpoints: its checkpoints.
        summary: of a finished run, else None.
    """

    def __init__(self, config: RunningConfig):
        """Create or reopen `config.run.dir`.

        Raises:
            UserError: it is locked, holds something else than a run, or holds a run of another kind or
                with other settings.
        """
        self.path = Path(config.run.dir)
        self._config = config
        self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_foreign_folder()
        self._refuse_strange_entries()
        self._lock = RunLock(self.path)
        try:
            for leftover in (*self.path.glob(".*.tmp"), *self.path.glob("checkpoints/.*.tmp")):
                leftover.unlink()  # of a process that was killed while it wrote
            self.checkpoints = CheckpointFolder(self.path / "checkpoints")
            self.summary = None
            if not config.run.overwrite:
                self.summary = self._read_summary()
                if self.summary is not None or self.checkpoints.newest_first():
                    self._refuse_other_settings()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._lock.release()

    def start_anew_if_asked(self) -> None:
        """Delete the old run under run.overwrite; called once data and settings are known to be usable."""
        if self._config.run.overwrite:
            self._clear()

    def write_config(self) -> None:
        write_atomic(self.path / "config.yaml", to_yaml(self._config))

    def write_json(self, name: str, document: Any) -> None:
        write_json(self.path / name, document)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, whose presence means that the run finished."""
        self.summary = summary
        self.write_json("summary.json", summary)

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def truncate_metrics(self, rows: int) -> None:
        """Keep the first `rows` rows: later ones were written after the checkpoint that a run resumes from.

        Raises:
            UserError: rows that the checkpoint knows of are missing.
        """
        kept: list[bytes] = []
        intact, more = 0, False
        for line, row in read_json_lines(self.metrics_path) if os.path.lexists(self.metrics_path) else ():
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
        if more:
            write_atomic(self.metrics_path, b"".join(kept))

    def append_metrics(self, row: dict[str, Any]) -> None:
        try:
            with open(self.metrics_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(self.metrics_path)
            raise

    def _refuse_foreign_folder(self) -> None:
        """A folder that holds files but no run is somebody's data."""
        if self._is_run():
            return
        own = (".lock", "genotype.json", "environment.json")  # a run killed at its very start
        strangers = [
            entry.name for entry in self.path.iterdir() if entry.name not in own and not entry.name.endswith(".tmp")
        ]
        if strangers:
            raise UserError(
                f"folder '{self.path}' is not empty and holds no run (for example '{sorted(strangers)[0]}'); "
                f"set another run.dir="
            )

    def _refuse_strange_entries(self) -> None:
        """A folder where a run keeps a file, or the other way round, would fail in the middle of the run."""
        for names, belongs, what in (
            (_OWN_FILES, Path.is_file, "a file"),
            (_OWN_FOLDERS, Path.is_dir, "a folder"),
        ):
            for name in names:
                path = self.path / name
                if path.exists() and not belongs(path):
                    raise UserError(f"'{path}' should be {what}; remove it, or set another run.dir=")

    def _is_run(self) -> bool:
        """Whether config.yaml is one that a run writes, or was before it was damaged."""
        try:
            old = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (yaml.YAMLError, ValueError, RecursionError):
            return (self.path / "environment.json").is_file()
        return isinstance(old, dict) and {"seed", "run"} <= old.keys()

    def _clear(self) -> None:
        for name in _OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        for pattern in _OWN_PATTERNS:
            for path in self.path.glob(pattern):
                path.unlink()
        for name in _OWN_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _read_summary(self) -> dict[str, Any] | None:
        path = self.path / "summary.json"
        if not os.path.lexists(path):
            return None
        try:
            summary = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; delete it to go on from the last checkpoint") from None
        if "kind" not in summary:
            raise UserError(f"{path} is damaged; delete it to go on from the last checkpoint")
        if summary["kind"] != self._config.kind:
            raise UserError(
                f"run folder '{self.path}' holds a run of kind {plain(summary['kind'])}, not {self._config.kind}; "
                f"set another run.dir="
            )
        if not set(self._config.figures) <= summary.keys():
            raise UserError(f"{path} is damaged; delete it to go on from the last checkpoint")
        return summary

    def _refuse_other_settings(self) -> None:
        path = self.path / "config.yaml"
        try:
            old = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError(f"{path} is damaged; start anew with run.overwrite=true") from None
        if isinstance(old, dict):
            self.refuse_other_config(old, f"run folder '{self.path}'")

    def refuse_other_config(self, old: dict[str, Any], source: str) -> None:
        """Raise UserError, naming the first key that differs, unless `old` may be continued."""
        difference = first_difference(old, self._config)
        if difference:
            raise UserError(
                f"{source} belongs to another configuration: {difference}; use the old value, another "
                f"run.dir=, or run.overwrite=true"
            )


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
