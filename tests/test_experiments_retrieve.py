"""`experiments/retrieve.py` on a made corpus: rows, tables, pictures, and what is chosen."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nge_search.architecture.graph import Graph
from nge_search.metrics.retrieval import cosines
from nge_search.retrieve.corpus import Corpus, Network
from nge_search.retrieve.embedders import UntrainedEmbedder
from nge_search.retrieve.fingerprints import CONTROLS
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.tasks import same_family

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
#: No chance enters the first, whose one row stands for all seeds.
_TWINS = (("own", (0,)), ("lda", (0, 1)))


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXPERIMENTS)


def run_retrieve(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """`experiments/retrieve.py` in this process."""
    monkeypatch.setattr(sys, "argv", ["retrieve.py", *words])
    importlib.import_module("retrieve").main()


def made_corpus(path: Path) -> Corpus:
    """Six families of chains that repeat their block; the deepest network of each is torchvision's."""
    items = []
    for family in range(6):
        for depth in range(6):
            names = ["stem", *[f"block{family}", "norm", f"act{family % 2}"] * (depth + 2), f"head{depth % 3}"]
            graph = Graph.build(names, [(i, i + 1) for i in range(len(names) - 1)], [0], [len(names) - 1])
            library = "torchvision" if depth == 5 else "timm"
            own = Network(f"net{family}_{depth}", library, f"family{family}", "classification", 100, 1000)
            items.append(((own,), graph.digest, graph))
    corpus = Corpus.of(items, {}, {})
    corpus.write(path)
    return corpus


def test_the_comparison_of_encoders(tmp_path, monkeypatch, capsys):
    """Rows are what questions answer, and are made once; searched networks; tables of all kinds."""
    corpus = made_corpus(tmp_path / "made.nge")
    words = ["--corpus", str(tmp_path / "made.nge"), "--out", str(tmp_path / "out"), "--families", "3"]
    few = ["--models", "wl1;wl1, contracted;own;lda", "--seeds", "0-1"]
    run_retrieve(monkeypatch, "vision", *words, *few)
    printed = capsys.readouterr().out
    rows = (tmp_path / "out" / "retrieve_rows.jsonl").read_text()
    path = tmp_path / "out" / "retrieve_vision_made_families_3.json"
    whole = json.loads(path.read_text())
    run_retrieve(monkeypatch, "vision", *words, "--models", "own", "--questions", "twins", "--seeds", "1")
    assert (tmp_path / "out" / "retrieve_rows.jsonl").read_text() == rows
    assert json.loads(path.read_text()) == whole
    found = {(row["task"], row["model"], row["seed"]): row for row in map(json.loads, rows.splitlines())}
    assert len(found) == whole["rows"] == 4 * 2 + 4 * 5
    assert all(len(line) < 500 for line in path.read_text().splitlines())
    told = {(one["task"], one["model"]): one for one in whole["results"]}
    of_seeds = [found["unseen", "own", seed]["map_at_20"] for seed in (0, 1)]
    assert told["unseen", "own"]["by_seed"]["map_at_20"] == pytest.approx(of_seeds, abs=1e-4)
    assert told["unseen", "own"]["map_at_20"] == pytest.approx(np.mean(of_seeds), abs=1e-4)
    pairs = {(one["task"], one["against"]): one for one in whole["comparisons"] if one["model"] == "own"}
    assert {against for task, against in pairs if task == "twins"} == {"wl1", "wl1, contracted", "lda"}
    both = [np.mean([found["twins", name, seed]["map_at_20"] for seed in seeds]) for name, seeds in _TWINS]
    assert pairs["twins", "lda"]["difference"] == pytest.approx(both[0] - both[1], abs=1e-5)
    task = same_family([entry.family for entry in corpus.entries])
    own = UntrainedEmbedder(CONTROLS["wl1"])
    graphs = [OrderedGraph.of(entry.graph) for entry in corpus.entries]
    own.fit(graphs, [], 0)
    embedding_ND = own.embed(graphs)
    expected = task.answers(cosines(embedding_ND, embedding_ND)[task.query_Q]).figures()
    assert found["families", "wl1", 0]["map_at_20"] == pytest.approx(expected["map_at_20"], abs=1e-5)
    assert found["unseen", "own", 1]["queries"] == 18
    assert found["torchvision", "own", 0]["queries"] == found["distinct", "own", 0]["queries"] == 6
    assert "### unseen, 18 queries" in printed
    assert "| own - wl1" in printed
    run_retrieve(monkeypatch, "seen", *words, "--models", "lda;lda of ours;wl1", "--seeds", "0")
    assert "| lda of ours | " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_retrieve(monkeypatch, "code", *words, "--show")
    assert "no row yet" in capsys.readouterr().err


