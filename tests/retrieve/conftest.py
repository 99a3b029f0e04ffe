"""Random small graphs, and small families of networks that repeat their blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nge_search
from nge_search.architecture.graph import Graph, Label
from nge_search.retrieve.corpus import Corpus, Network

NAMES = ("conv", "norm", "relu", "add")


@pytest.fixture(scope="session")
def random_graph() -> Callable[..., Graph]:
    """An acyclic graph whose numbering is topological; several edges may join two nodes."""

    def build(seed: int, nodes: int = 12, share: float = 0.3) -> Graph:
        random = np.random.default_rng(seed)
        labels = [
            Label.of(str(random.choice(NAMES)), **({"kernel": int(random.integers(1, 3))} if kernel else {}))
            for kernel in random.random(nodes) < 0.5
        ]
        pairs = [(i, j) for j in range(nodes) for i in range(j) for _ in range(2) if random.random() < share / 2]
        return Graph.build(labels, pairs, [0], [nodes - 1])

    return build


@pytest.fixture(scope="session")
def stacked() -> Callable[..., Graph]:
    """A chain of operations, then a block so many times, each with a shortcut around it, then a head.

    A block is a text of operations: `stacked("conv norm relu", 4)`.
    """

    def build(block: str, depth: int, stem: str = "conv norm", head: str = "mean linear") -> Graph:
        nodes = stem.split()
        edges = [(i, i + 1) for i in range(len(nodes) - 1)]
        for _ in range(depth):
            before, first = len(nodes) - 1, len(nodes)
            nodes += [*block.split(), "add"]
            edges += [(i, i + 1) for i in range(before, len(nodes) - 1)]
            edges.append((before, len(nodes) - 1))
            assert first > before
        for name in head.split():
            nodes.append(name)
            edges.append((len(nodes) - 2, len(nodes) - 1))
        return Graph.build(nodes, edges, [0], [len(nodes) - 1])

    return build


@pytest.fixture(scope="session")
def families(stacked: Callable[..., Graph]) -> dict[str, list[Graph]]:
    """Six families of networks that differ in how often they repeat their block, in their stems and heads."""
    blocks = {
        "residual": "conv norm relu conv norm",
        "bottleneck": "conv norm relu grouped norm relu conv norm",
        "mixer": "norm linear gelu linear",
        "attention": "norm linear matmul softmax matmul linear",
        "separable": "conv depthwise conv norm",
        "plain": "conv relu",
    }
    stems, heads = ("conv norm", "conv norm relu", "conv"), ("mean linear", "mean norm linear")
    return {
        name: [stacked(block, depth, stems[depth % 3], heads[depth % 2]) for depth in (2, 3, 4, 6, 8)]
        for name, block in blocks.items()
    }


@pytest.fixture(scope="session")
def small_corpus(families: dict[str, list[Graph]]) -> Corpus:
    """The families as a corpus; the last network of each is torchvision's, all others are timm's."""
    items = []
    for family, graphs in families.items():
        for number, graph in enumerate(graphs):
            library = "torchvision" if number == len(graphs) - 1 else "timm"
            own = Network(f"{family}{number}", library, family, "classification", 100 + number, 1000)
            items.append(((own,), graph.digest, graph))
    return Corpus.of(items, {"timm": "1.0", "torch": "2"}, {"timm:odd": "it reads a value"})


@pytest.fixture(scope="session")
def catalogue_folder(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training on the small corpus leaves."""
    folder = tmp_path_factory.mktemp("catalogue")
    small_corpus.write(folder / "small.nge")
    words = ["run.tensorboard=false", "run.progress=none", "retrieve.model=wl1_names"]
    nge_search.retrieve_train(None, f"corpus.file={folder / 'small.nge'}", f"run.dir={folder / 'run'}", *words)
    return folder / "run"
