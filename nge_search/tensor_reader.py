"""What `torch.save` wrote, or a stranger did: loaded without running what is in it, or outgrowing the file."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.files import open_regular
from nge_search.json_reader import parse_json

_ADVICE = ("Weights only load failed", "Check the documentation")
_ZIP = b"PK\x03\x04"
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"
_LARGEST_DIRECTORY = 1 << 24  # bytes of a ZIP file's list of its parts; a tensor takes about a hundred

#: Bytes of a safetensors file, of its header, and of one whose numbers are converted to float32.
_LARGEST_WEIGHTS, _LARGEST_HEADER, _LARGEST_CONVERTED = 1 << 31, 1 << 22, 1 << 28
_FLOATS, _INTEGERS = ("F32", "F64", "F16", "BF16"), ("I64", "I32")

#: Bytes of a file of tensors that are not theirs: besides, and for each of them. A byte may become a value.
_LARGEST_PICKLE, _PER_TENSOR = 1 << 21, 400

_DEEPEST, _MOST_VALUES = 16, 400_000


def load_saved(path: Path, refusal: str, of_tensors: bool = False) -> Any:
    """The value in a file, on the CPU. In one of today's form, tensors are mapped: none reads beyond the file.

    Args:
        refusal: how the message begins.
        of_tensors: most of it must be tensors, and in today's form; else old forms are read too.

    Raises:
        UserError: no ordinary file, a damaged or compressed one, or one that holds objects of other types.
    """
    with open_regular(path) as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        _check_parts(path, refusal, of_tensors)
    elif of_tensors:
        raise UserError(f"{refusal} (it is not a ZIP file)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tensors, which are refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise UserError(f"{refusal} (it does not fit into memory)") from None
    except Exception as error:  # torch raises whatever a file that is damaged makes it stumble over
        raise UserError(f"{refusal} ({_reason(error)})") from None


def check_safetensors(path: Path) -> None:
    """Refuse, before it is loaded, a file whose header is too large or asks for more memory than the file has.

    Raises:
        UserError: no ordinary file of at most 2 GB, no header of its format, or types that no network is stored in.
    """
    with open_regular(path, _LARGEST_WEIGHTS) as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size) if size <= _LARGEST_HEADER else b""
        end = file.seek(0, 2)
    refusal = f"'{path}' is not a safetensors file, or is damaged"
    if len(text) < max(size, 2):
        raise UserError(f"{refusal} (its header has {size} bytes)")
    header = parse_json(text, f"the header of '{path}'")
    entries = (
        [entry for name, entry in header.items() if name != "__metadata__"] if type(header) is dict else [None]
    )
    kinds = {shorten(entry.get("dtype")) if isinstance(entry, dict) else "" for entry in entries}
    if kinds - {f"'{name}'" for name in (*_FLOATS, *_INTEGERS)}:
        raise UserError(f"{refusal} (it holds {', '.join(sorted(kinds))[:200]})")
    if kinds & {f"'{name}'" for name in _FLOATS[1:]} and end > _LARGEST_CONVERTED:
        raise UserError(f"'{path}' has {end} bytes; weights of more than {_LARGEST_CONVERTED} must be of type F32")


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


def _check_parts(path: Path, refusal: str, of_tensors: bool) -> None:
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
    other = sum(part.file_size for part in parts if "/data/" not in part.filename)
    if of_tensors and other > _LARGEST_PICKLE + _PER_TENSOR * len(parts):
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
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).rpartition("WeightsUnpickler error: ")[2]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(_ADVICE)]
    return (lines or [type(error).__name__])[0][:200]
