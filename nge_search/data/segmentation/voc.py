"""PASCAL VOC 2012's images with masks, or others in its layout: lists of names, JPEG files, palette PNGs.

`voc_lists` says which files belong together, `voc_masks` how a mask is read. Classes are VOC's, or the user's own.

Legend: N images of a source, n images read at once, H and W sides in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from nge_search.data.decoding import ON_ITS_SIDE, Header, changes, for_each, load, read_header, to_tensor
from nge_search.data.image_transforms import Draw
from nge_search.data.segmentation.crops import MaskedCrops
from nge_search.data.segmentation.dataset import MaskedDataset
from nge_search.data.segmentation.voc_lists import LISTS, MASKS, MORE_MASKS, Lists, Pair, augmented_list, find_root
from nge_search.data.segmentation.voc_masks import VOC, Colour, Labels, MaskHeader, load_mask, read_mask_header
from nge_search.errors import UserError, shorten
from nge_search.files import read_text
from nge_search.json_reader import parse_json
from nge_search.keyed_random import Stream, permutation
from nge_search.settings.data import DATASETS
from nge_search.settings.segmentation import MaskedDataSection, fault_of_classes

#: Beside the masks: names of the user's own classes, as a JSON list.
CLASSES = "classes.json"
_LARGEST_NAMES = 1 << 20  # bytes


def load_voc(config: MaskedDataSection, test_only: bool = False) -> MaskedDataset:
    """The images of `data.root`, in PASCAL VOC's layout. Only headers are read here.

    `test_only`: no training image is looked for, and the dataset has none.

    Raises:
        UserError: folders, lists or files that are missing or do not fit each other; one line.
    """
    root = find_root(config)
    lists, notices = Lists(root), list[str]()
    beside = root / MASKS / CLASSES
    labels = _own_labels(config, beside) or VOC
    if labels is not VOC and not config.classes:
        notices.append(f"classes are those of '{beside}': masks hold their numbers")
    train = [] if test_only else _training_pairs(config, root, lists, notices)
    val = lists.read(root / LISTS / "val.txt", (MASKS,))
    shared = sorted({pair.image for pair in train} & {pair.image for pair in val})
    if shared:
        raise UserError(
            f"'{shared[0]}' is in the training list and in val.txt ({len(shared)} such images); a validation on "
            "training images says nothing, take them out of one list"
        )
    if config.limit and train:
        chosen = permutation(len(train), seed=0, epoch=0, stream=Stream.LIMIT)[: config.limit]
        train = [train[i] for i in chosen.sort().values.tolist()]
    facts = DATASETS["folder"]
    pairs = [*train, *val]
    headers_of = partial(_headers, max_pixels=config.max_pixels, labels=labels)
    found = for_each(headers_of, pairs, max(1, config.workers))
    _require_one_meaning([(pair.mask, mask) for pair, (_, mask) in zip(pairs, found)])
    headers = [image for image, _ in found]
    sizes = torch.tensor([(header.height, header.width) for header in headers])
    crops = MaskedCrops(config, facts.mean)
    return MaskedDataset(
        name=config.name,
        train=VocImages(train, sizes[: len(train)], crops, config.max_pixels, labels),
        test=VocImages(val, sizes[len(train) :], None, config.max_pixels, labels),
        classes=labels.classes,
        mean=facts.mean,
        std=facts.std,
        notices=(*notices, *changes(headers)),
    )


def _own_labels(config: MaskedDataSection, path: Path) -> Labels | None:
    """The user's own classes, as `data.classes` or the JSON beside the masks names them; None: there are none.

    Raises:
        UserError: a JSON that names none, or others than `data.classes`: the masks' numbers have one meaning.
    """
    beside = _names_beside(path)
    if config.classes and beside is not None and beside != config.classes:
        raise config.refuse(
            "classes", f"differs from '{path}', which has {shorten(beside, 200)}; leave it out, or mend that file"
        )
    names = config.classes or beside
    return None if names is None else Labels(tuple(names), by_colour=False)


def _names_beside(path: Path) -> list[str] | None:
    """The classes that a JSON names; None: there is no such file."""
    if not os.path.lexists(path):
        return None
    names = parse_json(read_text(path, _LARGEST_NAMES), str(path))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"'{path}' must be a JSON list of the names of classes, as "
            f'["background", "road"], not {shorten(names)}'
        )
    if fault := fault_of_classes(names):
        raise UserError(f"'{path}': {fault}")
    return names


class VocImages:
    """Images and masks in files, decoded on every read; `crops` is what training does to them."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        sizes_N2: Tensor,
        crops: MaskedCrops | None,
        max_pixels: int,
        labels: Labels = VOC,
    ):
        self.pairs = tuple(pairs)
        self.sizes_N2 = sizes_N2
        self.labels_N = torch.zeros(len(self.pairs), dtype=torch.int64)
        self._crops = crops
        self._max_pixels = max_pixels
        self._labels = labels

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
            pixels_4HW = read_pair(self.pairs[position], self._max_pixels, self._labels)
            return self._crops(pixels_4HW, position, draw) if draw is not None and self._crops else pixels_4HW

        images = for_each(one, positions, threads)
        return torch.stack(images) if images else torch.zeros((0, 4, 0, 0), dtype=torch.uint8)

    def read_mask(self, index: int) -> Tensor:
        return torch.from_numpy(load_mask(self.pairs[index].mask, self._labels))

    def describe(self, index: int) -> str:
        return self.pairs[index].image


