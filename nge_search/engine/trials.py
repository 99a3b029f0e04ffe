"""A run that is a list of trials, carried out and recorded one by one; it goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.session import Session
from nge_search.errors import UserError

Row = dict[str, Any]
_Trial = TypeVar("_Trial")


def carry_out(
    session: Session,
    trials: Sequence[_Trial],
    names: Callable[[_Trial], Mapping[str, Any]],
    judged: Callable[[_Trial], Mapping[str, Any]],
    digest: str,
    notices: Sequence[str] = (),
    shown: Sequence[str] = (),
    path: Callable[[Row], str] = lambda row: "",
    needed: Sequence[str] = (),
    what: str = "labels",
    interrupts: Interrupts | None = None,
) -> tuple[list[Row], float]:
    """The rows of all trials, those of an earlier start first, and the seconds that they took.

    Args:
        names: what a row says of its trial, by which a run that goes on tells that it is the same.
        judged: carries out a trial; its figures are null in the row where they are not finite.
        digest: what names the data.
        notices: what a user should know first.
        shown: names of figures for TensorBoard, where they stand below `path` of the row.
        needed: names of figures that every row has.
        what: the data, in an error.
        interrupts: is entered here, for whoever wants to stop within a trial.

    Raises:
        UserError: rows of other trials, or of other data.
        Interrupted: SIGTERM or SIGINT; trials so far are recorded.
    """
    folder, rows = session.go_on()
    _require_same(rows, [names(trial) for trial in trials], digest, ("seconds", *needed), what, folder.metrics_path)
    for notice in notices:
        session.say(notice)
    watch, interrupts = Stopwatch(), interrupts or Interrupts()
    logger = Logger(folder, session.config.run, len(rows))
    watch.restore(rows[-1]["seconds"] if rows else 0.0)
    logger.start_phase("trials", len(trials), len(rows))
    try:
        with interrupts:
            for trial in trials[len(rows) :]:
                figures = {name: _finite(value) for name, value in judged(trial).items()}
                ends = {"seconds": round(watch.seconds, 2), "data": digest}
                row = {"epoch": len(rows), **names(trial), **figures, **ends}
                rows.append(row)
                logger.row(row)
                told = {name: row[name] for name in shown if row.get(name) is not None}
                logger.scalars({f"{name}/{path(row)}": value for name, value in told.items()}, len(rows))
                logger.advance()
                logger.progress(f"{path(row)}, trial", len(rows), len(trials), told)
                if interrupts.received:
                    raise Interrupted(interrupts.received)
    finally:
        logger.close()
    return rows, round(watch.seconds, 2)


def _finite(value: Any) -> Any:
    """A figure as it is written: null if it is not finite; counts, and figures by name, as they are."""
    if isinstance(value, (int, dict)):
        return value
    return float(value) if math.isfinite(value) else None


def _require_same(
    rows: list[Row],
    trials: Sequence[Mapping[str, Any]],
    digest: str,
    needed: Sequence[str],
    what: str,
    path: Path,
) -> None:
    """Raise UserError unless rows are of the first trials, on the same data."""
    for row, names in zip(rows, trials):
        if row.get("data") != digest:
            raise UserError(f"{path} records trials on other {what}; set another run.dir=, or run.overwrite=true")
        if any(row.get(name) != value for name, value in names.items()):
            raise UserError(f"{path} is damaged: its rows are not those of this run; use run.overwrite=true")
        for name in needed:
            if not isinstance(row.get(name), float):
                raise UserError(f"{path} is damaged: a row does not say its {name}; use run.overwrite=true")
    if len(rows) > len(trials):
        raise UserError(f"{path} is damaged: it has {len(rows)} rows of {len(trials)}; use run.overwrite=true")
