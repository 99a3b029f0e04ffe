"""A table of architectures with what is known of each: files that open at once, and look-up by architecture.

Legend: N architectures, L decisions of a code, R repeated trainings.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.array_reader import open_array
from nge_search.errors import UserError, nearest, plain
from nge_search.files import new_folder, sync_folder, user_path, write_atomic, write_json
from nge_search.json_reader import Reader, read_json
from nge_search.spaces import Code, Space, read_space

FORMAT = "nge-table/1"
_HEADER, _CODES, _KEYS = "table.json", "codes", "keys"  # beside a file for each column
_LEFT = re.compile(r"\.table\.[0-9a-f]{8}\.nge-tmp")  # what `save` writes into first
_COLUMN = re.compile(r"[^/\0.][^/\0]{0,199}")
_MOST_COLUMNS, _MOST_ARCHITECTURES = 1000, 1 << 22
_MOST_FIGURES = 60_000_000  # NAS-Bench-101 with all its epochs has 41 million


@dataclass(frozen=True)
class Table:
    """Architectures of a space and columns of figures, in the order of the architectures' keys.

    Columns of accuracy are in percent, of time in seconds; their names are DATASET_SPLIT_EPOCHS, as
    `cifar10_valid_200`, and DATASET_seconds_EPOCHS. Where trainings were repeated a column is [N, R], with NaN for
    those that an architecture lacks.

    Attributes:
        space: of the architectures.
        codes_NL: uint8.
        keys_N: the space's keys, sorted.
        columns: by name, each [N] or [N, R].
        source: what the table was made from.
    """

    space: Space
    codes_NL: np.ndarray
    keys_N: np.ndarray
    columns: Mapping[str, np.ndarray]
    source: str

    def __len__(self) -> int:
        return len(self.codes_NL)

    def code(self, row: int) -> Code:
        return tuple(self.codes_NL[row].tolist())

    def find(self, code: Code) -> int:
        """The row of an architecture, or of one that the space counts as the same.

        Raises:
            UserError: the table does not hold it.
        """
        key = np.array([self.space.key(code)], dtype=self.keys_N.dtype)[0]  # like the array's: no zeros at its end
        row = int(np.searchsorted(self.keys_N, key))
        if row == len(self) or self.keys_N[row] != key:
            raise UserError(f"the table of {self.source} does not hold {self.space.text(code)}")
        return row

    def column(self, name: str) -> np.ndarray:
        """A column by name, [N]: the mean of repeated trainings. Raises UserError, naming those there are."""
        return _mean(self.repeats(name))

    def repeats(self, name: str) -> np.ndarray:
        """A column as it is, [N] or [N, R]; raises UserError as `column` does."""
        if name not in self.columns:
            raise UserError(
                f"no column '{plain(name)}' in the table of {self.source}; it has {', '.join(self.columns)}"
                f"{nearest(name, self.columns)}"
            )
        return self.columns[name]

    def figures(self, row: int) -> dict[str, float]:
        """All that is known of an architecture, repeated trainings averaged."""
        averages = {name: float(_mean(values[row : row + 1])[0]) for name, values in self.columns.items()}
        return {name: value for name, value in averages.items() if not np.isnan(value)}

    def describe(self) -> list[str]:
        """What the table holds, in lines for people."""
        lines = [f"{self.source}: {len(self):,} architectures of {self.space.name}"]
        for name, values in self.columns.items():
            known = values[~np.isnan(values)]
            if not known.size:
                continue
            trainings = f", up to {values.shape[1]} each" if values.ndim == 2 else ""
            lines.append(f"  {name}: {known.min():.10g} to {known.max():.10g}, {known.size:,} values{trainings}")
        return lines

    def save(self, folder: str | Path) -> Path:
        """Write the table as a folder that `open_folder` opens at once; the header is written last.

        Raises:
            UserError: a folder that holds something.
            OSError: it cannot be written; nothing is left behind.
        """
        folder = user_path(folder)
        if folder.exists() and any(not _LEFT.fullmatch(entry.name) for entry in folder.iterdir()):
            raise UserError(f"'{folder}' is not empty; choose another --out")
        header = {
            "format": FORMAT,
            "space": self.space.name,
            "vertices": self.space.cell_space.vertices,
            "architectures": len(self),
            "columns": list(self.columns),
            "source": self.source,
        }
        with new_folder(folder), _staged(folder) as staging:
            for name, values in {_CODES: self.codes_NL, _KEYS: self.keys_N, **self.columns}.items():
                _write_array(staging / f"{name}.npy", values)
            write_json(staging / _HEADER, header)
        return folder


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder within `folder` to write files into; they move up, the header last, once all are there."""
    for left in folder.iterdir():
        if _LEFT.fullmatch(left.name):  # by a process that was killed
            shutil.rmtree(left)
    staging = folder / f".table.{secrets.token_hex(4)}.nge-tmp"
    moved: list[Path] = []
    try:
        staging.mkdir()
        yield staging
        for path in sorted(staging.iterdir(), key=lambda path: path.name == _HEADER):
            moved.append(folder / path.name)
            os.replace(path, folder / path.name)
        sync_folder(folder)
    except BaseException as error:
        for path in moved:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(folder), None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_array(path: Path, values: np.ndarray) -> None:
    """Not with `np.save`, whose error on a full disk does not say that it is full."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def _mean(values: np.ndarray) -> np.ndarray:
    if values.ndim == 1:
        return np.asarray(values)
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1) + np.where(
        known.any(1), 0, np.nan
    )


def build_table(
    space: Space, rows: Iterable[tuple[Code, Mapping[str, float | list[float]]]], source: str, what: str
) -> Table:
    """A table of architectures with their figures; `what` names one of them in messages.

    Raises:
        UserError: none, one twice, or a column that has the name of a table's own file.
    """
    codes, figures = [], []
    for code, known in rows:
        codes.append(code)
        figures.append(known)
    if not codes:
        raise UserError(f"{source} holds no {what}")
    keys_N = np.array([space.key(code) for code in codes])
    order_N = np.argsort(keys_N, kind="stable")
    keys_N = keys_N[order_N]
    twice = np.flatnonzero(keys_N[1:] == keys_N[:-1])
    if len(twice):
        raise UserError(f"{source} holds {space.text(codes[order_N[twice[0]]])} twice")
    names = _names(figures)
    for name in (_CODES, _KEYS):
        if name in names:
            raise UserError(f"{source} has figures named '{name}', which a table uses itself; rename them")
    _check_figures(figures, source)
    columns = {name: _column([known.get(name, np.nan) for known in figures])[order_N] for name in names}
    for name, column in columns.items():
        if np.isinf(column).any():
            raise UserError(f"{source} has figures named '{plain(name)}' that are infinite")
    return Table(space, np.array(codes, dtype=np.uint8)[order_N], keys_N, columns, source)


def _names(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for known in figures for name in known))


def _check_figures(figures: Sequence[Mapping[str, Any]], source: str) -> None:
    """Raise UserError if the columns would have odd names, or take far more memory than what is given."""
    repeats: dict[str, int] = {}
    for known in figures:
        for name, value in known.items():
            repeats[name] = max(repeats.get(name, 1), len(value) if isinstance(value, list) else 1)
    odd = next((name for name in repeats if not _COLUMN.fullmatch(name)), None)
    if odd is not None:
        raise UserError(f"{source} has figures named '{plain(odd)}', which cannot be a file's name; rename them")
    if len(repeats) > _MOST_COLUMNS or len(figures) * sum(repeats.values()) > _MOST_FIGURES:
        raise UserError(
            f"{source} has {len(repeats)} kinds of figures, of up to {max(repeats.values())} trainings, for "
            f"{len(figures)} architectures: more than a table holds"
        )


def _column(values: list[float | list[float]]) -> np.ndarray:
    repeats = max(len(value) if isinstance(value, list) else 0 for value in values)
    if repeats < 2:
        return np.array([value[0] if isinstance(value, list) else value for value in values], dtype=np.float64)
    column = np.full((len(values), repeats), np.nan)
    for row, value in enumerate(values):
        given = value if isinstance(value, list) else [value]
        column[row, : len(given)] = given
    return column


def open_folder(folder: str | Path) -> Table:
    """The table that `Table.save` wrote, read as it is needed.

    Raises:
        UserError: another folder, or files that are missing or do not fit each other.
    """
    folder = user_path(folder)
    path = folder / _HEADER
    if folder.is_dir() and not os.path.lexists(path):
        raise UserError(f"'{folder}' holds no {_HEADER}; `nge table FILE --out FOLDER` makes such a folder")
    header = Reader(str(path), read_json(path))
    if header.document.get("format") != FORMAT:
        raise UserError(f"'{path}' is not a table's header in the format {FORMAT}; make the folder anew")
    try:
        space = read_space(header)
        columns = _columns(header)
        parts = {name: open_array(folder / f"{name}.npy") for name in (_CODES, _KEYS, *columns)}
        count = header.integer("architectures", 1, _MOST_ARCHITECTURES)
        if any(len(part) != count for part in parts.values()):
            raise UserError(f"not all files hold {count} architectures")
        codes, keys = parts.pop(_CODES), parts.pop(_KEYS)
        if sum(part.size for part in parts.values()) > _MOST_FIGURES:
            raise UserError(f"it has more than {_MOST_FIGURES} figures")
        _check_codes(space, codes, keys)
        if any(part.dtype.kind != "f" or part.ndim not in (1, 2) for part in parts.values()):
            raise UserError("a file holds something else than it should")
        return Table(space, codes, keys, parts, plain(header.text("source"), 200))
    except UserError as error:
        raise UserError(f"the table '{folder}' is damaged ({error}); make the folder anew") from None


def _columns(header: Reader) -> list[str]:
    """The names of the columns, each of which is a file in the folder and none of them outside."""
    columns = header.names("columns")
    odd = [name for name in columns if not _COLUMN.fullmatch(name) or name in (_CODES, _KEYS)]
    if odd or len(set(columns)) < len(columns) or len(columns) > _MOST_COLUMNS:
        raise UserError(f"{header.source} is damaged: 'columns' must be up to {_MOST_COLUMNS} names of files")
    return columns


def _check_codes(space: Space, codes_NL: np.ndarray, keys_N: np.ndarray) -> None:
    """Raise UserError unless there are architectures that the space can name, in the order of their keys."""
    options = max(len(table.options) for table in space.cell_space.tables)
    if codes_NL.dtype != np.uint8 or codes_NL.ndim != 2 or codes_NL.shape[1] != space.length:
        raise UserError(f"{_CODES}.npy holds no architectures of {space.name}")
    if int(codes_NL.max()) >= options:
        raise UserError(f"{_CODES}.npy holds decisions that {space.name} does not have")
    if keys_N.dtype.kind != "S" or keys_N.ndim != 1 or (keys_N[1:] <= keys_N[:-1]).any():
        raise UserError(f"{_KEYS}.npy does not hold keys in their order")
