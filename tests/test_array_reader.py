"""The reader of .npy files: what NumPy wrote is mapped, anything else is refused before it is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from nge_search.array_reader import open_array
from nge_search.errors import UserError


def with_header(header: str, content: bytes = bytes(24), form: bytes = b"\x01\x00") -> bytes:
    packed = struct.pack("<H" if form[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + form + packed + header.encode("latin-1") + content


def header(descr: str = "<f8", shape: str = "(3,)", order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([b"ab", b"c"]),
        np.arange(4, dtype=">i2"),
        np.array([True, False]),
        np.linspace(0, 1, 5, dtype=np.float16),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read_as_numpy_reads_it(array: np.ndarray, version: tuple, tmp_path: Path) -> None:
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, array, version)
    found = open_array(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, np.load(tmp_path / "a.npy"))


REFUSED = {
    "empty": b"",
    "another file": b"PK\x03\x04" + bytes(100),
    "cut within the header": with_header(header())[:20],
    "cut within the array": with_header(header(), bytes(23)),
    "too long": with_header(header(), bytes(25)),
    "objects": with_header(header("|O")),
    "a negative side": with_header(header(shape="(3, -1)")),
    "a bracket open": with_header(header(shape="(3,")),
    "nested": with_header(header(shape="(" * 2000)),
    "an expression": with_header(header(shape="(1+2,)")),
    "more than there is": with_header(header(shape="(99999999999999999,)")),
    "a product beyond 64 bits": with_header(header(shape="(4294967296, 4294967296, 3)")),
    "no sides": with_header(header(shape="()"), bytes(8)),
    "nothing in it": with_header(header(shape="(0,)"), b""),
    "a type of no width": with_header(header("|S0"), b""),
    "an unknown type": with_header(header("<f7"), bytes(21)),
    "another version": with_header(header(), form=b"\x09\x00"),
    "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(REFUSED[name])
    with pytest.raises(UserError, match=r"a\.npy"):
        open_array(path)


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, kind in {"pipe": "a named pipe", "device": "a device", "none": "does not exist"}.items():
        with pytest.raises(UserError, match=kind):
            open_array(tmp_path / name)
