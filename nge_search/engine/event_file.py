"""TensorBoard's event files, written by the thread that has the figures: no other one can fail on a full disk."""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import struct
import time
from pathlib import Path
from typing import Any

from nge_search.files import write_all

#: Our own name for them, by which they are told from those that others put into the same folder.
EVENTS = re.compile(r"events\.out\.tfevents\.(\d{10,})\..*\.\d+\.nge")

_FLUSH_SECONDS = 30.0
_FRAME = struct.Struct("<QI")  # the length of a record and its checksum; the record follows, and its own checksum
_CHECKSUM_BYTES = 4


class EventFile:
    """A new event file in `folder`, which is made if the one above it is there."""

    def __init__(self, folder: Path, first_step: int):
        """Cut off what earlier files say of `first_step` and later ones: it is about to be shown again."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        earlier = sorted(path for path in folder.iterdir() if EVENTS.fullmatch(path.name))
        for path in earlier:
            cut(path, first_step)
        stamps = [int(match[1]) for path in earlier if (match := EVENTS.fullmatch(path.name))]
        stamp = max(int(time.time()), *(stamp + 1 for stamp in stamps)) if stamps else int(time.time())
        # TensorBoard reads the files in the order of their names
        self._path = folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.nge"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = os.open(self._path, flags, 0o666)
        self._buffer = io.BytesIO()
        self._records = RecordWriter(self._buffer)
        self._event = Event
        self._write(file_version="brain.Event:2")
        # for a TensorBoard that has already read what was cut off
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def add(self, summary: Any, step: int) -> None:
        """Show what a function of `torch.utils.tensorboard.summary` has made."""
        self._write(step=step, summary=summary)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since.

        Raises:
            OSError: naming the file; what could not be written is dropped, so that it is raised once.
        """
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        self._flushed = time.monotonic()
        if self._descriptor is not None:
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                error.filename = str(self._path)
                raise

    def close(self) -> None:
        if self._descriptor is not None:
            try:
                self.flush()
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def _write(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


def cut(path: Path, first_step: int) -> None:
    """Shorten an event file to the records before the first one of `first_step` or later, or that is damaged."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb+") as file:
        size, end = os.fstat(descriptor).st_size, 0
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            length, _ = _FRAME.unpack(frame)
            following = end + _FRAME.size + length + _CHECKSUM_BYTES
            if following > size:
                break
            try:
                event = Event.FromString(file.read(length))
            except DecodeError:
                break
            if event.HasField("summary") and event.step >= first_step:
                break
            end = following
            file.seek(end)
        if end < size:
            file.truncate(end)
