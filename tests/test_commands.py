"""The commands and the Python functions, end to end on digits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nge_search
from nge_search.architecture.load import load_genotype
from nge_search.bench.measuring import Clock
from nge_search.cli import main
from nge_search.deploy.show import describe_network
from nge_search.predict.shipped import expected

RUN_FILES = {
    "config.yaml", "environment.json", "metrics.jsonl", "tensorboard", "checkpoints", "genotype.json",
    "genotype.svg", "report.html", "summary.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def search_run(tmp_path_factory, tiny_search) -> Path:
    """A finished tiny search, with everything on."""
    folder = tmp_path_factory.mktemp("search") / "run"
    words = [word for word in tiny_search if not word.startswith("run.")]
    assert main(["search", *words, f"run.dir={folder}", "run.log_every=1", "run.progress=lines"]) == 0
    return folder


def test_a_search_leaves_a_complete_run_folder(search_run, require_listed):
    require_listed(search_run)
    assert {path.name for path in search_run.iterdir()} >= RUN_FILES
    summary = json.loads((search_run / "summary.json").read_text())
    assert summary["kind"] == "search"
    assert summary["epochs"] == 2
    assert summary["seconds"] > 0
    assert summary["images_per_second"] > 0
    assert 0 <= summary["valid_top1"] <= 100
    assert load_genotype(search_run) == nge_search.Genotype.from_dict(summary["genotype"])
    rows = [json.loads(line) for line in (search_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[-1]["genotype"] == summary["genotype"]
    assert len(list((search_run / "checkpoints").iterdir())) == 2
    assert "Finished: 2 epochs" in (search_run / "report.html").read_text()


def test_tensorboard_shows_every_promised_tag(search_run):
    events = EventAccumulator(str(search_run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    scalars, images = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    promised = {
        "loss/train", "loss/architecture", "loss/valid", "top1/train", "top1/architecture", "top1/valid",
        "learning_rate/weights", "learning_rate/embedding", "speed/images_per_second", "memory/peak_mb",
        "architecture/entropy_normal", "architecture/entropy_reduce", "architecture/parameter_free_normal",
        "architecture/parameter_free_reduce", "architecture/parameter_free_derived_normal",
        "architecture/parameter_free_derived_reduce", "embedding/dead_units", "embedding/norm/x_normal",
        "train_steps/loss", "architecture_steps/loss",
    }  # fmt: skip
    edges = ("0-2", "1-2", "0-3", "1-3", "2-3")
    operations = nge_search.SearchConfig().supernet.operations
    promised |= {
        f"p_{kind}/{edge}/{name}" for kind in ("normal", "reduce") for edge in edges for name in operations
    }
    assert promised <= scalars
    assert {"p/normal", "p/reduce", "genotype"} <= images
    rows = [json.loads(line) for line in (search_run / "metrics.jsonl").read_text().splitlines()]
    for tag, key in (("loss/train", "train_loss"), ("top1/valid", "valid_top1")):
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([row[key] for row in rows])
    assert len(events.Images("genotype")) == 2


def test_a_finished_run_is_reported_and_left_alone(search_run, capsys):
    before = (search_run / "summary.json").read_bytes()
    config = search_run / "config.yaml"
    assert main(["search", "--config", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "has finished; run.overwrite=true starts it anew" in printed
    assert "normal: " in printed
    assert str(search_run / "genotype.json") in printed
    assert (search_run / "summary.json").read_bytes() == before


def test_derive_reads_any_epoch(search_run, capsys, tmp_path):
    assert main(["derive", str(search_run)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((search_run / "genotype.json").read_text())
    out = tmp_path / "first.json"
    assert main(["derive", str(search_run), "--epoch", "1", "--out", str(out)]) == 0
    for own in (out, search_run / "config.yaml"):
        before = own.read_bytes()
        assert main(["derive", str(search_run), "--out", str(own)]) == 2
        assert "is there already" in capsys.readouterr().err
        assert own.read_bytes() == before
    assert main(["derive", str(search_run), "--epoch", "1", "--out", str(out), "--overwrite"]) == 0
    assert load_genotype(out) == nge_search.derive(search_run, 1)


def test_derive_says_what_to_expect(search_run, capsys, tmp_path):
    """Beside the genotype, which can be piped on; not of cells of two nodes, which are of another space."""
    row = {"epoch": 0, "genotype": load_genotype("darts_v2").to_dict()}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row))
    assert main(["derive", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == row["genotype"]
    lines = expected(load_genotype("darts_v2")).lines()
    assert printed.err.splitlines() == lines
    assert lines[0].startswith("expected test error 2.")
    assert main(["derive", str(tmp_path), "--out", str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [f"genotype: {tmp_path / 'found.json'}", *lines]
    assert main(["derive", str(search_run)]) == 0
    assert not capsys.readouterr().err


def test_show_says_what_to_expect_of_the_published_network(capsys):
    """At DARTS' own sizes, and at no other."""
    lines = expected(load_genotype("darts_v2")).lines()
    shown, document = describe_network("darts_v2")
    assert shown[-len(lines) :] == lines
    assert document["expected"]["from"] == lines[1]
    assert main(["show", "darts_v2", "--channels", "4", "--cells", "3", "--json"]) == 0
    assert "expected" not in json.loads(capsys.readouterr().out)


