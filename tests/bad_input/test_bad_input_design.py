"""Labels, settings and link models that cannot be used: one line, exit code 2, and nothing begun."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import nge_search

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELL = "|{}~0|+|none~0|skip_connect~1|+|{}~0|none~1|nor_conv_1x1~2|"
#: All of them different, and alive.
CELLS = [CELL.format(first, last) for first in OPERATIONS for last in OPERATIONS[1:]]
OTHER = '"010001000 input,conv3x3-bn-relu,output"'


def write(name: str, rows: Sequence[tuple[str, object]]) -> None:
    Path(name).write_text("\n".join(["architecture,accuracy", *(f"{cell},{label}" for cell, label in rows)]) + "\n")


@pytest.fixture
def train(refuse: Callable[..., str]) -> Callable[..., str]:
    """`nge design train` on `a.csv` is refused."""

    def check(*words: str, says: Sequence[str]) -> str:
        return refuse("design", "train", "labels.file=a.csv", *words, says=says)

    return check


@pytest.mark.parametrize(
    ("rows", "words", "says"),
    [
        (
            [(c, 70 + n) for n, c in enumerate(CELLS[:8])],
            ["design.best=5"],
            ["design.best=5: ", "too few for the 5"],
        ),
        ([(c, 70) for c in CELLS], ["design.best=5"], ["design.best=5: ", "are not all better than the 5 worst"]),
        ([(c, 70) for c in CELLS], [], ["design.best=None: ", "are not all better"]),
        (
            [(c, 70 + n) for n, c in enumerate(CELLS)],
            ["design.lowest=89"],
            ["design.best=", "of which 0 can be the worst"],
        ),
        ([(CELLS[0], 70), (OTHER, 80)], [], ["'a.csv' line 3", "nasbench101 among those of nasbench201"]),
        ([(CELLS[0], 70), (CELLS[1], "nan")], [], ["'a.csv' line 3", "the accuracy is nan"]),
        ([(c, 70 + n) for n, c in enumerate(CELLS)], ["design.links=7"], ["design.links=7: ", "it has 1 to 6"]),
        ([(c, 70 + n) for n, c in enumerate(CELLS)], ["design.vertices=5"], ["design.vertices=5: ", "nasbench101"]),
        ([(c, 70 + n) for n, c in enumerate(CELLS)], ["design.dangling=true"], ["design.dangling=True: "]),
        (
            [(c, 70 + n) for n, c in enumerate(CELLS)],
            ["draw.space=darts"],
            ["nasbench201 teach cannot draw", "darts"],
        ),
        (
            [(c, 70 + n) for n, c in enumerate(CELLS)],
            ["draw.replacements=[skip_connect=]"],
            ["replacements are of"],
        ),
        ([("darts_v1", 97), ("darts_v2", 97.2)], ["design.links=3"], ["design.links=3: genotypes of darts"]),
        (
            [(OTHER, 90), ('"0100 input,output"', 80)],
            ["design.vertices=1"],
            ["design.vertices=1", "2 to 7 vertices"],
        ),
        (
            [("darts_v1", 97), ("darts_v2", 97.2)],
            ["draw.replacements=[skip_connect=conv5x5]"],
            ["the replacement of skip_connect names 'conv5x5'", "allowed are conv3x3-bn-relu"],
        ),
        (
            [
                ('"[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]"', 90),
                ('"[[2],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]"', 91),
            ],
            [],
            ["cells of enas_macro cannot be drawn link by link"],
        ),
    ],
)
def test_labels_and_settings(rows: list, words: list[str], says: list[str], train: Callable[..., str]) -> None:
    write("a.csv", rows)
    train(*words, says=says)


def test_labels_that_are_not_there(refuse: Callable[..., str], finished: Path) -> None:
    refuse("design", "train", says=["labels.file=", "give a CSV", "labels.run=RUN"])
    refuse(
        "design", "train", "labels.run=finished", says=["'finished' is not the run folder of a finished search in"]
    )
    refuse("design", "train", "labels.run=nowhere", says=["'nowhere' is not the run folder"])
    refuse("design", "bench", says=["labels.table=", "a table of the whole space"])
    write("a.csv", [(CELLS[0], 70), (CELLS[1], 80)])
    refuse("design", "bench", "labels.file=a.csv", says=["labels.table=", "give one"])
    refuse("design", "draw", "finished", says=["'finished' is the run folder of a search", "nge design train"])
    refuse("design", "draw", "nowhere", says=["link model 'nowhere' does not exist"])
    refuse("design", "draw", "finished", "-n", "0", says=["--n=0: must be between 1 and 100"])
    refuse("design", "draw", "finished", "--space", "mars", says=["invalid choice: 'mars'"])


def test_what_link_models_refuse(refuse: Callable[..., str]) -> None:
    write("a.csv", [(cell, 70 + n) for n, cell in enumerate(CELLS)])
    quick = ["design.members=1", "design.epochs=1", "run.dir=run", "run.tensorboard=false", "run.progress=none"]
    nge_search.design_train(None, "labels.file=a.csv", *quick, "draw.cells=0")
    refuse("design", "draw", "run", "--space", "darts", says=["links.json: what cells of nasbench201 teach"])
    Path("out").mkdir()
    Path("out/drawn.json").write_text("mine")
    refuse("design", "draw", "run", "--out", "out", says=["'out/drawn.json' is there already", "--overwrite"])
    document = json.loads(Path("run/links.json").read_text())
    document["draw"]["temperature"] = 1e-3
    Path("run/links.json").write_text(json.dumps(document))
    says = ["draws gave", "new different cells, not 100; raise the temperature"]
    refuse("design", "draw", "run", "-n", "100", "--out", "other", says=says)
    Path("run/links.json").write_text(json.dumps({**document, "format": "nge-links/9"}))
    refuse("design", "draw", "run", says=["another version", "nge-links/9", "train it anew"])
    Path("run/links.json").write_text("{")
    refuse("design", "draw", "run", says=["run/links.json is damaged"])


def test_queries_of_strangers(refuse: Callable[..., str]) -> None:
    Path("search").mkdir()
    Path("search/summary.json").write_text('{"kind": "queries"}')
    for row, says in (
        ('{"epoch": 0, "architecture": 3, "signal": 90}', "'architecture' must be text"),
        ('{"epoch": 0, "architecture": "/etc/passwd", "signal": 90}', "is no architecture in the notation"),
        (json.dumps({"architecture": CELLS[0], "signal": 1e400}), "'signal' must be a number"),
        (json.dumps({"architecture": CELLS[0], "signal": 90}), "holds 1 architectures with a label"),
        ("[]", "not a JSON object"),
    ):
        Path("search/metrics.jsonl").write_text(row + "\n")
        refuse("design", "train", "labels.run=search", says=["search", says])
    Path("search/metrics.jsonl").unlink()
    refuse("design", "train", "labels.run=search", says=["metrics.jsonl"])


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    from nge_search import UserError, design_bench, design_train

    with pytest.raises(UserError, match="start it without torchrun"):
        design_train(None, "labels.file=a.csv")
    with pytest.raises(UserError, match="start them without torchrun"):
        design_bench(None, "labels.table=a")
