"""Images that the caller has: any map-style dataset of (image, class), in the form in which runs read images.

Legend: N images, n images read at once, C channels, S = H = W side in pixels.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nge_search.data.content import digest_of_pixels
from nge_search.data.datasets import load_dataset
from nge_search.data.decoding import as_rgb, to_image, to_tensor
from nge_search.data.image_transforms import Draw, ImageTransforms
from nge_search.data.sources import Dataset
from nge_search.data.split import class_sizes, limited
from nge_search.engine.given import OWN, Images
from nge_search.errors import UserError, plain, shorten
from nge_search.settings.data import DataSection
from nge_search.settings.run import RunningConfig

#: Training images of which mean and deviation are taken, evenly spaced, and items whose classes are compared.
_MEASURED, _COMPARED = 1000, 16
_GREY, _COLOUR = 1, 3
#: Smallest deviation of a channel, by which pixels are divided: one step of 8 bits.
_FLATTEST = 1 / 255


@dataclass(frozen=True)
class OwnDataset(Dataset):
    """A dataset that a caller gives; `pixels` is a digest of some of its images, empty where these vary."""

    pixels: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes with `pixels`, too."""
        return hashlib.sha256((super().fingerprint + self.pixels).encode()).hexdigest()[:16]


class OwnImages:
    """The images of a dataset at some positions, read when they are needed; an `ImageSource`."""

    def __init__(self, dataset: Any, labels_N: Tensor, positions_N: Tensor, transforms: ImageTransforms, part: str):
        """`part`: what messages call the dataset, train or test."""
        self._dataset, self._positions, self._part = dataset, positions_N.tolist(), part
        self.labels_N, self.transforms = labels_N[positions_N], transforms
        self.channels = _COLOUR

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def nbytes(self) -> int:
        return len(self) * self.channels * self.transforms.side**2

    @property
    def files(self) -> Sequence[str]:
        return ()

    @property
    def augments(self) -> bool:
        return self.transforms.augments

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        positions = torch.as_tensor(indices, dtype=torch.int64).tolist()
        choices = self.transforms.choices(positions, draw)
        images_nCHW = torch.empty((len(positions), self.channels, *(self.transforms.side,) * 2), dtype=torch.uint8)
        for image_CHW, position, choice in zip(images_nCHW, positions, choices):
            image_CHW.copy_(to_tensor(self.transforms(self.image(position), choice)))
        return images_nCHW

    def image(self, index: int) -> Image.Image:
        """An image as the dataset has it, grey or RGB; UserError, naming it, for anything else."""
        where = self.describe(index)
        image = picture(_item(self._dataset, self._positions[index], where)[0], where)
        channels, side = _channels(image), self.transforms.side
        if channels != self.channels:
            raise UserError(f"{where} has {channels} channels and the first image {self.channels}; give one kind")
        if not self.transforms.config.image_size and image.size != (side, side):
            raise UserError(f"{where} has {_sides(image)} pixels and the first {side}x{side}; set data.image_size=")
        return image

    def describe(self, index: int) -> str:
        return _describe(self._part, self._positions[index])


def load_own(given: Images, config: DataSection) -> Dataset:
    """The dataset that a caller gives, with `data.limit` and `data.image_size` applied.

    Raises:
        UserError: datasets that cannot be used; names the first item that is wrong.
    """
    if config.corrupt != "stop":
        raise config.refuse("corrupt", "images that are given as dataset= must all be readable; leave it out")
    labels = {part: _labels(getattr(given, part), part) for part in ("train", "test")}
    classes = _class_names(given, labels)
    first = picture(_item(given.train, 0, _describe("train", 0))[0], _describe("train", 0))
    channels = _channels(first)
    side = config.image_size or _square(first)
    config.check_side(side)
    _require_colour(config, channels)
    kept = {"train": limited(labels["train"], len(classes), config), "test": torch.arange(len(labels["test"]))}
    sources = {}
    for part, labels_N in labels.items():
        augments = part == "train" and config.works_per_image
        transforms = ImageTransforms(config, side, augments)
        sources[part] = OwnImages(getattr(given, part), labels_N, kept[part], transforms, part)
        sources[part].channels = channels
        for index in _spread(len(sources[part]), _COMPARED):
            sources[part].image(index)
    mean, std = _statistics(given, sources["train"])
    digests = [[digest_of_pixels(source) for source in sources.values()] for _ in range(2)]
    pixels = " ".join(digests[0]) if digests[0] == digests[1] else ""
    return OwnDataset(OWN, sources["train"], sources["test"], classes, side, channels, mean, std, pixels=pixels)


