"""Short trainings on scikit-learn's digits that take a few steps."""

from __future__ import annotations

import pytest

#: A cell of NAS-Bench-201 with one of each operation.
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"


@pytest.fixture(scope="session")
def cell() -> str:
    return CELL


@pytest.fixture(scope="session")
def short() -> tuple[str, ...]:
    """Settings of a short training, or of a search by such."""
    return (
        "threads=1",
        "device=cpu",
        "run.progress=none",
        "run.tensorboard=false",
        "data.limit=60",
        "evaluator.steps=4",
        "evaluator.batch_size=8",
        "evaluator.channels=2",
        "evaluator.cells=3",
    )