def read_pair(pair: Pair, max_pixels: int, labels: Labels = VOC) -> Tensor:
    """Colours and classes of an image: uint8 [4, H, W].

    Raises:
        UserError: a damaged file, or a mask with values that are no classes.
    """
    colours = to_tensor(load(pair.image, max_pixels))
    classes = torch.from_numpy(load_mask(pair.mask, labels))
    if colours.shape[1:] != classes.shape:
        raise _different_sizes(pair, colours.shape[:0:-1], classes.shape[::-1])
    return torch.cat([colours, classes[None]])


def _training_pairs(config: MaskedDataSection, root: Path, lists: Lists, notices: list[str]) -> list[Pair]:
    """The images of the training list that `data.train_set` names, all of them."""
    augmented = augmented_list(root)
    if config.train_set == "train_aug" and augmented is None:
        raise config.refuse(
            "train_set",
            f"'{root}' lacks {LISTS / 'train_aug.txt'} or {MORE_MASKS}/; add them, or set it to train",
        )
    if augmented is not None and config.train_set != "train":
        return lists.read(augmented, (MORE_MASKS, MASKS))
    train = lists.read(root / LISTS / "train.txt", (MASKS,))
    if config.train_set == "auto":
        notices.append(f"no train_aug list in '{root}': training on the {len(train)} images of train.txt")
    return train


def _headers(pair: Pair, max_pixels: int, labels: Labels) -> tuple[Header, MaskHeader]:
    """The image's header, and its mask's, which fits it."""
    image, mask = read_header(pair.image, max_pixels), read_mask_header(pair.mask, labels)
    if (image.width, image.height) != (mask.width, mask.height):
        raise _different_sizes(pair, (image.width, image.height), (mask.width, mask.height))
    told_by_sides = mask.orientation == 1 and image.orientation >= ON_ITS_SIDE and image.width != image.height
    if image.orientation != mask.orientation and not told_by_sides:
        raise UserError(
            f"image '{pair.image}' has the EXIF orientation {image.orientation}, its mask '{pair.mask}' "
            f"{mask.orientation}; how they lie on each other is not clear, save both turned, without an orientation"
        )
    return image, mask


def _require_one_meaning(masks: Sequence[tuple[str, MaskHeader]]) -> None:
    """Refuse masks whose palettes give one colour to several classes: their values are numbered file by file."""
    first: dict[Colour, tuple[int, str]] = {}
    for path, mask in masks:
        for colour, value in mask.colours:
            before, other = first.setdefault(colour, (value, path))
            if before != value:
                raise UserError(
                    f"the palettes of masks '{other}' and '{path}' have the colour {colour} for the values "
                    f"{before} and {value}, so that values do not mean the same class in all files; save the "
                    "classes as 8 bits of grey, or with one palette"
                )


def _different_sizes(pair: Pair, image: Sequence[int], mask: Sequence[int]) -> UserError:
    sizes = f"{mask[0]}x{mask[1]}, its image '{pair.image}' {image[0]}x{image[1]}"
    return UserError(f"mask '{pair.mask}' is {sizes}; they must agree")
