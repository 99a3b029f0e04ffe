"""Files of arrays and a document: written at once, read without running anything, refused when damaged.

The file is in safetensors' form. Its header also holds a document of JSON, and a digest of everything else, so that
a file that was cut, mixed up or changed by accident is told by it (it is no protection against forgery).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nge_search.errors import UserError
from nge_search.files import write_atomic
from nge_search.json_reader import parse_json
from nge_search.tensor_reader import check_safetensors

#: A header of safetensors' form may have 4 MB, in which the document's quotation marks take two bytes.
LARGEST_DOCUMENT = 1_500_000

_TYPES = tuple(np.dtype(name) for name in ("float64", "float32", "float16", "int64", "int32"))


def write_saved(path: Path, kind: str, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any]) -> None:
    """Write arrays of numbers and a document, the same ones always as the same bytes.

    Words (uint64) are written as int64 and must be viewed again.

    Args:
        kind: what the file is, asked for again when it is read.

    Raises:
        UserError: a document of more than `LARGEST_DOCUMENT` characters.
        OSError: it cannot be written; nothing is left behind.
    """
    plain = {name: np.ascontiguousarray(_signed(array)) for name, array in arrays.items()}
    assert all(array.dtype in _TYPES for array in plain.values())
    text = json.dumps({"kind": kind, **document}, sort_keys=True)
    if len(text) > LARGEST_DOCUMENT:
        raise UserError(f"a {kind} file describes its content in at most {LARGEST_DOCUMENT} characters")
    write_atomic(path, _ordered(save(plain, {"document": text, "digest": _digest(plain, text)})))


def read_saved(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_saved` wrote.

    Raises:
        UserError: no such file, another kind of file, or a damaged one; names it.
        OSError: it cannot be read.
    """
    check_safetensors(path)
    try:
        with safe_open(str(path), "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({error})") from None
    text = metadata.get("document", "")
    if metadata.get("digest") != _digest(arrays, text):
        raise UserError(f"'{path}' is damaged, or was not written by nge: its digest does not fit")
    document = parse_json(text, str(path))
    found = document.get("kind") if isinstance(document, dict) else None
    if found != kind:
        raise UserError(f"'{path}' is no {kind} file; it is of the kind '{found}'")
    return arrays, document


def _ordered(content: bytes) -> bytes:
    """A file in safetensors' form, what it says of itself in alphabetical order: the library's order is chance."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    said = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": said, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that arrays begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _signed(array: np.ndarray) -> np.ndarray:
    return array.view(np.int64) if array.dtype == np.uint64 else array


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    state = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        state.update(f"{name} {array.dtype} {array.shape} ".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
