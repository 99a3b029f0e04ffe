"""Lines with names that a terminal cannot show, or would obey."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from nge_search.cli import main
from nge_search.console import escape_what_cannot_be_shown, show
from nge_search.engine.logger import Logger, print_line
from nge_search.errors import printable
from nge_search.settings.run import RunSection


def terminal(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", "bl\udce4tt.png", r"bl\udce4tt.png"),
        ("utf-8", "größe 大", "größe 大"),
        ("ascii", "größe", r"gr\xf6\xdfe"),
        ("latin-1", "größe 大", r"größe \u5927"),
        ("utf-8", "\x1b[2Jwiped\x9b\x07", r"\x1b[2Jwiped\x9b\x07"),
        ("utf-8", "two\nlines\r\t", r"two\nlines\r\t"),
        ("utf-8", "gpj\u202eexe", r"gpj\u202eexe"),
        ("utf-8", "5\N{NO-BREAK SPACE}%", "5\N{NO-BREAK SPACE}%"),
    ],
)
def test_a_line_stays_a_line(encoding: str, name: str, shown: str) -> None:
    stream = terminal(encoding)
    show(name, "next", file=stream)
    assert stream.buffer.getvalue().decode(encoding) == f"{shown}\nnext\n"


def test_notices_of_a_run_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert print_line("skipped 'é\udcff'")
    assert stream.buffer.getvalue() == b"skipped '\\xe9\\udcff'\n"


def test_commands_let_standard_output_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    escape_what_cannot_be_shown()
    print("é", flush=True)
    assert stream.buffer.getvalue() == b"\\xe9\n"
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # it has no encoding, and needs nothing
    escape_what_cannot_be_shown()
    show("é")
    assert sys.stdout.getvalue() == "é\n"


def test_lines_that_are_wanted_stay() -> None:
    assert printable("a\n\tb\0", keep="\n\t") == "a\n\tb\\x00"


def test_whole_way_of_names_that_are_not_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Classes and files: trained on, reported, exported, classified."""
    monkeypatch.chdir(tmp_path)
    folders = [b"d/\xe4", b"d/b\x1b[31m\nb"]
    for k, folder in enumerate(folders):
        os.makedirs(folder)
        for i in range(3):
            Image.new("RGB", (8, 8), (200 * k, i, 0)).save(os.fsdecode(folder + b"/\xff%d.png" % i))
    words = (
        "data.name=folder", "data.root=d", "network.channels=2", "network.cells=2", "train.epochs=1",
        "train.batch_size=4", "threads=1", "run.dir=r", "data.workers=0", "device=cpu",
    )  # fmt: skip
    assert main(["eval", *words]) == 0
    report = Path("r/report.html").read_text(encoding="utf-8")
    assert r"\udce4" in report
    assert r"b\x1b[31m" in report
    assert "\x1b" not in report
    assert main(["export", "r", "--out", "ex"]) == 0
    capfd.readouterr()
    assert main(["classify", "ex", "d", "--top", "2"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    assert all(r"\udce4 " in line and r"b\x1b[31m\nb" in line for line in lines)
    assert main(["classify", "ex", "d", "--json"]) == 0
    assert capfd.readouterr().out.count(r"\udcff") == 6


class _Broken(io.TextIOWrapper):
    """A stream whose every flush fails."""

    def __init__(self, error: OSError):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self._error = error

    def flush(self) -> None:
        raise self._error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # at the end nobody hears of it, but Python 3.13 tells
            super().close()


def test_a_full_disk_under_the_output_is_named_as_such() -> None:
    with pytest.raises(OSError, match="standard output") as caught:
        show("a line", file=_Broken(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert caught.value.filename == "standard output"


@pytest.mark.parametrize("mode", ["bar", "lines"])
def test_a_run_goes_on_where_nobody_listens(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Broken(BrokenPipeError()))
    logger = Logger(None, RunSection())
    logger._mode = mode
    logger.say("a line")


def test_progress_where_standard_error_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert Logger._choose_mode("auto") == "lines"
