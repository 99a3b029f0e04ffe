"""Run folders and checkpoints of an earlier version: stopped runs go on, finished ones are read, by all commands.

tests/golden/runs_before/make.py made them. Where the machine computes alike, runs end as they did bit for bit.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search import kinds
from nge_search.cli import main
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.report.parts.run import Run

ARCHIVE = Path(__file__).parents[1] / "golden" / "runs_before" / "runs.tar.xz"
#: What the kinds were called, and what they are called now.
KINDS = {"search": "search", "benchmark": "queries", "eval": "eval", "voc": "segmentation"}
MEASURED = ("seconds", "images_per_second", "peak_memory_mb", "device")

every_kind = pytest.mark.parametrize("before", KINDS)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Unpacks the runs into the working folder: the words of their commands, and what the processor could do."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open(ARCHIVE) as packed:
        for entry in packed:
            path = tmp_path / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed.extractfile(entry).read())
    return json.loads(Path("made.json").read_text())


def folder(before: str, name: str) -> Path:
    return Path("runs", before, name)


#: Settings of searches that have other defaults now than when the runs were made.
SEARCH = (
    *("search.mixture=weighted", "search.warmup_epochs=0", "search.average=false", "search.selection=argmax"),
    "embedding.edges=printed",
)


def words(made: dict[str, Any], before: str, name: str, *more: str) -> list[str]:
    return [*made["commands"][before], *(SEARCH if before == "search" else ()), f"run.name={name}", *more]


def figures(document: dict[str, Any]) -> dict[str, Any]:
    """Without what is measured, and by today's name of the kind."""
    found = {key: value for key, value in document.items() if key not in MEASURED}
    return found | {"kind": kinds.current_name(found.get("kind"))}


def rows(run: Path) -> list[dict[str, Any]]:
    return [figures(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def document(run: Path, name: str) -> dict[str, Any]:
    return json.loads((run / name).read_text())


def assert_near(ours: Any, theirs: Any, where: str, tolerance: float = 1e-3) -> None:
    """The same structure, and numbers that rounding could explain; with a tolerance of 0, the same numbers."""
    if isinstance(theirs, torch.Tensor):
        limits = {"rtol": tolerance, "atol": tolerance / 100}
        torch.testing.assert_close(ours, theirs, **limits, msg=lambda text: f"{where}: {text}")
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            assert_near(ours[key], value, f"{where}/{key}", tolerance)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for position, pair in enumerate(zip(ours, theirs)):
            assert_near(*pair, f"{where}/{position}", tolerance)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance / 100), where
    else:
        assert ours == theirs, where


def computes_alike(made: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether results have to be the same to the last bit, by what two checkpoints say and the processor can."""
    processor = Path("/proc/cpuinfo")
    known = processor.read_text() if processor.is_file() else ""
    return made["cpu"] in known.splitlines() and ours["exactness"] == theirs["exactness"]


def report(run: Path, before: str) -> str:
    """The page that `nge report` writes, once what it was made from was read without a note."""
    assert main(["report", str(run)]) == 0
    read = Run(run)
    assert read.kind == KINDS[before]
    assert not read.notes
    page = (run / "report.html").read_text()
    assert kinds.find(KINDS[before]).title in page
    return page


@every_kind
def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(
    before: str, made: dict[str, Any], require_listed: Callable[[Path], None]
) -> None:
    run, reference = folder(before, "stopped"), folder(before, "finished")
    recorded = rows(run)
    assert "Unfinished" in report(run, before)
    assert 0 < len(recorded) < len(rows(reference))
    assert main(words(made, before, "stopped")) == 0
    assert [path.name for path in Path("runs").iterdir() if path.name not in KINDS] == []
    assert "Finished" in report(run, before)
    require_listed(run)
    for name in ("dataset.json", "evaluation.json", "segmentation.json"):
        assert (run / name).exists() == (reference / name).exists()
    assert document(run, "genotype.json") == document(reference, "genotype.json")
    tolerance = 0.0
    if before != "benchmark":  # a search in a table starts again, and knows no rounding
        ours, theirs = (CheckpointFolder(path / "checkpoints").load_newest()[0] for path in (run, reference))
        tolerance = 0.0 if computes_alike(made, ours, theirs) else 1e-3
        assert_near(ours["task"], theirs["task"], "checkpoint", tolerance)
        assert_near(ours["random"], theirs["random"], "random", 0.0)
        assert ours["position"] == theirs["position"]
    assert_near(rows(run), rows(reference), "metrics.jsonl", tolerance)
    ends = (figures(document(path, "summary.json")) for path in (run, reference))
    assert_near(*ends, "summary.json", tolerance)


@every_kind
def test_a_finished_run_is_said_to_be(
    before: str, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder(before, "finished")
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(words(made, before, "finished", "run.progress=lines")) == 0
    assert f"run '{run}' has finished; run.overwrite=true starts it anew" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept} == kept
    assert "Finished" in report(run, before)


@every_kind
def test_an_old_config_file_names_the_same_run(
    before: str, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(folder(before, "finished") / "config.yaml")
    command = made["commands"][before][0]
    assert main([command, "--config", config, "run.progress=lines"]) == 0
    assert "has finished" in capsys.readouterr().out
    assert main([command, "--config", config, "--print-config"]) == 0
    assert f"task: {kinds.find(KINDS[before]).task}\n" in capsys.readouterr().out
    assert main([command, "--config", config, "seed=1"]) == 2
    assert "seed was 0, now 1" in capsys.readouterr().err


def test_what_an_old_search_found_is_derived(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", "runs/search/finished"]) == 0
    derived, saved = json.loads(capsys.readouterr().out), document(folder("search", "finished"), "genotype.json")
    assert (derived["normal"], derived["reduce"]) == (saved["normal"], saved["reduce"])
    assert main(["derive", "runs/search/stopped", "--epoch", "1"]) == 0
    first = rows(folder("search", "finished"))[0]["genotype"]
    assert json.loads(capsys.readouterr().out)["normal"] == first["normal"]
    assert main(["derive", "runs/benchmark/finished"]) == 2
    assert "is a search in a table" in capsys.readouterr().err


def test_what_an_old_search_in_a_table_found_is_looked_up(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder("benchmark", "finished")
    assert main(["table", "tables/made", "--find", str(run)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == document(run, "genotype.json")["architecture"]
    assert found["figures"] == document(run, "summary.json")["figures"]


def test_old_networks_are_exported(made: dict[str, Any]) -> None:
    for name in ("finished", "stopped"):
        assert main(["export", f"runs/eval/{name}", "--out", name, "--weights", "ema"]) == 0
        assert Path(name, "model.safetensors").exists()
    assert main(["export", "runs/voc/finished", "--out", "masks"]) == 0
    assert Path("masks", "model.safetensors").exists()


def test_an_old_segmentation_segments(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    assert main(["segment", "runs/voc/finished", "photo.png", "--out", "masks"]) == 0
    assert "masks/photo.png" in capsys.readouterr().out
    with Image.open("masks/photo.png") as mask:
        assert mask.size == (48, 40)
