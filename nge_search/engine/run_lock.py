"""The lock of a run folder: one run at a time, over all processes and threads."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path

from nge_search.engine.run_files import LOCK
from nge_search.errors import UserError
from nge_search.files import refuse_odd_target

_CONTENT = re.compile(rb"(process \d+)?\s*")
_TRIES = 100

#: Folders that this process holds: process, device, inode. The process is part of it for the sake of forks.
_held: dict[tuple[int, int, int], RunLock] = {}


class RunLock:
    """An advisory lock that the kernel drops with its holder; makes the folder where there is none.

    `lockf` and not `flock`: worker processes do not inherit it, so a killed run never stays locked. It does not
    hold between threads, and a process that closes the file a second time would lose it; hence `_held`.
    """

    def __init__(self, folder: Path):
        """Take the lock.

        Raises:
            UserError: somebody else has it, or the lock file is none of ours.
        """
        self._path = folder / LOCK
        self._process = os.getpid()
        self._made: list[Path] = []
        self._created = False
        self._descriptors: list[int] = []
        self._key: tuple[int, int, int] | None = None
        try:
            for _ in range(_TRIES):
                if self._take(folder):
                    return
                self._drop()
        except BaseException:
            self.release(keep=False)
            raise
        raise UserError(f"run folder '{folder}' comes and goes; wait for other processes that use it")

    @property
    def holds_folder(self) -> bool:
        """Whether the folder that was locked still stands at its place."""
        try:
            return os.path.samestat(os.stat(self._path.parent), os.fstat(self._descriptors[0]))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def release(self, keep: bool) -> None:
        """Give the lock back; unless `keep`, with all that was made for it, as far as nobody else uses it."""
        if os.getpid() == self._process and not keep:
            if self._created:
                self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else has put a file there
                for folder in reversed(self._made):
                    folder.rmdir()
        self._created, self._made = False, []
        self._drop()

    def _drop(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        if self._key is not None:  # only now: another thread's lock would have gone with the file closed here
            _held.pop(self._key, None)
        self._descriptors, self._key = [], None

    def _take(self, folder: Path) -> bool:
        """Take the lock; False if the folder went away meanwhile: another process was refused, and cleaned up."""
        self._make(folder)
        try:
            self._descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            found = os.fstat(self._descriptors[0])
            key = (self._process, found.st_dev, found.st_ino)
            if _held.setdefault(key, self) is not self:
                raise self._in_use("this process")
            self._key = key
            descriptor = self._open()
        except FileNotFoundError:
            return False
        self._descriptors.append(descriptor)
        content = os.pread(descriptor, 64, 0)
        if not _CONTENT.fullmatch(content):
            raise UserError(f"'{self._path}' is not the lock of a run; remove it, or set another run.dir=")
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                self._created = False  # it is the other's now
                raise self._in_use(content.decode().strip() or "unknown") from None
            raise UserError(
                f"'{self._path}' cannot be locked ({error.strerror}); set run.dir to a local disk"
            ) from None
        try:
            if not os.path.samestat(os.lstat(self._path), os.fstat(descriptor)):
                return False
        except FileNotFoundError:
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {self._process}".encode(), 0)
        return True

    def _in_use(self, holder: str) -> UserError:
        return UserError(
            f"run folder '{self._path.parent}' is in use by another run ({holder}); wait for it, or set another "
            f"run.dir="
        )

    def _make(self, folder: Path) -> None:
        missing = [folder] * (not folder.is_dir()) + [place for place in folder.parents if not place.exists()]
        for place in reversed(missing):
            try:
                place.mkdir()
            except FileExistsError:
                if not place.is_dir():
                    raise
            else:
                self._made.append(place)

    def _open(self) -> int:
        refuse_odd_target(self._path)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return os.open(self._path, flags)
        self._created = True
        return descriptor
