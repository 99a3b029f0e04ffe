"""The scripts under experiments/ that the default suite does not run otherwise."""

from __future__ import annotations

import importlib
import itertools
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from nge_search.metrics.ranking import kendall_tau
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.predictors import open_predictor
from nge_search.predict.splits import halves
from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import StrategySection
from nge_search.spaces import DartsSpace, NasBench101Space, NasBench201Space
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, open_table
from nge_search.tables.table import build_table

ROOT = Path(__file__).parents[1]


def open_script(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """A script under experiments/, in this process."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module(name)


def run_script(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *words])
    script.main()


def test_the_comparison_of_strategies(tmp_path, monkeypatch):
    """On a made table of NAS-Bench-201, with few seeds and queries; against single searches."""
    random = np.random.default_rng(0)
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, dict(zip(("cifar10_valid_200", "cifar10_test_200"), random.random(2) * 100))) for code in codes)
    table = build_table(NasBench201Space(), rows, "a made table", "cell")
    table.save(tmp_path / "table")
    script = open_script(monkeypatch, "nge_strategies")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    words = ["--seeds", "3", "--queries", "35", "--jobs", "1", "--settings", "cifar10"]
    run_script(monkeypatch, script, str(tmp_path / "table"), *words)
    found = json.loads((tmp_path / "nge_strategies_nasbench201.json").read_text())
    results, seeds = found["results"]["cifar10"], range(found["first_seed"], found["first_seed"] + 3)
    benchmark = Benchmark(table, "cifar10_valid_200", "cifar10_test_200")

    def score(name: str, seed: int) -> float:
        strategy = build_strategy(table.space, StrategySection(name=name), seed=seed)
        return float(benchmark.scores(run_strategy(strategy, benchmark.queries(35)))[29])

    after = {}
    for name in (name for name in STRATEGIES if name not in ("predictor", "design")):
        after[name] = [score(name, seed) for seed in seeds]
        assert results[name]["mean"]["30"] == pytest.approx(np.mean(after[name]), abs=1e-3)
        assert results[name]["median"]["30"] == pytest.approx(sorted(after[name])[1], abs=1e-3)
    difference = np.mean(after["nge_evolution"]) - np.mean(after["random"])
    pair = results["paired"]["nge_evolution - random"]["30"]
    assert pair["difference"] == pytest.approx(difference, abs=1e-3)
    assert 0 <= pair["p"] <= 1
    assert (tmp_path / "nge_strategies_nasbench201.png").stat().st_size > 10_000


def test_the_comparison_of_predictors_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    """On a made table of small cells of NAS-Bench-101; against a single search."""
    space, random = NasBench101Space(4), np.random.default_rng(0)
    drawn = (space.random(random) for _ in range(2000))
    codes = {space.key(code): code for code in drawn}.values()
    rows = ((code, dict(zip(("cifar10_valid_4", "cifar10_test_4"), random.random(2) * 100))) for code in codes)
    table = build_table(space, rows, "a made table", "cell")
    table.save(tmp_path / "table")
    monkeypatch.chdir(tmp_path)
    script = open_script(monkeypatch, "predictor_search")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    words = ["table", "--seeds", "2", "--queries", "30", "--jobs", "1", "--rows", "random", "nasbowl"]
    run_script(monkeypatch, script, *words)
    path = tmp_path / "predictor_search_nasbench101_30.json"
    kept = tmp_path / "runs" / "predictor_search" / "nasbench101.jsonl"
    first, lines = json.loads(path.read_text()), kept.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    kept.write_text("".join(lines[:2]) + lines[2][:50])
    capsys.readouterr()
    script.main()
    assert "2 of 2 searches" in capsys.readouterr().out
    assert json.loads(path.read_text())["results"] == first["results"]
    benchmark = Benchmark(table, "cifar10_valid_4", "cifar10_test_4")
    settings, found = StrategySection(name="predictor", predictor="nasbowl", acquisition="greedy"), []
    for seed in (first["first_seed"], first["first_seed"] + 1):
        queries = run_strategy(build_strategy(space, settings, seed=seed), benchmark.queries(30))
        found.append(benchmark.scores(queries)[-1])
    assert first["results"]["nasbowl"]["mean"]["30"] == pytest.approx(np.mean(found), abs=1e-3)
    assert first["results"]["nasbowl"]["seeds"] == 2


def test_the_listed_genotypes_are_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by P, and neighbours of each other."""
    space, random = DartsSpace(), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(20)]
    table = build_table(space, ((code, {"val_accuracy": 90.0}) for code in codes), "a made table", "genotype")
    listed = open_script(monkeypatch, "predictor_search").Listed(table)
    assert sorted([codes[3], *listed.neighbours(codes[3])]) == sorted(codes)
    assert {listed.random(random) for _ in range(400)} == set(codes)
    sharp = [0.01 * p_EO for p_EO in space.uniform()]
    for p_EO, cell in zip(sharp, space.graphs(codes[3]).values()):
        for edge in cell.edges:
            place = (edge.source, edge.target)
            if place in space.cell_space.edges:
                row = space.cell_space.edges.index(place)
                p_EO[row, space.cell_space.operations.index(edge.label.name)] = 1.0
    sharp = [p_EO / p_EO.sum(axis=1, keepdims=True) for p_EO in sharp]
    assert sum(listed.sample(sharp, random) == codes[3] for _ in range(50)) > 45


