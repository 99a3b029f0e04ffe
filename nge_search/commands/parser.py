"""What commands share: flags whose errors are one line, and paths that are written only where nothing is."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from nge_search.errors import UserError, plain
from nge_search.files import user_path


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{plain(message, 200)}; see `{self.prog} --help`")


def given_path(given: str) -> str:
    """A path that is an argument, `~` expanded."""
    if not given.strip():
        raise UserError("a path is not blank; leave the flag out, or name a file or folder")
    return str(user_path(given)) if given.startswith("~") or "\0" in given else given


def require_free(paths: Iterable[str | Path], overwrite: bool) -> None:
    """Raise UserError if something is where a command would write, unless it may replace it."""
    for path in paths:
        if not overwrite and os.path.lexists(path):
            raise UserError(f"'{path}' is there already; choose another place, or add --overwrite")


def require_between(name: str, value: int | None, low: int, high: int) -> None:
    """Raise UserError for a flag's number outside its limits."""
    if value is not None and not low <= value <= high:
        raise UserError(f"--{name}={value}: must be between {low} and {high}")
