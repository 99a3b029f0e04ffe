"""Figures from within a training, half-way or after some epochs: what the readers keep of files that have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nge_search.architecture.genotype import PUBLISHED
from nge_search.spaces import DartsSpace, NasBench101Space
from nge_search.spaces.nasbench101 import digest as hash_of
from nge_search.spaces.nasbench101 import parameters
from nge_search.tables import open_table

CELLS = {
    "010001000": ["input", "conv3x3-bn-relu", "output"],
    "0110000100010000": ["input", "maxpool3x3", "conv1x1-bn-relu", "output"],
}
DATA = Path(__file__).parents[3] / "shared" / "data"


def test_figures_after_parts_of_a_training_are_kept(tmp_path: Path) -> None:
    """EC-NAS' after 0, 2 and 4 epochs, NAS-Bench-101's half-way, and those of DARTS genotypes by their names."""
    path = tmp_path / "ec.csv"
    path.write_text(
        "adj_rowmajor,ops,train_acc_ep0,val_acc_ep0,test_acc_ep0,train_acc_ep2,val_acc_ep2,test_acc_ep2,train_acc_ep4,"
        "val_acc_ep4,test_acc_ep4\n010001000,input|maxpool3x3|output,.1,.11,.12,.3,.31,.32,.5,.51,.52\n"
    )
    figures = open_table(path).figures(0)
    for epochs, first in ((0, 10), (2, 30), (4, 50)):
        for place, split in enumerate(("train", "valid", "test")):
            assert figures[f"cifar10_{split}_{epochs}"] == pytest.approx(first + place)
    path.write_text(
        "adj_rowmajor,ops,val_acc_mean108,test_acc_mean108,halfway_val_mean108\n"
        "010001000,input|maxpool3x3|output,.9,.89,.7\n"
    )
    assert open_table(path).figures(0)["cifar10_valid_108_halfway"] == pytest.approx(70)
    genotype = json.loads(DartsSpace().text(DartsSpace().code(PUBLISHED["darts_v1"].graphs())))
    trained = {"acc_ep150": 92.5, "acc_ep300": 94.5, "acc_ep450": 96.0, "final_test_acc": 97.0}
    path = tmp_path / "trained.json"
    path.write_text(json.dumps([{"genotype": genotype, **trained}]))
    assert open_table(path).figures(0) == trained


def cell_with_metrics(rows: str, trainings: int = 2) -> dict[str, Any]:
    """As the official code tells of a cell: shares, half-way ten points below the end, a point more each time."""
    graph = NasBench101Space().parse_graph(rows, CELLS[rows])
    side = len(CELLS[rows])
    return {
        "hash": hash_of(graph).hex(),
        "adjacency": [list(map(int, rows[at : at + side])) for at in range(0, side**2, side)],
        "ops": CELLS[rows],
        "trainable_parameters": parameters(graph),
        "metrics": {
            "108": [
                {
                    f"{part}_{name}": value + 0.01 * time - below
                    for part, below in (("halfway", 0.1), ("final", 0.0))
                    for name, value in (
                        ("train_accuracy", 0.95),
                        ("validation_accuracy", 0.9),
                        ("test_accuracy", 0.85),
                        ("training_time", 1000.0),
                    )
                }
                for time in range(trainings)
            ]
        },
    }


def test_complete_figures_of_nasbench101_as_json(tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    first, second = CELLS
    path.write_text(json.dumps([cell_with_metrics(first), cell_with_metrics(second, 1)]))
    table = open_table(path)
    row = table.find(table.space.parse("010001000 input,conv3x3-bn-relu,output"))
    for split, final in (("train", 95), ("valid", 90), ("test", 85)):
        np.testing.assert_allclose(table.repeats(f"cifar10_{split}_108")[row], [final, final + 1])
        np.testing.assert_allclose(table.repeats(f"cifar10_{split}_108_halfway")[row], [final - 10, final - 9])
    assert table.figures(row)["cifar10_seconds_108"] == pytest.approx(1000.005)
    assert table.figures(row)["cifar10_seconds_108_halfway"] == pytest.approx(999.905)
    assert table.figures(row)["params"] == parameters(table.space.graphs(table.code(row))["cell"])
    assert np.isnan(table.repeats("cifar10_test_108")[1 - row, 1])


@pytest.mark.parametrize(
    ("name", "halfway", "final"),
    [
        ("nasbench101/nb101_30_full_metrics.json", "cifar10_valid_108_halfway", "cifar10_valid_108"),
        ("ec_nas/ec_nas_4epoch.csv", "cifar10_valid_2", "cifar10_valid_4"),
        ("darts_space/darts_214_genotype_acc.json", "acc_ep300", "final_test_acc"),
        ("nasbench201/nasbench201.csv", "cifar10_valid_12", "cifar10_valid_200"),
    ],
)
def test_published_files_have_them(name: str, halfway: str, final: str) -> None:
    """And most architectures are better at the end."""
    if not (DATA / name).is_file():
        pytest.skip(f"published data is not at hand ({name})")
    table = open_table(DATA / name)
    assert np.mean(table.column(halfway) < table.column(final)) > 0.8
