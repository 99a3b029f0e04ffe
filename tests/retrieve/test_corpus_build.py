"""Building a corpus: merged graphs, builds that go on, progress, and processes within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.retrieve import corpus_build
from nge_search.retrieve.corpus import read_corpus
from nge_search.retrieve.corpus_build import Limits, Progress, build_corpus
from nge_search.retrieve.extraction import Inputs, images
from nge_search.retrieve.sources import Library, Origin
from nge_search.retrieve.worker import answer


class Toy(Library):
    """Two widths of one network, another network, one that cannot be traced, and one that cannot be built."""

    name = "toy"

    def version(self) -> str:
        return "1.0"

    def names(self) -> list[str]:
        return ["broken", "deep", "narrow", "unbuilt", "wide"]

    def origin(self, name: str) -> Origin:
        return Origin("deep" if name == "deep" else "flat", "classification")

    def build(self, name: str) -> tuple[nn.Module, Inputs]:
        if name == "unbuilt":
            raise ValueError("no such layer")
        width = 4 if name == "narrow" else 8
        layers = [nn.Conv2d(3, width, 3), nn.ReLU()] * (1 if name != "deep" else 2)
        if name == "deep":
            layers[2] = nn.Conv2d(width, width, 3)
        return nn.Sequential(*layers, Reading() if name == "broken" else nn.Flatten()), images(3, 8, 8)


class Reading(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int(x.sum())]


class InProcess:
    """In place of a worker: answers in this process, and remembers what it was asked."""

    asked: ClassVar[list[str]] = []

    def __init__(self, library: str, seconds: float, megabytes: int):
        self._library = Toy()

    def trace(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        return answer(self._library, name)

    def close(self) -> None:
        pass


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> str:
    """What names the toy library."""
    monkeypatch.setattr(corpus_build, "open_library", lambda name: Toy())
    monkeypatch.setattr(corpus_build, "Worker", InProcess)
    monkeypatch.setattr(InProcess, "asked", [])
    return "toy"


def test_networks_that_share_a_graph_are_one_entry(place: str, tmp_path: Path) -> None:
    states: list[Progress] = []
    corpus = build_corpus(tmp_path / "new", [place], progress=states.append)
    assert [[network.name for network in entry.networks] for entry in corpus.entries] == [
        ["deep"],
        ["narrow", "wide"],
    ]
    narrow, wide = corpus.find("wide").networks
    assert (narrow.parameters, wide.parameters) == (4 * 28, 8 * 28)
    assert (narrow.multiply_adds, wide.multiply_adds) == (4 * 27 * 36, 8 * 27 * 36)
    assert corpus.find("deep").family == "deep"
    assert corpus.find("deep").label == "cnn"
    assert corpus.find("deep").digest == corpus.find("deep").graph.digest
    assert corpus.versions == {"torch": torch.__version__, "extraction": "1", "toy": "1.0"}
    assert list(corpus.skipped) == ["toy:broken", "toy:unbuilt"]
    assert corpus.skipped["toy:broken"].startswith("Sequential cannot be traced: it needs the values")
    assert corpus.skipped["toy:unbuilt"] == "it cannot be built: ValueError: no such layer"
    assert sorted(state.done for state in states) == [1, 2, 3, 4, 5]
    assert {state.total for state in states} == {5}
    assert {state.network for state in states if state.reason} == set(corpus.skipped)
    corpus.write(tmp_path / "corpus")
    assert read_corpus(tmp_path / "corpus").find("wide").graph == corpus.find("wide").graph


def test_a_build_goes_on_where_it_stopped(place: str, tmp_path: Path) -> None:
    def stop(state: Progress) -> None:
        if state.done == 2:
            raise KeyboardInterrupt

    names = ("deep", "narrow", "wide")
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path, [place], names, processes=1, progress=stop)
    (journal,) = tmp_path.glob("traced-toy-*.jsonl")
    assert len(journal.read_bytes().splitlines()) == 2
    with open(journal, "ab") as file:
        file.write(b'{"name": "wide", "digest"')  # cut short by a crash
    InProcess.asked.clear()
    states: list[Progress] = []
    whole = build_corpus(tmp_path, [place], names, progress=states.append)
    assert len(InProcess.asked) == 1
    assert [(state.done, state.total) for state in states] == [(3, 3)]
    InProcess.asked.clear()
    again = build_corpus(tmp_path, [place], names)
    assert InProcess.asked == []
    fresh = build_corpus(tmp_path / "fresh", [place], names)
    for other in (again, fresh):
        assert [(e.networks, e.digest, e.graph) for e in other.entries] == [
            (e.networks, e.digest, e.graph) for e in whole.entries
        ]


def test_changed_lines_are_not_believed(place: str, tmp_path: Path) -> None:
    build_corpus(tmp_path, [place], ["narrow"])
    (journal,) = tmp_path.glob("traced-toy-*.jsonl")
    text = journal.read_text()
    journal.write_text(text.replace('"parameters":112', '"parameters":113') + "[]\n" + "null\n")
    InProcess.asked.clear()
    corpus = build_corpus(tmp_path, [place], ["narrow"])
    assert InProcess.asked == ["narrow"]
    assert corpus.find("narrow").networks[0].parameters == 112


def test_graphs_that_share_a_hash_alone_stay_apart(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graph, "digest", property(lambda graph: "the same"))
    corpus = build_corpus(tmp_path, [place], ["deep", "narrow", "wide"])
    assert [len(entry.networks) for entry in corpus.entries] == [1, 2]


def test_bad_limits_and_folders_are_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="limits must be above 0"):
        Limits(seconds=0)
    with pytest.raises(UserError, match="processes must be at least 1, not 0"):
        build_corpus(tmp_path, [place], processes=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder; choose another path"):
        build_corpus(tmp_path / "file", [place])
