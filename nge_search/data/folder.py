"""The user's own images: a folder per class, divided into training and test set, checked before any run starts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nge_search.data.decoding import Header, for_each, read_header
from nge_search.data.sources import Dataset, FileImages
from nge_search.data.split import class_sizes, hold_out, limited
from nge_search.data.tree import Tree, is_labelled, read_tree, subfolders
from nge_search.errors import UserError
from nge_search.schema import DataConfig

_TRAIN = "train"
_TESTS = ("test", "val", "valid")
_KIND_OF_MODE = {"1": "grey", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette"}


def load_folder(config: DataConfig) -> Dataset:
    """The dataset in `data.root`: `train/` and `test/` (or `val/`, `valid/`), or class folders alone.

    Without a labelled test folder, `data.test_fraction` of every class is held out, the same images for every seed.
    Only headers are read here; damaged pixels show when images are decoded.

    Raises:
        UserError: anything that keeps the folder from being such a dataset, in one line that says what to mend.
    """
    train, test, notices = _divide(_existing_root(config), config)
    train = train.take(limited(train.labels_N, len(train.classes), config))
    paths = train.paths + test.paths
    headers = for_each(read_header, paths, config.workers)
    side = config.image_size or _common_side(paths, headers)
    config.check_side(side)
    facts = config.facts
    return Dataset(
        name=config.name,
        train=FileImages(train.paths, train.labels_N, side, config.workers),
        test=FileImages(test.paths, test.labels_N, side, config.workers),
        classes=train.classes,
        image_size=side,
        channels=facts.channels,
        mean=facts.mean,
        std=facts.std,
        notices=(*notices, *_conversions(headers)),
    )


def _existing_root(config: DataConfig) -> Path:
    root = Path(os.path.expanduser(config.root))
    if not root.exists():
        raise config.refuse("root", "there is no such folder; set data.root to the folder of your images")
    if not root.is_dir():
        raise config.refuse("root", "is a file; set data.root to a folder with one folder of images per class")
    return root


def _divide(root: Path, config: DataConfig) -> tuple[Tree, Tree, list[str]]:
    """Training files, test files, and what the user should know about the division."""
    folders = subfolders(root)
    if _TRAIN not in folders:
        return _held_out(read_tree(root), root, config)
    train = read_tree(root / _TRAIN)
    for name in _TESTS:
        if name in folders and is_labelled(root / name):
            test = read_tree(root / name)
            _check_same_classes(train, test, name)
            _check_sizes(train, 2, f"'{root / _TRAIN}'")
            return train, test, []
    return _held_out(train, root / _TRAIN, config)


def _held_out(tree: Tree, root: Path, config: DataConfig) -> tuple[Tree, Tree, list[str]]:
    _check_sizes(tree, 3, f"'{root}' (one is held out as test image, as there is no labelled test folder)")
    kept, held_out = hold_out(tree.labels_N, len(tree.classes), config.test_fraction)
    notice = f"{len(held_out)} of {len(tree.paths)} images are held out as test set (no labelled test folder)"
    return tree.take(kept), tree.take(held_out), [notice]


def _check_sizes(tree: Tree, fewest: int, where: str) -> None:
    for name, size in zip(tree.classes, class_sizes(tree.labels_N, len(tree.classes)).tolist()):
        if size < fewest:
            raise UserError(f"class '{name}' has {size} images; at least {fewest} per class are needed in {where}")


def _check_same_classes(train: Tree, test: Tree, test_name: str) -> None:
    for classes, other, words in (
        (train.classes, test.classes, f"{test_name}/ lacks"),
        (test.classes, train.classes, f"{_TRAIN}/ lacks"),
    ):
        missing = sorted(set(classes) - set(other))
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            names = ", ".join(f"'{name}'" for name in missing[:3])
            raise UserError(f"data.root: {words} class {names}{more}; both folders need the same classes")


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


def _conversions(headers: Sequence[Header]) -> list[str]:
    """One remark per kind of image that becomes RGB on reading."""
    kinds = Counter(_KIND_OF_MODE.get(header.mode, header.mode) for header in headers if header.mode != "RGB")
    return [
        f"{count} {kind} {'image was' if count == 1 else 'images were'} converted to RGB"
        for kind, count in sorted(kinds.items())
    ]
