"""What commands share: flags whose errors are one line, and paths that are written only where nothing is."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nge_search.errors import UserError, plain
from nge_search.files import user_path
from nge_search.settings.load import import_named_plugins

#: The flag of every command by which plugins may be imported that files name.
TRUST_CODE = "--trust-code"
_EPILOG = "plugins=[MODULE] imports modules of yours first, whose operations architectures may name."


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and whose flags are spelt out; commands may trust code."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **{"allow_abbrev": False, "epilog": _EPILOG, "conflict_handler": "resolve", **more})
        self.add_argument(
            TRUST_CODE,
            action="store_true",
            help="import the plugins that a run folder, an export or an architecture's file names",
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{plain(message, 200)}; see `{self.prog} --help`")


def without_plugins(words: Sequence[str]) -> list[str]:
    """The words of a command that takes no settings, less plugins=[...], which are imported."""
    given = [word for word in words if word.startswith("plugins=")]
    import_named_plugins(None, given)
    return [word for word in words if word not in given]


def given_path(given: str) -> str:
    """A path that is an argument, `~` expanded."""
    if not given.strip():
        raise UserError("a path is not blank; leave the flag out, or name a file or folder")
    return str(user_path(given)) if given.startswith("~") or "\0" in given else given


def require_free(paths: Iterable[str | Path], overwrite: bool) -> None:
    """Raise UserError if something is where a command would write a file, unless that may be replaced."""
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f"'{path}' is a folder; name the file to write")
        if not overwrite and os.path.lexists(path):
            raise UserError(f"'{path}' is there already; choose another place, or add --overwrite")


def require_between(name: str, value: int | None, low: int, high: int) -> None:
    """Raise UserError for a flag's number outside its limits."""
    if value is not None and not low <= value <= high:
        raise UserError(f"--{name}={value}: must be between {low} and {high}")
