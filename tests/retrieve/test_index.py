"""The index: exact search against sorting, files that are damaged, and what counts as new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nge_search.errors import UserError
from nge_search.retrieve import index as index_module
from nge_search.retrieve.index import ExactSearch, Index, Novelty, search_of
from nge_search.retrieve.saved import read_saved, write_saved
from nge_search.retrieve.smoothing import Smoothing


def make(count: int = 30, novelty: Novelty | None = None) -> Index:
    random = np.random.default_rng(0)
    about = tuple({"task": "detection" if i % 3 else "classification", "family": f"f{i % 4}"} for i in range(count))
    rows = random.normal(size=(count, 6)).astype(np.float32)
    return Index(tuple(f"net{i}" for i in range(count)), rows, about, novelty, "wl2")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_queries_against_sorting() -> None:
    index = make()
    query = np.random.default_rng(1).normal(size=6)
    order = sorted(range(30), key=lambda i: -cosine(query, index.embedding_ND[i]))
    found = index.query(query, top=7)
    assert [answer.name for answer in found] == [f"net{i}" for i in order[:7]]
    assert [answer.similarity for answer in found] == pytest.approx(
        [cosine(query, index.embedding_ND[i]) for i in order[:7]], abs=1e-6
    )
    assert found[0].about == index.about[order[0]]
    gone = f"net{order[1]}"
    assert [a.name for a in index.query(query, 3, without=[gone])] == [f"net{order[i]}" for i in (0, 2, 3)]
    kept = [i for i in order if i % 3 == 0]
    found = index.query(query, 100, where={"task": "classification"})
    assert [answer.name for answer in found] == [f"net{i}" for i in kept]
    assert index.query(query, 3, where={"task": "flow"}) == []


def test_a_network_is_nearest_to_itself() -> None:
    index = make()
    best = index.query(index.row("net4") * 5, 1)[0]
    assert (best.name, best.similarity) == ("net4", pytest.approx(1, abs=1e-6))


def test_equals_keep_their_order() -> None:
    rows = np.array([[0.0, 1], [1, 0], [0, 1], [1, 0], [1, 0]])
    values, numbers = ExactSearch(rows)(np.array([[1.0, 0]]), 4)
    assert numbers.tolist() == [[1, 3, 4, 0]]
    assert values.tolist() == [[1, 1, 1, 0]]
    assert ExactSearch(rows)(np.array([[1.0, 0]]), 9)[1].tolist() == [[1, 3, 4, 0, 2]]
    assert ExactSearch(rows[:0])(np.array([[1.0, 0]]), 3)[1].shape == (1, 0)


def test_networks_that_are_added() -> None:
    index = make(10)
    new = index.added(["mine"], np.ones((1, 6)), [{"family": "own"}])
    assert len(new) == 11
    assert new.query(np.ones(6), 1)[0].name == "mine"
    assert "mine" not in index.names
    with pytest.raises(UserError, match="not all different"):
        index.added(["net3"], np.ones((1, 6)), [{}])


def test_smoothed_search() -> None:
    """Rows and queries take up their neighbours; a network that is there stays nearest to itself."""
    smoothing = Smoothing(3, 0.5, 2.0)
    index = replace(make(), smoothing=smoothing)
    unit = index.embedding_ND / np.linalg.norm(index.embedding_ND, axis=1, keepdims=True)
    query = np.random.default_rng(1).normal(size=6)
    asked = smoothing.queries(query[None] / np.linalg.norm(query), unit)[0]
    expected = asked @ smoothing.rows(unit).T
    found = index.query(query, 30)
    assert [answer.name for answer in found] == [f"net{i}" for i in np.argsort(-expected)]
    assert [answer.similarity for answer in found] == pytest.approx(np.sort(expected)[::-1], abs=1e-5)
    best = index.query(index.row("net4") * 5, 1)[0]
    assert (best.name, best.similarity) == ("net4", pytest.approx(1, abs=1e-5))
    kept = index.query(query, 30, where={"task": "classification"})
    assert kept == [answer for answer in found if answer.about["task"] == "classification"]


def test_what_is_no_index() -> None:
    index = make(3)
    with pytest.raises(UserError, match="no network 'net' in the index; did you mean"):
        index.row("net")
    with pytest.raises(UserError, match="the query has 5 features, the index 6"):
        index.query(np.ones(5))
    with pytest.raises(UserError, match="one embedding"):
        Index(("a",), np.ones((2, 3)), ({},))
    with pytest.raises(UserError, match="finite"):
        Index(("a",), np.full((1, 3), np.nan), ({},))


def test_search_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without faiss search stays exact at any size; with it, it is asked only from a size on."""
    rows = np.ones((4, 2))
    assert isinstance(search_of(rows), ExactSearch)
    made = []
    monkeypatch.setattr(index_module, "FAISS_FROM", 3)
    monkeypatch.setattr(index_module, "HNSW_FROM", 4)
    monkeypatch.setattr(index_module, "FaissSearch", lambda unit, small_world: made.append(small_world))
    monkeypatch.setattr(index_module.importlib.util, "find_spec", lambda name: None)
    assert isinstance(search_of(rows), ExactSearch)
    monkeypatch.setattr(index_module.importlib.util, "find_spec", lambda name: name)
    assert isinstance(search_of(rows[:2]), ExactSearch)
    search_of(rows[:3])
    search_of(rows)
    assert made == [False, True]


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss", reason="faiss is not installed")
    unit = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    exact = ExactSearch(unit)(unit[:50], 10)[1]
    assert (index_module.FaissSearch(unit, small_world=False)(unit[:50], 10)[1] == exact).mean() > 0.99
    found = index_module.FaissSearch(unit, small_world=True)(unit[:50], 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist())]) >= 0.95