def test_retraining_a_search_gives_a_test_error(search_run, tmp_path, capsys):
    words = [
        "threads=1", "run.progress=none", f"run.dir={tmp_path / 'eval'}", f"network.genotype={search_run}",
        "network.channels=4", "network.cells=3", "network.drop_path=0.2", "train.epochs=2", "train.batch_size=64",
    ]  # fmt: skip
    assert main(["eval", *words]) == 0
    assert "test error" in capsys.readouterr().out
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["kind"] == "eval"
    assert summary["top5_error"] <= summary["top1_error"] < 90
    assert summary["params"] > 0
    assert summary["macs"] > 0
    other = [word.replace(str(search_run), "darts_v1") for word in words]
    capsys.readouterr()
    assert main(["eval", *other]) == 2
    assert "trains another genotype" in capsys.readouterr().err


def test_another_cell_under_the_same_name_is_refused(tmp_path, capsys):
    genotype = tmp_path / "cell.json"
    words = [
        "threads=1", "run.progress=none", "run.tensorboard=false", f"run.dir={tmp_path / 'eval'}",
        f"network.genotype={genotype}", "network.channels=2", "network.cells=2", "train.epochs=1", "data.limit=40",
    ]  # fmt: skip
    genotype.write_text(load_genotype("darts_v1").to_json())
    assert main(["eval", *words]) == 0
    genotype.write_text(load_genotype("darts_v2").to_json())
    assert main(["eval", *words]) == 2
    assert "trains another genotype" in capsys.readouterr().err


def test_the_python_functions_do_what_the_commands_do(search_run, tmp_path, tiny_search):
    settings = {"data": {"limit": 64}, "seed": 1, "run": {"dir": str(tmp_path / "run")}}
    summary = nge_search.search(settings, *tiny_search)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert nge_search.derive(tmp_path / "run") == nge_search.Genotype.from_dict(summary["genotype"])
    config = nge_search.EvalConfig()
    config.run.dir, config.run.progress, config.threads = str(tmp_path / "eval"), "none", 1
    config.network.genotype, config.network.channels, config.network.cells = str(tmp_path / "run"), 2, 2
    config.train.epochs = 1
    assert nge_search.evaluate(config)["epochs"] == 1


def test_two_searches_with_one_seed_are_bit_identical_and_seeds_matter(tmp_path, tiny_search):
    genotypes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        nge_search.search({"run": {"dir": str(tmp_path / name)}, "seed": seed}, *tiny_search)
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        genotypes.append([(row["p_normal"], row["train_loss"], row["valid_loss"]) for row in rows])
    assert genotypes[0] == genotypes[1]
    assert genotypes[0] != genotypes[2]


def test_a_progress_bar_is_drawn_on_request(tmp_path, tiny_search, capsys):
    nge_search.search({"run": {"dir": str(tmp_path / "run")}}, *tiny_search, "run.progress=bar", "search.epochs=1")
    captured = capsys.readouterr()
    assert "epoch 1/1 architecture" in captured.err
    assert "epoch 1/1 done" in captured.out


def test_show_describes_and_draws(tmp_path, capsys):
    assert main(["show", "nasnet_a", "--draw", str(tmp_path / "drawings")]) == 0
    printed = capsys.readouterr().out
    assert "NASNet-A" in printed
    assert "output = concat(4, 5, 6)" in printed
    assert (tmp_path / "drawings" / "genotype.svg").is_file()


