"""Tables of architectures with true accuracies, and what a search asks of one: the accuracy of an architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nge_search.errors import UserError
from nge_search.files import require_regular, user_path
from nge_search.tables.benchmark import Benchmark
from nge_search.tables.csv_rows import columns
from nge_search.tables.enas_macro import read_structures
from nge_search.tables.json_entries import read_json
from nge_search.tables.nasbench101 import read_ec_nas_csv, read_labelled_csv, read_tfrecord
from nge_search.tables.nasbench201 import read_archive
from nge_search.tables.nasbench201 import read_csv as read_nasbench201_csv
from nge_search.tables.table import Table, open_folder

__all__ = ["Benchmark", "Table", "open_table"]

_READERS: dict[str, Callable[[Path], Table]] = {
    ".tfrecord": read_tfrecord,
    ".pth": read_archive,
    ".json": read_json,
}
#: Readers of a CSV, by a column that tells it.
_CSV_READERS: dict[str, Callable[[Path], Table]] = {
    "params_m": read_nasbench201_csv,
    "val_acc_ep4": read_ec_nas_csv,
    "val_acc_mean108": read_labelled_csv,
    "ws_accuracy": read_structures,
}


def open_table(path: str | Path) -> Table:
    """A table: a folder that `nge table` wrote, or one of the files that it reads.

    Raises:
        UserError: no such file, or one that none of the readers takes.
    """
    path = user_path(path)
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise UserError(f"table '{path}' does not exist; it is a folder that `nge table` wrote, or a file it reads")
    require_regular(path)
    reader = _csv_reader(path) if path.suffix == ".csv" else _READERS.get(path.suffix)
    if reader is None:
        raise UserError(
            f"'{path}' is none of the files that tables are read from: NAS-Bench-101's .tfrecord, NAS-Bench-201's "
            ".pth, a .csv or .json of architectures with accuracies (README, Tables of accuracies)"
        )
    return reader(path)


def _csv_reader(path: Path) -> Callable[[Path], Table] | None:
    given = columns(path)
    return next((reader for column, reader in _CSV_READERS.items() if column in given), None)
