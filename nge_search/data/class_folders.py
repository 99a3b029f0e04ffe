"""Finding the labelled image files of a folder tree, without opening images.

A tree holds one folder per class; images lie anywhere below it. Tiny-ImageNet's official layout is read too:
its training classes have an `images/` sub-folder and a `<class>_boxes.txt`, and its `val/images/` gets its labels
from `val/val_annotations.txt`. Hidden names, and what file systems, file servers and desktops put beside images,
are passed over everywhere (`is_data`); whatever else is not used is said in `Tree.notices`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nge_search.data.decoding import for_each, read_header
from nge_search.errors import UserError
from nge_search.files import read_text
from nge_search.settings.data import MOST_PIXELS

_ANNOTATIONS = "val_annotations.txt"
_UNLABELLED = "images"

_LARGEST_ANNOTATIONS = 1 << 26

#: Folders of data sets that say something of every pixel, or of boxes; alone they are no classes.
_OF_MASKS = frozenset(
    ("image", "images", "img", "imgs", "mask", "masks", "label", "labels", "annotation", "annotations", "gt",
     "groundtruth", "ground_truth", "segmentation", "imagesets",
     "jpegimages", "segmentationclass", "segmentationclassaug", "segmentationobject")
)  # fmt: skip

#: Files named so are taken for images until they are opened; any other file is looked into at once.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"}
    | {".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)

#: Names, in small letters, under which others than the user put files and folders beside images.
_LITTER = frozenset(
    {
        *("@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "recycler", "system volume information", "found.000"),
        *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"),  # macOS
        *("lost+found", "aquota.user", "aquota.group", "~snapshot"),  # Linux, NetApp
        *("picasa.ini", "zbthumbnail.info", "pspbrwse.jbf", "__pycache__"),  # programs
    }
)
_LITTER_ENDINGS = ("@synoeastream", "@synoresource", ":zone.identifier")


@dataclass(frozen=True)
class Tree:
    """Image files and their classes, sorted by class and then by path. labels_N: int64, positions in `classes`.

    `notices` say in a line each what of the folder is not used, or looks like a mistake.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels_N: Tensor
    notices: tuple[str, ...] = ()

    def take(self, index: Tensor) -> Tree:
        """The files at these positions; the classes stay."""
        return replace(self, paths=tuple(self.paths[i] for i in index.tolist()), labels_N=self.labels_N[index])


def read_tree(root: Path, *, strict: bool = True) -> Tree:
    """The images below the class folders of `root`; `strict`: look into files that are not named as images.

    Raises:
        UserError: fewer than two class folders, two of one name to the eye or that are one folder, a class without
            images, a file that is no image, a folder that cannot be read.
    """
    if (root / _ANNOTATIONS).is_file():
        return _annotated(root)
    classes = subfolders(root)
    if not classes:
        raise UserError(f"'{root}' has no class folders; expected one folder of images per class")
    if len(classes) == 1:
        raise UserError(f"'{root}' has a single class folder, '{classes[0]}'; expected one per class, at least two")
    _require_different(root, classes)
    if _OF_MASKS.issuperset(map(folded, classes)):
        raise UserError(
            f"'{root}' holds {some(classes)}, which look like images and their masks or labels, not like classes; "
            f"data.name=voc reads images with masks (task=segmentation)"
        )
    files = [_class_files(root / name, strict) for name in classes]
    for name, paths in zip(classes, files):
        if not paths:
            raise UserError(f"class folder '{root / name}' holds no images; fill or remove it")
    notices = [
        f"classes whose names differ in letter case alone: {some(group)}" for group in _groups(classes, folded)
    ]
    common = _common_folders(root, classes, files)
    if len(common) > 1:
        notices.append(
            f"classes are {some(classes)}; each holds {some(common)}: if these are the classes, data.root is one "
            "folder too high"
        )
    stray = images_in(root)
    if stray:
        notices.append(f"not used, as in no class folder: {len(stray)} image(s) in '{root}', as {some(stray)}")
    return replace(_tree(classes, files), notices=tuple(notices))


def is_labelled(root: Path) -> bool:
    """Whether `root` says which class its images belong to; published test sets often do not."""
    return (root / _ANNOTATIONS).is_file() or subfolders(root) not in ([], [_UNLABELLED])


def is_data(name: str) -> bool:
    """Whether a file or folder of this name may be the user's data: not hidden, and not put there by a system."""
    small = name.casefold()
    return not (name.startswith(".") or small in _LITTER or small.endswith(_LITTER_ENDINGS))


