"""The corpus: coarse labels, names, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nge_search.architecture.graph import Graph, Label
from nge_search.errors import UserError
from nge_search.retrieve.corpus import ATTENTION, CNN, FORMAT, OTHER, Corpus, Network, coarse_label, read_corpus
from nge_search.retrieve.graph_archive import GraphArchive, write_archive


def chain(*labels: Label | str) -> Graph:
    return Graph.build(["input", *labels], [(n, n + 1) for n in range(len(labels))], [0], [len(labels)])


def convolution(kernel: int, stride: int, groups: int | str = 1) -> Label:
    return Label.of("Convolution", kernel=kernel, stride=stride, groups=groups)


def network(name: str, library: str = "timm", family: str = "resnet", parameters: int = 7) -> Network:
    return Network(name, library, family, "classification", parameters, 11)


@pytest.fixture
def corpus() -> Corpus:
    items = [
        ((network("small"), network("large", parameters=9), network("small", "torchvision")), "d0", chain("Relu")),
        ((network("vit", family="vision_transformer"),), "d1", chain("Softmax", "View", "Bmm")),
        ((network("other", "torchvision"),), "d2", chain(convolution(3, 1))),
    ]
    return Corpus.of(items, {"timm": "1", "torch": "2"}, {"timm:odd": "it reads a value"})


def test_coarse_labels() -> None:
    assert coarse_label(chain("Softmax", "Clone", "View", "Bmm")) == ATTENTION
    assert coarse_label(chain(convolution(3, 1), "SafeSoftmax", "Bmm")) == ATTENTION
    assert coarse_label(chain(convolution(3, 1), "Softmax", "Sum", "Bmm")) == CNN  # weights of branches
    assert coarse_label(chain(convolution(7, 1, "depthwise"), "Addmm")) == CNN
    assert coarse_label(chain(convolution(16, 16), "Addmm", "Gelu", "Softmax")) == OTHER  # patches
    assert coarse_label(chain(convolution(1, 1))) == OTHER
    assert coarse_label(chain(Label.of("AvgPool2D", kernel=3, stride=1))) == OTHER


def test_entries_and_names(corpus: Corpus) -> None:
    assert len(corpus) == 3
    assert [entry.name for entry in corpus.entries] == ["small", "vit", "other"]
    assert [entry.label for entry in corpus.entries] == [OTHER, ATTENTION, CNN]
    first = corpus.entries[0]
    assert (first.library, first.family, first.task) == ("timm", "resnet", "classification")
    assert corpus.find("large") is corpus.find("torchvision:small") is first
    assert corpus.find("other") is corpus.entries[2]
    assert first.of_library("torchvision") == network("small", "torchvision")
    assert corpus.entries[1].of_library("torchvision") is None
    assert corpus.families() == {"resnet": 2, "vision_transformer": 1}
    assert corpus.families(least=2) == {"resnet": 2}
    with pytest.raises(UserError, match="network 'smal' is not among the 5 of the corpus; did you mean 'small'"):
        corpus.find("smal")


def test_what_is_written_is_read(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    corpus.write(path)
    read = read_corpus(path)
    assert [(e.networks, e.digest, e.label) for e in read.entries] == [
        (e.networks, e.digest, e.label) for e in corpus.entries
    ]
    assert [entry.graph for entry in read.entries] == [entry.graph for entry in corpus.entries]
    assert read.entries[0].graph == chain("Relu")
    assert (read.versions, read.skipped) == (corpus.versions, corpus.skipped)
    assert read.entries[0].graph is read.entries[0].graph


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [],
        [["d", "cnn", []]],
        [["d", "tree", [["a", "b", "c", "d", 1, 1]]]],
        [["d", "cnn", [["a", "b", "c", "d", 1]]]],
        [["d", "cnn", [["a", "b", "c", "d", -1, 1]]]],
        [["d", "cnn", [["a", "b", "c", "d", 1, True]]]],
        [["d", "cnn", [["a", "b", "c", 4, 1, 1]]]],
        [[4, "cnn", [["a", "b", "c", "d", 1, 1]]]],
        ["d"],
    ],
)
def test_forged_entries_are_refused(entries: object, tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    good = {"versions": {}, "skipped": {}, "entries": [["d", "cnn", [["a", "b", "c", "d", 1, 1]]]]}
    write_archive(path, FORMAT, GraphArchive.of([chain("Relu")]), good)
    assert read_corpus(path).entries[0].networks == (Network("a", "b", "c", "d", 1, 1),)
    write_archive(path, FORMAT, GraphArchive.of([chain("Relu")]), {**good, "entries": entries})
    with pytest.raises(UserError, match="is damaged"):
        read_corpus(path)
