"""Arrays that a stranger may have written as .npy files: headers are checked, contents mapped and not loaded."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np

from nge_search.errors import UserError
from nge_search.files import open_regular

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
#: What NumPy writes of an array of numbers or bytes, and nothing else that Python would read there.
_HEADER = re.compile(
    r"\{'descr': '([<>|=][biufS]\d{1,9})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n?"
)


def open_array(path: Path) -> np.ndarray:
    """The array in a .npy file, mapped read-only: numbers, truth values or bytes, never Python objects.

    Raises:
        UserError: no ordinary file, not such an array, or of another size than its header says; names it.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        header, start = _read_header(file.read(len(_MAGIC) + 6 + _LONGEST_HEADER), path)
        size = file.seek(0, 2)
    match = _HEADER.fullmatch(header)
    if match is None:
        raise UserError(f"'{path}' is not an array of numbers that NumPy wrote")
    try:
        dtype = np.dtype(match[1])
    except TypeError:
        raise UserError(f"'{path}' is an array of the unknown type '{match[1]}'") from None
    shape = tuple(int(side) for side in match[3].replace(" ", "").split(",") if side)
    if not shape or start + dtype.itemsize * math.prod(shape) != size or start == size:
        raise UserError(f"'{path}' has {size} bytes, which its header, {dtype} {shape}, does not fit")
    return np.memmap(path, dtype, "r", start, shape, "F" if match[2] == "True" else "C")


def _read_header(content: bytes, path: Path) -> tuple[str, int]:
    """The header in the first bytes of a file, and where the array begins."""
    form, at = {1: ("<H", 10), 2: ("<I", 12), 3: ("<I", 12)}.get(content[6] if len(content) > 6 else 0, ("", 0))
    if not content.startswith(_MAGIC) or not form or len(content) < at:
        raise UserError(f"'{path}' is not an array in NumPy's format")
    start = at + struct.unpack(form, content[8:at])[0]
    if start > min(len(content), at + _LONGEST_HEADER):
        raise UserError(f"'{path}' ends within its header, or has one that is too long")
    return content[at:start].decode("latin-1"), start
