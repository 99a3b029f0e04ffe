"""What happens to a single image on the CPU, before it joins a batch: resizing, and augmentation of the original.

Resized crops and colour jitter are torchvision's RandomResizedCrop and ColorJitter; RandAugment is timm's. Every
random choice is keyed by (seed, epoch, position of the image), so it depends on no worker, rank or batch.

Legend: n images, S side of the result in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from nge_search.keyed_random import Stream, fold, global_generators_kept, seed_global_generators, uniform
from nge_search.settings.data import DataSection

_CPU = torch.device("cpu")
_TRIES = 10
_ASPECT_RATIOS = (3 / 4, 4 / 3)
#: Numbers that a try at a rectangle takes: area, aspect ratio, top, left.
_PER_TRY = 4
#: Numbers that a jitter takes: its order, brightness, contrast, saturation, hue.
_PER_JITTER = 5
_ORDERS = 24


class Draw(NamedTuple):
    """The key of a pass's random choices."""

    seed: int
    epoch: int


class Choice(NamedTuple):
    """What one image drew: numbers in [0, 1) for its crop and its jitter, and the key of its RandAugment."""

    crop: Sequence[float]
    jitter: Sequence[float]
    key: int


class Box(NamedTuple):
    """A rectangle of pixels, in the order of torchvision's `resized_crop`."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ImageTransforms:
    """What `config` does to single images. All results have `side` x `side` pixels.

    `augments`: whether training changes them; a test set's are never changed.
    """

    config: DataSection
    side: int
    augments: bool

    def __post_init__(self) -> None:
        if self.augments and self.config.hue:
            import nge_search.native.hue  # noqa: F401 - compiled here, once, and not by every worker

    def choices(self, positions: Sequence[int], draw: Draw | None) -> list[Choice] | list[None]:
        """The choices of the images at these positions of the source; None for each where nothing is drawn."""
        if draw is None or not self.augments:
            return [None] * len(positions)
        config, index_n = self.config, torch.tensor(positions, dtype=torch.int64)
        crops = _numbers(index_n, _TRIES * _PER_TRY if config.resized_crop else 0, draw, Stream.RESIZED_CROP)
        jitters = _numbers(index_n, _PER_JITTER if config.jitter or config.hue else 0, draw, Stream.JITTER)
        keys = [fold(*draw, Stream.RAND_AUGMENT, at) if config.rand_augment else 0 for at in positions]
        return [Choice(*parts) for parts in zip(crops, jitters, keys)]

    def __call__(self, image: Image.Image, choice: Choice | None) -> Image.Image:
        """An image as training sees it with a choice; as evaluation sees it with None."""
        if choice is None:
            return self._unchanged(image)
        if self.config.resized_crop:
            image = resized_crop(image, crop_box(*image.size, self.config.min_area, choice.crop), self.side)
        else:
            image = self._unchanged(image)
        if self.config.rand_augment:
            with global_generators_kept(_CPU):
                seed_global_generators(choice.key, _CPU)
                image = _rand_augment(self.config.rand_augment, self.side, self.config.facts.mean)(image)
        if choice.jitter:
            image = jitter(image, self.config.jitter, self.config.hue, choice.jitter)
        return image

    def _unchanged(self, image: Image.Image) -> Image.Image:
        return (
            resized_centre(image, self.config.resize, self.side) if self.config.resize else centre(image, self.side)
        )


def centre(image: Image.Image, side: int) -> Image.Image:
    """The centre square, resized bilinearly with antialiasing to `side` pixels."""
    if image.size == (side, side):
        return image
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))


def resized_centre(image: Image.Image, short: int, side: int) -> Image.Image:
    """torchvision's Resize(short) and CenterCrop(side)."""
    from torchvision.transforms import functional  # takes a second to import

    return functional.center_crop(functional.resize(image, [short]), [side])


def crop_box(width: int, height: int, min_area: float, numbers: Sequence[float]) -> Box:
    """RandomResizedCrop's rectangle for `numbers` in [0, 1): area, log aspect ratio, top and left, try after try.

    The area is uniform in [min_area, 1] of the image, the logarithm of the aspect ratio in that of [3/4, 4/3].
    """
    lowest, highest = (math.log(ratio) for ratio in _ASPECT_RATIOS)
    for at in range(0, len(numbers), _PER_TRY):
        area, log_ratio, top, left = numbers[at : at + _PER_TRY]
        pixels = width * height * (min_area + (1 - min_area) * area)
        ratio = math.exp(lowest + (highest - lowest) * log_ratio)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)
    w = min(width, round(height * _ASPECT_RATIOS[1]))
    h = min(height, round(width / _ASPECT_RATIOS[0]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resized_crop(image: Image.Image, box: Box, side: int) -> Image.Image:
    """torchvision's `resized_crop` of a PIL image, bilinear."""
    top, left, height, width = box
    # Not resize(box=...): its filter would reach over the rectangle's border.
    return image.crop((left, top, left + width, top + height)).resize((side, side), Image.Resampling.BILINEAR)


def jitter(image: Image.Image, strength: float, hue: float, numbers: Sequence[float]) -> Image.Image:
    """ColorJitter(strength, strength, strength, hue) for `numbers` in [0, 1): order, three factors, hue's shift."""
    from torchvision.transforms import functional  # takes a second to import

    from nge_search.native.hue import shift_hue  # compiled, which takes seconds once

    low, high = max(0.0, 1 - strength), 1 + strength
    factors = [low + (high - low) * number for number in numbers[1:4]]
    steps: list[tuple[Callable[..., Image.Image], float]] = [
        (functional.adjust_brightness, factors[0]),
        (functional.adjust_contrast, factors[1]),
        (functional.adjust_saturation, factors[2]),
        (shift_hue, hue * (2 * numbers[4] - 1)),
    ]
    for kind in _order(int(numbers[0] * _ORDERS)):
        adjust, factor = steps[kind]
        if hue if kind == 3 else strength:
            image = adjust(image, factor)
    return image


def _order(number: int) -> list[int]:
    """The order of four steps with this number, out of 24."""
    left, order = [0, 1, 2, 3], []
    while left:
        number, at = divmod(number, len(left))
        order.append(left.pop(at))
    return order


def _numbers(index_n: Tensor, count: int, draw: Draw, stream: Stream) -> list[list[float]]:
    """For each image `count` numbers in [0, 1)."""
    keys_nk = index_n[:, None] * count + torch.arange(count)
    numbers = uniform(keys_nk.flatten(), seed=draw.seed, epoch=draw.epoch, stream=stream, dtype=torch.float64)
    return numbers.view(keys_nk.shape).tolist()


@lru_cache(maxsize=4)
def _rand_augment(settings: str, side: int, mean: tuple[float, ...]) -> Callable[[Image.Image], Image.Image]:
    """timm's RandAugment, as its own training script sets it up for images of `side` pixels."""
    from timm.data.auto_augment import rand_augment_transform  # takes seconds to import

    fill = tuple(min(255, round(255 * value)) for value in mean)
    return rand_augment_transform(settings, {"translate_const": int(side * 0.45), "img_mean": fill})
