"""PASCAL VOC 2012's images with masks, or others in its layout: lists of names, JPEG files, palette PNGs.

Legend: N images of a source, n images read at once, H and W sides in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from nge_search.data.counter import Stream, permutation
from nge_search.data.decoding import for_each, load, naming_errors, read_header, to_tensor
from nge_search.data.image_transforms import Draw
from nge_search.data.masked import IGNORED, MaskedDataset
from nge_search.data.masked_crops import MaskedCrops
from nge_search.errors import UserError, plain
from nge_search.schema import DATASETS
from nge_search.schema_segmentation import MaskedDataConfig

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_IMAGES, _MASKS, _MORE_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
_LISTS = Path("ImageSets") / "Segmentation"
_AUGMENTED = ("train_aug", "trainaug")
_PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")
_SHOWN_VALUES = 5


@cache
def voc_palette() -> tuple[tuple[int, int, int], ...]:
    """The colours of values 0 to 255: bits 0, 3, 6 of a value are R's highest, bits 1, 4, 7 are G's, and so on."""

    def colour(value: int) -> tuple[int, int, int]:
        parts = [0, 0, 0]
        for bit in range(8):
            parts[bit % 3] |= (value >> bit & 1) << (7 - bit // 3)
        return parts[0], parts[1], parts[2]

    return tuple(colour(value) for value in range(256))


def load_voc(config: MaskedDataConfig) -> MaskedDataset:
    """The images of `data.root`, in PASCAL VOC's layout. Only headers are read here.

    Raises:
        UserError: folders, lists or files that are missing or do not fit each other; one line.
    """
    root = _find_root(config)
    augmented = _augmented_list(root)
    if config.train_set == "train_aug" and augmented is None:
        raise config.refuse(
            "train_set",
            f"'{root}' lacks {_LISTS / 'train_aug.txt'} or {_MORE_MASKS}/; add them, or set it to train",
        )
    if augmented is not None and config.train_set != "train":
        train, notices = _read_list(root, augmented, (_MORE_MASKS, _MASKS)), []
    else:
        train, notices = _read_list(root, root / _LISTS / "train.txt", (_MASKS,)), []
        if config.train_set == "auto":
            notices = [f"no train_aug list in '{root}': training on the {len(train)} images of train.txt"]
    val = _read_list(root, root / _LISTS / "val.txt", (_MASKS,))
    shared = sorted({pair.image for pair in train} & {pair.image for pair in val})
    if shared:
        raise UserError(
            f"'{shared[0]}' is in the training list and in val.txt ({len(shared)} such images); a validation on "
            "training images says nothing, take them out of one list"
        )
    if config.limit:
        chosen = permutation(len(train), seed=0, epoch=0, stream=Stream.LIMIT)[: config.limit]
        train = [train[i] for i in chosen.sort().values.tolist()]
    facts = DATASETS["folder"]
    sizes = for_each(_size, [*train, *val], max(1, config.workers))
    crops = MaskedCrops(config, facts.mean)
    return MaskedDataset(
        name=config.name,
        train=VocImages(train, torch.tensor(sizes[: len(train)]), crops),
        test=VocImages(val, torch.tensor(sizes[len(train) :]), None),
        classes=VOC_CLASSES,
        mean=facts.mean,
        std=facts.std,
        notices=tuple(notices),
    )


@dataclass(frozen=True)
class Pair:
    """The files of an image and of its mask."""

    image: str
    mask: str


class VocImages:
    """Images and masks in files, decoded on every read; `crops` is what training does to them."""

    def __init__(self, pairs: Sequence[Pair], sizes_N2: Tensor, crops: MaskedCrops | None):
        self.pairs = tuple(pairs)
        self.sizes_N2 = sizes_N2
        self.labels_N = torch.zeros(len(self.pairs), dtype=torch.int64)
        self._crops = crops

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def nbytes(self) -> int:
        return 4 * int(self.sizes_N2.prod(dim=1).sum())

    @property
    def files(self) -> Sequence[str]:
        return [path for pair in self.pairs for path in (pair.image, pair.mask)]

    @property
    def augments(self) -> bool:
        return self._crops is not None and self._crops.changes(self.sizes_N2)

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        """As `MaskedSource` says. In a worker process one thread decodes, elsewhere torch's number of them."""
        positions = torch.as_tensor(indices, dtype=torch.int64).tolist()
        threads = 1 if get_worker_info() else torch.get_num_threads()

        def one(position: int) -> Tensor:
            pixels_4HW = read_pair(self.pairs[position])
            return self._crops(pixels_4HW, position, draw) if draw is not None and self._crops else pixels_4HW

        images = for_each(one, positions, threads)
        return torch.stack(images) if images else torch.zeros((0, 4, 0, 0), dtype=torch.uint8)

    def describe(self, index: int) -> str:
        return self.pairs[index].image


