"""`nge design train`, `draw` and `bench`, from a CSV, a table or a search to the report, in this process."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nge_search
from nge_search.architecture.load import load_architecture, load_genotype
from nge_search.cli import main
from nge_search.design import bench_run, train_run
from nge_search.design.protocol import honest
from nge_search.design.saved import load_links
from nge_search.spaces import Code, DartsSpace, NasBench101Space, NasBench201Space, Space
from nge_search.tables import Benchmark
from nge_search.tables.labels import Labelled

SPACE = NasBench201Space()
QUIET = ("run.progress=none", "run.tensorboard=false", "threads=1")
QUICK = ("design.members=2", "design.epochs=3", "draw.cells=2")


def accuracy(code: Code) -> float:
    return 80.0 + 2 * code.count(3) + code.count(2) - code.count(0)


def write(path: Path, space: Space = SPACE, count: int = 24) -> Path:
    """So many labelled cells."""
    random, found = np.random.default_rng(0), dict[Code, None]()
    while len(found) < count:
        found[space.random(random)] = None
    with path.open("w", newline="") as file:
        rows = [(space.text(code), accuracy(code) + n / 100) for n, code in enumerate(found)]
        csv.writer(file).writerows([("architecture", "accuracy"), *rows])
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("labels") / "cells.csv")


@pytest.fixture(scope="module")
def links(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of link models."""
    run = tmp_path_factory.mktemp("run") / "links"
    assert main(["design", "train", f"labels.file={labels}", f"run.dir={run}", "threads=1", *QUICK]) == 0
    return run


