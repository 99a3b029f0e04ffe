"""`experiments/design.py` on made tables: what it compares, what it keeps, and what it prints."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
import itertools
import json
import shlex
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.load import load_genotype
from nge_search.design.configured import settings_of
from nge_search.design.link_model import TrainingSettings
from nge_search.design.protocol import DesignSettings, Oracles, honest
from nge_search.design.spaces import rules_of
from nge_search.predict.shipped import expected
from nge_search.settings.classification import EvalConfig
from nge_search.settings.design import DesignBenchConfig
from nge_search.settings.load import load_config
from nge_search.settings.strategies import StrategySection
from nge_search.spaces import NasBench101Space, NasBench201Space
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, open_table
from nge_search.tables.table import build_table
from nge_search.tables.tfrecord import masked_crc32c

#: A training that costs nothing.
SHORT = TrainingSettings(epochs=1, batch_size=0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> ModuleType:
    monkeypatch.syspath_prepend(checkout / "experiments")
    return importlib.import_module("design")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of NAS-Bench-101 with at most four vertices."""
    space, rows, random = NasBench101Space(4), {}, np.random.default_rng(0)
    for code in itertools.product(*([range(2)] * 6), *([range(3)] * 2)):
        if space.allows(code):
            accuracy = 50.0 + 3 * sum(code) + random.random()
            figures = {"cifar10_valid_4": accuracy - 1, "cifar10_test_4": accuracy}
            rows.setdefault(space.key(code), (code, figures))
    return build_table(space, rows.values(), "a made table", "cell").save(tmp_path_factory.mktemp("small") / "t")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells of NAS-Bench-201, on two data sets."""
    random = np.random.default_rng(0)
    columns = ("cifar10_valid_200", "cifar10_test_200", "cifar100_valid_200")
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, dict(zip(columns, 50 + code.count(3) + random.random(3)))) for code in codes)
    return build_table(NasBench201Space(), rows, "a made table", "cell").save(
        tmp_path_factory.mktemp("nb201") / "t"
    )


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["design.py", *map(str, words), "--jobs", "1"])
    script.main()


def test_a_stopped_comparison_goes_on(script, small, tmp_path, monkeypatch, capsys) -> None:
    words = ("oracle", small, "--out", tmp_path, "--rows", "uniform", "frequencies", "--repeats")
    run(script, monkeypatch, *words, "1")
    path = tmp_path / "design_nasbench101_cifar10_test_4_oracle.json"
    first = json.loads(path.read_text())
    first["repeats"]["uniform"]["0"]["mean"] = 12.5  # is not made again
    first["settings"]["frequencies"]["design"]["members"] = 7  # of other settings: is
    first["repeats"]["frequencies"]["0"]["mean"] = 12.5
    path.write_text(json.dumps(first))
    run(script, monkeypatch, *words, "3")
    found = json.loads(path.read_text())
    assert found["columns"] == ["cifar10_valid_4", "cifar10_test_4"]
    table = open_table(small)
    oracles = Oracles(rules_of(table.space), Benchmark(table, *found["columns"]), DesignSettings())
    uniform, counted = ([found["repeats"][name][seed] for seed in "012"] for name in ("uniform", "frequencies"))
    assert uniform[0]["mean"] == 12.5
    for seed in range(3):
        assert counted[seed]["mean"] == oracles.run(seed, settings=DesignSettings("frequencies")).mean
        assert uniform[seed]["mean_new"] == oracles.run(seed, settings=DesignSettings("uniform")).mean_new
    means = [one["mean_new"] for one in uniform]
    row = found["summary"]["uniform"]
    assert row["mean_new"] == pytest.approx([np.mean(means), np.std(means, ddof=1) / 3**0.5], abs=1e-3)
    capsys.readouterr()
    content = path.read_text()
    run(script, monkeypatch, *words, "5", "--show")
    assert path.read_text() == content
    shown = capsys.readouterr().out
    assert f"| uniform | 3 | {row['mean'][0]:.2f} ± {row['mean'][1]:.2f} |" in shown
    assert "| NAL | 160 | 94.03 ± 0.05 |" in shown
    for words, message in (
        (("oracle", small, "--rows", "guess"), "row 'guess' is none of oracle"),
        (("searches", small, "--show"), "no repeat yet"),
        (("oracle", small, "--dataset", "cifar100"), "another space or data set"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(script, monkeypatch, *words, "--out", tmp_path)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_the_official_file_of_nasbench101(script, small, tmp_path, monkeypatch, capsys) -> None:
    """Records of the same cells, in the published format: the same figures as from the made table."""
    table, content = open_table(small), b""
    for row in range(len(table)):
        code = table.code(row)
        matrix, names = table.space.text(code).split(" ")
        values = [table.column(f"cifar10_{part}_4")[row] / 100 for part in ("valid", "valid", "test")]
        key = table.space.key(code).hex()
        record = json.dumps([key, 108, matrix, names, base64.b64encode(metrics(values)).decode()]).encode()
        length = struct.pack("<Q", len(record))
        crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, record)]
        content += length + crcs[0] + record + crcs[1]
    official = tmp_path / "nasbench_only108.tfrecord"
    official.write_bytes(content)
    rows = ("--rows", "frequencies", "printed, 9 links, cut", "--repeats", "1", "--out", tmp_path)
    parts = importlib.import_module("design_parts")
    short = dataclasses.replace(parts._PRINTED, training=SHORT, members=2, links=5)
    cut = parts.Row(dataclasses.replace(short, best=10), dangling=True)
    known = parts.rows_of("oracle", "nasbench101") | {"printed, 9 links, cut": cut}
    monkeypatch.setattr(script, "rows_of", lambda *names: known)
    run(script, monkeypatch, "oracle", official, "--vertices", "4", *rows)
    run(script, monkeypatch, "oracle", small, *rows)
    found = [
        json.loads((tmp_path / f"design_nasbench101_{name}_oracle.json").read_text())
        for name in ("v4_cifar10_test_108", "cifar10_test_4")
    ]
    assert found[0]["table"] == "nasbench_only108.tfrecord"
    for name in ("frequencies", "printed, 9 links, cut"):
        ours, theirs = (one["repeats"][name]["0"] for one in found)
        for figure in ("mean", "mean_new", "best", "best_by_signal", "distinct_new", "queries"):
            assert ours[figure] == pytest.approx(theirs[figure])
        assert ours["valid"] == 1


def metrics(final: list[float]) -> bytes:
    """A message of three evaluations with accuracies (initial, half-way, final), and of 1,000 parameters."""
    content = b""
    for values in ([0.0] * 3, [value / 2 for value in final], final):
        fields = b"".join(bytes([n << 3 | 1]) + struct.pack("<d", v) for n, v in enumerate([0.0, 1.0, *values], 1))
        content += b"\x0a" + bytes([len(fields)]) + fields
    return content + b"\x10\xe8\x07"


def test_searches_and_drawn_cells_spend_the_same(script, whole, tmp_path, monkeypatch, capsys) -> None:
    """Also on another data set, for which nothing is set."""
    rows = ("--rows", "frequencies", "random", "evolution", "--repeats", "2")
    run(script, monkeypatch, "honest", whole, "--out", tmp_path, *rows)
    run(script, monkeypatch, "honest", whole, "--out", tmp_path, *rows, "--dataset", "cifar100")
    table = open_table(whole)
    for columns in (("cifar10_valid_200", "cifar10_test_200"), ("cifar100_valid_200",) * 2):
        found = json.loads((tmp_path / f"design_nasbench201_{columns[1]}_honest.json").read_text())
        benchmark = Benchmark(table, *columns)
        drawn = honest(rules_of(table.space), benchmark, DesignSettings("frequencies"), 1)
        counted = found["repeats"]["frequencies"]["1"]
        assert counted == dataclasses.asdict(drawn) | {"seconds": counted["seconds"]}
        gains = [one["best"] - one["best_random"] for one in found["repeats"]["frequencies"].values()]
        assert found["summary"]["frequencies"]["gain"][0] == pytest.approx(np.mean(gains), abs=1e-3)
        asked = run_strategy(
            build_strategy(table.space, StrategySection(name="evolution"), seed=1), benchmark.queries(160)
        )
        evolution = found["repeats"]["evolution"]["1"]
        assert evolution["best"] == benchmark.scores(asked)[-1]
        assert evolution["mean_new"] == pytest.approx(np.mean([benchmark.score(c) for c in asked.codes[100:]]))
        assert evolution["queries"] == counted["queries"] == 160
    best = {name: [found["repeats"][name][seed]["best"] for seed in "01"] for name in ("frequencies", "random")}
    difference_2 = np.subtract(best["frequencies"], best["random"])
    mean, error = difference_2.mean(), difference_2.std(ddof=1) / 2**0.5
    printed = capsys.readouterr().out
    assert f"| frequencies - random | best | {mean:+.3f} ± {error:.3f} | {mean / error:+.1f} | 2 |" in printed
    run(script, monkeypatch, "searches", whole, "--out", tmp_path, "--rows", "random", "--repeats", "2")
    found = json.loads((tmp_path / "design_nasbench201_cifar10_test_200_searches.json").read_text())
    benchmark = Benchmark(table, "cifar10_valid_200", "cifar10_test_200")
    asked = run_strategy(
        build_strategy(table.space, StrategySection(name="random"), seed=1), benchmark.queries(100)
    )
    score_Q = benchmark.scores(asked)
    after = {f"after_{count}": score_Q[count - 1] for count in (30, 50, 100)}
    random = found["repeats"]["random"]["1"]
    assert random == after | {"seconds": random["seconds"]}


def test_rows_of_table_4(script, checkout) -> None:
    """The printed row is the published configuration, but for links that four vertices could not have."""
    parts, tables = (importlib.import_module(name) for name in ("design_parts", "design_tables"))
    rows = parts.rows_of("ablations", "nasbench101")
    config = load_config(DesignBenchConfig, checkout / "configs" / "design" / "nal_paper.yaml")
    printed = settings_of(config.design, 60)
    assert dataclasses.replace(rows["printed, 200 epochs"].design, links=9) == printed
    cut = parts.rows_of("oracle", "nasbench101")["printed, 9 links, cut"]
    assert dataclasses.replace(cut.design, training=printed.training) == printed
    assert cut.dangling
    assert rows["ours"] == parts.rows_of("oracle", "nasbench101")["ours"]
    assert rows["ours"].design == settings_of(load_config(DesignBenchConfig).design, 100)
    off = {
        name: (
            row.design.samples.construction == "common",
            not row.design.model.reverse,
            not row.design.model.attention,
        )
        for name, row in rows.items()
    }
    for variant in ("ours", "printed"):
        assert off[variant] == (False, False, False)
        assert off[f"{variant}, S off, I off"] == (True, True, False)
        assert off[f"{variant}, S off"] == (True, False, False)
        assert off[f"{variant}, I off"] == (False, True, False)
        assert off[f"{variant}, G off"] == (False, False, True)
    pairs = parts.pairs_of("ablations", rows)
    assert ("ours, G off", "ours") in pairs
    assert ("printed, 200 epochs", "printed") in pairs
    means = {"ours": 3.0, "ours, G off": 2.0, "ours, S off": 1.0}
    assert tables.orders({name: {"mean": [mean, 0.1]} for name, mean in means.items()}) == [
        "the paper: S off, I off < S off < I off < G off < full",
        "ours: S off < G off < full",
    ]


def test_genotypes_after_small_cells(script, small, tmp_path, monkeypatch, capsys) -> None:
    """What is scored is what is drawn; the lines that are printed train it."""
    transfer = importlib.import_module("design_transfer")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transfer, "COUNT", 6)
    monkeypatch.setattr(transfer, "DesignSettings", functools.partial(DesignSettings, members=1, training=SHORT))
    trained: list[EvalConfig] = []

    def evaluate(config: None, *words: str) -> dict[str, float]:
        trained.append(load_config(EvalConfig, config, words))
        return {"top1_error": 40.0 + len(trained), "params": 1e5, "seconds": 1.0}

    monkeypatch.setattr(transfer.nge_search, "evaluate", evaluate)
    run(script, monkeypatch, "transfer", small, "--out", tmp_path)
    printed = capsys.readouterr().out
    assert not trained
    run(script, monkeypatch, "transfer", small, "--out", tmp_path, "--train", "data.name=digits", "train.epochs=1")
    found = json.loads((tmp_path / "design_darts_transfer.json").read_text())
    assert set(found["expected_errors"]) == {
        *("link models", "link models, other chains", "link frequencies", "random")
    }
    drawn = found["expected_errors"]["link models"]
    assert f"| link models | 6 | {np.mean(drawn):.3f} | {np.std(drawn, ddof=1):.3f} | {min(drawn):.3f} |" in printed
    names = [f"{name}_{number}" for name in ("drawn", "random") for number in (1, 2, 3)]
    errors = [expected(load_genotype(transfer.RUNS / f"{name}.json")).error for name in names]
    assert errors[:3] == pytest.approx(sorted(drawn)[:3], abs=1e-3)
    assert errors[3:] == pytest.approx(found["expected_errors"]["random"][:3], abs=1e-3)
    assert [found["trained"][name]["top1_error"] for name in names] == [41, 42, 43, 44, 45, 46]
    assert f"| darts_v2 | {expected(PUBLISHED['darts_v2']).error:.3f} | yes |" in printed
    lines = [line for line in printed.splitlines() if line.startswith("python train_eval.py ")]
    for line, config, name in zip(lines, trained, names, strict=True):
        own = load_config(EvalConfig, None, shlex.split(line)[2:])
        assert Path(own.network.genotype) == Path(config.network.genotype) == transfer.RUNS / f"{name}.json"
        assert (own.data.name, own.data.image_size, own.network.cells, own.seed) == ("cifar10", 16, 5, 0)
        assert (config.data.name, config.data.image_size, config.network.cells) == ("digits", 16, 5)
        assert (own.train.epochs, config.train.epochs) == (15, 1)


def test_genotypes_need_cells_of_nasbench101(script, whole, tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(script, monkeypatch, "transfer", whole, "--out", tmp_path)
    assert "drawn after cells of nasbench101, not of nasbench201" in capsys.readouterr().err


def test_speed(script, small, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(script, "DesignSettings", functools.partial(DesignSettings, training=SHORT))
    run(script, monkeypatch, "speed", small, "--out", tmp_path)
    found = json.loads((tmp_path / "design_nasbench101_speed.json").read_text())
    assert {name: len(own["seconds"]) for name, own in found["models"].items()} == {"1": 3, "10": 3}
    assert "| 1 | 10 | " in capsys.readouterr().out
