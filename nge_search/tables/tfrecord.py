"""TensorFlow's record files and protocol buffer messages, as far as NAS-Bench-101 uses them, without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nge_search.errors import UserError
from nge_search.files import require_regular
from nge_search.native.compiled import loop

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_CASTAGNOLI = 0x82F63B78  # the polynomial, reversed
_MASK = 0xA282EAD8

_LONGEST_RECORD = 1 << 20  # bytes; NAS-Bench-101's have some hundred

#: Kinds of fields in a protocol buffer message.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | float | bytes


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file: each has its length, the length's checksum, its bytes, and their checksum.

    Raises:
        UserError: a file that ends within a record, or whose checksums do not fit; names the byte.
    """
    if require_regular(path) == 0:
        return
    content = np.memmap(path, dtype=np.uint8, mode="r")
    at = 0
    while at < len(content):
        start, at = at, at + _HEADER.size
        if at > len(content):
            raise _damaged(path, start, "it ends within a record")
        length, checksum = _HEADER.unpack(content[start:at].tobytes())
        if masked_crc32c(content[start : start + 8]) != checksum:
            raise _damaged(path, start, "a checksum does not fit")
        if length > len(content) - at - _FOOTER.size:
            raise _damaged(path, start, "it ends within a record")
        if length > _LONGEST_RECORD:
            raise _damaged(path, start, f"a record of {length} bytes")
        record = content[at : at + length]
        at += length + _FOOTER.size
        if masked_crc32c(record) != _FOOTER.unpack(content[at - _FOOTER.size : at].tobytes())[0]:
            raise _damaged(path, start, "a checksum does not fit")
        yield record.tobytes()


def _damaged(path: Path, at: int, why: str) -> UserError:
    return UserError(f"'{path}' is not a whole file of TensorFlow records (at byte {at}: {why}); download it again")


def masked_crc32c(content: np.ndarray) -> int:
    """The checksum of bytes (uint8) as record files hold it: CRC-32C, turned right by 15 bits, plus a constant."""
    crc = int(_crc32c(content, _TABLE))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


@loop()
def _crc32c(content, table):
    crc = np.uint32(0xFFFFFFFF)
    for byte in content:
        crc = table[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def _table() -> np.ndarray:
    """The checksum of each single byte."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ _CASTAGNOLI, values >> 1).astype(np.uint32)
    return values


_TABLE = _table()


def read_message(content: bytes) -> Iterator[tuple[int, Value]]:
    """The fields of a protocol buffer message: (number, value); 64-bit ones are read as doubles.

    Raises:
        ValueError: bytes that are no message.
    """
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        part, at = content[at : at + size], at + size
        if len(part) < size:
            raise ValueError("it ends within a field")
        yield number, struct.unpack("<d", part)[0] if kind == _FIXED64 else part


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position in range(10):
        if at >= len(content):
            raise ValueError("it ends within a number")
        value |= (content[at] & 0x7F) << 7 * position
        at += 1
        if content[at - 1] < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
