"""Labels and predictors that cannot be used: one line, exit code 2, and nothing begun."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nge_search.cli import main

CELL = "|{}~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
CELLS = [CELL.format(name) for name in ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")]
#: A cell of NAS-Bench-101.
OTHER = '"010001000 input,conv3x3-bn-relu,output"'


def write(name: str, rows: Sequence[tuple[str, object]], head: str = "architecture,accuracy") -> None:
    Path(name).write_text("\n".join([head, *(f"{cell},{label}" for cell, label in rows)]) + "\n")


@pytest.fixture
def train(refuse: Callable[..., str]) -> Callable[..., str]:
    """`nge predict train` on `a.csv` is refused."""

    def check(*words: str, says: Sequence[str]) -> str:
        return refuse("predict", "train", "labels.file=a.csv", "predict.model=nasbowl", *words, says=says)

    return check


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(CELLS[0], 90), (CELLS[1], "nan")], ["'a.csv' line 3", "accuracy is nan"]),
        ([(CELLS[0], 90), (CELLS[1], 100.5)], ["'a.csv' line 3", "100.5", "from 0 to 100"]),
        ([(CELLS[0], 90), (CELLS[1], -0.1)], ["'a.csv' line 3", "-0.1", "from 0 to 100"]),
        ([(CELLS[0], 90), (CELLS[1], "")], ["'a.csv' line 3", "not a number"]),
        ([(CELLS[0], 0.9), (CELLS[1], 0.8)], ["no label above 1", "percent"]),
        ([(CELLS[0], 90)], ["holds 1 architectures", "at least 2"]),
        ([(CELLS[0], 90), (CELLS[0], 91)], ["holds 1 architectures", "at least 2"]),
        ([], ["holds 0 architectures", "at least 2"]),
        ([(CELLS[0], 90), (OTHER, 91)], ["'a.csv' line 3", "nasbench101", "nasbench201"]),
        ([(CELLS[0], 90), ("|nor_conv_9x9~0|", 91)], ["'a.csv' line 3", "is no architecture"]),
        ([(CELLS[0], 90), ("/etc/passwd", 91)], ["'a.csv' line 3", "is no architecture"]),
    ],
)
def test_labels(rows: list, says: list[str], train: Callable[..., str]) -> None:
    write("a.csv", rows)
    train(says=says)


def test_labels_that_are_not_there(train: Callable[..., str], refuse: Callable[..., str]) -> None:
    train(says=["'a.csv' does not exist", "architecture and accuracy"])
    write("a.csv", [(CELLS[0], 90)], "cell,accuracy")
    train(says=["no column architecture", "cell, accuracy"])
    refuse("predict", "train", says=["labels.file=", "give a CSV"])
    refuse("predict", "train", "labels.table=a.csv", says=["labels.column=", "name the column"])
    refuse("predict", "train", "labels.table=a.csv", "labels.column=x", says=["'a.csv' is none of the files"])


def test_spaces(train: Callable[..., str]) -> None:
    write("a.csv", [(cell, 90 + n) for n, cell in enumerate(CELLS)])
    train("labels.space=nasbench301", says=["labels.space=nasbench301", "allowed are darts", "nasbench201"])
    train("labels.space=darts", says=["'a.csv' line 2", "nasbench201", "darts"])


def test_torchrun(train: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.csv", [(cell, 90 + n) for n, cell in enumerate(CELLS)])
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    from nge_search import UserError, predict_bench, predict_train

    with pytest.raises(UserError, match="start it without torchrun"):
        predict_train(None, "labels.file=a.csv")
    with pytest.raises(UserError, match="start them without torchrun"):
        predict_bench(None, "labels.file=a.csv")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a predictor."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write("a.csv", [(cell, 90 + n) for n, cell in enumerate(CELLS)])
        words = ["labels.file=a.csv", "predict.model=nasbowl", "run.dir=run", "run.tensorboard=false"]
        assert main(["predict", "train", *words]) == 0
    return root / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_labels_that_differ_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.csv", [*((cell, 90 + n) for n, cell in enumerate(CELLS)), (CELLS[0], 50)])
    assert main(["predict", "train", "labels.file=a.csv", "predict.model=nasbowl"]) == 0
    assert "1 architectures stand several times with different accuracies" in capsys.readouterr().out
    assert "different accuracies" in Path("runs/predict/default/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "nge-predictor/9"}, ["another version", "nge-predictor/9", "train it anew"]),
        ({"format": 3}, ["is no predictor"]),
        ({"space": "nasbench301"}, ["'space' must be one of"]),
        ({"model": "__import__"}, ["'model' must be one of"]),
        ({"model": "lstm"}, ["is damaged"]),
        ({"state": {"rounds": 10**9, "names": []}}, ["'rounds' must be one of"]),
        ({"learnt": {"source": "\x1b[31m", "labels": 1e400}}, ["'labels' must be an integer"]),
        ({"tensors": "../../etc/passwd"}, ["does not belong to the predictor.json"]),
    ],
)
def test_predictors_of_strangers(change: dict, says: list[str], run: Path, refuse: Callable[..., str]) -> None:
    path = run / "predictor.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refuse("predict", "score", "run", CELLS[0], says=says)


def test_architectures_of_another_space(run: Path, refuse: Callable[..., str]) -> None:
    refuse("predict", "score", "run", "darts_v2", says=["no architecture of nasbench201"])
    write("b.csv", [(CELLS[0], ""), (OTHER, "")])
    refuse("predict", "score", "run", "b.csv", says=["'b.csv' line 3", "nasbench101", "nasbench201"])
    refuse("predict", "score", "run", "run", says=["run"])
    refuse("predict", "score", "b.csv", "b.csv", says=["b.csv"])


def test_the_run_folder_of_another_kind(finished: Path, refuse: Callable[..., str]) -> None:
    refuse("predict", "score", "finished", CELLS[0], says=["'finished' is the run folder of a search"])
    write("a.csv", [(cell, 90 + n) for n, cell in enumerate(CELLS)])
    words = ("labels.file=a.csv", "predict.model=nasbowl", "run.dir=finished")
    refuse("predict", "train", *words, says=["holds a run of kind search, not predict"])


def test_files_that_are_no_files(run: Path, refuse: Callable[..., str]) -> None:
    (run / "predictor.safetensors").unlink()
    (run / "predictor.safetensors").mkdir()
    refuse("predict", "score", "run", CELLS[0], says=["is a folder, not an ordinary file"])
