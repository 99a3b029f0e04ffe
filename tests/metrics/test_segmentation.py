"""Counts of pixels against NumPy, loop by loop, and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from nge_search.data.segmentation.dataset import IGNORED
from nge_search.engine.distributed import World
from nge_search.metrics.segmentation import Confusion, PixelMeter, intersection_over_union, mean_over_union

WORLD = World(torch.device("cpu"))


def masks(classes: int, seed: int, shape: tuple[int, ...] = (3, 17, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions that are right in about half of the pixels, and truths, a fifth of which does not count."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, shape)
    predicted = np.where(random.random(shape) < 0.5, truth, random.integers(0, classes, shape))
    truth = np.where(random.random(shape) < 0.2, IGNORED, truth)
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def counted(pairs: list[tuple[torch.Tensor, torch.Tensor]], classes: int) -> torch.Tensor:
    confusion = Confusion(classes, WORLD.device)
    for predicted, truth in pairs:
        confusion.update(predicted, truth, IGNORED)
    return confusion.result(WORLD)


def brute_force(predicted: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    found = []
    for wanted in range(classes):
        both = either = 0
        for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist()):
            if t != IGNORED:
                both += p == wanted and t == wanted
                either += p == wanted or t == wanted
        found.append(both / either if either else float("nan"))
    return found


@pytest.mark.parametrize("classes", [2, 5, 21])
@pytest.mark.parametrize("seed", range(3))
def test_intersection_over_union(classes, seed):
    predicted, truth = masks(classes, seed)
    iou_K = intersection_over_union(counted([(predicted, truth)], classes))
    np.testing.assert_allclose(iou_K, brute_force(predicted.numpy(), truth.numpy(), classes), rtol=1e-14)
    options = {"num_classes": classes, "ignore_index": IGNORED}
    theirs = multiclass_jaccard_index(predicted, truth, average=None, **options)
    torch.testing.assert_close(iou_K.float(), theirs, rtol=1e-6, atol=1e-7)
    mean = multiclass_jaccard_index(predicted, truth, average="macro", **options)
    assert float(iou_K.nanmean()) == pytest.approx(float(mean), rel=1e-6)


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_count():
    truth, predicted = torch.tensor([[[0, 0, 1, IGNORED]]]), torch.tensor([[[0, 1, 1, 2]]])
    iou_K = intersection_over_union(counted([(predicted, truth)], 4))
    assert iou_K[:2].tolist() == [1 / 2, 1 / 2]
    assert iou_K[2:].isnan().all()  # class 2 was predicted where nothing counts
    assert float(iou_K.nanmean()) == 0.5
    assert mean_over_union(counted([(predicted, truth)], 4)) == 0.5


def test_a_mean_over_nothing_is_absent():
    truth = torch.full((1, 2, 3), IGNORED)
    assert mean_over_union(counted([(torch.ones_like(truth), truth)], 4)) is None
    meter = PixelMeter(WORLD.device)
    meter.update(torch.ones_like(truth), truth, IGNORED, torch.zeros(()))
    assert meter.result(WORLD) == {}


def test_counts_add_up_over_batches_and_start_anew():
    pairs = [masks(4, seed) for seed in range(3)]
    whole = counted([tuple(torch.cat(part) for part in zip(*pairs))], 4)
    assert torch.equal(counted(pairs, 4), whole)
    assert torch.equal(counted(pairs[:1], 4) + counted(pairs[1:], 4), whole)
    assert int(whole.sum()) == sum(int((truth != IGNORED).sum()) for _, truth in pairs)
    confusion = Confusion(4, WORLD.device)
    confusion.update(*pairs[0], IGNORED)
    confusion.reset()
    assert int(confusion.result(WORLD).sum()) == 0


def test_loss_and_accuracy_are_means_over_the_pixels_that_count():
    meter, expected = PixelMeter(WORLD.device), []
    assert meter.result(WORLD) == {}
    for seed in range(2):
        predicted, truth = masks(3, seed)
        meter.update(predicted, truth, IGNORED, torch.tensor(7.0))
        expected += [p == t for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist()) if t != IGNORED]
    result = meter.result(WORLD)
    assert result == {"loss": 14 / len(expected), "pixel_accuracy": pytest.approx(100 * np.mean(expected))}
