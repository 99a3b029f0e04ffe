"""Searches in a made table, from the command line to the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nge_search
from nge_search.architecture.load import load_architecture
from nge_search.cli import main
from nge_search.engine.interrupt import Interrupted
from nge_search.errors import UserError
from nge_search.settings.load import help_text
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import Code, NasBench101Space, NasBench201Space, Queries
from nge_search.tables import Table
from nge_search.tables.table import build_table

SPACE = NasBench201Space()


def words(folder: Path, run: Path, **settings: object) -> list[str]:
    own = {
        "task": "queries",
        "benchmark.table": folder,
        "benchmark.signal": "made_valid_12",
        "benchmark.score": "made_test_200",
        "strategy.queries": 30,
        "run.dir": run,
        "run.tensorboard": "false",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"{name}={value}" for name, value in own.items()]


def rows_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_search_in_a_table_leaves_a_run_folder(
    folder: Path,
    tmp_path: Path,
    made_signal: Callable[[Code], float],
    capsys: pytest.CaptureFixture[str],
    require_listed: Callable[[Path], None],
) -> None:
    run = tmp_path / "run"
    assert main(["search", *words(folder, run, run__tensorboard="true")]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(30))
    codes = [SPACE.parse(row["architecture"]) for row in rows]
    assert len(set(codes)) == 30
    assert [row["signal"] for row in rows] == pytest.approx([made_signal(code) for code in codes])
    best = max(codes, key=made_signal)
    assert json.loads((run / "genotype.json").read_text()) == summary["genotype"]
    assert SPACE.parse(summary["architecture"]) == best
    assert summary["genotype"]["architecture"] == summary["architecture"]
    assert summary["genotype"]["provenance"]["method"] == "nge_reinforce"
    assert (summary["signal"], summary["score"]) == pytest.approx((made_signal(best), made_signal(best) / 2))
    assert (summary["best"], summary["queries"], summary["simulated_seconds"]) == (47.5, 30, 300)
    assert "after 30 queries" in printed
    assert SPACE.text(best) in printed
    assert list((run / "tensorboard").iterdir())
    require_listed(run)
    report = (run / "report.html").read_text()
    assert SPACE.text(best) in report
    assert "47.5" in report
    assert 'Signal <span class="unit">%</span>' in report
    assert "Finished: 30 queries." in report
    assert "query 30\n" in report
    assert "query 0\n" not in report
    assert f"{summary['signal']:.2f} %" in printed
    assert main(["search", *words(folder, run)]) == 0
    assert "has finished" in capsys.readouterr().out
    assert rows_of(run) == rows
    assert main(["report", str(run)]) == 0


def test_a_search_that_was_stopped_starts_again_and_finds_the_same(folder, tmp_path, monkeypatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    nge_search.search({"task": "queries"}, *words(folder, whole, run__progress="none"))
    count = iter(range(100))
    asked = Queries.ask

    def ask_until_stopped(self, code):
        if next(count) == 12:
            signal.raise_signal(signal.SIGTERM)
        return asked(self, code)

    with monkeypatch.context() as patch:
        patch.setattr(Queries, "ask", ask_until_stopped)
        with pytest.raises(Interrupted):
            nge_search.search(None, *words(folder, cut, run__progress="none"))
    assert rows_of(cut) == rows_of(whole)[:13]
    assert not (cut / "summary.json").exists()
    assert main(["report", str(cut)]) == 0
    nge_search.search(None, *words(folder, cut, run__progress="none"))
    assert rows_of(cut) == rows_of(whole)


def test_ctrl_c_ends_a_loop_over_runs(folder, tmp_path, monkeypatch) -> None:
    """Also one that goes on after a run that failed."""
    asked, started = Queries.ask, []

    def ask_and_stop(self, code):
        signal.raise_signal(signal.SIGINT)
        return asked(self, code)

    monkeypatch.setattr(Queries, "ask", ask_and_stop)

    def sweep() -> None:
        for name in ("a", "b"):
            started.append(name)
            with contextlib.suppress(Exception):
                nge_search.search(None, *words(folder, tmp_path / name, run__progress="none"))

    with pytest.raises(nge_search.Interrupted) as stopped:
        sweep()
    assert started == ["a"]
    assert stopped.value.exit_code == 130


def test_settings_of_a_finished_search_cannot_change(folder: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["search", *words(folder, run)]) == 0
    assert main(["search", *words(folder, run, strategy__queries=31)]) == 2
    assert "strategy.queries was 30, now 31" in capsys.readouterr().err
    assert main(["search", *words(folder, run, strategy__queries=31, run__overwrite="true")]) == 0
    assert len(rows_of(run)) == 31


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"benchmark__table": "''"}, "benchmark.table=: give a table"),
        ({"benchmark__table": "'nowhere'"}, "table 'nowhere' does not exist"),
        ({"benchmark__signal": "made_valid_200"}, "no column 'made_valid_200'"),
        ({"benchmark__score": "x"}, "no column 'x'"),
        ({"strategy__queries": 20000}, "a budget of 20000 queries"),
        ({"strategy__queries": 0}, "strategy.queries=0: must be at least 1"),
        ({"strategy__tournament": 21}, "strategy.tournament=21: more than strategy.population=20"),
        ({"strategy__name": "evolutoin"}, "did you mean 'evolution'?"),
        ({"embedding__input_dim": 3}, "embedding.input_dim=3: must be at least 4"),
        ({"strategy__explore": 1.5}, "strategy.explore=1.5: must be at most 1"),
        (
            {"strategy__name": "predictor", "strategy__predictor": "gates"},
            "strategy.acquisition=expected_improvement: gates does not say how sure it is; set it to greedy",
        ),
        ({"strategy__name": "predictor", "strategy__predictor": "gate"}, "did you mean 'gates'?"),
        ({"strategy__acquisition": "ucb"}, "strategy.acquisition=ucb: allowed are expected_improvement, "),
        ({"strategy__batch": 0}, "strategy.batch=0: must be at least 1"),
        ({"strategy__pool": 2}, "strategy.pool=2: must be at least 3"),
        ({"task": "querys"}, "did you mean 'queries'?"),
        ({"search__epochs": 3}, "unknown key 'search.epochs'"),
    ],
)
def test_bad_input_is_one_line(folder: Path, tmp_path: Path, setting: dict, message: str, capsys) -> None:
    assert main(["search", *words(folder, tmp_path / "run", **setting)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_torchrun_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="start it without torchrun"):
        nge_search.search(None, *words(folder, tmp_path / "run"))


def test_help_and_derive(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["search", "--help", "task=queries"]) == 0
    assert help_text(QueriesConfig) in capsys.readouterr().out
    assert main(["search", "--help"]) == 0
    assert "--help task=queries" in capsys.readouterr().out
    run = tmp_path / "run"
    assert main(["search", *words(folder, run)]) == 0
    with pytest.raises(UserError, match=r"a search in a table; its architecture is in genotype\.json"):
        nge_search.derive(run)
    with pytest.raises(UserError, match=r"takes cells of darts, .*; set network\.kind=nasbench201"):
        nge_search.evaluate(None, f"network.genotype={run}", f"run.dir={tmp_path / 'eval'}")


@pytest.mark.parametrize("name", ["nge_reinforce", "nge_evolution"])
def test_a_policy_that_is_no_longer_finite_ends_the_search(folder: Path, tmp_path: Path, name: str, capsys) -> None:
    settings = {"strategy__name": name, "embedding__learning_rate": 1e30}
    assert main(["search", *words(folder, tmp_path / "run", **settings)]) == 1
    error = capsys.readouterr().err
    assert "no longer finite; lower embedding.learning_rate=1e+30" in error
    assert error.count("\n") == 1


def test_a_search_with_a_bar_counts_its_queries(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["search", *words(folder, tmp_path / "run", run__progress="bar", run__log_every=1)]) == 0
    assert "queries" in capsys.readouterr().err


def test_a_search_that_settles_says_so(folder: Path, tmp_path: Path, capsys) -> None:
    settings = {"strategy__name": "reinforce", "strategy__queries": 2000, "embedding__learning_rate": 5.0}
    assert main(["search", *words(folder, tmp_path / "run", **settings)]) == 0
    assert "; it settled before its 2000" in capsys.readouterr().out


def test_a_whole_search_in_nasbench101(tmp_path: Path) -> None:
    """From the table to the report, which has no complaints and counts queries."""
    space = NasBench101Space(4)
    random, codes = np.random.default_rng(0), {}
    for _ in range(20_000):
        code = space.random(random)
        codes.setdefault(space.key(code), code)
    rows = ((code, {"accuracy": 50.0 + sum(code)}) for code in codes.values())
    table = build_table(space, rows, "a made table", "architecture").save(tmp_path / "table")
    run = tmp_path / "run"
    summary = nge_search.search(
        {"task": "queries"}, *words(table, run, benchmark__signal="accuracy", benchmark__score="accuracy")
    )
    assert summary["queries"] == 30
    found = [load_architecture(given) for given in (run, run / "genotype.json", summary["architecture"])]
    assert [space.code_of(architecture) for architecture in found] == 3 * [space.parse(summary["architecture"])]
    report = (run / "report.html").read_text()
    assert "not drawn" not in report
    assert ">query</text>" in report
    assert ">epoch</text>" not in report


def test_an_evaluation_that_fails_ends_the_search_with_one_line(table: Table, tmp_path: Path, capsys) -> None:
    """A table with gaps: what was found before them is kept."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    random = {"strategy__name": "random", "run__progress": "none"}
    assert main(["search", *words(table.save(tmp_path / "table"), whole, **random)]) == 0
    gap = {name: values.copy() for name, values in table.columns.items()}
    gap["made_test_200"][table.find(SPACE.parse(rows_of(whole)[7]["architecture"]))] = np.nan
    damaged = dataclasses.replace(table, columns=gap).save(tmp_path / "damaged")
    capsys.readouterr()
    assert main(["search", *words(damaged, cut, **random)]) == 2
    error = capsys.readouterr().err
    assert "has no made_test_200 for |" in error
    assert error.count("\n") == 1
    assert rows_of(cut) == rows_of(whole)[:7]
    assert not (cut / "summary.json").exists()