def test_seeds_are_paired():
    """One row stands for all seeds only where no chance enters; where no seed is shared nothing is compared."""
    comparisons = importlib.import_module("retrieve_tables").comparisons

    def row(task: str, model: str, seed: int, found: float) -> dict[str, object]:
        figures = {f"{name}_at_20": found for name in ("map", "mrr", "ndcg")}
        families = {"a": [1, found], "b": [1, found]}
        return {"task": task, "model": model, "seed": seed, "queries": 2, "families": families, **figures}

    rows = [row("twins", "own", 0, 0.6), *(row("twins", "lda", seed, 0.1 * seed) for seed in (1, 2))]
    (pair,) = comparisons(rows)
    assert (pair["model"], pair["against"], pair["pairs"]) == ("own", "lda", 2)
    assert pair["difference"] == pytest.approx(0.45)
    drawn = [row("unseen", "own", 1, 0.6), *(row("unseen", "wl1", seed, 0.1 * seed) for seed in (1, 2))]
    assert [(one["pairs"], one["difference"]) for one in comparisons(drawn)] == [(1, pytest.approx(0.5))]
    assert comparisons(drawn[::2]) == []


def test_the_map_of_networks(tmp_path):
    random = np.random.default_rng(0)
    about = [{"label": ("cnn", "attention", "other")[i % 3], "family": f"family{i % 4}"} for i in range(12)]
    draw_map = importlib.import_module("retrieve_tables").draw_map
    draw_map(random.normal(size=(12, 5)), about, random.normal(size=(1, 5)), tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_published_encoders(tmp_path, monkeypatch, capsys):
    """Searched networks and those of the corpus; points of both are drawn; what was learnt first is kept."""
    made_corpus(tmp_path / "made.nge")
    out = tmp_path / "out"
    words = ["--corpus", str(tmp_path / "made.nge"), "--out", str(out)]
    words += ["--members", "6", "--width", "4", "--epochs", "1", "--motif-epochs", "1"]
    run_retrieve(monkeypatch, "nas", *words, "--models", "operations;slots of steps;nar")
    printed = capsys.readouterr().out
    assert "### nas, 10 queries" in printed
    assert "### seen, 6 queries" in printed
    assert "5 of 5 trials" in printed
    sizes = "made_members_6_width_4_epochs_1_motif_epochs_1"
    nas = json.loads((out / f"retrieve_nas_{sizes}.json").read_text())
    assert nas["results"][1]["map_at_20"] > nas["results"][0]["map_at_20"]
    assert (out / f"retrieve_nas_{sizes}.png").read_bytes()[:4] == b"\x89PNG"
    rows = [json.loads(line) for line in (out / "retrieve_rows.jsonl").read_text().splitlines()]
    points = [row["points"] for row in rows if "points" in row]
    assert [len(one["x"]) for one in points] == [60, 36]
    assert set(points[0]["kinds"]) == {f"class {number}" for number in range(10)}
    assert {"6 a class, 2 edits, width 4, batch 32, 1 epochs, 1 of motifs"} == {
        row["trial"]["set"] for row in rows if row["task"] == "nas" and row["model"] == "nar"
    }
    run_retrieve(monkeypatch, "transfer", *words)
    assert "| nar, searched networks first - nar | " in capsys.readouterr().out
    assert len((out / "retrieve_rows.jsonl").read_text().splitlines()) == 6
    assert not (out / f"retrieve_transfer_{sizes}.png").exists()
    run_retrieve(monkeypatch, "nas", *words, "--models", "operations", "--questions", "nas", "--seeds", "100")
    assert json.loads((out / f"retrieve_nas_{sizes}.json").read_text())["results"] == nas["results"]


def test_what_was_learnt_first_is_where_training_begins():
    encoders = importlib.import_module("retrieve_encoders")
    reduced = encoders.Reduced(members=3, edits=2, width=4, batch=8, epochs=1, motif_epochs=1)
    graphs = [OrderedGraph.of(Graph.build(["a", "b", "c"], [(0, 1), (1, 2)], [0], [2])) for _ in range(2)]
    graphs += [OrderedGraph.of(Graph.build(["c", "b"], [(0, 1)], [0], [1])) for _ in range(2)]
    embedder = encoders.Transferred(reduced)
    embedder.fit(graphs, ["x", "x", "y", "y"], 0)
    assert {"a", "b", "c", "sep_conv_3x3"} <= set(embedder._network.labels.names)
    own = embedder.embed(graphs)
    network = encoders.Transferred(reduced)._network
    network.start(embedder._network.labels, 0)
    network.train(graphs, ["x", "x", "y", "y"])
    assert np.abs(network.embed(graphs) - own).max() > 1e-4


def test_settings_are_chosen_by_families_that_are_not_reported(tmp_path, monkeypatch, capsys):
    """Of two choices that are best on one half of the families each, each half chooses the other's worst."""
    choice = importlib.import_module("retrieve_choice")
    family_Q = np.repeat(["a", "b", "c", "d"], 3)
    left_Q = np.where(np.isin(family_Q, ["a", "b"]), 0.9, 0.1)
    ours = {name: choice.Figures(one_Q, one_Q / 2, family_Q) for name, one_Q in (("l", left_Q), ("r", 1 - left_Q))}
    controls = {"wl": choice.Figures(np.full(12, 0.5), np.full(12, 0.25), family_Q)}
    rows = []
    for drawn, name in (({"a", "b"}, "r"), ({"c", "d"}, "l")):
        assert choice.best({"twins": ours, "other": controls}, ["twins"], drawn) == name
        found = choice.reported((ours[name], controls["wl"]), drawn)
        assert found["map_at_20"] == pytest.approx([0.1, 0.5])
        assert found["mrr_at_20"] == pytest.approx([0.05, 0.25])
        assert found["totals"] == {family: pytest.approx([0.3, 1.5]) for family in drawn}
        rows.append(found)
    tested = choice.tested(rows)
    assert tested["map_at_20"] == pytest.approx([0.1, 0.5])
    assert tested["p"] > 0.9
    other = {"l": ours["r"], "r": choice.Figures(1 - left_Q, left_Q, family_Q)}
    assert choice.best({"twins": ours, "torchvision": other}, ["twins", "torchvision"], {"a", "b"}) == "r"
    made_corpus(tmp_path / "made.nge")
    words = ["--corpus", str(tmp_path / "made.nge"), "--out", str(tmp_path), "--families", "3"]
    run_retrieve(monkeypatch, "choice", *words)
    assert "| all questions | twins | 2 | " in capsys.readouterr().out
    kept = json.loads((tmp_path / "retrieve_choice_made_families_3.json").read_text())
    assert len(kept["results"]) == 18
    assert {test["question"] for test in kept["tests"]} == {"families", "twins", "torchvision"}
    assert len({tuple(row["chosen"]) for row in kept["results"] if row["by"] == "all questions"}) <= 3


def test_how_long_it_takes(tmp_path, capsys):
    speed = importlib.import_module("retrieve_speed")
    speed.measure(tmp_path, 500, traced=(), libraries=())
    assert "query of 500 embeddings of 64 features" in capsys.readouterr().out
    kept = json.loads((tmp_path / "retrieve_speed.json").read_text())
    assert kept["recall_at_10"] == 1
    assert all(value >= 0 for value in kept["core_seconds"].values())


def test_the_time_of_a_library_is_that_of_some_networks(monkeypatch):
    """What the first takes alone is left out; the others' mean is what is told."""
    speed = importlib.import_module("retrieve_speed")
    spent = [0.0]
    costs = {"a": 5.0, "b": 1.0, "c": 3.0}

    def build(folder: Path, libraries: list[str], names: list[str], processes: int) -> None:
        spent[0] += 7.0 + sum(costs[name] for name in names)

    monkeypatch.setattr(speed, "build_corpus", build)
    monkeypatch.setattr(speed, "children", lambda: spent[0])
    assert speed.tracing("timm", ["a", "b", "c"]) == pytest.approx(2)


def test_what_ships(tmp_path, monkeypatch):
    run_retrieve(monkeypatch, "shipped", "--out", str(tmp_path))
    kept = json.loads((tmp_path / "retrieve_shipped.json").read_text())
    assert kept["timm"]["share"] == kept["torchvision"]["share"] == 1
    assert sum(kept["bytes"].values()) < 5_000_000
    assert kept["new"]["area"] > 0.9


def test_rows_are_kept_as_they_come(tmp_path):
    """A line that was cut off is passed over, and is no obstacle to what comes after it."""
    kept_rows = importlib.import_module("kept_rows")
    trial = importlib.import_module("retrieve").Trial
    path = tmp_path / "rows.jsonl"
    rows = [{"trial": {"question": "seen", "model": "wl1", "seed": seed, "set": ""}} for seed in (0, 1)]
    coming = kept_rows.keep_rows(path, iter(rows))
    assert next(coming) == rows[0]
    assert kept_rows.read_rows(path, trial) == {trial("seen", "wl1", 0): rows[0]}
    assert list(coming) == rows[1:]
    path.write_text(path.read_text() + '{"trial": {"quest')
    assert list(kept_rows.read_rows(path, trial)) == [trial("seen", "wl1", 0), trial("seen", "wl1", 1)]
    list(kept_rows.keep_rows(path, [{"trial": {"question": "seen", "model": "wl1", "seed": 2, "set": ""}}]))
    assert len(kept_rows.read_rows(path, trial)) == 3
    assert kept_rows.numbers("0-2,7") == [0, 1, 2, 7]
