"""Generated scenes: the same for everybody, exact, and of classes that colours alone do not tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.data.image_transforms import Draw
from nge_search.data.scenes import (
    MEAN,
    SCENE_CLASSES,
    SHAPES,
    SIDE,
    STD,
    TEST,
    TEXTURES,
    TRAIN,
    Scenes,
    draw_scene,
    load_scenes,
)
from nge_search.engine.meters import intersection_over_union
from nge_search.schema_segmentation import MaskedDataConfig

CLASSES = len(SCENE_CLASSES)


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    return np.stack([draw_scene(number) for number in range(600)])


def confusion(truth: np.ndarray, predicted: np.ndarray) -> torch.Tensor:
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    np.add.at(counts, (truth.flatten(), predicted.flatten()), 1)
    return torch.from_numpy(counts)


@pytest.mark.parametrize("balanced", [False, True])
def test_colours_alone_score_below_a_third(scenes, balanced):
    """The best classifier of a pixel by its colour, in steps of 8 per channel, on scenes it has not seen."""
    colours = scenes[:, :3].astype(np.int64) // 8
    codes = (colours[:, 0] * 32 + colours[:, 1]) * 32 + colours[:, 2]
    truth = scenes[:, 3]
    seen = np.zeros((32**3, CLASSES))
    np.add.at(seen, (codes[:400].flatten(), truth[:400].flatten()), 1)
    if balanced:
        seen /= seen.sum(axis=0)
    best = seen.argmax(axis=1)
    miou = float(intersection_over_union(confusion(truth[400:], best[codes[400:]])).nanmean())
    assert miou < 0.15  # the whole of the background alone is 0.08


def test_every_class_takes_its_share_of_the_pixels(scenes):
    share = np.bincount(scenes[:, 3].flatten(), minlength=CLASSES) / scenes[:, 3].size
    assert len(share) == CLASSES >= 9
    assert (share[1:] > 0.02).all()
    assert 0.5 < share[0] < 0.75


def test_classes_share_textures_and_shapes():
    assert len(SHAPES) > 1
    assert len(TEXTURES) > 1
    assert SCENE_CLASSES[1:] == tuple(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES)


def test_masks_are_exact():
    """Without noise a scene has two colours of background, and a mask's border is where colours change."""
    for number in range(20):
        scene = draw_scene(number, noise=0)
        truth = scene[3]
        background = np.unique(scene[:3, truth == 0].T, axis=0)
        assert len(background) <= 2
        inside = scene[:3, truth > 0].T
        among = (inside[:, None] == background[None]).all(axis=2).any(axis=1)
        assert among.mean() < 0.05  # an object's brightness is its own


def test_scenes_depend_on_their_number_alone(scenes):
    dataset = load_scenes(MaskedDataConfig(limit=5, crop=SIDE, scale_min=1, scale_max=1))
    assert (len(dataset.train), len(dataset.test)) == (5, TEST)
    np.testing.assert_array_equal(dataset.train.read([3])[0], scenes[3])
    np.testing.assert_array_equal(dataset.test.read([0])[0], draw_scene(TRAIN))
    assert len({scene.tobytes() for scene in scenes}) == len(scenes)
    assert not dataset.train.augments
    assert dataset.test.describe(7) == "scene 7"


def test_crops_are_taken_in_training_alone():
    dataset = load_scenes(MaskedDataConfig(limit=5, crop=64))
    assert dataset.train.augments
    assert dataset.train.read([0, 1], Draw(0, 0)).shape == (2, 4, 64, 64)
    assert dataset.train.read([0, 1]).shape == (2, 4, SIDE, SIDE)
    assert dataset.test.read([0, 1], Draw(0, 0)).shape == (2, 4, SIDE, SIDE)
    assert Scenes(range(3), None).nbytes == 3 * 4 * SIDE * SIDE


def test_mean_and_deviation_of_the_colours(scenes):
    pixels = scenes[:, :3] / 255
    np.testing.assert_allclose(pixels.mean(axis=(0, 2, 3)), MEAN, atol=0.02)
    np.testing.assert_allclose(pixels.std(axis=(0, 2, 3)), STD, atol=0.02)
