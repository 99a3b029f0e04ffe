"""Calibration against counting by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nge_search.engine.distributed import World
from nge_search.metrics.calibration import INTERVALS, Calibration

WORLD = World(torch.device("cpu"))


def by_hand(logits: list[list[float]], labels: list[int]) -> dict[str, float]:
    """Expected calibration error, Brier score and mean confidence, image by image."""
    bins, brier = [[] for _ in range(INTERVALS)], []
    for row, label in zip(logits, labels):
        whole = sum(math.exp(value) for value in row)
        probabilities = [math.exp(value) / whole for value in row]
        brier.append(sum((p - (k == label)) ** 2 for k, p in enumerate(probabilities)))
        confidence = max(probabilities)
        hit = probabilities.index(confidence) == label
        place = next(j for j in range(INTERVALS) if j / INTERVALS < confidence <= (j + 1) / INTERVALS)
        bins[place].append((confidence, hit))
    ece = 0.0
    for found in bins:
        if found:
            sure, right = (sum(column) / len(found) for column in zip(*found))
            ece += len(found) / len(labels) * abs(sure - right)
    sure = [confidence for found in bins for confidence, _ in found]
    return {"ece": 100 * ece, "brier": sum(brier) / len(brier), "confidence": 100 * sum(sure) / len(sure)}


def test_calibration_equals_counting_by_hand():
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(40, 4, dtype=torch.float64), torch.randint(4, (40,))
    calibration = Calibration(WORLD.device)
    assert calibration.result(WORLD) == {}
    calibration.update(logits[:13], labels[:13])
    calibration.update(logits[13:], labels[13:])
    found = calibration.result(WORLD)
    intervals = found.pop("intervals")
    assert found == pytest.approx(by_hand(logits.tolist(), labels.tolist()))
    assert sum(count for count, _, _ in intervals) == 40
    assert intervals[0] == [0, None, None]  # no confidence of four classes is below a quarter
    assert all(100 * j / 15 < sure <= 100 * (j + 1) / 15 for j, (n, sure, _) in enumerate(intervals) if n)


def test_pixels_that_do_not_count():
    torch.manual_seed(1)
    logits, truth = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randint(3, (2, 4, 5))
    truth[0, :2] = 255
    calibration = Calibration(WORLD.device)
    calibration.update(logits, truth, ignored=255)
    counted = truth != 255
    rows = logits.permute(0, 2, 3, 1)[counted]
    found = calibration.result(WORLD)
    found.pop("intervals")
    assert found == pytest.approx(by_hand(rows.tolist(), truth[counted].tolist()))


def test_certain_and_always_wrong():
    calibration = Calibration(WORLD.device)
    calibration.update(torch.tensor([[0.0, 1000.0]] * 3), torch.zeros(3, dtype=torch.int64))
    found = calibration.result(WORLD)
    assert (found["ece"], found["brier"], found["confidence"]) == (100, 2, 100)
    assert found["intervals"][-1] == [3, 100, 0]
    calibration.reset()
    assert calibration.result(WORLD) == {}
