"""Zero-cost metrics on disk: a file of JSON lines for each setting, to which lines are only ever added.

A line is `{"architecture": DIGEST, "network": [M numbers], "operations": {KIND: [[S numbers]]}, "check": SUM}`; the
sum covers the setting, too. Several processes may add to one file: each line is written under a lock. Whatever a
file holds that is no such line is left out, and said.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.console import show
from nge_search.errors import UserError
from nge_search.files import new_folder, open_regular, refuse_odd_target, write_all, write_json
from nge_search.json_reader import parse_json
from nge_search.predict.zero_cost_metrics import METRICS, SALIENCIES

_LARGEST_FILE, _LONGEST_LINE, _MOST_VALUES = 1 << 32, 1 << 16, 10_000


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is known of an architecture.

    Attributes:
        network_M: of the network, float64, as `METRICS`.
        operations: for each kind of cell float64 [R, S], as `SALIENCIES`.
    """

    network_M: np.ndarray
    operations: dict[str, np.ndarray]


class ZeroCostCache:
    """The file of one setting.

    Args:
        folder: made where there is none.
        setting: digest of the setting, in the file's name.
        meaning: what the setting is, written beside it for people.

    Raises:
        UserError: the folder or the file is something else.
    """

    def __init__(self, folder: Path, setting: str, meaning: Mapping[str, int | str]):
        self.path, self._setting = folder / f"zero_cost-{setting}.jsonl", setting
        try:
            with new_folder(folder):
                described = self.path.with_suffix(".json")
                if not described.exists():
                    write_json(described, dict(meaning))
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"the cache of metrics '{folder}' is no folder; choose another path") from None
        refuse_odd_target(self.path)

    def load(self, rows: Mapping[str, Mapping[str, int]]) -> dict[str, Measurement]:
        """What the file holds of some architectures, by their digests; `rows` has R by kind for each of them."""
        found: dict[str, Measurement] = {}
        if not self.path.exists():
            return found
        damaged = 0
        with open_regular(self.path, _LARGEST_FILE) as file:
            fcntl.lockf(file, fcntl.LOCK_SH)  # no line is being written
            while line := file.readline(_LONGEST_LINE):
                try:
                    read = self._read(line, rows)
                except UserError:
                    damaged += 1
                    continue
                if read is not None:
                    found.setdefault(*read)
        if damaged:
            lines = "1 damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
            show(f"{self.path}: {lines} left out", file=sys.stderr)
        return found

    def append(self, architecture: str, measured: Measurement) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written; what was written of it is left out when the file is read.
        """
        network = measured.network_M.tolist()
        operations = {kind: rows_RS.tolist() for kind, rows_RS in measured.operations.items()}
        document = {"architecture": architecture, "network": network, "operations": operations}
        line = json.dumps({**document, "check": self._check(document)}, separators=(",", ":")).encode() + b"\n"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX)
                size = os.fstat(descriptor).st_size
                is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a crash, or a full disk
                write_all(descriptor, b"\n" * is_torn + line)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:
                refuse_odd_target(self.path)
            error.filename = error.filename or str(self.path)
            raise

    def _check(self, document: Mapping[str, Any]) -> str:
        text = json.dumps([self._setting, *(document[key] for key in ("architecture", "network", "operations"))])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _read(self, line: bytes, rows: Mapping[str, Mapping[str, int]]) -> tuple[str, Measurement] | None:
        """The architecture and what is known of it; None for one that is not asked for, or an empty line."""
        if not line.strip():
            return None
        document = parse_json(line, str(self.path), _MOST_VALUES)
        keys = {"architecture", "network", "operations", "check"}
        _require(isinstance(document, dict) and document.keys() == keys)
        architecture, operations = document["architecture"], document["operations"]
        _require(isinstance(architecture, str) and isinstance(operations, dict))
        if architecture not in rows:
            return None
        _require(operations.keys() == rows[architecture].keys())
        _require(_are_numbers(document["network"], len(METRICS)))
        for kind, count in rows[architecture].items():
            _require(isinstance(operations[kind], list) and len(operations[kind]) == count)
            _require(all(_are_numbers(row, len(SALIENCIES)) for row in operations[kind]))
        _require(document["check"] == self._check(document))
        shaped = {
            kind: np.array(operations[kind], dtype=np.float64).reshape(count, len(SALIENCIES))
            for kind, count in rows[architecture].items()
        }
        return architecture, Measurement(np.array(document["network"], dtype=np.float64), shaped)


def _require(holds: bool) -> None:
    if not holds:
        raise UserError("no line of this file")


def _are_numbers(values: Any, count: int) -> bool:
    """Whether these are so many finite numbers, written as floating ones."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is float and math.isfinite(value) for value in values)
    )