def test_the_comparison_of_embeddings_and_loops(tmp_path, monkeypatch, in_this_process):
    """Two calls with a method each, tiny, on digits: cells are looked up, and results of both are kept."""
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, {"cifar10_test_200": float(np.dot(code, 5 ** np.arange(6))) / 200}) for code in codes)
    table = build_table(NasBench201Space(), rows, "a made table", "cell")
    table.save(tmp_path / "table")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "runs" / "cifar10-images").mkdir(parents=True)
    (tmp_path / "runs" / "cifar10-images" / "complete").touch()
    script = open_script(monkeypatch, "nge_table4")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "ProcessPoolExecutor", in_this_process)
    (tmp_path / "results").mkdir()
    words = ["nasbench201", "--table", str(tmp_path / "table"), "--package", str(tmp_path), "--seeds", "2"]
    words += ["--settings"]
    words += ["data.name=digits", "data.limit=64", "data.image_size=0", "supernet.channels=4", "search.epochs=2"]
    words += ["search.batch_size=16", "search.warmup_epochs=1", "supernet.kernel=reference"]
    methods = ["direct, batchwise (DARTS)", "nge, epochwise, score"]
    for method in methods:
        run_script(monkeypatch, script, *words, "--methods", method)
    (path,) = (tmp_path / "results").glob("nge_table4_nasbench201_data.name=digits_*.json")
    found = json.loads(path.read_text())
    assert found["table"] == "a made table"
    assert list(found["results"]) == methods
    for own in found["results"].values():
        for value, cell in zip(own["values"], own["cells"], strict=True):
            code = table.space.parse(cell["architecture"])
            assert value == cell["cifar10_test_200"] == round(float(np.dot(code, 5 ** np.arange(6))) / 200, 4)
            assert sum(cell["operations"].values()) == 6
            last = [float(p) for p in cell["p_by_epoch"][-1].split()]
            assert len(last) == 5
            assert sum(last) == pytest.approx(1, abs=0.01)
        assert own["mean"] == pytest.approx(np.mean(own["values"]))
    assert path.with_name(f"{path.stem}.png").stat().st_size > 5_000
    run_script(monkeypatch, script, "edges")
    edges = json.loads((tmp_path / "results" / "nge_table4_edges.json").read_text())["results"]
    for own in edges.values():
        assert own["plain"]["cosine"] < own["nge"]["cosine"] < own["nge, adjacency=symmetric"]["cosine"] <= 1
        assert all(1 / 6 < figures["first_direction"] <= 1 for figures in own.values())


CLI = """
import json, sys
from pathlib import Path

seconds = float(Path("speed").read_text())
with open("calls", "a") as calls:
    calls.write(sys.argv[2] + " ")
kinds = {kind: {"seconds": seconds} for kind in ("weight", "drawn", "architecture")}
forms = {"forms": {"darts": {"seconds": 99}, "fast": {"seconds": 2 * seconds}}}
phases = {"phases": {"train": {"step_seconds": 3 * seconds, "data_seconds": 99}}}
print(json.dumps({"supernet": kinds, "retrain": forms, "step": phases}[sys.argv[2]]))
"""