def origin_of(dataset: Dataset, config: DataSection) -> str:
    """What a message calls the place that a run's images come from."""
    return "dataset=" if dataset.name == OWN else f"data.root={config.root}"


def loader_of(given: Images | None, config: RunningConfig) -> Callable[[DataSection], Dataset]:
    """What loads the images of a run: those that are given, or else those that its settings name.

    Raises:
        UserError: short trainings in other processes, which have nothing that is given to this one.
    """
    if given is None:
        return load_dataset
    processes = getattr(getattr(config, "evaluator", None), "processes", 1)
    if processes > 1:
        raise UserError(f"evaluator.processes={processes}: other processes lack what dataset= gives; leave it at 1")
    return functools.partial(load_own, given)


def picture(given: Any, where: str) -> Image.Image:
    """What a dataset has for an image, as a grey or RGB one; UserError, saying where, for anything else."""
    if isinstance(given, Image.Image):
        if given.mode[0] in "IF":
            raise UserError(f"{where} has more than 8 bits per channel (mode {given.mode}); convert it to 8 bits")
        return given.convert("L") if given.mode in ("1", "L") else as_rgb(given)
    if isinstance(given, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(given)) if given.dtype == np.uint8 else None
        if pixels is not None and pixels.ndim == 3:
            pixels = pixels.permute(2, 0, 1)
    else:
        pixels = _bytes(given, where) if isinstance(given, Tensor) else None
    if pixels is not None and pixels.ndim == 2:
        pixels = pixels[None]
    if pixels is None or pixels.ndim != 3 or len(pixels) not in (_GREY, _COLOUR) or not pixels.numel():
        raise UserError(
            f"{where} is {_what(given)}; give a PIL image, an array uint8 [H, W] or [H, W, 3], or a tensor "
            f"[C, H, W] with 1 or 3 channels"
        )
    return to_image(pixels)


def _bytes(pixels: Tensor, where: str) -> Tensor | None:
    """A tensor's pixels as bytes, on the CPU; None for other types."""
    pixels = pixels.detach().cpu()
    if pixels.dtype == torch.uint8 or not pixels.is_floating_point() or not pixels.numel():
        return pixels if pixels.dtype == torch.uint8 else None
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise UserError(
            f"{where} has numbers from {low:.3g} to {high:.3g}; pixels are numbers from 0 to 1: leave out the "
            f"normalisation, which is made here"
        )
    return (pixels * 255).round().to(torch.uint8)


def _what(given: Any) -> str:
    if isinstance(given, (np.ndarray, Tensor)):
        return f"{type(given).__name__} of {str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
    return shorten(given)


def _item(dataset: Any, position: int, where: str) -> Any:
    """An item of a dataset: at least an image and a class; what the dataset raises is one line."""
    try:
        item = dataset[position]
    except Exception as error:  # the caller's own code may raise anything
        raise UserError(f"{where} cannot be read ({type(error).__name__}: {plain(str(error), 200)})") from error
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise UserError(f"{where} is {_what(item)}; an item is (image, class)")
    return item


