"""`write_report`: a run folder as one self-contained HTML page that sends no request and needs no server."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, from_os_error, printable
from nge_search.files import write_atomic
from nge_search.report.pages import classification as eval_sections
from nge_search.report.pages import queries as benchmark_sections
from nge_search.report.pages import search as search_sections
from nge_search.report.pages import segmentation as segmentation_sections
from nge_search.report.parts.numbers import number, plain
from nge_search.report.parts.page import BEGINNING, document, notice
from nge_search.report.run_folder import RunFolder, read_run_folder

_SUBTITLES = {
    "search": "Architecture search",
    "benchmark": "Search in a table",
    "eval": "Retraining",
    "voc": "Semantic segmentation",
}

#: What rows are, one and many, and the setting that says how many there will be.
_EPOCHS = ("epoch", "epochs", "train", "epochs")
_UNITS = {
    "search": ("epoch", "epochs", "search", "epochs"),
    "benchmark": ("query", "queries", "strategy", "queries"),
}


def write_report(run_dir: str | Path, summary: dict[str, Any] | None = None) -> Path:
    """Write `run_dir`/report.html, for a finished or an unfinished run.

    Args:
        run_dir: the folder of the run.
        summary: of a run that is about to finish, whose summary.json is still to be written.

    Raises:
        UserError: `run_dir` is not the folder of a run, or cannot be read or written.
    """
    run = read_run_folder(run_dir)
    if summary is not None:
        run = dataclasses.replace(run, summary=summary)
    path = run.path / "report.html"
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


def render(run: RunFolder) -> str:
    """The page of a run."""
    if run.kind == "search":
        figures, sections = search_sections.figures(run), search_sections.sections(run)
    elif run.kind == "benchmark":
        figures, sections = benchmark_sections.figures(run), benchmark_sections.sections(run)
    elif run.kind == "voc":
        figures, sections = segmentation_sections.figures(run), segmentation_sections.sections(run)
    else:
        sections = eval_sections.sections(run)
        figures = eval_sections.figures(run) if run.kind == "eval" else eval_sections.other_figures(run)
    banner = _progress(run) + "".join(notice(note, "warning") for note in run.notes)
    name = run.setting("run", "name") or run.path.resolve().name
    subtitle = f"{_SUBTITLES.get(run.kind, run.kind)} · {run.path}"
    return document(str(name), subtitle, banner, figures, sections)


def _progress(run: RunFolder) -> str:
    """How far the run has come: one line, which stands out while the run is unfinished."""
    one, many, section, name = _UNITS.get(run.kind, _EPOCHS)
    planned = number(run.setting(section, name))
    if run.summary is not None:
        epochs = number(run.summary.get("epochs"))
        count = epochs if epochs == epochs else len(run.rows)
        return notice(f"Finished: {plain(count, 6)} {one if count == 1 else many}.")
    if not run.rows:
        return notice(f"Unfinished: still running, or stopped, before the end of its first {one}.", "warning")
    of = f" ({len(run.rows)} of {plain(planned, 6)} {many} recorded)" if planned == planned else ""
    metrics = run.path / "metrics.jsonl"
    written = datetime.fromtimestamp(metrics.stat().st_mtime, timezone.utc)
    return notice(
        f"Unfinished: still running, or stopped, after {one} {plain(run.rows[-1]['epoch'], 6)}{of}; "
        f"last written {written:%Y-%m-%d %H:%M} UTC.",
        "warning",
    )
