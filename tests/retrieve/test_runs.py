"""The three kinds of runs of retrieval: what they leave, how they go on, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nge_search
from nge_search.engine.interrupt import Interrupted
from nge_search.errors import UserError
from nge_search.retrieve import bench_run, build_run, corpus_build
from nge_search.retrieve.catalogue import FILES, read_catalogue
from nge_search.retrieve.corpus import Corpus, read_corpus
from nge_search.retrieve.corpus_build import Progress, build_corpus

QUIET = ("run.progress=none", "run.tensorboard=false")
BENCH = (
    "bench.models=[wl1_names,operations]",
    "bench.tasks=[families,unseen]",
    "bench.seeds=2",
    "bench.families=3",
)


@pytest.fixture
def corpus_file(small_corpus: Corpus, tmp_path: Path) -> str:
    small_corpus.write(tmp_path / "small.nge")
    return f"corpus.file={tmp_path / 'small.nge'}"


def test_a_training(catalogue_folder: Path, require_listed: Callable[[Path], None]) -> None:
    summary = json.loads((catalogue_folder / "summary.json").read_text())
    assert (summary["kind"], summary["model"], summary["graphs"]) == ("retrieve", "wl1_names", 30)
    assert summary["quality"]["map_at_20"] > 0.7
    assert summary["novelty"]["area"] > 0.8
    assert summary["novelty"]["false_alarms"] <= 0.05
    require_listed(catalogue_folder)
    assert all((catalogue_folder / name).exists() for name in FILES)
    page = (catalogue_folder / "report.html").read_text()
    assert page.count("<circle class=") == 30 + 1  # and the legend's
    assert "Families found" in page
    assert "When nothing is near" in page
    catalogue = read_catalogue(catalogue_folder)
    assert catalogue.index.novelty.threshold == pytest.approx(summary["novelty"]["threshold"])


def test_a_network_is_trained_and_tells_its_losses(corpus_file: str, tmp_path: Path) -> None:
    words = [corpus_file, "retrieve.model=nar", "retrieve.folds=2", f"run.dir={tmp_path / 'run'}", *QUIET]
    words += ["encoder.width=4", "encoder.epochs=2", "encoder.motif_epochs=1", "encoder.layers=1"]
    words += ["run.tensorboard=true"]
    summary = nge_search.retrieve_train(None, *words)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["motifs", "families", "families"]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"loss/motifs", "loss/families", "map_at_20"} <= set(events.Tags()["scalars"])
    assert events.Scalars("loss/motifs")[0].value == pytest.approx(rows[0]["loss"], rel=1e-3)
    assert summary["features"] == 4
    assert "Loss, families" in (tmp_path / "run" / "report.html").read_text()
    assert nge_search.retrieve_train(None, *words) == summary
    graph = read_catalogue(tmp_path / "run").corpus.entries[3].graph
    found = read_catalogue(tmp_path / "run").retriever.query(graph).answers[0]
    assert found.similarity == pytest.approx(1, abs=1e-5)


def test_a_corpus_without_large_families(small_corpus: Corpus, tmp_path: Path) -> None:
    """There is no threshold then, and queries say so."""
    small_corpus.of_libraries(["torchvision"]).write(tmp_path / "few.nge")
    run = tmp_path / "run"
    summary = nge_search.retrieve_train(
        None, f"corpus.file={tmp_path / 'few.nge'}", "retrieve.model=wl1", f"run.dir={run}", *QUIET
    )
    assert (summary["quality"], summary["novelty"]) == ({}, None)
    assert nge_search.retrieve_query("plain4", 2, catalogue=run)["new"] is None


def test_a_comparison_goes_on_where_it_stopped(
    corpus_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_listed: Callable[[Path], None]
) -> None:
    whole = nge_search.retrieve_bench(None, corpus_file, *BENCH, *QUIET, f"run.dir={tmp_path / 'whole'}")
    require_listed(tmp_path / "whole")
    figures, told, stops = bench_run.figures, [], [3]

    def stop(*given: Any) -> dict[str, Any]:
        if len(told) in stops:
            raise Interrupted(stops.pop())
        told.append(given)
        return figures(*given)

    monkeypatch.setattr(bench_run, "figures", stop)
    with pytest.raises(Interrupted):
        nge_search.retrieve_bench(None, corpus_file, *BENCH, *QUIET, f"run.dir={tmp_path / 'cut'}")
    cut = nge_search.retrieve_bench(None, corpus_file, *BENCH, *QUIET, f"run.dir={tmp_path / 'cut'}")
    assert len(told) == 8
    for name in ("results", "comparisons", "graphs"):
        assert cut[name] == whole[name]
    assert [(own["task"], own["model"], own["seeds"]) for own in whole["results"]] == [
        (task, model, 2) for task in ("families", "unseen") for model in ("wl1_names", "operations")
    ]
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "Question: unseen" in page
    assert "operations − wl1_names" in page


def test_a_comparison_of_other_networks_is_not_continued(
    corpus_file: str, small_corpus: Corpus, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [*BENCH, *QUIET, f"run.dir={run}", corpus_file]
    nge_search.retrieve_bench(None, *words)
    (run / "summary.json").unlink()
    items = [(entry.networks, entry.digest, entry.graph) for entry in reversed(small_corpus.entries)]
    Corpus.of(items, {}, {}).write(tmp_path / "small.nge")
    with pytest.raises(UserError, match="records trials on other networks"):
        nge_search.retrieve_bench(None, *words)
    small_corpus.write(tmp_path / "small.nge")
    lines = (run / "metrics.jsonl").read_text().replace('"operations"', '"wl2"')
    (run / "metrics.jsonl").write_text(lines)
    with pytest.raises(UserError, match="its rows are not those of this run"):
        nge_search.retrieve_bench(None, *words)


def test_questions_and_options_that_cannot_be(corpus_file: str, tmp_path: Path) -> None:
    words = [corpus_file, *QUIET, f"run.dir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"bench\.tasks: 'torchvision' cannot be asked of this corpus"):
        nge_search.retrieve_bench(None, *words, "bench.tasks=[torchvision]", "corpus.libraries=[timm]")
    with pytest.raises(UserError, match=r"encoder\.width: wl1 has no such option"):
        nge_search.retrieve_bench(None, *words, "bench.models=[wl1]", "encoder.width=3")
    with pytest.raises(UserError, match=r"bench\.models=.*wl1.*: one stands there twice"):
        nge_search.retrieve_bench(None, *words, "bench.models=[wl1,wl1]")
    with pytest.raises(UserError, match=r"build\.libraries=.*: one stands there twice"):
        nge_search.retrieve_build(None, "build.libraries=[timm,timm]", *words[1:])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_build(
    small_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_listed: Callable[[Path], None]
) -> None:
    given: list[tuple[Any, ...]] = []

    def build(*words: Any) -> Corpus:
        given.append(words)
        words[5](Progress(1, 1, "timm:odd", "it reads a value"))
        return small_corpus

    monkeypatch.setattr(build_run, "build_corpus", build)
    run = tmp_path / "run"
    words = ["build.libraries=[timm,torchvision]", "build.names=[odd]", f"run.dir={run}", *QUIET]
    summary = nge_search.retrieve_build(None, *words)
    assert given[0][:4] == (run / "traced", ["timm", "torchvision"], ["odd"], 2)
    assert (summary["networks"], summary["graphs"], summary["skipped"]) == (30, 30, 1)
    assert summary["reasons"] == {"timm:odd": "it reads a value"}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["library"], row["networks"], row["skipped"]) for row in rows] == [
        ("timm", 24, 1),
        ("torchvision", 6, 0),
    ]
    require_listed(run)
    assert [entry.name for entry in read_corpus(run / "corpus.nge").entries] == [
        entry.name for entry in small_corpus.entries
    ]
    page = (run / "report.html").read_text()
    assert "it reads a value" in page
    assert "bottleneck" in page


def test_a_build_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_build, "Worker", None)  # nothing is traced
    monkeypatch.setattr(build_run, "build_corpus", build_corpus)
    words = ["build.libraries=[torchvision]", "build.names=[no_such]", f"run.dir={tmp_path / 'run'}", *QUIET]
    with pytest.raises(UserError, match="the corpus would be empty: no network of torchvision has a graph"):
        nge_search.retrieve_build(None, *words)
    assert not (tmp_path / "run" / "summary.json").exists()
