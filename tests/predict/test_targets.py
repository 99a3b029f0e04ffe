"""Targets: monotone, inverted exactly, and what the formula says."""

from __future__ import annotations

import math

import pytest
import torch

from nge_search.predict.targets import TARGETS, Target

LABELS = torch.tensor([91.0, 94.2, 10.0, 93.9, 91.0, 88.5], dtype=torch.float64)


def test_log_error_as_written() -> None:
    raw = [-math.log(94.2 + 2 - label) for label in LABELS.tolist()]
    mean = sum(raw) / 6
    deviation = math.sqrt(sum((value - mean) ** 2 for value in raw) / 6)
    expected = torch.tensor([(value - mean) / deviation for value in raw], dtype=torch.float64)
    torch.testing.assert_close(Target.of(LABELS)(LABELS), expected, rtol=0, atol=1e-12)
    assert Target.of(LABELS)(torch.tensor([97.0], dtype=torch.float64)).item() == math.inf


@pytest.mark.parametrize("kind", TARGETS)
def test_there_and_back(kind: str) -> None:
    target = Target.of(LABELS, kind)
    label_M = torch.linspace(0, 96.1, 500, dtype=torch.float64)
    target_M = target(label_M)
    assert (target_M.diff() > 0).all()
    torch.testing.assert_close(target.label(target_M), label_M, rtol=0, atol=1e-9)
    assert abs(float(target(LABELS).mean())) < 1e-12
    assert abs(float(target(LABELS).square().mean()) - 1) < 1e-12
    assert Target.read(target.document()) == target
    beyond = target.label(torch.linspace(-9, 9, 50, dtype=torch.float64))
    assert (beyond.diff() >= 0).all()


def test_ranks_of_equal_labels_are_their_mean() -> None:
    target = Target.of(LABELS, "rank")
    places = target(LABELS) * target.deviation + target.mean
    torch.testing.assert_close(places, torch.tensor([2.5, 5, 0, 4, 2.5, 1], dtype=torch.float64))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("value", [0.0, 55.5, 100.0])
def test_equal_labels(kind: str, value: float) -> None:
    label_N = torch.full((3,), value, dtype=torch.float64)
    target = Target.of(label_N, kind)
    assert not target(label_N).any()
    torch.testing.assert_close(target.label(target(label_N)), label_N)
