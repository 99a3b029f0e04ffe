"""Generated scenes: the same for everybody, exact, and of classes that colours alone do not tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.scenes import (
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
from nge_search.metrics.segmentation import intersection_over_union
from nge_search.settings.segmentation import MaskedDataSection

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


def test_classes_are_what_is_drawn():
    """Each object that is alone and whole is named anew, from its outline and its colours without noise."""
    found = set()
    for number in range(600):
        scene = draw_scene(number, noise=0)
        inside_SS = scene[3] > 0
        rows, columns = (np.flatnonzero(inside_SS.any(axis=axis)) for axis in (1, 0))
        whole = min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < SIDE - 1
        if not whole or len(np.unique(scene[:3, inside_SS].T, axis=0)) != 2:
            continue  # two colours are one object's
        part = scene[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        classes = np.unique(part[3][part[3] > 0])
        name = f"{texture_of(part)} {shape_of(part[3] > 0)}"
        assert [SCENE_CLASSES[value] for value in classes] == [name], number
        found.add(name)
    assert found == set(SCENE_CLASSES[1:])


def texture_of(part_4HW: np.ndarray) -> str:
    """Stripes, tilted little, change from left to right but hardly from top to bottom; dots change both ways."""
    colours_HW3, inside_HW = part_4HW[:3].transpose(1, 2, 0), part_4HW[3] > 0
    down, across = (
        ((np.diff(colours, axis=0) != 0).any(axis=2) & inside[1:] & inside[:-1]).sum()
        for colours, inside in ((colours_HW3, inside_HW), (colours_HW3.swapaxes(0, 1), inside_HW.T))
    )
    return "striped" if down < 0.6 * across else "dotted"


def shape_of(inside_HW: np.ndarray) -> str:
    """By three properties of an outline: a hole, the symmetry to its centre, and the share of its box."""
    height, width = inside_HW.shape
    if not inside_HW[height // 2, width // 2]:
        return "ring"
    turned_HW = inside_HW[::-1, ::-1]
    if (inside_HW & turned_HW).sum() < 0.65 * (inside_HW | turned_HW).sum():
        return "triangle"
    return "square" if inside_HW.mean() > 0.6 else "cross"


def test_scenes_depend_on_their_number_alone(scenes):
    dataset = load_scenes(MaskedDataSection(limit=5, crop=SIDE, scale_min=1, scale_max=1))
    assert (len(dataset.train), len(dataset.test)) == (5, TEST)
    np.testing.assert_array_equal(dataset.train.read([3])[0], scenes[3])
    np.testing.assert_array_equal(dataset.test.read([0])[0], draw_scene(TRAIN))
    assert len({scene.tobytes() for scene in scenes}) == len(scenes)
    assert not dataset.train.augments
    assert dataset.test.describe(7) == "scene 7"


def test_crops_are_taken_in_training_alone():
    dataset = load_scenes(MaskedDataSection(limit=5, crop=64))
    assert dataset.train.augments
    assert dataset.train.read([0, 1], Draw(0, 0)).shape == (2, 4, 64, 64)
    assert dataset.train.read([0, 1]).shape == (2, 4, SIDE, SIDE)
    assert dataset.test.read([0, 1], Draw(0, 0)).shape == (2, 4, SIDE, SIDE)
    assert Scenes(range(3), None).nbytes == 3 * 4 * SIDE * SIDE


def test_mean_and_deviation_of_the_colours(scenes):
    pixels = scenes[:, :3] / 255
    np.testing.assert_allclose(pixels.mean(axis=(0, 2, 3)), MEAN, atol=0.01)
    np.testing.assert_allclose(pixels.std(axis=(0, 2, 3)), STD, atol=0.01)
