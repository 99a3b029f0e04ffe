"""What `torch.save` wrote, or a stranger did: loaded without running anything in it, and without outgrowing its file."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.files import open_regular

_ZIP = b"PK\x03\x04"
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"
_LARGEST_DIRECTORY = 1 << 24  # bytes of a ZIP file's list of its parts; a tensor takes about a hundred

_DEEPEST, _MOST_VALUES = 16, 1_000_000


def load_saved(path: Path, refusal: str, largest_pickle: int | None = None) -> Any:
    """The value in a file, on the CPU. In one of today's form, tensors are mapped: none reads beyond the file.

    Args:
        refusal: how the message begins.
        largest_pickle: bytes of all that is not a tensor's content; None: any number, and older forms are read too.

    Raises:
        UserError: no ordinary file, a damaged or compressed one, or one that holds objects of other types.
    """
    with open_regular(path) as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        _check_parts(path, refusal, largest_pickle)
    elif largest_pickle is not None:
        raise UserError(f"{refusal} (it is not a ZIP file)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise UserError(f"{refusal} (it does not fit into memory)") from None
    except Exception as error:  # torch raises whatever a file that is damaged makes it stumble over
        raise UserError(f"{refusal} ({_reason(error)})") from None


def own_tensors(value: Any, refusal: str, most_bytes: int) -> Any:
    """`value` with copies of its tensors, after a check that it is made of plain values and is not too large.

    Raises:
        UserError: other objects than dictionaries, lists, tuples, texts, numbers and dense tensors; more levels or
            values than a checkpoint has; tensors of more than `most_bytes` together.
    """
    return _Copy(refusal, most_bytes).of(value)


class _Copy:
    def __init__(self, refusal: str, most_bytes: int):
        self._refusal = refusal
        self._bytes = most_bytes
        self._values = _MOST_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._values -= 1
        if depth > _DEEPEST or self._values < 0:
            raise UserError(f"{self._refusal} (it has too many values, or is nested too deeply)")
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int):
                    raise UserError(f"{self._refusal} (it has the key {shorten(key)})")
                value[key] = self.of(value[key], depth + 1)
            return value
        if isinstance(value, list):
            return [self.of(part, depth + 1) for part in value]
        if isinstance(value, tuple):
            return tuple(self.of(part, depth + 1) for part in value)
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise UserError(f"{self._refusal} (it holds an object of the type {type(value).__name__})")

    def _tensor(self, value: Tensor) -> Tensor:
        dense = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided
        if not dense or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"{self._refusal} (it holds a tensor of an odd kind)")
        self._bytes -= value.numel() * value.element_size()
        if self._bytes < 0:
            raise UserError(f"{self._refusal} (its tensors claim to be larger than the file)")
        return value.detach().clone()


def _check_parts(path: Path, refusal: str, largest_pickle: int | None) -> None:
    """Raise UserError unless all parts of a ZIP file are stored as they are, as `torch.save` stores them."""
    try:
        if _directory_size(path) > _LARGEST_DIRECTORY:
            raise UserError(f"{refusal} (it claims too many parts)")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error) as error:
        raise UserError(f"{refusal} ({error})") from None
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise UserError(f"{refusal} (it is compressed)")
    if largest_pickle is not None:
        other = sum(part.file_size for part in parts if "/data/" not in part.filename)
        if other > largest_pickle:
            raise UserError(f"{refusal} (it has {other} bytes that are no tensor's)")


def _directory_size(path: Path) -> int:
    """The bytes that the list of a ZIP file's parts takes, as its end says."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        start = max(0, size - (1 << 16))
        file.seek(start)
        tail = file.read(1 << 16)
        at = tail.rfind(_END)
        if at < 0 or at + 22 > len(tail):
            raise ValueError("it ends before its last part")
        locator = tail[max(0, at - 20) : at]
        found = struct.unpack_from("<I", tail, at + 12)[0]
        if found == 0xFFFFFFFF and locator.startswith(_END_64):
            file.seek(min(struct.unpack_from("<Q", locator, 8)[0], size))
            found = struct.unpack_from("<Q", file.read(56), 40)[0]
    return found


def _reason(error: Exception) -> str:
    """What torch says is wrong, without its advice to load the file unsafely."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = text.rpartition("WeightsUnpickler error: ")[2] or text
    return (text.splitlines() or [type(error).__name__])[0][:200]
