"""Finding the labelled image files of a folder tree, without opening images.

A tree holds one folder per class; images lie anywhere below it. Tiny-ImageNet's official layout is read too:
its training classes have an `images/` sub-folder and a `<class>_boxes.txt`, and its `val/images/` gets its labels
from `val/val_annotations.txt`. Names with a leading dot are ignored everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nge_search.data.decoding import for_each, read_header
from nge_search.errors import UserError

_ANNOTATIONS = "val_annotations.txt"
_UNLABELLED = "images"

#: Files named so are taken for images until they are opened; any other file is looked into at once.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"}
)


@dataclass(frozen=True)
class Tree:
    """Image files and their classes, sorted by class and then by path. labels_N: int64, positions in `classes`."""

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels_N: Tensor

    def take(self, index: Tensor) -> Tree:
        """The files at these positions; the classes stay."""
        return Tree(self.classes, tuple(self.paths[i] for i in index.tolist()), self.labels_N[index])


def read_tree(root: Path, *, strict: bool = True) -> Tree:
    """The images below the class folders of `root`; `strict`: look into files that are not named as images.

    Raises:
        UserError: fewer than two class folders, a class without images, a file that is no image, a folder that
            cannot be read.
    """
    if (root / _ANNOTATIONS).is_file():
        return _annotated(root)
    classes = subfolders(root)
    if not classes:
        raise UserError(f"'{root}' has no class folders; expected one folder of images per class")
    if len(classes) == 1:
        raise UserError(f"'{root}' has a single class folder, '{classes[0]}'; expected one per class, at least two")
    files = [_class_files(root / name, strict) for name in classes]
    for name, paths in zip(classes, files):
        if not paths:
            raise UserError(f"class folder '{root / name}' holds no images; fill or remove it")
    return _tree(classes, files)


def is_labelled(root: Path) -> bool:
    """Whether `root` says which class its images belong to; published test sets often do not."""
    return (root / _ANNOTATIONS).is_file() or subfolders(root) not in ([], [_UNLABELLED])


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders in `root`; UserError if it cannot be read."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from None


def _class_files(folder: Path, strict: bool) -> list[str]:
    """Sorted paths of the images of one class."""
    paths = []
    for parent, names, files in os.walk(folder, onerror=_raise_unreadable):
        names[:] = [name for name in names if not name.startswith(".")]
        if any(os.path.islink(os.path.join(parent, name)) for name in names):  # os.walk passes them over
            raise UserError(f"'{parent}' holds a link to a folder; inside a class folder, links must be to files")
        paths += [os.path.join(parent, name) for name in files if not name.startswith(".")]
    boxes = str(folder / f"{folder.name}_boxes.txt")
    paths = sorted(path for path in paths if path != boxes)
    if strict:
        odd = [path for path in paths if os.path.splitext(path)[1].lower() not in IMAGE_SUFFIXES]
        for_each(read_header, odd, threads=1)
    return paths


def _annotated(root: Path) -> Tree:
    """Tiny-ImageNet's validation set: each line of its annotations starts with a file name and a class."""
    files: dict[str, list[str]] = {}
    annotations = root / _ANNOTATIONS
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _unreadable(error) from None
    except UnicodeDecodeError:
        raise UserError(f"'{annotations}' is not a text file of file names and classes") from None
    if not lines:
        raise UserError(f"'{annotations}' is empty; it should name a file and its class in each line")
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if not name or not label:
            raise UserError(f"'{annotations}' line {number}: expected a file name, a tab and a class")
        files.setdefault(label, []).append(str(root / _UNLABELLED / name))
    classes = sorted(files)
    return _tree(classes, [sorted(files[name]) for name in classes])


def _tree(classes: Sequence[str], files: Sequence[Sequence[str]]) -> Tree:
    labels_N = torch.repeat_interleave(torch.tensor([len(paths) for paths in files]))
    return Tree(tuple(classes), tuple(path for paths in files for path in paths), labels_N)


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error)


def _unreadable(error: OSError) -> UserError:
    return UserError(f"cannot read '{error.filename}': {error.strerror}; check data.root and its permissions")
