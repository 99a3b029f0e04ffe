"""JSON lists of architectures with figures: cells of NAS-Bench-101 with all that is known, or DARTS' genotypes."""

from __future__ import annotations

from pathlib import Path

from nge_search.errors import UserError
from nge_search.files import read_bytes
from nge_search.json_reader import parse_json
from nge_search.tables.darts_pairs import read_pairs
from nge_search.tables.nasbench101 import read_metrics
from nge_search.tables.table import Table

_LARGEST_BYTES, _MOST_VALUES = 1 << 28, 6_000_000


def read_json(path: Path) -> Table:
    """The table of a JSON list: of NAS-Bench-101 if its first entry has an `adjacency`, else of DARTS' space.

    Raises:
        UserError: no list, or an entry that is none of the space; names its place.
    """
    entries = parse_json(read_bytes(path, _LARGEST_BYTES), f"'{path}'", _MOST_VALUES)
    if not isinstance(entries, list):
        raise UserError(f"'{path}' is not a list of architectures with their figures")
    first = entries[0] if entries else None
    read = read_metrics if isinstance(first, dict) and "adjacency" in first else read_pairs
    return read(path, entries)
