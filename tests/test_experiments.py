"""The scripts under experiments/ that the default suite does not run otherwise."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import StrategySection
from nge_search.spaces import NasBench201Space
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark
from nge_search.tables.table import build_table

ROOT = Path(__file__).parents[1]


def test_the_comparison_of_strategies(tmp_path):
    """On a made table of NAS-Bench-201, with few seeds and queries; against single searches."""
    random = np.random.default_rng(0)
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, dict(zip(("cifar10_valid_200", "cifar10_test_200"), random.random(2) * 100))) for code in codes)
    table = build_table(NasBench201Space(), rows, "a made table", "cell")
    table.save(tmp_path / "table")
    (tmp_path / "results").mkdir()
    script = shutil.copy(ROOT / "experiments" / "nge_strategies.py", tmp_path)
    words = ["--seeds", "3", "--queries", "35", "--jobs", "1", "--settings", "cifar10"]
    subprocess.run([sys.executable, script, tmp_path / "table", *words], check=True, capture_output=True)
    found = json.loads((tmp_path / "results" / "nge_strategies_nasbench201.json").read_text())
    results, seeds = found["results"]["cifar10"], range(found["first_seed"], found["first_seed"] + 3)
    benchmark = Benchmark(table, "cifar10_valid_200", "cifar10_test_200")

    def score(name: str, seed: int) -> float:
        strategy = build_strategy(table.space, StrategySection(name=name), seed=seed)
        return float(benchmark.scores(run_strategy(strategy, benchmark.queries(35)))[29])

    after = {}
    for name in STRATEGIES:
        after[name] = [score(name, seed) for seed in seeds]
        assert results[name]["mean"]["30"] == pytest.approx(np.mean(after[name]), abs=1e-3)
        assert results[name]["median"]["30"] == pytest.approx(sorted(after[name])[1], abs=1e-3)
    difference = np.mean(after["nge_evolution"]) - np.mean(after["random"])
    pair = results["paired"]["nge_evolution - random"]["30"]
    assert pair["difference"] == pytest.approx(difference, abs=1e-3)
    assert 0 <= pair["p"] <= 1
    assert (tmp_path / "results" / "nge_strategies_nasbench201.png").stat().st_size > 10_000


def test_the_comparison_of_embeddings_and_loops(tmp_path):
    """Two calls with a method each, tiny, on digits: cells are looked up, and results of both are kept."""
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, {"cifar10_test_200": float(np.dot(code, 5 ** np.arange(6))) / 200}) for code in codes)
    table = build_table(NasBench201Space(), rows, "a made table", "cell")
    table.save(tmp_path / "table")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    for name in ("nge_table4.py", "retrain_cifar10.py"):
        shutil.copy(ROOT / "experiments" / name, tmp_path / "experiments")
    (tmp_path / "runs" / "cifar10-images").mkdir(parents=True)
    (tmp_path / "runs" / "cifar10-images" / "complete").touch()
    script = tmp_path / "experiments" / "nge_table4.py"
    words = ["nasbench201", "--table", tmp_path / "table", "--package", tmp_path, "--seeds", "2", "--settings"]
    words += ["data.name=digits", "data.limit=64", "data.image_size=0", "supernet.channels=4", "search.epochs=2"]
    words += ["search.batch_size=16", "search.warmup_epochs=1", "supernet.kernel=reference"]
    methods = ["direct, batchwise (DARTS)", "nge, epochwise, score"]
    for method in methods:
        command = [sys.executable, script, *words, "--methods", method]
        subprocess.run(command, check=True, capture_output=True)
    (path,) = (tmp_path / "experiments" / "results").glob("nge_table4_nasbench201_data.name=digits_*.json")
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
    subprocess.run([sys.executable, script, "edges"], check=True, capture_output=True)
    edges = json.loads((tmp_path / "experiments" / "results" / "nge_table4_edges.json").read_text())["results"]
    for own in edges.values():
        assert own["plain"]["cosine"] < own["nge"]["cosine"] < own["nge, adjacency=symmetric"]["cosine"] <= 1
        assert all(1 / 6 < figures["first_direction"] <= 1 for figures in own.values())


@pytest.mark.slow
def test_the_script_that_measures_a_gpu(tmp_path):
    """On the CPU, with a tiny search."""
    bench = "--batch 2 --size 8 --cells 3 --channels 4 --steps 1"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = ["data.name=digits", "data.limit=128", "supernet.channels=4", "supernet.cells=3"]
    command = [str(ROOT / "experiments" / "gpu" / "supernet.sh"), str(tmp_path / "out")]
    own = {**os.environ, "DEVICE": "cpu", "EPOCHS": "1", "BENCH": bench, "PATH": path}
    subprocess.run([*command, *settings], env=own, check=True)
    assert "skipped" in (tmp_path / "out" / "tests.txt").read_text()
    assert json.loads((tmp_path / "out" / "supernet.json").read_text())["forms"]["fused"]
    for name in ("search_bf16", "search_bf16_eager"):
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert found["seconds"] > 0
        assert [row["epoch"] for row in found["epochs"]] == [0]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists; name a new folder" in again.stderr