def subfolders(root: Path) -> list[str]:
    """Sorted names of the folders in `root`; UserError if it cannot be read, or may hold a link to a lost one."""
    for name in _names(root, os.DirEntry.is_symlink):
        if not (os.path.splitext(name)[1] or os.path.exists(root / name)):
            raise UserError(f"'{root / name}' is a broken link; restore or remove it")
    return _names(root, os.DirEntry.is_dir)


def images_in(root: Path) -> list[str]:
    """Sorted names of the image files that lie in `root` itself."""
    return [name for name in _names(root, os.DirEntry.is_file) if is_image_name(name)]


def files_below(folder: str | Path) -> Iterator[str]:
    """The paths of all data files below a folder.

    Raises:
        UserError: a folder that cannot be read, or a link to one: its files would be passed over.
    """
    for parent, names, files in os.walk(folder, onerror=_raise_unreadable):
        names[:] = filter(is_data, names)
        if any(os.path.islink(os.path.join(parent, name)) for name in names):  # os.walk passes them over
            raise UserError(
                f"'{parent}' holds a link to a folder; inside a folder of images, links must be to files"
            )
        yield from (os.path.join(parent, name) for name in files if is_data(name))


def is_image_name(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def shown(name: str) -> str:
    """What of a name can be seen: in Unicode's composed form, without invisible characters and outer blanks."""
    visible = (letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return " ".join("".join(visible).split())


def folded(name: str) -> str:
    """What of a name can be seen, whatever its letter case."""
    return shown(name).casefold()


def some(names: Sequence[str]) -> str:
    """The first three of many names, quoted."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """The names that share a key with another one, together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _require_different(root: Path, classes: Sequence[str]) -> None:
    for group in _groups(classes, shown):
        raise UserError(
            f"class folders {some([ascii(name)[1:-1] for name in group])} of '{root}' have names that look the "
            "same (blanks, invisible characters or Unicode's normal form differ); merge or rename them"
        )
    for group in _groups(classes, lambda name: os.path.realpath(root / name)):
        raise UserError(f"class folders {some(group)} of '{root}' are one and the same folder; remove a link")


def _common_folders(root: Path, classes: Sequence[str], files: Sequence[Sequence[str]]) -> list[str]:
    """Sorted names of the folders that every class has its images in; none where one has an image outside any."""
    inner = []
    for name, paths in zip(classes, files):
        below = [path[len(str(root / name)) + 1 :].partition(os.sep) for path in paths]
        if not all(rest for _, _, rest in below):
            return []
        inner.append({first for first, _, _ in below})
    return sorted(set.intersection(*inner))


def _names(root: Path, kind: Callable[[os.DirEntry], bool]) -> list[str]:
    """Sorted names of the data of one kind that lie in `root`."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if is_data(entry.name) and kind(entry))
    except OSError as error:
        raise _unreadable(error) from None


def _class_files(folder: Path, strict: bool) -> list[str]:
    """Sorted paths of the images of one class."""
    boxes = str(folder / f"{folder.name}_boxes.txt")
    paths = sorted(path for path in files_below(folder) if path != boxes)
    if strict:
        odd = [path for path in paths if not is_image_name(path)]
        for_each(partial(read_header, max_pixels=MOST_PIXELS), odd, threads=1)
    return paths


def _annotated(root: Path) -> Tree:
    """Tiny-ImageNet's validation set: each line of its annotations starts with a file name and a class."""
    labels: dict[str, str] = {}
    annotations = root / _ANNOTATIONS
    try:
        lines = read_text(annotations, _LARGEST_ANNOTATIONS).splitlines()
    except OSError as error:
        raise _unreadable(error) from None
    if not lines:
        raise UserError(f"'{annotations}' is empty; it should name a file and its class in each line")
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if not name or not label:
            raise UserError(f"'{annotations}' line {number}: expected a file name, a tab and a class")
        if name in labels:
            raise UserError(f"'{annotations}' line {number}: names '{name}' a second time; remove one of the lines")
        labels[name] = label
    classes = sorted(set(labels.values()))
    files: dict[str, list[str]] = {label: [] for label in classes}
    for name, label in labels.items():
        files[label].append(str(root / _UNLABELLED / name))
    stray = [name for name in images_in(root / _UNLABELLED) if name not in labels]
    words = f"not used, as '{annotations}' does not name them: {len(stray)} image(s), as {some(stray)}"
    return replace(_tree(classes, [sorted(files[name]) for name in classes]), notices=(words,) if stray else ())


def _tree(classes: Sequence[str], files: Sequence[Sequence[str]]) -> Tree:
    labels_N = torch.repeat_interleave(torch.tensor([len(paths) for paths in files]))
    return Tree(tuple(classes), tuple(path for paths in files for path in paths), labels_N)


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error)


def _unreadable(error: OSError) -> UserError:
    return UserError(f"cannot read '{error.filename}': {error.strerror}; check the path and its permissions")
