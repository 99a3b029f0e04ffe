"""Images in folders, one per class, divided into training and test set, checked before any run starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from nge_search.data.class_folders import Tree, folded, read_tree, some, subfolders
from nge_search.data.decoding import Header, changes, for_each, read_header
from nge_search.data.division import Division, divide, unused
from nge_search.data.image_transforms import ImageTransforms
from nge_search.data.sources import Dataset, FileImages
from nge_search.data.split import class_sizes, hold_out, limited
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.settings.data import DataSection

_TRAIN = "train"
_VAL = "val"


def load_folder(config: DataSection) -> Dataset:
    """The dataset in `data.root`: training and test set as `division.divide` finds them, or class folders alone.

    Without a labelled test folder, `data.test_fraction` of every class is held out, the same images for every seed.
    ImageNet and Tiny-ImageNet need `train/` and `val/` with all their classes. Only headers are read here, and none
    of those two's; damaged pixels show when images are decoded.

    Raises:
        UserError: anything that keeps the folder from being such a dataset, in one line that says what to mend.
    """
    facts, root = config.facts, _existing_root(config)
    train, test, notices = (_divide if facts.classes is None else _published)(root, config)
    notices += dict.fromkeys([*train.notices, *test.notices])
    train = train.take(limited(train.labels_N, len(train.classes), config))
    if facts.image_size is None:
        found = for_each(partial(_header, config), train.paths + test.paths, config.workers)
        train, test, headers, more = _readable(train, test, found)
        side = config.image_size or _common_side(train.paths + test.paths, headers)
        notices += [*more, *changes(headers)]
    else:
        side = config.image_size or facts.image_size
    config.check_side(side)
    return Dataset(
        name=config.name,
        train=_images(train, ImageTransforms(config, side, config.works_per_image)),
        test=_images(test, ImageTransforms(config, side, False)),
        classes=train.classes,
        image_size=side,
        channels=facts.channels,
        mean=facts.mean,
        std=facts.std,
        notices=tuple(notices),
    )


def load_labelled(config: DataSection, held_out: bool, channels: int) -> Dataset:
    """The images in `data.root` to test a network on: those of its test folder, else all of them.

    Args:
        config: the settings; `image_size` is given.
        held_out: of a folder without a test folder, those alone that a training would hold out.
        channels: of what they are for; for 1, that images are grey need not be said.

    Returns:
        A dataset whose training set is the test set, too.

    Raises:
        UserError: as `load_folder`.
    """
    root, strict = _existing_root(config), config.corrupt == "stop"
    division = divide(root)
    folder = division.test or division.train
    tree = read_tree(folder, strict=strict)
    notices = [*division.notices, *tree.notices]
    if held_out and division.test is None:
        _, kept = hold_out(tree.labels_N, len(tree.classes), config.test_fraction)
        tree = tree.take(kept)
        notices.append(f"{len(kept)} images, as a training would hold them out")
    found = for_each(partial(_header, config), tree.paths, config.workers)
    headers = [header for header in found if header is not None]
    if len(headers) < len(found):
        bad = [path for path, header in zip(tree.paths, found) if header is None]
        notices.append(f"{len(bad)} of {len(found)} images cannot be read and are left out: {some(bad)}")
        tree = tree.take(torch.tensor([i for i, header in enumerate(found) if header is not None]).long())
    if not headers:
        raise UserError(f"none of the images in '{folder}' can be read; replace them")
    facts, images = config.facts, _images(tree, ImageTransforms(config, config.image_size, False))
    return Dataset(
        name=config.name,
        train=images,
        test=images,
        classes=tree.classes,
        image_size=config.image_size,
        channels=facts.channels,
        mean=facts.mean,
        std=facts.std,
        notices=(*notices, *(changes(headers) if channels > 1 else ())),
    )


def _images(tree: Tree, transforms: ImageTransforms) -> FileImages:
    return FileImages(tree.paths, tree.labels_N, transforms, transforms.config.workers)


def _header(config: DataSection, path: str) -> Header | None:
    """The header of a file; None if it cannot be read and is to be skipped."""
    try:
        return read_header(path, config.max_pixels)
    except UserError:
        if config.corrupt == "stop":
            raise
        return None


def _readable(
    train: Tree, test: Tree, headers: Sequence[Header | None]
) -> tuple[Tree, Tree, list[Header], list[str]]:
    """Both trees without the files that have no header, the headers of the others, and what to say of it."""
    bad = [path for path, header in zip(train.paths + test.paths, headers) if header is None]
    kept = [header for header in headers if header is not None]
    if not bad:
        return train, test, kept, []
    readable = torch.tensor([header is not None for header in headers])
    of_train, of_test = readable.split([len(train.paths), len(test.paths)])
    train, test = train.take(of_train.nonzero()[:, 0]), test.take(of_test.nonzero()[:, 0])
    _check_sizes(train, 2, "the training images that can be read")
    if not test.paths:
        raise UserError(f"none of the test images can be read, as '{bad[-1]}'; replace them")
    words = "image that cannot be read is" if len(bad) == 1 else "images that cannot be read are"
    return train, test, kept, [f"{len(bad)} {words} left out: {some(bad)}"]


def _existing_root(config: DataSection) -> Path:
    root = user_path(config.root)
    if not root.exists():
        raise config.refuse("root", "there is no such folder; set data.root to the folder of your images")
    if not root.is_dir():
        raise config.refuse("root", "is a file; set data.root to a folder with one folder of images per class")
    return root


def _divide(root: Path, config: DataSection) -> tuple[Tree, Tree, list[str]]:
    """Training files, test files, and what the user should know about the division."""
    division, strict = divide(root), config.corrupt == "stop"
    train = read_tree(division.train, strict=strict)
    if division.test is None:
        return _held_out(train, division, config)
    test = read_tree(division.test, strict=strict)
    difference = _difference(train, test, division.train.name, division.test.name)
    if difference:
        raise UserError(f"data.root: {difference}; both folders need the same classes")
    _check_sizes(train, 2, f"'{division.train}'")
    return train, test, [*division.notices]


def _published(root: Path, config: DataSection) -> tuple[Tree, Tree, list[str]]:
    """As `_divide`, of a dataset whose classes are known: from `train/` and `val/`."""
    folders = subfolders(root)
    for name in (_TRAIN, _VAL):
        if name not in folders:
            raise config.refuse("root", f"holds no {name}/; data.name={config.name} needs train/ and val/")
    train, val = (read_tree(root / name, strict=config.corrupt == "stop") for name in (_TRAIN, _VAL))
    expected, counts = config.facts.classes, (len(train.classes), len(val.classes))
    difference = _difference(train, val, _TRAIN, _VAL)
    if difference or counts != (expected, expected):
        raise UserError(
            f"data.root: train/ has {counts[0]} classes and val/ {counts[1]}; "
            f"data.name={config.name} has {expected}" + (f" ({difference})" if difference else "")
        )
    _check_sizes(train, 2, f"'{root / _TRAIN}'")
    return train, val, unused(root, (_TRAIN, _VAL))


def _held_out(tree: Tree, division: Division, config: DataSection) -> tuple[Tree, Tree, list[str]]:
    _check_sizes(
        tree, 3, f"'{division.train}' (one is held out as test image, as there is no labelled test folder)"
    )
    kept, held_out = hold_out(tree.labels_N, len(tree.classes), config.test_fraction)
    notice = f"{len(held_out)} of {len(tree.paths)} images are held out as test set (no labelled test folder)"
    return tree.take(kept), tree.take(held_out), [notice, *division.notices]


def _check_sizes(tree: Tree, fewest: int, where: str) -> None:
    for name, size in zip(tree.classes, class_sizes(tree.labels_N, len(tree.classes)).tolist()):
        if size < fewest:
            raise UserError(f"class '{name}' has {size} images; at least {fewest} per class are needed in {where}")


def _difference(train: Tree, test: Tree, train_name: str, test_name: str) -> str:
    """Which classes one folder has and the other has not; empty where both have the same."""
    for classes, other, words in (
        (train.classes, test.classes, f"{test_name}/ lacks"),
        (test.classes, train.classes, f"{train_name}/ lacks"),
    ):
        missing = sorted(set(classes) - set(other))
        if missing:
            alike = [(name, twin) for name in missing for twin in other if folded(name) == folded(twin)]
            hint = " (it has {1}, which looks like {0})".format(*map(ascii, alike[0])) if alike else ""
            return f"{words} class {some(missing)}{hint}"
    return ""


def _common_side(paths: Sequence[str], headers: Sequence[Header]) -> int:
    """The side of the images where all are squares of one size; raises UserError otherwise."""
    first = headers[0]
    for path, header in zip(paths, headers):
        if (header.width, header.height) != (first.width, first.height):
            raise UserError(
                f"images differ in size: '{paths[0]}' is {first.width}x{first.height}, "
                f"'{path}' is {header.width}x{header.height}; set data.image_size"
            )
    if first.width != first.height:
        raise UserError(f"images are {first.width}x{first.height}, not square; set data.image_size")
    return first.width
