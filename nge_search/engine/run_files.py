"""Which files are ours: the mark of a run folder, the names of all that runs write there, and what is deleted.

Nothing is replaced, shortened or deleted in a folder that has no mark. Folders from before there were marks are
told by what no other program leaves: a config.yaml as we print it, and the machine's description or a checkpoint.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from nge_search.engine.checkpoint import NAME as CHECKPOINT
from nge_search.engine.event_file import EVENTS
from nge_search.errors import UserError, plain
from nge_search.files import TEMPORARY, read_text, write_atomic
from nge_search.json_reader import read_json
from nge_search.kinds import ENVIRONMENT, MARK, own_files
from nge_search.yaml_reader import LARGEST_BYTES, parse_yaml

LOCK = ".lock"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
#: Of a search: the run folders of the short trainings that it asked for, and of what else it ran within itself.
TRIALS = "trials"
_FORMAT = "nge-run/1"

FOLDERS = (CHECKPOINTS, TENSORBOARD, TRIALS)
#: As torch's SummaryWriter names its files, which runs used before they were marked.
_EVENTS_BEFORE = re.compile(r"events\.out\.tfevents\.\d{10}\..+\.\d+\.\d+")

# What told a run folder before there were marks; these never change.
_RUN_SETTINGS = {"name", "dir", "overwrite", "log_every", "checkpoint_seconds", "progress", "tensorboard"}
_SECTIONS = {
    *("seed", "threads", "run", "device", "precision", "data", "task", "supernet", "embedding", "search"),
    *("network", "train", "benchmark", "strategy"),
}
_ENVIRONMENT = {"command", "seed", "git_commit", "python", "platform", "packages"}


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run of ours."""
    return read_mark(folder) is not None or _is_run_from_before(folder)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The content of the mark: its format, the kind of the run, the time; None if there is none that we wrote."""
    path = folder / MARK
    try:
        document = read_json(path, LARGEST_BYTES) if _is_ordinary(path) else {}
    except UserError:
        return None
    return document if document.get("format") == _FORMAT else None


def write_mark(folder: Path, kind: str) -> None:
    """Mark a folder as that of a run of this kind; called before anything else is written."""
    mark = read_mark(folder)
    if mark is None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        mark = {"format": _FORMAT, "created": now, "adopted": _is_run_from_before(folder)}
    if mark.get("kind") != kind:
        write_atomic(folder / MARK, json.dumps({**mark, "kind": kind}) + "\n")


def refuse_foreign(folder: Path) -> None:
    """Raise UserError if a folder holds something, but no run: it is somebody's data."""
    if is_run(folder):
        return
    strangers = [
        entry.name
        for entry in os.scandir(folder)
        if not TEMPORARY.fullmatch(entry.name) and not (entry.name == LOCK and _is_ordinary(folder / LOCK))
    ]
    if strangers:
        raise UserError(
            f"folder '{folder}' is not empty and holds no run (for example '{plain(min(strangers))}'); "
            f"set another run.dir="
        )


def refuse_odd_entries(folder: Path) -> None:
    """Raise UserError for anything but a file or folder of our own where a run keeps one; it would fail half way.

    A folder of ours may be a link, to a larger disk for example. A file may not: others could hang on it.
    """
    for name in own_files():
        path = folder / name
        if os.path.lexists(path) and not _is_ordinary(path):
            raise UserError(f"'{path}' should be a file of its own; remove it, or set another run.dir=")
    for name in FOLDERS:
        path = folder / name
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"'{path}' should be a folder; remove it, or set another run.dir=")


def delete_leftovers(folder: Path) -> None:
    """Delete what processes that were killed while they wrote have left in a marked folder."""
    for place in (folder, folder / CHECKPOINTS):
        for path in _files_in(place, TEMPORARY.fullmatch):
            path.unlink()


def delete_run(folder: Path) -> None:
    """Delete the run in a marked folder, and nothing else.

    Raises:
        UserError: files that may not be deleted; then nothing was.
    """
    mine = files_of_run(folder)
    for place in {path.parent for path in mine}:
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"run.overwrite=true: nothing may be deleted in '{place}'; set another run.dir=")
    inside = _runs_inside(folder)
    for path in mine:
        path.unlink(missing_ok=True)
    for place in [*(run / name for run in inside for name in (CHECKPOINTS, TENSORBOARD, "")), folder / TRIALS]:
        with contextlib.suppress(OSError):  # somebody keeps something there, or there is none
            place.rmdir()


def files_of_run(folder: Path) -> list[Path]:
    """The files of the run in a marked folder, in the order in which they are deleted; mark and lock stay.

    Those of the runs within it are among them, with their marks and locks.

    summary.json is the first: without it a run that was half deleted is not taken for a finished one.
    """
    adopted = (read_mark(folder) or {}).get("adopted") is True
    shown = _files_in(
        folder / TENSORBOARD, lambda name: EVENTS.fullmatch(name) or (adopted and _EVENTS_BEFORE.fullmatch(name))
    )
    return [
        *(path for name in own_files() if _is_ordinary(path := folder / name)),
        *_files_in(folder / CHECKPOINTS, CHECKPOINT.fullmatch),
        *shown,
        *(path for run in _runs_inside(folder) for path in (*files_of_run(run), run / LOCK, run / MARK)),
    ]


def _runs_inside(folder: Path) -> list[Path]:
    """The run folders of short trainings, and of what else a search ran within itself."""
    place = folder / TRIALS
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink() and read_mark(path))


def _files_in(folder: Path, is_mine: Callable[[str], Any]) -> Iterator[Path]:
    """The ordinary files of a folder whose names are ours, in the order of their names; none without a folder."""
    if folder.is_dir():
        yield from (path for path in sorted(folder.iterdir()) if is_mine(path.name) and _is_ordinary(path))


def _is_run_from_before(folder: Path) -> bool:
    """Whether a folder without a mark holds what only earlier versions wrote, untouched."""
    path = folder / "config.yaml"
    try:
        text = read_text(path, LARGEST_BYTES) if _is_ordinary(path) else ""
        config = parse_yaml(text, str(path))
    except UserError:
        return False
    if not isinstance(config, dict) or not isinstance(config.get("run"), dict):
        return False
    if set(config["run"]) != _RUN_SETTINGS or not {"seed", "run", "threads"} <= set(config) <= _SECTIONS:
        return False
    if yaml.safe_dump(config, sort_keys=False) != text:  # a file with remarks of its own is somebody's work
        return False
    return _is_environment(folder / ENVIRONMENT) or any(_files_in(folder / CHECKPOINTS, CHECKPOINT.fullmatch))


def _is_environment(path: Path) -> bool:
    try:
        return _is_ordinary(path) and set(read_json(path)) >= _ENVIRONMENT
    except UserError:
        return False


def _is_ordinary(path: Path) -> bool:
    """Whether there is an ordinary file, and no link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
