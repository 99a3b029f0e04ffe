"""`write_report`: a run folder as one self-contained HTML page that sends no request and needs no server."""

from __future__ import annotations

import importlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nge_search import kinds
from nge_search.errors import UserError, from_os_error, printable
from nge_search.files import write_atomic
from nge_search.kinds import METRICS, REPORT, Kind
from nge_search.report.parts.numbers import number, plain
from nge_search.report.parts.page import BEGINNING, document, notice
from nge_search.report.parts.run import Run

#: What rows are, one and many, in a run of a kind that is not known.
_ROWS = ("epoch", "epochs", "train.epochs")


def write_report(run_dir: str | Path, summary: dict[str, Any] | None = None) -> Path:
    """Write `run_dir`/report.html, for a finished or an unfinished run.

    Args:
        run_dir: the folder of the run.
        summary: of a run that is about to finish, whose summary.json is still to be written.

    Raises:
        UserError: `run_dir` is not the folder of a run, or cannot be read or written.
    """
    run = Run(run_dir)
    if summary is not None:
        run.summary = summary
    path = run.path / REPORT
    _refuse_other_page(path)
    try:
        write_atomic(path, printable(render(run), keep="\n\t"))
    except OSError as error:
        raise from_os_error(error) or error from None
    return path


def _refuse_other_page(path: Path) -> None:
    """Raise UserError if another program's page would be replaced."""
    if path.is_file() and not path.is_symlink():  # `write_atomic` refuses whatever else is not ours
        with open(path, "rb") as file:
            if file.read(len(BEGINNING)) not in (b"", BEGINNING.encode()):
                raise UserError(f"'{path}' is not a report of this program; rename it, and try again")


def render(run: Run) -> str:
    """The page of a run; where nothing tells its kind, that of a search if it has found something."""
    name = run.kind or ("search" if run.architecture else "run")
    kind = kinds.find(name)
    page = importlib.import_module(kind.page if kind else "nge_search.report.pages.other")
    figures, sections = page.figures(run), page.sections(run)
    banner = _progress(run, kind) + "".join(notice(note, "warning") for note in run.notes)
    title = run.setting("run.name") or run.path.resolve().name
    return document(str(title), f"{kind.title if kind else name} · {run.path}", banner, figures, sections)


def _progress(run: Run, kind: Kind | None) -> str:
    """How far the run has come: one line, which stands out while the run is unfinished."""
    one, many, setting = kind.unit if kind else _ROWS
    planned = number(run.setting(setting))
    if run.summary is not None:
        epochs = number(run.summary.get("epochs"))
        count = epochs if epochs == epochs else len(run.rows)
        stopped = run.summary.get("stopped")
        early = f"; {stopped}" if isinstance(stopped, str) else ""
        return notice(f"Finished: {plain(count, 6)} {one if count == 1 else many}{early}.")
    if not run.rows:
        return notice(f"Unfinished: still running, or stopped, before the end of its first {one}.", "warning")
    of = f" ({len(run.rows)} of {plain(planned, 6)} {many} recorded)" if planned == planned else ""
    metrics = run.path / METRICS
    written = datetime.fromtimestamp(metrics.stat().st_mtime, timezone.utc)
    return notice(
        f"Unfinished: still running, or stopped, after {one} {plain(run.rows[-1]['epoch'], 6)}{of}; "
        f"last written {written:%Y-%m-%d %H:%M} UTC.",
        "warning",
    )
