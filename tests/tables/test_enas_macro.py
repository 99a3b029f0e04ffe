"""The reader of ENAS' macro networks with shared weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nge_search.tables import open_table

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_structures_of_enas(tmp_path: Path) -> None:
    path = tmp_path / "structures.csv"
    once, twice = (
        "[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]",
        "[[0],[0,0],[0,0,0],[0,0,0,0],[0,0,0,0,0]",
    )
    twice += ",[0,0,0,0,0,0]]"
    path.write_text(f'structure_json,ws_accuracy\n"{twice}",0.7\n"{once}",0.72\n"{twice}",0.74\n')
    table = open_table(path)
    assert (len(table), list(table.columns)) == (2, ["cifar10_weight_sharing"])
    assert table.column("cifar10_weight_sharing")[table.find(table.space.parse(once))] == pytest.approx(72)
    np.testing.assert_allclose(table.repeats("cifar10_weight_sharing")[table.find((0,) * 21)], [70, 74])
    assert "shared weights" in table.source
    again = open_table(table.save(tmp_path / "table"))
    assert (again.space.name, again.source) == ("enas_macro", table.source)
    assert again.find((0,) * 21) == table.find((0,) * 21)


def test_published_structures() -> None:
    path = DATA / "enas" / "enas6_weightsharing.csv"
    if not path.is_file():
        pytest.skip("published data is not at hand (enas/enas6_weightsharing.csv)")
    table = open_table(path)
    assert len(table) == 20_015
    row = table.find(table.space.parse("[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]"))
    assert table.column("cifar10_weight_sharing")[row] == pytest.approx(73.02)