def test_what_is_new() -> None:
    """The threshold lets at most the given share of known networks count as new."""
    random = np.random.default_rng(2)
    known, strange = random.normal(0.8, 0.1, 60), random.normal(0.6, 0.1, 40)
    novelty = Novelty.calibrated(known, strange, 0.05)
    assert novelty.false_alarms == (known < novelty.threshold).mean() == 3 / 60
    assert novelty.detections == (strange < novelty.threshold).mean()
    expected = roc_auc_score([1] * 40 + [0] * 60, np.concatenate([-strange, -known]))
    assert novelty.area == pytest.approx(expected)
    assert novelty.is_new(novelty.threshold - 1e-6)
    assert not novelty.is_new(novelty.threshold)
    assert np.isnan(Novelty.calibrated(known, strange[:0]).area)
    with pytest.raises(UserError, match="needs known networks"):
        Novelty.calibrated(known[:0], strange)


@pytest.mark.parametrize("novelty", [None, Novelty(0.5, 0.05, 0.9, 0.95)])
def test_index_files(tmp_path: Path, novelty: Novelty | None) -> None:
    index = make(novelty=novelty)
    path = tmp_path / "index.safetensors"
    index.write(path)
    found = Index.read(path)
    assert (found.names, found.about, found.encoder) == (index.names, index.about, "wl2")
    assert (found.novelty, found.smoothing) == (novelty, index.smoothing)
    np.testing.assert_array_equal(found.embedding_ND, index.embedding_ND)


def test_damaged_files(tmp_path: Path) -> None:
    """Any byte that changes, and any end that is missing, is told; nothing of the file is run."""
    path, damaged = tmp_path / "index.safetensors", tmp_path / "damaged"
    make(5).write(path)
    content = path.read_bytes()
    for place in range(0, len(content), 29):
        changed = bytearray(content)
        changed[place] ^= 1
        damaged.write_bytes(changed)
        with pytest.raises(UserError, match="damaged"):
            Index.read(damaged)
    for length in (0, 7, 100, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged"):
            Index.read(damaged)
    with pytest.raises(UserError, match="does not exist"):
        Index.read(tmp_path / "none")


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_saved(path, "recipe", {"x": np.ones(2)}, {"names": []})
    with pytest.raises(UserError, match="is no retrieval index file; it is of the kind 'recipe'"):
        Index.read(path)
    for document in (
        {},
        {"names": [1], "about": [{}], "encoder": "", "smoothing": {}},
        {"names": 3, "about": [], "encoder": "", "smoothing": {}},
    ):
        write_saved(path, "retrieval index", {"embedding": np.ones((1, 2), np.float32)}, document)
        with pytest.raises(UserError, match="damaged"):
            Index.read(path)


def test_words_are_written_as_integers(tmp_path: Path) -> None:
    words = np.array([0, 1, 2**64 - 1], np.uint64)
    write_saved(tmp_path / "file", "words", {"word": words}, {"n": 3})
    arrays, document = read_saved(tmp_path / "file", "words")
    assert (arrays["word"].view(np.uint64) == words).all()
    assert document == {"kind": "words", "n": 3}


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order in which it is given; arrays begin at a multiple of 8 bytes."""
    arrays = {"second": np.arange(3.0), "first": np.ones((2, 1), np.float32)}
    for place in range(8):
        names = sorted(arrays, reverse=bool(place % 2))
        write_saved(tmp_path / str(place), "words", {name: arrays[name] for name in names}, {"n": "é"})
    contents = {(tmp_path / str(place)).read_bytes() for place in range(8)}
    assert len(contents) == 1
    assert int.from_bytes(next(iter(contents))[:8], "little") % 8 == 0
    found, document = read_saved(tmp_path / "0", "words")
    assert document["n"] == "é"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
