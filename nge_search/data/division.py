"""Which folder of a data set holds the training images, and which the test images, without opening images.

A *split* is a folder that is named as one, in any letter case, and says the classes of its images: by folders of
its own, or by Tiny-ImageNet's annotations. A folder with such a name that does not is a class like its neighbours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nge_search.data.class_folders import folded, images_in, is_data, is_image_name, is_labelled, some, subfolders
from nge_search.errors import UserError

TRAIN_NAMES = ("train", "training")
#: The first of these that is there is the test set.
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")

#: A name with one of those words in it: 'training_set', 'seg_test', 'val2017', 'trainA'.
_NAMED_AFTER_SPLIT = re.compile(
    rf"(.*[^a-z])?(?:(?P<train>{'|'.join(TRAIN_NAMES)})|{'|'.join(TEST_NAMES)})(s|_?set|[ab])?([^a-z].*)?"
)
_ADVICE = "put the classes into train/ and test/, or set data.root to the folder that holds the class folders"


class Division(NamedTuple):
    """The folder of the training classes, that of the test classes if there is one, and remarks on the rest."""

    train: Path
    test: Path | None
    notices: tuple[str, ...] = ()


def divide(root: Path) -> Division:
    """The splits of `root`; without any, `root` itself holds the class folders.

    Raises:
        UserError: folders of which it cannot be told whether they are splits or classes; says what to do.
    """
    folders = subfolders(root)
    named = [name for name in folders if _is_named(name, (*TRAIN_NAMES, *TEST_NAMES))]
    splits = [name for name in named if is_labelled(root / name)]
    trains = [name for name in splits if _is_named(name, TRAIN_NAMES)]
    tests = sorted((name for name in splits if name not in trains), key=lambda name: TEST_NAMES.index(folded(name)))
    if len(trains) > 1:
        raise UserError(f"'{root}' holds {some(trains)}, which are all training sets; merge or rename them")
    if not splits:
        return _classes_alone(root, folders, named)
    others = [name for name in folders if name not in splits and _holds_images(root / name)]
    if trains and tests:
        if os.path.samefile(root / trains[0], root / tests[0]):
            raise UserError(
                f"'{root / trains[0]}' and '{root / tests[0]}' are one and the same folder; remove a link"
            )
        used, others = [trains[0], tests[0]], [*tests[1:], *others]
    elif _may_be_classes(root, trains, others):
        if not all(images_in(root / name) for name in splits):
            raise UserError(
                f"'{root}' holds {some(splits)}, by name and content a split, beside {some(others)}: if it is a "
                f"class like those, rename it, or let its images lie in it without folders; otherwise {_ADVICE}"
            )
        return _classes_alone(root, folders, named)
    elif not trains:
        raise UserError(f"'{root}' holds {some(tests)} and no training set; {_ADVICE}")
    else:
        used = trains
    notices = [f"not used, beside {some(used)}: {some(others)}"] if others else []
    stray = images_in(root)
    if stray:
        notices.append(f"not used, beside {some(used)}: {len(stray)} image(s), as {some(stray)}")
    return Division(root / used[0], root / used[1] if len(used) > 1 else None, tuple(notices))


def unused(root: Path, used: Sequence[str]) -> list[str]:
    """What to say of folders beside those used whose images have classes."""
    others = [name for name in subfolders(root) if name not in used and _holds_images(root / name)]
    others = [name for name in others if is_labelled(root / name)]
    return [f"not used, beside {some(used)}: {some(others)}"] if others else []


def _classes_alone(root: Path, folders: Sequence[str], named: Sequence[str]) -> Division:
    """`root` as the folder of the classes, unless names say that its folders are something else."""
    if named and len(named) == len(folders):
        raise UserError(
            f"'{root}' holds {some(named)} without class folders in it; expected folders of images per class, as "
            f"{named[0]}/<class>/"
        )
    inner = {name: subfolders(root / name) for name in folders}
    words = {name: word for name in folders if (word := _NAMED_AFTER_SPLIT.fullmatch(folded(name)))}
    nested = all(inner[name] and not images_in(root / name) for name in words)
    if len({bool(word["train"]) for word in words.values()}) == 2 and (nested or len(words) == len(folders)):
        raise UserError(f"the folders {some([*words])} of '{root}' look like splits, not like classes; {_ADVICE}")
    for name, parts in inner.items():
        if all(any(_is_named(part, names) for part in parts) for names in (TRAIN_NAMES, TEST_NAMES)):
            raise UserError(f"'{root / name}' holds {some(parts)}, which look like splits of a class; {_ADVICE}")
    return Division(root, None, _alike_inside(root, inner))


def _alike_inside(root: Path, inner: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A remark where all folders hold the same folders and no images: those may be the classes, these versions."""
    parts = next(iter(inner.values()), [])
    if len(inner) < 2 or len(parts) < 2 or any(found != parts for found in inner.values()):
        return ()
    if any(images_in(root / name) for name in inner):
        return ()
    return (
        f"the classes are {some([*inner])}, and each of them holds {some(parts)}; if those are the classes, merge "
        "the folders, or set data.root to one of them",
    )


def _may_be_classes(root: Path, trains: Sequence[str], others: Sequence[str]) -> bool:
    """Whether folders with images may be classes, and then the one split beside them, or all, classes too.

    Beside a training set they are not where they are a test set without labels, or one folder of folders.
    """
    if not trains:
        return bool(others)
    flat = [name for name in others if not is_labelled(root / name)]
    odd = [name for name in flat if not _is_named(name, TEST_NAMES)]
    return bool(odd) or len(others) - len(flat) > 1


def _is_named(name: str, names: Sequence[str]) -> bool:
    return folded(name) in names


def _holds_images(folder: Path) -> bool:
    for _, names, files in os.walk(folder):
        names[:] = filter(is_data, names)
        if any(is_data(name) and is_image_name(name) for name in files):
            return True
    return False
