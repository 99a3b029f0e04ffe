"""NAS-Bench-201's results: the official archive, read without running anything in it, and a CSV of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nge_search.errors import UserError, shorten
from nge_search.spaces import Code, NasBench201Space
from nge_search.tables.csv_rows import convert_rows
from nge_search.tables.table import Table, build_table
from nge_search.tensor_reader import load_saved

_WHAT = "cell of NAS-Bench-201"

#: Column's dataset and split, by the archive's name of what a network was trained on and tested on.
_RESULTS = {
    ("cifar10-valid", "x-valid"): ("cifar10", "valid"),
    ("cifar10", "ori-test"): ("cifar10", "test"),
    ("cifar100", "x-valid"): ("cifar100", "valid"),
    ("cifar100", "x-test"): ("cifar100", "test"),
    ("ImageNet16-120", "x-valid"): ("imagenet16", "valid"),
    ("ImageNet16-120", "x-test"): ("imagenet16", "test"),
}
#: On which a search's training is timed.
_TIMED = {"cifar10-valid": "cifar10", "cifar100": "cifar100", "ImageNet16-120": "imagenet16"}
#: The archive's name of a training's schedule.
_SCHEDULES = ("less", "full")

_CSV = {
    f"{dataset}_{short}_{epochs}ep": f"{dataset}_{split}_{epochs}"
    for dataset in ("cifar10", "cifar100")
    for short, split in (("val", "valid"), ("test", "test"))
    for epochs in (12, 200)
}


def read_archive(path: Path) -> Table:
    """The table of NAS-Bench-201-v1_1-096897.pth: accuracies after the last epoch of each trial, times, parameters.

    Where a trial tells it, `cifar10_valid_200_halfway` and the like have its accuracies after half of its epochs.
    The file is loaded with `weights_only=True`, which gives containers, numbers, strings and tensors only. It takes
    several times the file's size in memory (the file has 4.7 GB).

    Raises:
        UserError: another file, a damaged one, or one that holds objects of other types.
    """
    with torch.serialization.safe_globals(_numpy_types()):
        document = load_saved(path, f"'{path}' is not NAS-Bench-201's archive, or not a whole one")
    try:
        names, infos = document["meta_archs"], document["arch2infos"]
        return build_table(NasBench201Space(), _read_infos(names, infos), path.name, _WHAT)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"'{path}' is not laid out as NAS-Bench-201's archive ({shorten(error, 200)})") from None


def _numpy_types() -> list[Any]:
    """What NumPy's scalars are made of, which archives have among their numbers; under NumPy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [np.float64, np.float32, np.int64]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _read_infos(names: list[str], infos: Mapping[int, Mapping[str, Any]]) -> Iterator[tuple[Code, dict[str, Any]]]:
    space = NasBench201Space()
    for number, info in infos.items():
        figures: dict[str, Any] = {}
        for schedule in _SCHEDULES:
            for (trained_on, _), trial in sorted(info[schedule]["all_results"].items(), key=lambda item: item[0]):
                for column, value in _figures(trained_on, trial):
                    figures.setdefault(column, []).append(value)
        figures = {column: values[0] if column == "params" else values for column, values in figures.items()}
        yield space.parse(names[number]), figures


def _figures(trained_on: str, trial: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    epochs = int(trial["epochs"])
    for suffix, done in (("_halfway", epochs // 2), ("", epochs)):
        for (given, part), (dataset, split) in _RESULTS.items():
            key = f"{part}@{done - 1}"
            if given == trained_on and key in trial["eval_acc1es"]:
                yield f"{dataset}_{split}_{epochs}{suffix}", float(trial["eval_acc1es"][key])
    if trained_on in _TIMED and trial.get("train_times"):
        yield f"{_TIMED[trained_on]}_seconds_{epochs}", float(sum(trial["train_times"].values()))
    if trained_on in ("cifar10-valid", "cifar10"):
        yield "params", 1e6 * float(trial["params"])


def read_csv(path: Path) -> Table:
    """The table of a CSV with the columns arch, params_m and DATASET_val_EPOCHSep or DATASET_test_EPOCHSep.

    Raises:
        UserError: a cell that is none, or a figure that is no number; names the line.
    """
    space = NasBench201Space()

    def convert(row: dict[str, str]) -> tuple[Code, dict[str, float]]:
        figures = {name: float(row[column]) for column, name in _CSV.items() if row.get(column)}
        if row.get("params_m"):
            figures["params"] = 1e6 * float(row["params_m"])
        return space.parse(row["arch"]), figures

    return build_table(space, convert_rows(path, convert), path.name, _WHAT)