def test_the_comparison_of_checkouts(tmp_path):
    """Of two made ones, which print how fast they are: the second takes 0.8 of the first one's time."""
    for name, seconds in (("before", 1.0), ("after", 0.8)):
        (tmp_path / name / "nge_search").mkdir(parents=True)
        (tmp_path / name / "nge_search" / "cli.py").write_text(CLI)
        (tmp_path / name / "speed").write_text(str(seconds))
    script = str(ROOT / "experiments" / "compare_checkouts.py")
    command = [sys.executable, script, str(tmp_path / "before"), str(tmp_path / "after"), "--rounds", "2"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = ["supernet, weight", "supernet, drawn", "supernet, architecture", "retrain", "step, train"]
    for line, name, factor in zip(lines[2:], names, (1, 1, 1, 2, 3), strict=True):
        times = f"{factor:.3f} s  {0.8 * factor:.3f} s"
        assert line.split("  ", 1)[0] == name
        assert line.endswith(f"{times}  1.250  1.250 to 1.250")
    for name in ("before", "after"):
        assert (tmp_path / name / "calls").read_text() == 2 * "supernet retrain step "
    refused = subprocess.run([*command[:3], str(tmp_path)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "is no checkout" in refused.stderr


def test_the_ratio_of_checkouts_and_its_interval():
    """Rounds are compared in pairs, whatever the machine's speed was; both directions say the same."""
    ratio = runpy.run_path(str(ROOT / "experiments" / "compare_checkouts.py"))["ratio"]
    assert ratio([1, 10, 100], [2, 20, 200]) == pytest.approx((0.5, 0.5, 0.5))
    after = [1.0, 1.1, 0.9, 1.3, 1.0, 0.95, 1.05]
    middle, low, high = ratio([1.0] * 7, after)
    assert middle == pytest.approx(1.0)
    assert min(1 / value for value in after) <= low < middle < high <= max(1 / value for value in after)
    assert ratio(after, [1.0] * 7) == pytest.approx((1 / middle, 1 / high, 1 / low), rel=1e-6)
    # Of 3 rounds a resample's median is the least of them with probability 7/27, so that both ends are reached.
    assert ratio([1, 2, 4], [1, 1, 1]) == pytest.approx((2, 1, 4))


def run_predict(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    run_script(monkeypatch, open_script(monkeypatch, "predict"), *words)


def test_the_comparison_of_predictors(tmp_path, monkeypatch, capsys):
    """A made NAS-Bench-201 of 14 cells: rows are what predictors do, and are made once; tables of all kinds."""
    space, random = NasBench201Space(), np.random.default_rng(0)
    texts = [space.text(tuple(code)) for code in random.integers(0, 5, (14, 6)).tolist()]
    lines = [
        f"{text},0.1,{accuracy:.3f},{accuracy / 2:.3f}" for text, accuracy in zip(texts, random.random(40) * 99)
    ]
    (tmp_path / "nasbench201").mkdir()
    csv = tmp_path / "nasbench201" / "nasbench201.csv"
    csv.write_text("\n".join(["arch,params_m,cifar10_test_200ep,cifar10_test_12ep", *lines]) + "\n")
    common = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    common += ["--epochs", "2", "--budgets", "6", "--seeds", "0-1", "--sources", "nb201"]
    run_predict(monkeypatch, "table1", *common, "--models", "gates;control;nasbowl")
    rows = (tmp_path / "out" / "predict_rows.jsonl").read_text()
    run_predict(monkeypatch, "table1", *common, "--models", "gates;control;nasbowl")
    assert (tmp_path / "out" / "predict_rows.jsonl").read_text() == rows
    assert (tmp_path / "out" / "predict_table1.png").stat().st_size > 5000
    found = {(row["trial"]["model"], row["trial"]["seed"]): row for row in map(json.loads, rows.splitlines())}
    assert len(found) == 6
    table = open_table(csv)
    cells, label_N = [space.graphs(table.code(row)) for row in range(14)], table.column("cifar10_test_200")
    split = halves(14, 1)
    predictor = open_predictor("ta_gates", space, NetworkOptions(steps=1, epochs=2))
    train_N = split.train(6)
    predictor.fit([cells[row] for row in train_N], torch.from_numpy(label_N[train_N]), 1)
    tau = kendall_tau(predictor.scores([cells[row] for row in split.test]).numpy(), label_N[split.test])
    assert found["control", 1]["kendall_tau"] == pytest.approx(tau)
    taus = [found["control", seed]["kendall_tau"] for seed in (0, 1)]
    kept = json.loads((tmp_path / "out" / "predict_table1.json").read_text())["figures"]
    assert [one["kendall_tau"] for one in kept if one["model"] == "control"] == [pytest.approx(taus, abs=1e-4)]
    printed = capsys.readouterr().out
    assert f"| control | {np.mean(taus):.3f} ± {np.std(taus):.3f} |" in printed
    run_predict(monkeypatch, "table2", *common, "--models", "control;ta_gates, add")
    assert "| ta_gates, add - control | 6 | " in capsys.readouterr().out
    run_predict(monkeypatch, "table3", *common, "--models", "multi_control;ta_gates")
    printed = capsys.readouterr().out
    assert "half accuracy" in printed
    assert "| ta_gates - multi_control | 6 | " in printed
    assert "4 of 4 trainings" in printed
    run_predict(monkeypatch, "speed", *common, "--models", "gates", "--count", "3")
    assert "| gates: scores of 14 architectures | " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_predict(monkeypatch, "calibration", *common, "--show")
    assert "no row yet" in capsys.readouterr().err


def test_predictors_on_a_published_split(tmp_path, monkeypatch, capsys):
    """Cells of NAS-Bench-101 by lists of hashes: the first of one list are trained on, those of the other judge."""
    space, random = NasBench101Space(), np.random.default_rng(0)
    cells = {space.key(code).hex(): code for code in (space.random(random) for _ in range(16))}
    lines, names = ["hash,adj_rowmajor,ops,val_acc_mean108,halfway_val_mean108"], list(cells)
    for number, (name, code) in enumerate(cells.items()):
        rows, operations = space.text(code).split(" ")
        lines.append(f"{name},{rows},{operations.replace(',', '|')},0.{50 + number},0.{30 + number}")
    (tmp_path / "cells.csv").write_text("\n".join(lines) + "\n")
    unknown = "0" * 32
    (tmp_path / "tagates_split_train.csv").write_text("\n".join(["hash", unknown, *names[4:12]]) + "\n")
    (tmp_path / "tagates_split_test.csv").write_text("\n".join(["hash", *names[:4]]) + "\n")
    words = ["nb101", "--tfrecord", str(tmp_path / "cells.csv"), "--hashes", str(tmp_path), "--out", str(tmp_path)]
    words += ["--epochs", "1", "--budgets", "6", "--seeds", "3", "--models", "gates;multi_control"]
    run_predict(monkeypatch, *words)
    assert "TA-GATES' own split" in capsys.readouterr().out
    found = [json.loads(line) for line in (tmp_path / "predict_rows.jsonl").read_text().splitlines()]
    assert [(row["trial"]["model"], row["labels"], row["tested"]) for row in found] == [
        ("gates", 6, 4),
        ("multi_control", 6, 4),
    ]
    predictor = open_predictor("gates", space, NetworkOptions(epochs=1))
    table = open_table(tmp_path / "cells.csv")
    graphs = [space.graphs(table.code(table.find(cells[name]))) for name in names]
    predictor.fit(graphs[4:10], torch.arange(54, 60, dtype=torch.float64), 3)
    scores = predictor.scores(graphs[:4]).numpy()
    assert found[0]["kendall_tau"] == pytest.approx(kendall_tau(scores, np.arange(4)))


def test_the_ceiling_of_noisy_labels(monkeypatch):
    """Nothing is lost without noise; labels that are noise alone cannot be predicted at all."""
    ceiling = open_script(monkeypatch, "predict_tables").ceiling
    random = np.random.default_rng(0)
    true_N1 = np.linspace(0, 300, 3000)[:, None]
    assert ceiling(np.tile(true_N1, 3)).endswith("tau 1.000")
    noise_NR = random.normal(size=(3000, 3))
    assert float(ceiling(noise_NR).split()[-1]) < 0.25
    noisy_NR = true_N1 + 30 * noise_NR
    expected = np.mean([kendall_tau(true_N1[:, 0], column) for column in noisy_NR.T])
    noisy_NR[300:, 1:] = np.nan
    assert float(ceiling(noisy_NR).split()[-1]) == pytest.approx(expected, abs=0.025)
    assert "not known" in ceiling(true_N1)
