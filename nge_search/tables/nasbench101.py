"""NAS-Bench-101's results: the official record files, parts of them as JSON and CSV, and EC-NAS' CSV."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.json_reader import parse_json
from nge_search.spaces import Code, NasBench101Space
from nge_search.spaces.nasbench101 import parameters
from nge_search.tables.csv_rows import convert_rows
from nge_search.tables.table import STUMBLES, Table, build_table
from nge_search.tables.tfrecord import Value, read_message, read_records

_WHAT = "cell of NAS-Bench-101"
_MOST_EPOCHS = 10_000

#: Fields of the messages (model_metrics.proto): of a model, and of one evaluation of it.
_EVALUATIONS, _PARAMETERS = 1, 2
_SECONDS, _TRAIN, _VALID, _TEST = 2, 3, 4, 5
_SPLITS = {"train": _TRAIN, "valid": _VALID, "test": _TEST}


def read_tfrecord(path: Path) -> Table:
    """The table of nasbench_only108.tfrecord or nasbench_full.tfrecord (epochs 4, 12, 36 and 108).

    Columns are [N, repeats]: `cifar10_valid_108`, and `cifar10_valid_108_halfway` after half of the same schedule;
    `cifar10_seconds_108`, `params`. The hashes of the file are compared with those of the cells.

    Raises:
        UserError: another file, or a damaged one; names the record.
    """
    space = NasBench101Space()
    found: dict[str, tuple[Code, dict[str, Any]]] = {}
    for number, record in enumerate(read_records(path)):
        try:
            digest, epochs, rows, operations, metrics = parse_json(record, "its text")
            if type(epochs) is not int or not 1 <= epochs <= _MOST_EPOCHS:
                raise ValueError(f"{shorten(epochs)} epochs")
            if digest not in found:
                code = space.code({"cell": space.parse_graph(rows, operations.split(","))})
                if space.key(code).hex() != digest:
                    raise ValueError("its hash is not its cell's")
                found[digest] = code, {}
            _add_metrics(found[digest][1], epochs, base64.b64decode(metrics))
        except STUMBLES as error:
            raise UserError(f"'{path}' record {number}: not one of NAS-Bench-101 ({error})") from None
    return build_table(space, found.values(), path.name, _WHAT)


def _add_metrics(figures: dict[str, Any], epochs: int, message: bytes) -> None:
    """Add one training of a cell: what it reached half-way and at its end."""
    fields = list(read_message(message))
    parts = [value for number, value in fields if number == _EVALUATIONS]
    evaluations = [dict(read_message(part)) for part in parts if isinstance(part, bytes)]
    _, halfway, final = evaluations  # the first is that of the initial weights
    for evaluation, suffix in ((halfway, "_halfway"), (final, "")):
        for split, number in _SPLITS.items():
            figures.setdefault(f"cifar10_{split}_{epochs}{suffix}", []).append(100 * _double(evaluation, number))
        figures.setdefault(f"cifar10_seconds_{epochs}{suffix}", []).append(_double(evaluation, _SECONDS))
    figures["params"] = dict(fields)[_PARAMETERS]
    if not isinstance(figures["params"], int):
        raise ValueError(f"field {_PARAMETERS} is not a whole number")


def read_metrics(path: Path, entries: list[Any]) -> Table:
    """The table of a list of cells as the official code's `get_metrics_from_spec` tells of them.

    Each has `adjacency`, `ops`, `trainable_parameters`, and `metrics`: for each number of epochs a list of
    trainings with `final_test_accuracy`, `halfway_test_accuracy` and the like, as shares, and times in seconds.
    Columns are those of `read_tfrecord`.

    Raises:
        UserError: an entry that is none; names its place.
    """
    space = NasBench101Space()
    found: dict[bytes, tuple[Code, dict[str, Any]]] = {}
    for position, entry in enumerate(entries):
        try:
            rows = "".join(str(value) for row in entry["adjacency"] for value in row)
            code = space.code({"cell": space.parse_graph(rows, entry["ops"])})
            key = space.key(code)
            if entry.get("hash", key.hex()) != key.hex():
                raise ValueError(f"its hash is {key.hex()}, not {shorten(entry['hash'])}")
            figures = found.setdefault(key, (code, {"params": int(entry["trainable_parameters"])}))[1]
            for epochs, trainings in entry["metrics"].items():
                if not 1 <= int(epochs) <= _MOST_EPOCHS:
                    raise ValueError(f"{shorten(epochs)} epochs")
                for training in trainings:
                    _add_training(figures, int(epochs), training)
        except STUMBLES as error:
            raise UserError(f"'{path}' entry {position}: not a cell of NAS-Bench-101 ({error})") from None
    return build_table(space, found.values(), path.name, _WHAT)


def _add_training(figures: dict[str, Any], epochs: int, training: Mapping[str, Any]) -> None:
    for prefix, suffix in (("halfway", "_halfway"), ("final", "")):
        for split, given in (("train", "train"), ("valid", "validation"), ("test", "test")):
            accuracy = 100 * float(training[f"{prefix}_{given}_accuracy"])
            figures.setdefault(f"cifar10_{split}_{epochs}{suffix}", []).append(accuracy)
        seconds = float(training[f"{prefix}_training_time"])
        figures.setdefault(f"cifar10_seconds_{epochs}{suffix}", []).append(seconds)


def _double(fields: Mapping[int, Value], number: int) -> float:
    value = fields[number]
    if not isinstance(value, float):
        raise ValueError(f"field {number} of an evaluation is not a number of 64 bits")
    return value


def read_labelled_csv(path: Path) -> Table:
    """The table of a CSV with hash, adj_rowmajor, ops and accuracies as shares; rows of one cell are repeats."""
    columns = {
        "val_acc_mean108": "cifar10_valid_108",
        "test_acc_mean108": "cifar10_test_108",
        "halfway_val_mean108": "cifar10_valid_108_halfway",
    }
    return _read_csv(path, NasBench101Space(), columns)


def read_ec_nas_csv(path: Path) -> Table:
    """The table of EC-NAS' CSV: every cell of up to five vertices after 0, 2 and 4 epochs, time and energy."""
    columns = {
        f"{short}_acc_ep{epochs}": f"cifar10_{split}_{epochs}"
        for epochs in (0, 2, 4)
        for short, split in (("train", "train"), ("val", "valid"), ("test", "test"))
    }
    return _read_csv(path, NasBench101Space(5), {**columns, "total_time_s": "cifar10_seconds_4"})


def _read_csv(path: Path, space: NasBench101Space, columns: dict[str, str]) -> Table:
    found: dict[bytes, tuple[Code, dict[str, Any]]] = {}

    def convert(row: dict[str, str]) -> tuple[bytes, Code, dict[str, float]]:
        code = space.code({"cell": space.parse_graph(row["adj_rowmajor"], row["ops"].split("|"))})
        key = space.key(code)
        if row.get("hash") and key.hex() != row["hash"]:
            raise ValueError(f"its hash is {key.hex()}, not {row['hash']}")
        figures = {
            name: (1 if "seconds" in name else 100) * float(row[column])
            for column, name in columns.items()
            if row.get(column)
        }
        return key, code, figures

    for key, code, own in convert_rows(path, convert):
        figures = found.setdefault(key, (code, {}))[1]
        for name, value in own.items():
            figures.setdefault(name, []).append(value)
    for code, figures in found.values():
        figures["params"] = parameters(space.graphs(code)["cell"])
    return build_table(space, found.values(), path.name, _WHAT)