@pytest.fixture(scope="module")
def table(small_benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_benchmark.table.save(tmp_path_factory.mktemp("table") / "small")


def rows_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def test_one_command_goes_from_labels_to_cells(
    links: Path, labels: Path, require_listed: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    require_listed(links)
    summary = json.loads((links / "summary.json").read_text())
    assert (summary["kind"], summary["labels"], summary["best"], summary["drawn"]) == ("design", 24, 7, 2)
    rows = rows_of(links)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[-1]["loss"] == summary["loss"] < rows[0]["loss"]
    assert 0.5 < summary["link_accuracy"] <= 1
    drawn = [load_architecture(links / f"cell_{number}.json").text for number in (1, 2)]
    assert drawn == summary["cells"]
    with labels.open() as file:
        by_accuracy = sorted(csv.DictReader(file), key=lambda row: float(row["accuracy"]))
    document = json.loads((links / "drawn.json").read_text())
    assert document["space"] == "nasbench201"
    assert set(document["teachers"]["good"]) <= {row["architecture"] for row in by_accuracy[-8:]}
    assert not set(drawn) & {*document["teachers"]["good"], *document["teachers"]["bad"]}
    for cell, text in zip(document["cells"], drawn):
        assert SPACE.text(tuple(cell["code"])) == text
        for step in cell["steps"]:
            counts = {len(step[name]) for name in ("candidates", "scores", "probabilities")}
            assert counts == {len(step["candidates"])}
            assert sum(step["probabilities"]) == pytest.approx(1)
            assert 0 <= step["chosen"] < len(step["candidates"])
    assert list((links / "tensorboard").iterdir())
    assert {"cells.svg", "cells.png"} <= {path.name for path in links.iterdir()}
    report = (links / "report.html").read_text()
    assert "cells.csv" in report
    before = (links / "links.json").read_bytes()
    assert main(["design", "train", "--config", str(links / "config.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "has finished" in printed
    assert "taught by the 7 best and worst of 24 labels" in printed
    assert "configs/eval/nasbench201.yaml" in printed
    assert f"nge design draw {links} -n 10" in printed
    assert (links / "links.json").read_bytes() == before


def test_draws_repeat_by_seed_and_are_those_of_the_run(
    links: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["design", "draw", str(links), "-n", "2", "--out", str(tmp_path / "a")]) == 0
    assert "2 link models for nasbench201, taught by the 7 best" in capsys.readouterr().out
    for name in ("cell_1.json", "cell_2.json", "drawn.json"):
        assert (tmp_path / "a" / name).read_bytes() == (links / name).read_bytes()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        *("cell_1.json", "cell_2.json", "cells.svg", "cells.png", "drawn.json")
    }
    assert main(["design", "draw", str(links), "-n", "2", "--out", str(tmp_path / "a"), "--seed", "1"]) == 2
    assert "is there already; choose another place, or add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "a" / "cell_1.json").read_bytes() == (links / "cell_1.json").read_bytes()
    assert main(["design", "draw", str(links), "-n", "12", "--seed", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    texts = [cell["architecture"] for cell in document["cells"]]
    assert len(set(texts)) == 12
    assert [cell["architecture"] for cell in nge_search.design_draw(links, 12, 1)] == texts
    assert texts != [cell["architecture"] for cell in nge_search.design_draw(links, 12)]
    with pytest.raises(nge_search.UserError, match="0 cells: must be a number between 1 and 100"):
        nge_search.design_draw(links, 0)


def test_json_is_all_that_is_printed(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"labels.file={labels}", f"run.dir={tmp_path}", *QUICK, "draw.cells=0", "run.progress=lines"]
    for _ in range(2):  # and again, once it has finished
        assert main(["design", "train", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "summary.json").read_text())
    assert not (tmp_path / "drawn.json").exists()


def test_genotypes_after_darts_cells_and_after_nasbench101(tmp_path: Path) -> None:
    darts = write(tmp_path / "darts.csv", DartsSpace(), 12)
    words = [*QUICK, *QUIET, "design.members=1", "draw.cells=1"]
    chain = "draw.replacements=[avg_pool_3x3=conv3x3-bn-relu>maxpool3x3,skip_connect=]"
    nge_search.design_train(None, f"labels.file={darts}", f"run.dir={tmp_path / 'a'}", *words, chain)
    assert load_genotype(tmp_path / "a" / "cell_1.json").normal.nodes == 4
    saved = load_links(tmp_path / "a")
    assert saved.into.replacements["avg_pool_3x3"] == ("conv3x3-bn-relu", "maxpool3x3")
    small = write(tmp_path / "small.csv", NasBench101Space(), 20)
    own = [f"labels.file={small}", f"run.dir={tmp_path / 'b'}", "draw.space=darts", "design.dangling=true"]
    summary = nge_search.design_train(None, *own, *words)
    assert (summary["space"], summary["into"]) == ("nasbench101", "darts")
    assert load_genotype(tmp_path / "b" / "cell_1.json").reduce.nodes == 4
    (cell,) = nge_search.design_draw(tmp_path / "b", 1, space="nasbench101")
    assert cell["space"] == "nasbench101"
    assert load_links(tmp_path / "b").rules.dangling
    with pytest.raises(
        nge_search.UserError, match="what cells of nasbench101 teach cannot draw cells of nasbench201"
    ):
        nge_search.design_draw(tmp_path / "b", 1, space="nasbench201")


def test_every_setting_reaches_what_it_is_for(labels: Path, tmp_path: Path, monkeypatch) -> None:
    given = {
        "best": 5,
        "lowest": 70.0,
        "samples": "paper",
        "kept": 0.25,
        "ways": 2,
        "negatives": 3,
        "worst": False,
        "model": "gcn",
        "reverse": False,
        "layers": 2,
        "width": 8,
        "hidden": 4,
        "members": 3,
        "together": True,
        "epochs": 1,
        "batch_size": 0,
        "learning_rate": 0.1,
        "temperature": 2.0,
        "score": "probability",
        "links": 5,
    }
    seen = []

    def spy(rules, good, bad, settings, *rest):
        seen.append(settings)
        return train_links(rules, good, bad, settings, *rest)

    train_links = train_run.train_links
    monkeypatch.setattr(train_run, "train_links", spy)
    words = [f"labels.file={labels}", f"run.dir={tmp_path}", *QUIET, "draw.cells=2"]
    nge_search.design_train({"design": given}, *words)
    (found,) = seen
    own = found.samples, found.model, found.training, found.draw
    assert (found.best, found.lowest, found.members, found.together, found.links) == (5, 70.0, 3, True, 5)
    assert [list(vars(part).values()) for part in own] == [
        ["paper", 0.25, 2, 3, False],
        [2, 8, 4, False, False],
        [1, 0, 0.1],
        [2.0, "probability"],
    ]
    saved = load_links(tmp_path)
    assert (saved.model.members, saved.together, saved.sizes, saved.draw) == (3, True, (5,), found.draw)
    assert all(
        saved.into.size(tuple(cell["code"])) == 5
        for cell in json.loads((tmp_path / "drawn.json").read_text())["cells"]
    )


def test_what_a_search_asked_for_teaches(table: Path, tmp_path: Path) -> None:
    search = [
        "task=queries",
        f"benchmark.table={table}",
        "benchmark.signal=cifar10_valid_4",
        "strategy.name=random",
    ]
    nge_search.search(None, *search, "strategy.queries=30", f"run.dir={tmp_path / 'search'}", *QUIET)
    words = [f"labels.run={tmp_path / 'search'}", f"run.dir={tmp_path / 'run'}", *QUICK, *QUIET]
    summary = nge_search.design_train(None, *words, "design.vertices=4")
    assert (summary["space"], summary["labels"]) == ("nasbench101", 30)
    assert all(len(text.split(",")) <= 4 for text in summary["cells"])
    few = ("design.vertices=3", "design.best=2", "draw.cells=0", "run.overwrite=true")
    more = nge_search.design_train(None, *words, *few)
    assert "are larger than design.vertices=3 allows; left out" in more["notices"][0]


def test_a_training_that_was_stopped_starts_again(labels: Path, tmp_path: Path, monkeypatch) -> None:
    words = [f"labels.file={labels}", *QUICK, *QUIET]
    whole = nge_search.design_train(None, *words, f"run.dir={tmp_path / 'whole'}")
    train_links = train_run.train_links

    def stopped(*given):
        signal.raise_signal(signal.SIGTERM)
        return train_links(*given)

    with monkeypatch.context() as patch:
        patch.setattr(train_run, "train_links", stopped)
        with pytest.raises(nge_search.Interrupted):
            nge_search.design_train(None, *words, f"run.dir={tmp_path / 'cut'}")
    assert len(rows_of(tmp_path / "cut")) == 1
    again = nge_search.design_train(None, *words, f"run.dir={tmp_path / 'cut'}")
    assert again["cells"] == whole["cells"]
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def bench_words(table: Path, run: Path) -> list[str]:
    own = ["bench.seeds=2", "bench.first_seed=100", "bench.cells=4", "bench.queried=30", "bench.drawn=5"]
    columns = ["labels.column=cifar10_valid_4", "bench.score=cifar10_test_4"]
    quick = ["design.best=6", "design.members=1", "design.epochs=2", "bench.methods=[frequencies,links]"]
    return [f"labels.table={table}", f"run.dir={run}", *columns, *own, *quick, *QUIET]


def test_methods_are_compared_under_both_protocols(
    table: Path, small_benchmark: Benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["design", "bench", "--json", *bench_words(table, run)]) == 0
    summary = json.loads(capsys.readouterr().out)
    places = [(own["method"], own["protocol"], own["seeds"]) for own in summary["results"]]
    assert places == [(m, p, 2) for p in ("oracle", "honest") for m in ("frequencies", "links")]
    rows = rows_of(run)
    assert [(row["seed"], row["protocol"], row["method"]) for row in rows] == [
        (s, p, m) for s in (100, 101) for p in ("oracle", "honest") for m in ("frequencies", "links")
    ]
    config = nge_search.api.configure("design bench", None, bench_words(table, run))[1]
    settings = bench_run.settings_of(config.design, 30)
    rules = bench_run.learning_rules(config.design, small_benchmark.space)
    honest_links = honest(rules, small_benchmark, settings, 101, 30, 5)
    assert {name: rows[-1][name] for name in vars(honest_links)} == pytest.approx(vars(honest_links))
    values = [row["mean_new"] for row in rows if (row["protocol"], row["method"]) == ("oracle", "links")]
    (links,) = (own for own in summary["results"] if (own["protocol"], own["method"]) == ("oracle", "links"))
    assert links["mean_new"] == pytest.approx({"mean": np.mean(values), "deviation": np.std(values)})
    figures = {(found["protocol"], found["figure"]) for found in summary["comparisons"]}
    assert {("oracle", "mean_new"), ("honest", "mean_new"), ("honest", "best"), ("oracle", "best_new")} <= figures
    assert main(["design", "bench", *bench_words(table, run)]) == 0
    printed = capsys.readouterr().out
    assert "links - frequencies, honest, mean_new: " in printed
    assert "seeds 100 to 101" in printed
    assert "Finished: 8 trials" in (run / "report.html").read_text()


def test_a_bench_that_was_stopped_goes_on(table: Path, tmp_path: Path, monkeypatch) -> None:
    words = [*bench_words(table, tmp_path / "whole"), "bench.methods=[frequencies,uniform]"]
    cut = [*words, f"run.dir={tmp_path / 'cut'}"]
    nge_search.design_bench(None, *words)
    asked, judge = [], bench_run.honest

    def stopped(*given):
        asked.append(1)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGTERM)
        return judge(*given)

    monkeypatch.setattr(bench_run, "honest", stopped)
    with pytest.raises(nge_search.Interrupted):
        nge_search.design_bench(None, *cut)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")[:4]
    with monkeypatch.context() as patch:
        patch.setattr(Labelled, "digest", lambda *labels: "other")
        with pytest.raises(nge_search.UserError, match="records trials on other labels"):
            nge_search.design_bench(None, *cut)
    with pytest.raises(nge_search.UserError, match=r"bench.drawn was 5, now 6"):
        nge_search.design_bench(None, *cut, "bench.drawn=6")
    nge_search.design_bench(None, *cut)
    assert len(asked) == 4
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
