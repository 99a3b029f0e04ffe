"""The kinds of runs: their entries hold, former names are understood, and a new kind edits nothing else."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nge_search import api, kinds
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.kinds import KINDS, Kind
from nge_search.registry import resolve
from nge_search.settings.load import kind_for, load_config, schema_of

TOY = """
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nge_search.engine.session import Session, run as run_session
from nge_search.report.parts.page import Figure, Section
from nge_search.settings.base import option
from nge_search.settings.run import RunningConfig


@dataclass
class ToyConfig(RunningConfig):
    kind: ClassVar[str] = "toy"
    figures: ClassVar[tuple[str, ...]] = ("sum",)

    first: int = option(1, "The first number that is added.")
    second: int = option(2, "The second number that is added.")


def run(config: ToyConfig) -> dict[str, Any]:
    def body(session: Session) -> dict[str, Any]:
        folder = session.begin()
        if config.second:
            folder.write_json("sum.json", config.first + config.second)
        folder.append_metrics({"epoch": 0, "sum": config.first + config.second})
        return {"kind": config.kind, "sum": config.first + config.second}

    return run_session(config, body)


def closing_lines(config: ToyConfig, summary: dict[str, Any]) -> list[str]:
    return [f"the sum is {summary['sum']}"]


def figures(run):
    return [Figure(str(run.figure("sum")), "The sum of both")]


def sections(run):
    return [Section("sum", "Sum", "<p>added</p>")]
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind of run that lives in one module of its own and in one entry."""
    (tmp_path / "toy_kind.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    kind = Kind(
        name="toy",
        command="add",
        help="add two numbers",
        task="",
        title="Addition",
        settings="toy_kind:ToyConfig",
        run="toy_kind:run",
        closing="toy_kind:closing_lines",
        page="toy_kind",
        files=("sum.json",),
        unit=("step", "steps", "first"),
        use="an addition; repeat it: nge add run.dir={run}",
    )
    monkeypatch.setattr(kinds, "KINDS", (*KINDS, kind))
    yield kind
    sys.modules.pop("toy_kind", None)


def test_a_new_kind_is_one_entry(
    toy: Kind, require_listed: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kinds.commands()["add"] == "add two numbers"
    summary = api.run("add", {"first": 40})
    assert summary == json.loads(Path("runs/toy/default/summary.json").read_text()) == {"kind": "toy", "sum": 42}
    assert api.run("add", None, "first=40") == summary  # finished
    page = Path("runs/toy/default/report.html").read_text()
    assert main(["report", "runs/toy/default"]) == 0
    assert Path("runs/toy/default/report.html").read_text() == page
    assert "Addition" in page
    assert "The sum of both" in page
    assert "Finished: 1 step." in page
    capsys.readouterr()
    require_listed(Path("runs/toy/default"))
    assert Path("runs/toy/default/sum.json").exists()
    assert api.run("add", None, "second=0", "run.overwrite=true") == {"kind": "toy", "sum": 1}
    assert not Path("runs/toy/default/sum.json").exists()  # the former run's is gone
    with pytest.raises(UserError, match=r"a configuration is a file, a mapping or a ToyConfig, not int"):
        api.run("add", 3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_an_entry_names_is_there(kind: Kind) -> None:
    schema = schema_of(kind)
    assert schema.kind == kind.name
    default = schema()
    assert getattr(default, "task", "") == kind.task
    assert type(resolve("nge_search.settings.load:load_config")(schema)) is schema
    assert callable(resolve(kind.run))
    assert callable(resolve(kind.closing))
    assert not kind.network or callable(resolve(kind.network))
    page = importlib.import_module(kind.page)
    assert callable(page.figures)
    assert callable(page.sections)
    section, setting = kind.unit[2].split(".")
    assert hasattr(getattr(default, section), setting)
    assert kind.use.format(run="RUN", retrain="LINE") != kind.use


def test_names_are_told_apart() -> None:
    """No kind has a name, or a former name, of another, and no command two kinds of one task."""
    names = [name for kind in KINDS for name in (kind.name, *kind.formerly)]
    assert len(set(names)) == len(names)
    tasks = [(kind.command, kind.task) for kind in KINDS]
    assert len(set(tasks)) == len(tasks)
    assert all(kinds.of_command(command)[0].help == meaning for command, meaning in kinds.commands().items())


def test_former_names_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kinds.current_name("voc") == "segmentation"
    assert kinds.current_name("benchmark") == "queries"
    assert kinds.current_name("eval") == "eval"
    assert kinds.current_name("whatever") == "whatever"
    assert kinds.current_name(None) is None
    (tmp_path / "old.yaml").write_text("task: benchmark\n")
    kind = kind_for("search", "old.yaml")
    assert kind.name == "queries"
    assert load_config(schema_of(kind), "old.yaml").task == "queries"
    assert kind_for("search", None, ["task=benchmark"]) is kind
    assert kinds.of_settings({"task": "benchmark"}) is kind
    assert kinds.of_settings({"network": {}}).name == "eval"
    assert kinds.of_settings({"search": {}}).name == "search"
    assert kinds.of_settings({"seed": 0}) is None


@pytest.mark.parametrize(
    ("command", "task", "old"), [("search", "queries", "benchmark"), ("eval", "segmentation", "voc")]
)
def test_a_run_in_the_former_folder_goes_on_there(
    command: str, task: str, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def folder() -> str:
        words = [f"task={task}", "run.name=mine"]
        return load_config(schema_of(kind_for(command, None, words)), None, words).run.dir

    new = kinds.find(old).name
    assert folder() == f"runs/{new}/mine"
    Path(f"runs/{old}/mine").mkdir(parents=True)
    assert folder() == f"runs/{old}/mine"
    Path(f"runs/{new}/mine").mkdir(parents=True)
    assert folder() == f"runs/{new}/mine"


def test_help_imports_no_torch(checkout: Path) -> None:
    program = (
        "import sys; from nge_search.cli import main; main(['--help']); main(['search', '--help', 'task=queries']);"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=checkout, stdout=subprocess.DEVNULL)


def test_former_modules_say_where_they_went(checkout: Path) -> None:
    program = """
import importlib, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from nge_search.benchmarks.table import build_table
    from nge_search.benchmarks import open_table
    from nge_search.config import load_config
    from nge_search.schema import DataConfig, EvalConfig
from nge_search import tables
from nge_search.settings import classification, data, load
assert (build_table, open_table) == (tables.table.build_table, tables.open_table)
assert load_config is load.load_config
assert (DataConfig, EvalConfig) == (data.DataSection, classification.EvalConfig)
ours = [str(warning.message) for warning in told if "nge_search" in str(warning.message)]
assert [text.split(" is now ")[1] for text in ours] == [
    "nge_search.tables", "nge_search.settings.load", "nge_search.settings"
], ours
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=checkout)
