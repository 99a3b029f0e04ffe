"""Small tables whose accuracies follow a rule, for what is tested without real data."""

from __future__ import annotations

import itertools

import pytest

from nge_search.spaces import NasBench101Space
from nge_search.tables import Benchmark
from nge_search.tables.table import build_table


@pytest.fixture(scope="session")
def small_benchmark() -> Benchmark:
    """All cells of NAS-Bench-101 with at most four vertices: links and 3x3 convolutions are worth something."""
    space = NasBench101Space(4)
    rows = {}
    for code in itertools.product(*([range(2)] * 6), *([range(3)] * 2)):
        if space.allows(code):
            cell = space.graphs(code)["cell"]
            value = 50 + 4 * len(cell.edges) + 5 * sum("3x3-" in label.name for label in cell.nodes)
            figures = {"cifar10_valid_4": value + 0.5 * sum(code), "cifar10_test_4": float(value)}
            rows.setdefault(space.key(code), (code, figures))
    return Benchmark(build_table(space, rows.values(), "a test", "cell"), "cifar10_valid_4", "cifar10_test_4")
