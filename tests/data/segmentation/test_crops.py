"""Scales and crops of images with masks, against NumPy pixel by pixel and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.crops import MaskedCrops, resized
from nge_search.data.segmentation.dataset import IGNORED
from nge_search.settings.segmentation import MaskedDataSection

MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 200, (4, height, width), dtype=np.uint8))


def crops(side: int, low: float, high: float) -> MaskedCrops:
    return MaskedCrops(MaskedDataSection(crop=side, scale_min=low, scale_max=high), MEAN)


@pytest.mark.parametrize("scale", [0.5, 0.73, 1.0, 1.31, 2.0])
@pytest.mark.parametrize("size", [(31, 20), (9, 40)])
def test_resizing(scale, size):
    pixels = noise(*size)
    found = resized(pixels, scale)
    height, width = (round(side * scale) for side in size)
    assert found.shape == (4, height, width)
    for y in range(height):
        for x in range(width):
            (row, rest_y), (column, rest_x) = (
                divmod((2 * at + 1) * side, 2 * sides)
                for at, side, sides in ((y, size[0], height), (x, size[1], width))
            )
            if rest_y and rest_x:  # else two pixels are equally near
                assert found[3, y, x] == pixels[3, row, column]
    image = Image.fromarray(pixels[:3].permute(1, 2, 0).numpy())
    expected = image.resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[:3].permute(1, 2, 0), expected)


@pytest.mark.parametrize("size", [(40, 50), (40, 10), (7, 50), (7, 10), (16, 16)])
def test_a_crop_is_a_window_and_padding(size):
    """Every position is tried until the window is found; what is beyond the image has the mean colour."""
    pixels, side = noise(*size), 16
    height, width = min(size[0], side), min(size[1], side)
    places = set()
    for position in range(30):
        crop = crops(side, 1, 1)(pixels, position, Draw(0, 1))
        windows = [
            (top, left)
            for top in range(size[0] - height + 1)
            for left in range(size[1] - width + 1)
            if torch.equal(crop[:, :height, :width], pixels[:, top : top + height, left : left + width])
        ]
        assert len(windows) == 1
        places.update(windows)
        outside = torch.ones(side, side, dtype=torch.bool)
        outside[:height, :width] = False
        for channel, value in enumerate((*FILL, IGNORED)):
            assert (crop[channel][outside] == value).all()
    assert len(places) == 1 or len(places) > 10


def test_colours_and_classes_stay_together():
    blocks = torch.arange(16, dtype=torch.uint8).view(4, 4).repeat_interleave(20, 0).repeat_interleave(20, 1)
    pixels = torch.stack([blocks * 10] * 3 + [blocks])
    cut = crops(48, 0.7, 1.6)
    for position in range(20):
        crop = cut(pixels, position, Draw(3, 0))
        inside = crop[3] != IGNORED
        assert (crop[3][inside].long() * 10 - crop[0][inside].long() == 0).float().mean() > 0.75  # but at borders
        assert (crop[0][~inside] == FILL[0]).all()


def test_scales_and_places_are_uniform():
    cut, sizes, tops = crops(20, 0.5, 2.0), [], []
    row = torch.arange(200, dtype=torch.uint8)[:, None].expand(200, 200)
    pixels = torch.stack([row] * 4)
    for position in range(400):
        crop = cut(pixels, position, Draw(0, 0))[3].long()
        sizes.append(19 / max(1, int(crop[-1, 0] - crop[0, 0])))  # rows of the original in 19 rows of the crop
        tops.append(int(crop[0, 0]) / (200 - 20 / sizes[-1]))
    assert 0.45 < min(sizes) < 0.6
    assert 1.7 < max(sizes) < 2.3
    assert stats.kstest(tops, "uniform").pvalue > 0.01
    assert stats.kstest(sizes, "uniform", (0.5, 1.5)).statistic < 0.1


def test_a_crop_depends_on_seed_epoch_and_position_alone():
    pixels, cut = noise(60, 70), crops(32, 0.5, 2.0)
    first = cut(pixels, 5, Draw(1, 2))
    assert torch.equal(crops(32, 0.5, 2.0)(pixels, 5, Draw(1, 2)), first)
    for position, draw in ((6, Draw(1, 2)), (5, Draw(2, 2)), (5, Draw(1, 3))):
        assert not torch.equal(cut(pixels, position, draw), first)


def test_what_training_changes():
    square, other = torch.tensor([[32, 32]]), torch.tensor([[32, 32], [32, 31]])
    assert not crops(32, 1, 1).changes(square)
    assert crops(32, 1, 1).changes(other)
    assert crops(32, 0.5, 1).changes(square)
    assert crops(31, 1, 1).changes(square)
