"""The errors a user can cause or must act on: one line each, never a traceback.

The commands print `error: <message>` on standard error and leave with `exit_code`.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

_LONGEST = 900
#: Letters of a name that are enough to look for those that begin so.
_BEGINNING = 3

#: What a terminal obeys or cannot show: control characters, marks of direction, bytes that were no UTF-8.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class UserError(Exception):
    """Something the user gave cannot be used. The message is one line: what is wrong and what to do.

    Attributes:
        shared: every process of the run raises the same error, so one of them reports it.
        rank: of the process that met the error alone.
    """

    exit_code = 2

    def __init__(self, message: str, shared: bool = False):
        line = " ".join(message.split())
        line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
        super().__init__(line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "...")
        self.shared = shared
        self.rank: int | None = None


class RunFailure(UserError):
    """A run that started well cannot go on, for example because its loss is no longer finite."""

    exit_code = 1


_DISK_ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the file-size limit",
    errno.ENOENT: "create its folder first",
    errno.EEXIST: "choose a path that is not a file",
    errno.ELOOP: "choose a path without circular links",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write",
    errno.EPERM: "choose a folder that you may write",
    errno.ENOTDIR: "choose a path whose parents are folders",
    errno.EISDIR: "choose a path that is not a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EIO: "check the disk",
}


def from_os_error(error: OSError) -> UserError | None:
    """The one-line form of a file-system error that a user can mend; None for any other."""
    advice = None if error.errno is None else _DISK_ERRORS.get(error.errno)
    if advice is None:
        return None
    where = f"'{error.filename}'" if error.filename else "the run folder"
    return UserError(f"cannot use {where}: {error.strerror}; {advice}")


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the shortest of `known` that begins so, or the closest; or an empty string."""
    names = list(known)
    begin = [name for name in names if len(given) >= _BEGINNING and name.startswith(given)]
    close = [min(begin, key=len)] if begin else difflib.get_close_matches(given[:200], names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def shorten(value: object, limit: int = 60) -> str:
    """`value` as it is shown in a message: its repr, cut at `limit` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a structure without end
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters, and bytes that are not UTF-8, escaped as in Python; those in `keep` stay."""
    return _UNSHOWN.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def plain(value: object, limit: int = 60) -> str:
    """Like `shorten`, but text without quotes, its control characters escaped."""
    if not isinstance(value, str):
        return shorten(value, limit)
    text = value if value.isprintable() else repr(value)[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."
