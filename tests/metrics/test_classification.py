"""Counts of images against counting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nge_search.engine.distributed import World
from nge_search.metrics.classification import Meter, Outcomes

WORLD = World(torch.device("cpu"))


class TwoRanks:
    """Ranks of which the other one has counted what is given."""

    def __init__(self, other: torch.Tensor):
        self.other = other

    def gather_rows(self, row_N: torch.Tensor) -> torch.Tensor:
        return torch.stack([row_N, self.other])


def test_meter_equals_counting_by_hand():
    torch.manual_seed(0)
    meter, losses, first, five, count = Meter(WORLD.device), 0.0, 0, 0, 0
    assert meter.result(WORLD) == {}
    for size in (7, 1, 12):
        logits, labels = torch.randn(size, 9), torch.randint(9, (size,))
        loss_sum = nn.functional.cross_entropy(logits, labels, reduction="sum")
        meter.update(logits, labels, loss_sum)
        losses += loss_sum.item()
        for row, label in zip(logits.tolist(), labels.tolist()):
            better = sum(value > row[label] for value in row)
            first, five, count = first + (better == 0), five + (better < 5), count + 1
    expected = {"loss": losses / count, "top1": 100 * first / count, "top5": 100 * five / count}
    assert meter.result(WORLD) == pytest.approx(expected)
    meter.reset()
    assert meter.result(WORLD) == {}


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top5_is_absent_where_it_says_nothing(classes, shown):
    meter = Meter(WORLD.device, classes)
    meter.update(torch.eye(classes), torch.zeros(classes, dtype=torch.int64), torch.ones(()))
    assert ("top5" in meter.result(WORLD)) is shown
    assert len(meter.sums) == 4  # as in checkpoints of any number of classes


def test_what_ranks_have_seen_adds_up():
    own, other = (Outcomes(4, WORLD.device) for _ in range(2))
    own.update(torch.eye(3)[[2, 0]], torch.tensor([0.5, 1.5]), torch.tensor([1, 3]))
    other.update(torch.eye(3)[[1]], torch.tensor([2.5]), torch.tensor([0]))
    predicted_N, losses_N = own.result(TwoRanks(other.sums))
    assert predicted_N.tolist() == [1, 2, -1, 0]  # nobody saw the third
    assert losses_N.tolist() == [2.5, 0.5, 0, 1.5]
    own.reset()
    assert own.result(WORLD)[0].tolist() == [-1] * 4
