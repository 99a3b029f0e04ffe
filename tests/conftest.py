"""What all tests share: one thread per process, a scratch working folder, and a tiny search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

#: Settings under which a search on digits takes a fraction of a second per epoch.
TINY_SEARCH = (
    "threads=1",
    "run.progress=none",
    "run.tensorboard=false",
    "data.limit=64",
    "supernet.channels=2",
    "supernet.cells=3",
    "supernet.nodes=2",
    "supernet.kernel=reference",  # compiles nothing
    "embedding.input_dim=8",
    "embedding.hidden_dim=12",
    "embedding.output_dim=8",
    "embedding.edge_dim=8",
    "search.batch_size=16",
    "search.epochs=2",
)


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tests run side by side; idle threads that wait for a core slow all of them


@pytest.fixture(scope="session")
def tiny_search() -> tuple[str, ...]:
    return TINY_SEARCH


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's root."""
    return ROOT
