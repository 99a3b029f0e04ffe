"""`nge predict train`, `bench` and `score`, from a CSV or a table to the report, in this process."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nge_search
from nge_search.cli import main
from nge_search.predict import bench_run
from nge_search.spaces import Code, DartsSpace, NasBench101Space, NasBench201Space
from nge_search.tables.table import build_table

SPACE = NasBench201Space()
QUIET = ("run.progress=none", "run.tensorboard=false", "threads=1")


def accuracy(code: Code) -> float:
    return 80.0 + 2 * code.count(3) + code.count(2) - code.count(0)


def codes(count: int, seed: int = 0) -> list[Code]:
    random, found = np.random.default_rng(seed), {}
    while len(found) < count:
        found[SPACE.random(random)] = None
    return list(found)


def write(path: Path, rows: list[tuple], head: tuple[str, ...] = ("architecture", "accuracy")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty labelled cells."""
    path = tmp_path_factory.mktemp("labels") / "cells.csv"
    return write(path, [(SPACE.text(code), accuracy(code)) for code in codes(20)])


@pytest.fixture(scope="module")
def predictor(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a trained predictor."""
    run = tmp_path_factory.mktemp("run") / "nasbowl"
    words = [f"labels.file={labels}", "predict.model=nasbowl", f"run.dir={run}", "predict.folds=4", "threads=1"]
    assert main(["predict", "train", *words]) == 0
    return run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(code, {"x_valid_1": accuracy(code), "x_test_1": accuracy(code) / 2}) for code in codes(40)]
    return build_table(SPACE, rows, "made", "architecture").save(tmp_path_factory.mktemp("table") / "made")


def bench_words(table: Path, run: Path) -> list[str]:
    own = ["bench.models=[nasbowl,mlp]", "bench.budgets=[6,50%]", "bench.seeds=[2,1]"]
    return [f"labels.table={table}", "labels.column=x_valid_1", f"run.dir={run}", *own, *QUIET]


@pytest.fixture(autouse=True)
def quick_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The MLP learns for two epochs."""
    import dataclasses

    from nge_search.predict import published

    quick = {
        name: dataclasses.replace(own, training=dataclasses.replace(own.training, epochs=2))
        for name, own in published._TA_GATES.items()
    }
    monkeypatch.setattr(published, "_TA_GATES", quick)


def rows_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def test_training_leaves_a_predictor_and_says_how_good_it_is(
    predictor: Path, require_listed: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    require_listed(predictor)
    summary = json.loads((predictor / "summary.json").read_text())
    document = json.loads((predictor / "predict.json").read_text())
    assert (summary["kind"], summary["labels"], summary["folds"]) == ("predict", 20, 4)
    low, high = summary["interval"]
    assert low < summary["kendall_tau"] < high
    assert 0.3 < summary["kendall_tau"] == document["kendall_tau"]
    assert [trial["labels"] for trial in document["curve"]] == [7, 15]
    assert len(document["predictions"]) == 20
    assert [row["epoch"] for row in rows_of(predictor)] == [0, 1, 2, 3]
    assert sum(row["tested"] for row in rows_of(predictor)) == 20
    report = (predictor / "report.html").read_text()
    for words in ("Prediction against label", "Kendall's tau against labels", "Finished: 4 folds", "cells.csv"):
        assert words.replace("'", "&#x27;") in report
    assert list((predictor / "tensorboard").iterdir())
    before = (predictor / "predictor.json").read_bytes()
    assert main(["predict", "train", "--config", str(predictor / "config.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "has finished" in printed
    assert "nasbowl for nasbench201, trained on 20 labels" in printed
    assert f"nge predict score {predictor} ARCHITECTURES.csv" in printed
    assert (predictor / "predictor.json").read_bytes() == before
    assert main(["report", str(predictor)]) == 0
    assert (predictor / "report.html").read_text() == report
    assert main(["show", str(predictor)]) == 2  # no architecture in it


def test_json_is_all_that_is_printed(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"labels.file={labels}", "predict.model=nasbowl", f"run.dir={tmp_path}", "predict.curve=false"]
    for _ in range(2):  # and again, once it has finished
        assert main(["predict", "train", "--json", *words, "run.progress=lines"]) == 0
        printed = capsys.readouterr().out
        assert json.loads(printed) == json.loads((tmp_path / "summary.json").read_text())


def test_training_from_python(labels: Path, tmp_path: Path) -> None:
    settings = {"labels": {"file": str(labels)}, "predict": {"model": "nasbowl", "curve": False}}
    summary = nge_search.predict_train(settings, f"run.dir={tmp_path}", *QUIET)
    assert summary == nge_search.run("predict train", settings, f"run.dir={tmp_path}", *QUIET)
    asked = codes(30, 1)
    found = nge_search.predict_score(
        tmp_path, write(tmp_path.parent / "a.csv", [(SPACE.text(c), 0) for c in asked])
    )
    assert [SPACE.parse(one["architecture"]) for one in found] == asked
    best = sorted(found, key=lambda one: -one["score"])[:5]
    assert np.mean([accuracy(SPACE.parse(one["architecture"])) for one in best]) > np.mean(
        list(map(accuracy, asked))
    )


def test_few_labels_are_honest_about_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "two.csv", [(SPACE.text(code), 70 + n) for n, code in enumerate(codes(2))])
    run = tmp_path / "run"
    assert main(["predict", "train", f"labels.file={path}", "predict.model=nasbowl", f"run.dir={run}"]) == 0
    printed = capsys.readouterr().out
    assert "2 labels are too few to tell how good a predictor is" in printed
    assert "its quality cannot be told from these labels" in printed
    assert main(["predict", "score", str(run), SPACE.text(codes(3)[2])]) == 0
    assert "its quality is not known" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0


def test_scores_go_to_a_file_and_the_best_are_drawn(
    predictor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = write(tmp_path / "all.csv", [(SPACE.text(code),) for code in codes(25, 2)], ("architecture",))
    out, folder = tmp_path / "scores.csv", tmp_path / "drawn"
    words = [
        "predict",
        "score",
        str(predictor),
        str(asked),
        "--out",
        str(out),
        "--draw",
        str(folder),
        "--best",
        "3",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    with out.open() as file:
        found = list(csv.DictReader(file))
    assert [row["architecture"] for row in found] == [SPACE.text(code) for code in codes(25, 2)]
    best = sorted(found, key=lambda row: -float(row["score"]))[:3]
    assert [line.split("  ")[1] for line in printed.splitlines()[1:4]] == [row["architecture"] for row in best]
    assert {path.name for path in folder.iterdir()} == {"best.svg", "best.png"}
    before = out.read_bytes()
    assert main(words) == 2
    assert "is there already; choose another place, or add --overwrite" in capsys.readouterr().err
    assert main([*words[:6], "--json"]) == 2
    assert out.read_bytes() == before
    capsys.readouterr()
    assert main([*words, "--overwrite", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["score"] for one in document["architectures"]] == [float(row["score"]) for row in found]
    assert document["predictor"].startswith("nasbowl for nasbench201")


def test_every_epoch_of_a_search_is_scored(
    predictor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, found = tmp_path / "search", codes(3, 4)
    run.mkdir()
    rows = [
        {"epoch": n, "valid_top1": 50.5 + n, "genotype": SPACE.to_dict(code)}
        for n, code in enumerate([*found, found[0]])
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.yaml").write_text("seed: 0\n")
    scored = nge_search.predict_score(predictor, run)
    assert [one["epoch"] for one in scored] == [1, 2, 3, 4]
    assert [one["valid_top1"] for one in scored] == [50.5, 51.5, 52.5, 53.5]
    assert scored[0]["score"] == scored[3]["score"]
    assert main(["predict", "score", str(predictor), str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    (run / "genotype.json").write_text(json.dumps(SPACE.to_dict(found[1])))
    (run / "metrics.jsonl").write_text('{"epoch": 0, "signal": 3.5}\n')
    (one,) = nge_search.predict_score(predictor, run)
    assert one["architecture"] == SPACE.text(found[1])


def test_trials_are_compared(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["predict", "bench", "--json", *bench_words(table, run)]) == 0
    summary = json.loads(capsys.readouterr().out)
    places = [(own["model"], own["budget"], own["labels"], own["seeds"]) for own in summary["results"]]
    assert places == [("nasbowl", "6", 6, 2), ("mlp", "6", 6, 2), ("nasbowl", "50%", 10, 1), ("mlp", "50%", 10, 1)]
    rows = rows_of(run)
    tau = [row["kendall_tau"] for row in rows if (row["model"], row["budget"]) == ("nasbowl", "6")]
    assert summary["results"][0]["kendall_tau"] == pytest.approx({"mean": np.mean(tau), "deviation": np.std(tau)})
    assert [found["budget"] for found in summary["comparisons"]] == ["6", "50%"]
    assert main(["predict", "bench", *bench_words(table, run)]) == 0
    printed = capsys.readouterr().out
    assert "10 labels (50%)" in printed
    assert "mlp - nasbowl, 6: " in printed
    report = (run / "report.html").read_text()
    for words in ("Precision@K", "mlp − nasbowl", "Finished: 6 trials", "10 labels (50%)"):
        assert words in report


def test_a_bench_that_was_stopped_goes_on(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    nge_search.predict_bench(None, *bench_words(table, whole))
    judged, judge = [], bench_run.judge

    def stopped(*words):
        judged.append(1)
        if len(judged) == 3:
            signal.raise_signal(signal.SIGTERM)
        return judge(*words)

    monkeypatch.setattr(bench_run, "judge", stopped)
    with pytest.raises(nge_search.Interrupted):
        nge_search.predict_bench(None, *bench_words(table, cut))
    assert rows_of(cut) == rows_of(whole)[:3]
    path = cut / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 3, "mod')  # as a crash cuts a row off
    assert main(["report", str(cut)]) == 0
    with pytest.raises(nge_search.UserError, match=r"bench.first_seed was 0, now 1"):
        nge_search.predict_bench(None, *bench_words(table, cut), "bench.first_seed=1")
    with monkeypatch.context() as patch:
        patch.setattr(bench_run, "_digest", lambda *labels: "other")
        with pytest.raises(nge_search.UserError, match="records trials on other labels"):
            nge_search.predict_bench(None, *bench_words(table, cut))
    before = json.loads(path.read_text().splitlines()[2])["seconds"]
    summary = nge_search.predict_bench(None, *bench_words(table, cut))
    assert len(judged) == 3 + 3
    assert rows_of(cut) == rows_of(whole)
    assert summary["seconds"] >= before


def test_folds_classes_and_another_score(table: Path, tmp_path: Path) -> None:
    words = [
        word for word in bench_words(table, tmp_path) if not word.startswith(("bench.models", "bench.budgets"))
    ]
    own = [
        "bench.split=folds",
        "bench.folds=4",
        "bench.models=[nasbowl]",
        "bench.budgets=[100%]",
        "bench.seeds=[2]",
    ]
    more = ["bench.classes=true", "bench.score=x_test_1"]
    summary = nge_search.predict_bench(None, *words, *own, *more)
    assert [row["fold"] for row in rows_of(tmp_path)] == [0, 1, 2, 3] * 2
    assert summary["results"][0]["seeds"] == 2


def test_accuracies_half_way(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in bench_words(table, tmp_path) if not word.startswith("bench.")]
    own = ["bench.half=x_test_1", "bench.models=[multi_lstm,single_gates]", "bench.budgets=[6]", "bench.seeds=[1]"]
    summary = nge_search.predict_bench(None, *words, *own, "options.epochs=1")
    assert [result["model"] for result in summary["results"]] == ["multi_lstm", "single_gates"]
    figures = summary["results"][0]
    assert {"kendall_tau", "half_kendall_tau", "mean_squared_error", "half_mean_squared_error"} <= figures.keys()
    assert main(["predict", "bench", *words, *own, "options.epochs=1"]) == 0
    assert "half-way" in capsys.readouterr().out
    assert "half-way" in (tmp_path / "report.html").read_text()


def test_options_of_networks(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"labels.file={labels}", f"run.dir={tmp_path}", "predict.curve=false", "predict.folds=2", *QUIET]
    options = ["options.members=2", "options.steps=1", "options.epochs=1", "options.analytic=true"]
    nge_search.predict_train(None, *words, "predict.model=ta_gates", *options)
    document = json.loads((tmp_path / "predictor.json").read_text())
    given = {"members": 2, "steps": 1, "epochs": 1, "analytic": True}
    assert given.items() <= document["state"]["options"].items()
    assert len(nge_search.predict_score(tmp_path, labels)) == 20
    assert main(["predict", "train", *words[:1], "predict.model=nasbowl", "options.members=2"]) == 2
    assert "options.members=2: nasbowl: no options of networks" in capsys.readouterr().err
    assert main(["predict", "train", *words[:1], "predict.model=lstm", "options.steps=2", "run.dir=x"]) == 2
    assert "lstm has no option steps" in capsys.readouterr().err


def test_lists_of_hashes_divide(tmp_path: Path) -> None:
    space, random = NasBench101Space(5), np.random.default_rng(0)
    own = {space.key(code): code for code in (space.random(random) for _ in range(60))}
    rows = [(code, {"x_valid_1": 50.0 + sum(code)}) for code in own.values()]
    table = build_table(space, rows, "made", "architecture").save(tmp_path / "table")
    names = [key.hex() for key in own]
    lists = [
        write(tmp_path / f"{n}.csv", [(name,) for name in part], ("hash",))
        for n, part in enumerate((names[:20], names[20:]))
    ]
    words = [f"labels.table={table}", "labels.column=x_valid_1", "bench.split=hashes", "bench.models=[nasbowl]"]
    hashes = [
        f"bench.train_hashes={lists[0]}",
        f"bench.test_hashes={lists[1]}",
        "bench.budgets=[50%]",
        "bench.seeds=[1]",
    ]
    summary = nge_search.predict_bench(None, *words, *hashes, f"run.dir={tmp_path / 'run'}", *QUIET)
    assert summary["results"][0]["labels"] == 10


@pytest.mark.parametrize("space", [DartsSpace(), NasBench101Space()], ids=lambda space: space.name)
def test_other_spaces(space, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    found = [space.random(random) for _ in range(12)]
    path = write(tmp_path / "a.csv", [(space.text(code), 90 + n / 10) for n, code in enumerate(found)])
    run = tmp_path / "run"
    nge_search.predict_train(None, f"labels.file={path}", "predict.model=nasbowl", f"run.dir={run}", *QUIET)
    assert len(nge_search.predict_score(run, path)) == len({space.key(code) for code in found})
    assert main(["predict", "score", str(run), str(path), "--draw", str(tmp_path / "best"), "--best", "2"]) == 0
    if space.name == "darts":
        (one,) = nge_search.predict_score(run, "darts_v2")
        assert one["architecture"] == space.text(
            space.code_of(nge_search.architecture.load.load_architecture("darts_v2"))
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predict"], "nge predict: a second word is missing; there are nge predict train, nge predict bench"),
        (["predict", "trian"], "nge predict score; did you mean 'train'?"),
        (["predictt"], "unknown command 'predictt'; did you mean 'predict'?"),
        (["predict", "score", "nowhere", "a.csv"], "predictor 'nowhere' does not exist"),
        (["predict", "score", "{predictor}", "nowhere"], "architecture 'nowhere' does not exist"),
        (["predict", "score", "{predictor}", "darts_v2"], "holds no architecture of nasbench201"),
        (["predict", "score", "{predictor}", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["predict", "score", "{predictor}", "x", "--best", "0"], "--best=0: must be between 1 and 100"),
        (["predict", "bench", "labels.file={labels}", "bench.score=x"], "it is a column of a table"),
        (["predict", "bench", "labels.file={labels}", "bench.budgets=[11]"], "'11' is 11 of 10 labels to train on"),
        (["predict", "bench", "labels.file={labels}", "bench.models=[a]"], "bench.models=a: allowed are ta_gates"),
    ],
)
def test_bad_words(
    words: list[str], says: str, predictor: Path, labels: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(predictor=predictor, labels=labels) for word in words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_the_list_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[:2] for line in printed.splitlines() if line.startswith("  ")] == [
        ["predict", word] for word in ("train", "bench", "score")
    ]
    assert main(["predict", "train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "labels.file=" in printed
    assert "--json" in printed