def test_doctor_reports_this_machine(capsys, tmp_path):
    assert main(["doctor", "--json", "--root", str(tmp_path)]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["packages"]["torch"]
    assert findings["datasets"] == {"digits": True, "cifar10": False, "cifar100": False}
    assert main(["doctor", "--root", str(tmp_path)]) == 0
    assert "data.download=true" in capsys.readouterr().out


def test_report_can_be_written_again(search_run, capsys):
    (search_run / "report.html").unlink()
    assert main(["report", str(search_run)]) == 0
    assert capsys.readouterr().out.strip() == str(search_run / "report.html")
    assert (search_run / "report.html").is_file()


def test_bench_step_accounts_for_the_whole_step(capsys, tiny_search):
    words = [word for word in tiny_search if not word.startswith("run.")]
    assert main(["bench", "step", "--steps", "1", "--json", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["phases"]) == {"train", "architecture"}
    for shares in result["shares_of_step"].values():
        assert sum(value for name, value in shares.items() if name != "checkpoints") == pytest.approx(1, abs=1e-6)


def test_importing_the_package_does_not_import_torch():
    code = "import nge_search, sys; print('torch' in sys.modules, callable(nge_search.search))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["False", "True"]


def test_the_function_keeps_its_name_once_the_subpackage_is_loaded():
    code = "import nge_search; from nge_search.gradient.run import run_search; print(callable(nge_search.search))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "True"


def test_a_closed_pipe_is_not_an_error(checkout):
    command = f"{sys.executable} -m nge_search.cli search --help | head -1"
    finished = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=os.environ
    )
    assert finished.stderr == ""


class InThisProcess:
    """What takes the place of a process that `nge bench` starts for a form, and of its words."""

    facts: Any
    seconds: Callable[[str], float]

    def __init__(self, name: str, form: str, words: list[str]):
        def keep(facts: Any, seconds: Callable[[str], float]) -> None:
            self.facts, self.seconds = facts, seconds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"nge_search.bench.{name}.serve", keep)
            assert main(["bench", name, *words, "--form", form, "--serve"]) == 0

    def close(self) -> None:
        pass


def test_bench_retrain_compares_with_darts(capsys, monkeypatch):
    monkeypatch.setattr("nge_search.bench.retrain.Served", InThisProcess)
    words = ["--batch", "4", "--channels", "4", "--cells", "3", "--steps", "2", "--workers", "0", "--threads", "1"]
    assert main(["bench", "retrain", *words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["forms"]) == {"darts", "fast"}
    slow, fast = result["forms"]["darts"], result["forms"]["fast"]
    assert result["speedup"]["median"] > 0
    assert result["memory"] == fast["peak_memory_mb"] / slow["peak_memory_mb"]
    assert max(result["differences"].values()) < 1e-9
    assert main(["bench", "retrain", "--batch", "1"]) == 2
    assert "--batch=1: must be between 2 and 4096" in capsys.readouterr().err


@pytest.mark.parametrize(("space", "apart"), [("darts", True), ("nasbench201", False)])
def test_bench_supernet_compares_the_forms(space, apart, capsys, monkeypatch):
    """With forms in processes of their own, or else in this one; each is timed once."""
    once = Clock.median
    monkeypatch.setattr(Clock, "median", lambda clock, action, count: once(clock, action, 1))
    if not apart:
        monkeypatch.setattr("nge_search.bench.supernet.Served", InThisProcess)
    words = ["--batch", "2", "--channels", "4", "--cells", "3", "--size", "6", "--steps", "1", "--threads", "1"]
    words += ["--space", space]
    assert main(["bench", "supernet", *words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["forms"]) == ["textbook_nchw", "textbook_channels_last", "fused"]
    for form in result["forms"].values():
        assert all(form[kind]["seconds"] > 0 for kind in ("weight", "drawn", "architecture"))
        assert form["drawn"]["operators"] < form["weight"]["operators"]
    for ratios in result["speedup_of_fused"].values():
        assert all(ratios[kind] > 0 for kind in ("weight", "architecture"))
    assert max(result["differences"].values()) < 1e-10
    assert result["roofline"]["operations"] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "0"],
        ["--threads", "-1"],
        ["--form", "fast"],
        ["--device", "tpu"],
        ["--space", "nasbench201", "--cells", "4"],
    ],
)
def test_bench_supernet_refuses_what_it_cannot_measure(words, capsys):
    assert main(["bench", "supernet", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