def read_pair(pair: Pair) -> Tensor:
    """Colours and classes of an image: uint8 [4, H, W].

    Raises:
        UserError: a damaged file, or a mask with values that are no classes.
    """
    colours, classes = to_tensor(load(pair.image)), to_tensor(_load_mask(pair.mask))
    if colours.shape[1:] != classes.shape[1:]:
        raise _different_sizes(pair, colours.shape[:0:-1], classes.shape[:0:-1])
    unknown = classes[(classes >= len(VOC_CLASSES)) & (classes != IGNORED)].unique().tolist()
    if unknown:
        shown = ", ".join(map(str, unknown[:_SHOWN_VALUES])) + (", ..." if len(unknown) > _SHOWN_VALUES else "")
        raise UserError(
            f"mask '{pair.mask}' has the value{'s' * (len(unknown) > 1)} {shown}; allowed are 0 to "
            f"{len(VOC_CLASSES) - 1}, and {IGNORED} for pixels that do not count"
        )
    return torch.cat([colours, classes])


def _load_mask(path: str) -> Image.Image:
    """The classes as a grey image, whatever palette stands beside them; colours are looked up in VOC's palette."""
    with naming_errors(path), Image.open(path) as image:
        image.load()
    if image.mode in ("P", "L"):
        return Image.fromarray(np.asarray(image))
    if image.mode not in ("RGB", "RGBA"):
        raise UserError(f"mask '{path}' has mode {image.mode}; save it as a palette PNG, or with 8 bits of grey")
    colours = np.asarray(image).astype(np.int32)
    codes = (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]
    known, values = _codes_of_palette()
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if (known[places] != codes).any():
        row, column = np.argwhere(known[places] != codes)[0]
        colour = tuple(colours[row, column].tolist())
        raise UserError(
            f"mask '{path}' is an RGB image with the colour {colour}, which is not in VOC's palette; save it as a "
            "palette PNG whose values are classes"
        )
    return Image.fromarray(values[places])


@cache
def _codes_of_palette() -> tuple[np.ndarray, np.ndarray]:
    """The colours of classes and of IGNORED as numbers 0xRRGGBB, sorted, and their values."""
    palette = voc_palette()
    values = np.array([*range(len(VOC_CLASSES)), IGNORED], dtype=np.uint8)
    codes = np.array([palette[v][0] << 16 | palette[v][1] << 8 | palette[v][2] for v in values.tolist()])
    order = codes.argsort()
    return codes[order], values[order]


def _size(pair: Pair) -> tuple[int, int]:
    """Height and width, of image and mask alike."""
    image, mask = read_header(pair.image), read_header(pair.mask)
    if (image.width, image.height) != (mask.width, mask.height):
        raise _different_sizes(pair, (image.width, image.height), (mask.width, mask.height))
    return image.height, image.width


def _different_sizes(pair: Pair, image: Sequence[int], mask: Sequence[int]) -> UserError:
    sizes = f"{mask[0]}x{mask[1]}, its image '{pair.image}' {image[0]}x{image[1]}"
    return UserError(f"mask '{pair.mask}' is {sizes}; they must agree")


def _find_root(config: MaskedDataConfig) -> Path:
    given = Path(os.path.expanduser(config.root))
    for place in _PLACES:
        root = given / place
        if (root / _IMAGES).is_dir() and (root / _LISTS).is_dir():
            return root
    raise config.refuse(
        "root", f"holds no {_IMAGES}/ with {_LISTS}/, nor does VOC2012/ or VOCdevkit/VOC2012/ in it"
    )


def _augmented_list(root: Path) -> Path | None:
    """The list of the images with SBD's masks, if it is there with a folder of masks."""
    paths = [root / _LISTS / f"{name}.txt" for name in _AUGMENTED]
    return next((path for path in paths if path.is_file() and (root / _MORE_MASKS).is_dir()), None)


def _read_list(root: Path, path: Path, folders: Sequence[str]) -> list[Pair]:
    """The pairs of a list, a name or two paths a line; a mask is in the first of `folders` that has it."""
    if not path.is_file():
        raise UserError(f"list '{path}' does not exist; it names the images, one a line")
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list '{path}' cannot be read ({error})") from None
    if not lines:
        raise UserError(f"list '{path}' is empty; it names the images, one a line")
    pairs: dict[str, Pair] = {}
    for words in lines:
        name = Path(words[0]).stem if len(words) == 2 else words[0]
        given = (
            words if len(words) == 2 else [f"{_IMAGES}/{name}.jpg", *(f"{folder}/{name}.png" for folder in folders)]
        )
        if len(words) > 2 or any(".." in word for word in words) or (len(words) == 1 and "/" in name):
            line = plain(" ".join(words))
            raise UserError(f"list '{path}': '{line}' is neither a name nor the paths of an image and its mask")
        if name in pairs:
            raise UserError(f"list '{path}' names '{plain(name)}' twice; remove one of the lines")
        image, *masks = (str(root / word.lstrip("/")) for word in given)
        if not os.path.isfile(image):
            raise UserError(
                f"image '{image}' of list '{path}' does not exist; restore it, or remove it from the list"
            )
        mask = next((mask for mask in masks if os.path.isfile(mask)), None)
        if mask is None:
            raise UserError(f"image '{image}' has no mask '{masks[0]}'; add it, or remove the image from '{path}'")
        pairs[name] = Pair(image, mask)
    return list(pairs.values())
