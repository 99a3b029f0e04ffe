"""Files: read as if a stranger had written them, written so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from nge_search.errors import UserError, plain

#: How `write_atomic` names what it has not finished; what a killed process left is told by it.
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.nge-tmp")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path that a user means, `~` and `~name` expanded.

    Raises:
        UserError: a home folder that is unknown, or a character that no path can hold.
    """
    text = os.fspath(given)
    if "\0" in text:
        raise UserError(f"'{plain(text)}' is no path: it holds a null character")
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise UserError(f"{plain(text)}: there is no such home folder; write the whole path, or ./{plain(text)}")
    return Path(expanded)


def require_regular(path: str | os.PathLike[str], limit: int | None = None) -> int:
    """Refuse, before it is opened, whatever is not an ordinary file; links to ordinary files are followed.

    Opening a pipe waits for a writer, opening a device may act on it, and a file of /proc says nothing of its size.

    Args:
        limit: the largest size in bytes; None: any.

    Returns:
        The size in bytes.

    Raises:
        UserError: no file, another kind of thing, or a file that is too large; names it and what it is.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"'{path}' does not exist" + " (it is a broken link)" * os.path.islink(path)) from None
    except ValueError:
        raise UserError(f"'{plain(str(path))}' is no path") from None
    kind = _kind(found.st_mode)
    if kind is None and found.st_dev in _kernel_devices():
        kind = "a file of the kernel"
    if kind is not None:
        raise UserError(f"'{path}' is {kind}, not an ordinary file; give one")
    if limit is not None and found.st_size > limit:
        raise UserError(f"'{path}' has {found.st_size} bytes, more than the {limit} that such a file may have")
    return found.st_size


def open_regular(path: str | os.PathLike[str], limit: int | None = None) -> BinaryIO:
    """An ordinary file of at most `limit` bytes, opened to be read; raises as `require_regular`, or OSError."""
    require_regular(path, limit)
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of an ordinary file of at most `limit` bytes.

    Raises:
        UserError: as `require_regular`.
        OSError: it cannot be read.
    """
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)  # it may have grown since
    if len(content) > limit:
        raise UserError(f"'{path}' grows while it is read, beyond the {limit} bytes that such a file may have")
    return content


def read_lines(path: str | os.PathLike[str], limit: int, longest: int) -> Iterator[bytes]:
    """The lines of an ordinary file of at most `limit` bytes, with their ends.

    Raises:
        UserError: as `require_regular`, or a line of more than `longest` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path, limit) as file:
        for number in itertools.count(1):
            line = file.readline(longest + 1)
            if len(line) > longest:
                raise UserError(f"'{path}' line {number} has more than the {longest} bytes that one may have")
            if not line:
                return
            yield line


def read_text(path: str | os.PathLike[str], limit: int, errors: str = "strict") -> str:
    """`read_bytes` as UTF-8, without a byte order mark; UserError where it is none."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig", errors)
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not a text file (UTF-8)") from None


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` as a whole: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        UserError: `path` is a link, a device or the like: neither is written through nor replaced.
        OSError: it cannot be written; nothing is left behind.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    refuse_odd_target(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.nge-tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(path: Path, for_content: bool = False) -> Iterator[None]:
    """Make a folder and those above it; where the body raises, those that were made go again, if they are empty.

    With `for_content` they go, too, where the body has put nothing there.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        _remove_empty(made)
        raise
    if for_content:
        _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):  # the first one that holds something ends it
        for folder in folders:
            folder.rmdir()


def write_json(path: Path, document: Any) -> None:
    write_atomic(path, json.dumps(document, indent=2) + "\n")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, or raise OSError; a single `os.write` may stop half way."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def refuse_odd_target(path: str | os.PathLike[str]) -> None:
    """Raise UserError if something other than an ordinary file or a folder stands where a file is to be written."""
    try:
        kind = _kind(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if kind not in (None, "a folder"):  # writing on a folder fails by itself, with a system error that says so
        raise UserError(f"'{path}' is {kind}, which is not overwritten; remove it, or choose another path")


def _kind(mode: int) -> str | None:
    """What a file is, if it is no ordinary one."""
    return next((words for test, words in _KINDS if test(mode)), None)


@cache
def _kernel_devices() -> set[int]:
    """The devices of file systems whose files are made as they are read."""
    devices = set()
    for place in ("/proc", "/sys"):
        if os.path.ismount(place):
            devices.add(os.stat(place).st_dev)
    return devices