def _labels(dataset: Any, part: str) -> Tensor:
    """The class of every item: int64 [N], from the dataset's `targets` where items agree with them, else read."""
    if not hasattr(type(dataset), "__getitem__") or not hasattr(type(dataset), "__len__"):
        raise UserError(f"dataset: {part} is {shorten(dataset)}; give a map-style dataset, with a length and items")
    try:
        count = len(dataset)
    except Exception as error:  # the caller's own code may raise anything
        raise UserError(
            f"dataset: {part} has no length ({type(error).__name__}: {plain(str(error), 200)})"
        ) from error
    if not count:
        raise UserError(f"dataset: {part} has no items")

    def read(position: int) -> int:
        return _label(_item(dataset, position, _describe(part, position))[1], _describe(part, position))

    targets = getattr(dataset, "targets", None)
    if isinstance(targets, (list, tuple, Tensor, np.ndarray)) and len(targets) == count:
        spread = _spread(count, _COMPARED)
        if all(_is_label(targets[at], read(at)) for at in spread):
            return torch.tensor([_label(label, _describe(part, at)) for at, label in enumerate(targets)])
    return torch.tensor([read(position) for position in range(count)])


def _is_label(target: Any, label: int) -> bool:
    try:
        return operator.index(target) == label
    except (TypeError, ValueError, RuntimeError):
        return False


def _label(given: Any, where: str) -> int:
    try:
        label = operator.index(given)
    except (TypeError, ValueError, RuntimeError):
        label = -1
    if not 0 <= label < 1 << 20:
        raise UserError(f"{where} is of class {_what(given)}; classes are numbers from 0")
    return label


def _class_names(given: Images, labels: dict[str, Tensor]) -> tuple[str, ...]:
    """The names of the classes, of which each has training images."""
    count = int(max(labels_N.max() for labels_N in labels.values())) + 1
    names = [str(name) for name in given.classes] or _numbered(getattr(given.train, "classes", ()))
    if names and len(names) < count:
        raise UserError(f"dataset: {len(names)} names of classes, and an item of class {count - 1}")
    names = names or [str(number) for number in range(count)]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UserError(f"dataset: two classes are called '{plain(twice)}'; give each a name of its own")
    if len(names) < 2:
        raise UserError("dataset: all items are of one class; there is nothing to tell apart")
    empty = (class_sizes(labels["train"], len(names)) == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(f"dataset: class {empty[0]} ('{plain(names[empty[0]])}') has no training images")
    return tuple(names)


def _numbered(given: Any) -> list[str]:
    """What a dataset calls its classes, with numbers where names would be doubles; none where it has no list."""
    names = [str(name) for name in given] if isinstance(given, (list, tuple)) else []
    return [f"{name} ({at})" if names.count(name) > 1 else name for at, name in enumerate(names)]


def _statistics(given: Images, train: OwnImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, of pixels from 0 to 1."""
    for name in ("mean", "std"):
        values = getattr(given, name)
        fits = all(type(value) in (int, float) and math.isfinite(value) for value in values)
        if values and not (fits and len(values) == train.channels and (name == "mean" or min(values) > 0)):
            raise UserError(
                f"dataset: {name}={shorten(list(values))}: give {train.channels} finite numbers, of std above 0"
            )
    if given.mean and given.std:
        return tuple(map(float, given.mean)), tuple(map(float, given.std))
    pixels_nCHW = train.read(_spread(len(train), _MEASURED)).double() / 255
    mean_C = pixels_nCHW.mean(dim=(0, 2, 3))
    std_C = pixels_nCHW.std(dim=(0, 2, 3), correction=0).clamp_min(_FLATTEST)
    mean, std = given.mean or mean_C.tolist(), given.std or std_C.tolist()
    return tuple(map(float, mean)), tuple(map(float, std))


def _require_colour(config: DataSection, channels: int) -> None:
    for name in ("jitter", "hue", "rand_augment"):
        if channels == _GREY and getattr(config, name):
            raise config.refuse(name, "needs colour images, and these are grey")


def _channels(image: Image.Image) -> int:
    return _GREY if image.mode == "L" else _COLOUR


def _sides(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _square(image: Image.Image) -> int:
    if image.width != image.height:
        raise UserError(f"{_describe('train', 0)} has {_sides(image)} pixels; set data.image_size= to a side")
    return image.width


def _describe(part: str, position: int) -> str:
    return f"dataset: item {position} of {part}"


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to count - 1, evenly spaced."""
    return sorted({at * count // most for at in range(most)}) if count > most else list(range(count))
