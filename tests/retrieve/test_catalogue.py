"""A catalogue in a folder: written, read, refused where its files do not belong together, and made larger."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nge_search.architecture.graph import Edge, Graph, Label
from nge_search.errors import UserError
from nge_search.kinds import CORPUS, RETRIEVAL_ENCODER, RETRIEVAL_INDEX
from nge_search.retrieve.catalogue import FILES, comparable, known_corpus, read_catalogue
from nge_search.retrieve.corpus import Corpus, Network, read_corpus
from nge_search.settings.retrieve import CorpusSection


@pytest.fixture
def copied(catalogue_folder: Path, tmp_path: Path) -> Path:
    """The three files, in a folder of their own."""
    for name in FILES:
        shutil.copy(catalogue_folder / name, tmp_path / name)
    return tmp_path


def test_what_was_written_is_read(copied: Path, small_corpus: Corpus) -> None:
    found = read_catalogue(copied)
    assert found.index.names[0] == "timm:residual0"
    assert found.index.about[0]["family"] == "residual"
    assert found.about["model"] == "wl1_names"
    assert found.about["made"]["corpus: timm"] == "1.0"
    graph = small_corpus.entries[7].graph
    assert found.retriever.query(graph).answers[0].name == "timm:bottleneck2"
    assert found.retriever.query(graph).answers[0].similarity == pytest.approx(1)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused(name: str, copied: Path) -> None:
    path = copied / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*damaged"):
        read_catalogue(copied)
    path.write_bytes(content[:100])
    with pytest.raises(UserError, match=name):
        read_catalogue(copied)
    path.unlink()
    with pytest.raises(UserError, match=f"holds no {name}; give a folder that `nge retrieve train`"):
        read_catalogue(copied)


def test_files_of_different_runs_are_refused(copied: Path, small_corpus: Corpus) -> None:
    small_corpus.of_libraries(["timm"]).write(copied / CORPUS)
    with pytest.raises(UserError, match=f"{RETRIEVAL_INDEX} is of other networks than {CORPUS}"):
        read_catalogue(copied)
    small_corpus.write(copied / CORPUS)
    catalogue = read_catalogue(copied)
    catalogue.about["model"] = "another"
    other = copied / "other"
    other.mkdir()
    catalogue.write(other)
    shutil.copy(other / RETRIEVAL_ENCODER, copied / RETRIEVAL_ENCODER)
    with pytest.raises(UserError, match=f"{RETRIEVAL_INDEX} was made by another encoder"):
        read_catalogue(copied)


def test_networks_are_added(copied: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    catalogue = read_catalogue(copied)
    graph = Graph.build(["conv", "norm", "relu", "new"], [(0, 1), (1, 2), (2, 3)], [0], [3])
    larger = catalogue.added([Network("mine", "own", "ours", "", 5, 6)], [graph])
    larger.write(tmp_path)
    found = read_catalogue(tmp_path)
    assert len(found.corpus) == len(small_corpus) + 1
    assert found.corpus.find("own:mine").graph == graph
    assert [entry.graph for entry in found.corpus.entries[:-1]] == [entry.graph for entry in small_corpus.entries]
    best = found.retriever.query(graph).answers[0]
    assert (best.name, best.about["family"]) == ("own:mine", "ours")
    np.testing.assert_array_equal(found.index.embedding_ND[:-1], catalogue.index.embedding_ND)
    with pytest.raises(UserError, match="network 'own:mine' is in the corpus already"):
        found.added([Network("mine", "own", "ours", "", 5, 6)], [graph])


def test_a_corpus_by_libraries(small_corpus: Corpus, tmp_path: Path) -> None:
    small_corpus.write(tmp_path / CORPUS)
    for path in (tmp_path, tmp_path / CORPUS):
        found = known_corpus(CorpusSection(file=str(path), libraries=["torchvision"]))
        assert [entry.name for entry in found.entries] == [f"{name}4" for name in small_corpus.families()] or (
            {entry.library for entry in found.entries} == {"torchvision"}
        )
        assert not found.skipped
    found.write(tmp_path / "part.nge")
    assert [e.graph for e in read_corpus(tmp_path / "part.nge").entries] == [e.graph for e in found.entries]
    with pytest.raises(UserError, match="holds no network of transformers; build one with `nge retrieve build`"):
        known_corpus(CorpusSection(file=str(tmp_path), libraries=["transformers"]))
    Corpus.of([], {}, {}).write(tmp_path / CORPUS)
    with pytest.raises(UserError, match="holds no network; build one"):
        known_corpus(CorpusSection(file=str(tmp_path)))
    with pytest.raises(UserError, match=r"nothing\.nge"):
        known_corpus(CorpusSection(file=str(tmp_path / "nothing.nge")))


def test_stand_ins_are_edges_and_views_may_go() -> None:
    nodes = tuple(map(Label, ("input", "View", "Relu")))
    graph = Graph(nodes, (Edge(0, 1, Label("stand-in")), Edge(1, 2)), (0,), (2,))
    assert comparable(graph) == Graph(nodes, (Edge(0, 1), Edge(1, 2)), (0,), (2,))
    assert comparable(graph, views=False) == Graph((nodes[0], nodes[2]), (Edge(0, 1),), (0,), (1,))
