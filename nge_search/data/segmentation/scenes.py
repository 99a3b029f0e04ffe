"""Generated scenes with exact masks: objects whose shape and texture tell their class, and whose colours do not.

Every scene is drawn from its number alone, so all users have the same ones. An object covers those drawn before it.
Legend: N scenes, S = 96 pixels a side, H and W sides of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.crops import MaskedCrops
from nge_search.data.segmentation.dataset import MaskedDataset
from nge_search.keyed_random import fold
from nge_search.settings.segmentation import MaskedDataSection

SIDE = 96
TRAIN, TEST = 4000, 400

#: Objects and background take two of these each, whatever their class.
_COLOURS = np.array(
    [(200, 60, 60), (60, 170, 70), (70, 90, 200), (210, 180, 60), (150, 70, 180), (90, 190, 190)], dtype=np.float64
)
_RADII = 22.0, 36.0
_PERIODS = 8.0, 10.0
_OBJECTS = 1, 3
_BRIGHTNESS = 0.8, 1.2
_NOISE = 10.0
_BLOTCH = 24  # pixels
_BLOTCHES = 0.9, 1.1  # brightness
_TILT = np.pi / 10
_KEY = 0x5CE9E5  # of the whole set


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) < 0.8


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v > -0.6) & (v + np.sqrt(3) * abs(u) < 1.2)


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return abs(u**2 + v**2 - 0.55) < 0.35


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.minimum(abs(u), abs(v)) < 0.33) & (np.maximum(abs(u), abs(v)) < 0.95)


def _stripes(x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    return x % period < period / 2


def _dots(x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    return (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (0.4 * period) ** 2


#: Of coordinates in units of an object's radius, turned with it: whether they lie inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
}
#: Of coordinates in pixels, turned, and a period: which of its two colours an object has there.
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {"striped": _stripes, "dotted": _dots}

SCENE_CLASSES = ("background", *(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES))
_KINDS = [(texture, shape) for texture in TEXTURES.values() for shape in SHAPES.values()]

#: Of the training scenes' pixels in [0, 1].
MEAN, STD = (0.513, 0.500, 0.493), (0.247, 0.225, 0.259)


def load_scenes(config: MaskedDataSection) -> MaskedDataset:
    """4,000 training scenes, or the first `data.limit` of them, and 400 others for validation."""
    return MaskedDataset(
        name=config.name,
        train=Scenes(range(min(config.limit or TRAIN, TRAIN)), MaskedCrops(config, MEAN)),
        test=Scenes(range(TRAIN, TRAIN + TEST), None),
        classes=SCENE_CLASSES,
        mean=MEAN,
        std=STD,
    )


class Scenes:
    """The scenes of these numbers, drawn once and held; `crops` is what training does to them."""

    def __init__(self, numbers: Sequence[int], crops: MaskedCrops | None):
        self.pixels_N4SS = torch.from_numpy(np.stack([draw_scene(number) for number in numbers]))
        self.labels_N = torch.zeros(len(numbers), dtype=torch.int64)
        self.sizes_N2 = torch.full((len(numbers), 2), SIDE)
        self._crops = crops

    def __len__(self) -> int:
        return len(self.pixels_N4SS)

    @property
    def nbytes(self) -> int:
        return self.pixels_N4SS.nbytes

    @property
    def files(self) -> Sequence[str]:
        return ()

    @property
    def augments(self) -> bool:
        return self._crops is not None and self._crops.changes(self.sizes_N2)

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        """As `MaskedSource` says."""
        index_n = torch.as_tensor(indices, dtype=torch.int64)
        pixels_n4SS = self.pixels_N4SS[index_n]
        crops = self._crops
        if draw is None or crops is None or not self.augments or not len(index_n):
            return pixels_n4SS
        pairs = zip(pixels_n4SS, index_n.tolist())
        return torch.stack([crops(pixels_4SS, position, draw) for pixels_4SS, position in pairs])

    def read_mask(self, index: int) -> Tensor:
        return self.pixels_N4SS[index, 3]

    def describe(self, index: int) -> str:
        return f"scene {index}"


def draw_scene(number: int, noise: float = _NOISE) -> np.ndarray:
    """Colours and classes of a scene: uint8 [4, S, S]. `noise` is the standard deviation added to every colour."""
    random = np.random.Generator(np.random.PCG64(fold(_KEY, number)))
    colours_SS3 = _background(random)
    classes_SS = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(random.integers(_OBJECTS[0], _OBJECTS[1] + 1)):
        _draw_object(random, colours_SS3, classes_SS)
    colours_SS3 += noise * random.standard_normal(colours_SS3.shape)
    colours = colours_SS3.round().clip(0, 255).astype(np.uint8)
    return np.concatenate([colours.transpose(2, 0, 1), classes_SS[None]])


def _background(random: np.random.Generator) -> np.ndarray:
    """Darker and lighter blotches of one colour, float64 [S, S, 3]."""
    coarse = random.standard_normal((SIDE // _BLOTCH + 2,) * 2)
    at = np.arange(SIDE) / _BLOTCH
    low, share = at.astype(int), at % 1
    rows = coarse[low] * (1 - share[:, None]) + coarse[low + 1] * share[:, None]
    smooth_SS = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    bright_SS = np.where(smooth_SS > 0, *_BLOTCHES)
    return _COLOURS[random.integers(len(_COLOURS))] * bright_SS[:, :, None]


def _draw_object(random: np.random.Generator, colours_SS3: np.ndarray, classes_SS: np.ndarray) -> None:
    """Put an object of any class, size, place and turn over what is there."""
    kind = int(random.integers(len(_KINDS)))
    texture, shape = _KINDS[kind]
    radius, period = random.uniform(*_RADII), random.uniform(*_PERIODS)
    centre_y, centre_x = random.uniform(0.15 * SIDE, 0.85 * SIDE, size=2)
    tilt = random.uniform(-_TILT, _TILT)
    phase_x, phase_y = random.uniform(0, period, size=2)
    palette = _two_colours(random)
    reach = 1.4 * radius  # of a cross's corners
    top, left = (max(0, int(centre - reach)) for centre in (centre_y, centre_x))
    bottom, right = (min(SIDE, int(centre + reach) + 2) for centre in (centre_y, centre_x))
    y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
    y, x = y - centre_y, x - centre_x
    inside = shape(*(part / radius for part in _turned(x, y, tilt)))
    grain_x, grain_y = _turned(x, y, tilt)
    marked = texture(grain_x + phase_x, grain_y + phase_y, period)
    colours_SS3[top:bottom, left:right][inside] = palette[marked[inside].astype(int)]
    classes_SS[top:bottom, left:right][inside] = 1 + kind


def _two_colours(random: np.random.Generator) -> np.ndarray:
    """Two different colours, each of a brightness of its own: float64 [2, 3]."""
    return _COLOURS[random.permutation(len(_COLOURS))[:2]] * random.uniform(*_BRIGHTNESS, size=(2, 1))


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
