"""A made table of NAS-Bench-201 with one best architecture, and a space small enough to enumerate."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from nge_search.architecture.cell_space import CellSpace
from nge_search.settings.strategies import PolicySection
from nge_search.spaces import Code, NasBench201Space
from nge_search.tables import Benchmark, Table
from nge_search.tables.table import build_table

BEST = (3, 1, 3, 2, 3, 4)


class Tiny(NasBench201Space):
    """Three edges with three operations: 27 architectures."""

    cell_space = CellSpace(nodes=2, operations=("none", "skip_connect", "nor_conv_3x3"), inputs=1, kinds=("cell",))
    length = 3
    size = 27


def _made_signal(code: Code) -> float:
    distance = sum(abs(operation - best) * (edge + 1) for edge, (operation, best) in enumerate(zip(code, BEST)))
    return 95.0 - distance


@pytest.fixture(scope="session")
def best() -> Code:
    """The best architecture by `made_signal`."""
    return BEST


@pytest.fixture(scope="session")
def made_signal() -> Callable[[Code], float]:
    """Percent; every edge has a best operation, and `best` is the best architecture, at 95."""
    return _made_signal


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def small_policy() -> Callable[[str], PolicySection]:
    """A policy from an embedding of the given kind, with few dimensions."""
    return lambda kind: PolicySection(kind=kind, input_dim=8, hidden_dim=12, output_dim=8, edge_dim=8)


@pytest.fixture(scope="session")
def table() -> Table:
    """`made_signal` as the mean of two trainings, half of it as the score, ten seconds each."""
    rows = (
        (
            code,
            {
                "made_valid_12": [_made_signal(code) - 1, _made_signal(code) + 1],
                "made_test_200": _made_signal(code) / 2,
                "made_seconds_12": 10.0,
            },
        )
        for code in itertools.product(range(5), repeat=6)
    )
    return build_table(NasBench201Space(), rows, "a made table", "architecture")


@pytest.fixture
def benchmark(table: Table) -> Benchmark:
    return Benchmark(table, "made_valid_12", "made_test_200")


@pytest.fixture(scope="session")
def folder(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table.save(tmp_path_factory.mktemp("tables") / "made")
