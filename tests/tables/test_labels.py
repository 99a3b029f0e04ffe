"""Labelled architectures: what is read, averaged and refused."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.spaces import SPACES, DartsSpace, NasBench201Space
from nge_search.tables.labels import read_architectures, read_labels, table_labels
from nge_search.tables.table import build_table

SPACE = NasBench201Space()
CODES = [(0, 0, 0, 0, 0, k) for k in range(5)]
CELLS = [SPACE.text(code) for code in CODES]
#: Two codings of one cell of NAS-Bench-101.
TWINS = (
    "010001000 input,conv3x3-bn-relu,output",
    "0110000100000000 input,conv3x3-bn-relu,maxpool3x3,output",
)


def write(path: Path, rows: Sequence[Sequence[object]], head: Sequence[str] = ("architecture", "accuracy")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def test_labels_of_a_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        [(1, 91.5, CELLS[3]), (2, "100", CELLS[0]), (3, 0, CELLS[4])],
        ["n", "accuracy", "architecture"],
    )
    found = read_labels(path)
    assert (found.space.name, found.codes, found.label_N.tolist()) == (
        "nasbench201",
        [CODES[3], CODES[0], CODES[4]],
        [91.5, 100, 0],
    )
    assert (found.label_N.dtype, found.notices, len(found)) == (np.float64, (), 3)
    assert read_labels(path, "nasbench201").codes == found.codes
    space, codes = read_architectures(path)
    assert (space.name, codes) == ("nasbench201", found.codes)


@pytest.mark.parametrize("name", SPACES)
def test_labels_of_every_space(name: str, tmp_path: Path) -> None:
    space, random = SPACES[name](), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(4)]
    found = read_labels(write(tmp_path / "a.csv", [(space.text(code), 90 + k) for k, code in enumerate(codes)]))
    assert found.space.name == name
    assert [space.key(code) for code in found.codes] == [space.key(code) for code in codes]
    assert found.label_N.tolist() == [90, 91, 92, 93]


def test_published_names_are_architectures(tmp_path: Path) -> None:
    found = read_labels(write(tmp_path / "a.csv", [("darts_v1", 97.0), ("DARTS-V2", 97.2)]))
    assert isinstance(found.space, DartsSpace)
    assert len(found.codes) == 2


def test_different_labels_of_one_architecture_are_averaged_and_said(tmp_path: Path) -> None:
    rows = [(CELLS[0], 80), (CELLS[1], 70), (CELLS[0], 81), (CELLS[1], 70), (CELLS[0], 85)]
    found = read_labels(write(tmp_path / "a.csv", rows))
    assert (found.codes, found.label_N.tolist()) == (CODES[:2], [82, 70])
    assert len(found.notices) == 1
    assert found.notices[0].startswith("1 architectures stand several times with different accuracies")
    assert CELLS[0] in found.notices[0]
    assert read_labels(write(tmp_path / "b.csv", [rows[1], rows[3], rows[2]])).notices == ()
    one = "0100 input,output"
    twins = read_labels(write(tmp_path / "c.csv", [(TWINS[0], 80), (TWINS[1], 90), (one, 10)]))
    assert twins.label_N.tolist() == [85, 10]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(CELLS[0], 80), (CELLS[1], "nan")], "line 3: the accuracy is nan; labels are accuracies in percent"),
        ([(CELLS[0], 80), (CELLS[1], "inf")], "line 3: the accuracy is inf"),
        ([(CELLS[0], 100.5)], "line 2: the accuracy is 100.5"),
        ([(CELLS[0], -1)], "line 2: the accuracy is -1"),
        ([(CELLS[0], "good")], "line 2: the accuracy 'good' is not a number"),
        ([(CELLS[0],)], "line 2: the accuracy '' is not a number"),
        ([("", 5)], "line 2: '' is no architecture in the notation of darts, nasbench101"),
        ([("/etc/passwd", 5)], "line 2: '/etc/passwd' is no architecture in the notation"),
        ([("|nor_conv_3x3~0|", 5)], "line 2: .* is no architecture of nasbench201"),
        ([(CELLS[0], 80), (TWINS[0], 80)], "line 3: an architecture of nasbench101 among those of nasbench201"),
        ([('{"format": "nge-genotype/1", "space": "mars"}', 5)], "line 2: .*space 'mars' is unknown"),
        ([], "holds 0 architectures with a label; at least 2 are needed"),
        ([(CELLS[0], 80), (CELLS[0], 80)], "holds 1 architectures with a label"),
        ([(CELLS[0], 0.8), (CELLS[1], 0.9)], "no label above 1; give accuracies in percent"),
    ],
)
def test_labels_that_are_refused(rows: list[tuple[object, ...]], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_labels(write(tmp_path / "a.csv", rows))
    assert "a.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_and_spaces_that_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(CELLS[0], 80), (CELLS[1], 81)])
    with pytest.raises(UserError, match=r"line 2: an architecture of nasbench201 among those of darts"):
        read_labels(path, "darts")
    with pytest.raises(
        UserError, match=r"space 'nasbench20l' is unknown; known are darts.*did you mean 'nasbench201'"
    ):
        read_labels(path, "nasbench20l")
    with pytest.raises(UserError, match=r"has no column accuracy; in its first line are architecture, x"):
        read_labels(write(path, [], ("architecture", "x")))
    with pytest.raises(UserError, match=r"has no column architecture and accuracy; in its first line are none"):
        read_labels(write(path, [], ()))
    with pytest.raises(UserError, match=r"holds no architecture"):
        read_architectures(write(path, [], ("architecture",)))
    with pytest.raises(UserError, match=r"no.csv' does not exist; give a CSV with the columns architecture"):
        read_labels(tmp_path / "no.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="named pipe"):
        read_labels(tmp_path / "pipe.csv")


def test_labels_of_a_table() -> None:
    rows = [(code, {"x_valid_1": [80.0 + k, 82.0 + k], "snip": 500.0}) for k, code in enumerate(CODES)]
    rows[2][1]["x_test_1"] = rows[3][1]["x_test_1"] = 70.0
    table = build_table(SPACE, rows, "made", "architecture")
    found = table_labels(table, "x_valid_1")
    labels = dict(zip(found.codes, found.label_N.tolist()))
    assert labels == {code: 81.0 + k for k, code in enumerate(CODES)}
    assert found.notices == ("x_valid_1 is the mean of up to 2 trainings",)
    part = table_labels(table, "x_test_1")
    assert sorted(part.codes) == CODES[2:4]
    assert part.notices == ("3 of 5 architectures have no x_test_1; left out",)
    with pytest.raises(UserError, match="has snip 500; labels are accuracies in percent, from 0 to 100"):
        table_labels(table, "snip")
    with pytest.raises(UserError, match="no column 'x_valid'"):
        table_labels(table, "x_valid")
    single = build_table(SPACE, rows[:1], "made", "architecture")
    with pytest.raises(UserError, match="the table of made holds 1 architectures with a label"):
        table_labels(single, "x_valid_1")
