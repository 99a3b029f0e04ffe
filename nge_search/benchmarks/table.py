"""A table of architectures with what is known of each: files that open at once, and look-up by architecture.

Legend: N architectures, L decisions of a code, R repeated trainings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.errors import UserError, nearest, plain
from nge_search.files import write_json
from nge_search.spaces import SPACES, Code, Space

FORMAT = "nge-table/1"
_HEADER, _CODES, _KEYS = "table.json", "codes", "keys"  # beside a file for each column


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
        """Write the table as a folder that `open_folder` opens at once; the header is written last."""
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"'{folder}' is not empty; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in {_CODES: self.codes_NL, _KEYS: self.keys_N, **self.columns}.items():
            np.save(folder / f"{name}.npy", values)
        header = {
            "format": FORMAT,
            "space": self.space.name,
            "vertices": self.space.graph.vertices,
            "architectures": len(self),
            "columns": list(self.columns),
            "source": self.source,
        }
        write_json(folder / _HEADER, header)
        return folder


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
    columns = {name: _column([known.get(name, np.nan) for known in figures])[order_N] for name in names}
    return Table(space, np.array(codes, dtype=np.uint8)[order_N], keys_N, columns, source)


def _names(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for known in figures for name in known))


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
    folder = Path(folder)
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        known = header["format"] == FORMAT
    except FileNotFoundError:
        raise UserError(
            f"'{folder}' holds no {_HEADER}; `nge table FILE --out FOLDER` makes such a folder"
        ) from None
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise UserError(
            f"'{folder / _HEADER}' is not a table's header in the format {FORMAT}; make the folder anew"
        )
    try:
        space = _space(header["space"], header["vertices"])
        parts = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (_CODES, _KEYS, *header["columns"])
        }
        count = header["architectures"]
        if any(len(part) != count for part in parts.values()) or parts[_CODES].shape[1] != space.length:
            raise ValueError(f"not all files hold {count} architectures")
        codes, keys = parts.pop(_CODES), parts.pop(_KEYS)
        if codes.dtype != np.uint8 or keys.dtype.kind != "S" or any(_is_no_column(part) for part in parts.values()):
            raise ValueError("a file holds something else than it should")
        return Table(space, codes, keys, parts, str(header["source"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"the table '{folder}' is damaged ({error}); make the folder anew") from None


def _is_no_column(part: np.ndarray) -> bool:
    return part.dtype.kind != "f" or part.ndim not in (1, 2)


def _space(name: str, vertices: int) -> Space:
    space = SPACES[name]
    return space(vertices) if name == "nasbench101" else space()
