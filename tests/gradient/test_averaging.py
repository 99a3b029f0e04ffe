"""Cells are derived from the mean of P over the epochs in which it has learned: that of what metrics show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import nge_search
from nge_search.errors import UserError
from nge_search.gradient.averaging import EpochMean
from nge_search.spaces import NasBench201Space

SPACE = NasBench201Space()


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_mean_is_that_of_all_epochs_and_of_one_more() -> None:
    generator = torch.Generator().manual_seed(0)
    given = [[torch.rand(shape, generator=generator) for shape in ((3, 2), (4, 5))] for _ in range(4)]
    mean = EpochMean([(3, 2), (4, 5)])
    for count, matrices in enumerate(given):
        expected = [torch.stack([own[at] for own in given[: count + 1]]).double().mean(dim=0) for at in (0, 1)]
        for found in (mean.value(beside=matrices), mean.value(beside=matrices)):
            for own_EO, exact_EO in zip(found, expected):
                torch.testing.assert_close(own_EO, exact_EO)
        mean.add(matrices)
        again = EpochMean([(3, 2), (4, 5)])
        again.load_state_dict(mean.state_dict(), "a checkpoint")
        assert all(torch.equal(a, b) for a, b in zip(again.value(), mean.value()))


@pytest.mark.parametrize(
    "state", [None, {}, {"epochs": -1, "sums": [torch.zeros(3, 2)]}, {"epochs": 1, "sums": [torch.zeros(2, 3)]}]
)
def test_a_damaged_state_is_refused(state) -> None:
    with pytest.raises(UserError, match="a checkpoint"):
        EpochMean([(3, 2)]).load_state_dict(state, "a checkpoint")


def test_a_search_derives_from_the_mean(dense_search: list[str], tmp_path: Path, torch_kernels: None) -> None:
    """After each epoch from those before it in which P has learned, and from its own."""
    moving = ("embedding.kind=direct", "embedding.learning_rate=0.1", "search.mixture=sampled", "seed=1")
    words = [*dense_search, *moving, "search.epochs=6", "search.warmup_epochs=2", "device=cpu"]
    found = nge_search.search(None, *words, "search.average=true", f"run.dir={tmp_path / 'whole'}")
    rows = rows_of(tmp_path / "whole")
    cells = []
    for epoch, row in enumerate(rows):
        first = min(2, epoch)
        p_NEO = torch.tensor([own["p_cell"] for own in rows[first : epoch + 1]], dtype=torch.float64)
        cells.append(SPACE.derive([p_NEO.mean(dim=0)], {}).text)
        assert row["genotype"]["architecture"] == cells[-1]
    assert found["genotype"]["architecture"] == cells[-1]
    last = [SPACE.derive([torch.tensor(row["p_cell"], dtype=torch.float64)], {}).text for row in rows]
    assert last != cells, "the last P derives the same cells: this shows nothing"
