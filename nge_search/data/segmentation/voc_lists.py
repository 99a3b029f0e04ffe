"""PASCAL VOC's folders and lists: which image belongs to which mask. Only names are read here."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nge_search.data.class_folders import IMAGE_SUFFIXES
from nge_search.errors import UserError, plain
from nge_search.files import read_text, user_path
from nge_search.settings.segmentation import MaskedDataSection

IMAGES, MASKS, MORE_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
LISTS = Path("ImageSets") / "Segmentation"

_AUGMENTED = ("train_aug", "trainaug")
_PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")
_MASK_SUFFIX = ".png"
_USUAL_SUFFIX = ".jpg"
_LARGEST_LIST = 1 << 25  # bytes: a million names
_LONGEST_LINE = 8192  # two paths as long as systems allow


@dataclass(frozen=True)
class Pair:
    """The files of an image and of its mask."""

    image: str
    mask: str


def find_root(config: MaskedDataSection) -> Path:
    """The folder in `data.root` that holds VOC's folders; UserError if there is none."""
    given = user_path(config.root)
    for place in _PLACES:
        root = given / place
        if (root / IMAGES).is_dir() and (root / LISTS).is_dir():
            return root
    raise config.refuse("root", f"holds no {IMAGES}/ with {LISTS}/, nor does VOC2012/ or VOCdevkit/VOC2012/ in it")


def augmented_list(root: Path) -> Path | None:
    """The list of the images with SBD's masks, if it is there with a folder of masks."""
    paths = [root / LISTS / f"{name}.txt" for name in _AUGMENTED]
    return next((path for path in paths if path.is_file() and (root / MORE_MASKS).is_dir()), None)


class Lists:
    """Reads lists of one root, whose folders are looked through once."""

    def __init__(self, root: Path):
        self.root = root
        self._folders: dict[str, _Folder] = {}

    def read(self, path: Path, folders: Sequence[str]) -> list[Pair]:
        """The pairs of a list; by name, a mask is in the first of `folders` that has it.

        A line is a name, which may hold blanks and stands for IMAGES/name.jpg (or another suffix of images, in any
        case) and name.png; or two paths from the root, as lists of SBD's masks have: /JPEGImages/name.jpg
        /SegmentationClassAug/name.png.

        Raises:
            UserError: the list, or a file that it names, is missing, or a line is no name and no two paths.
        """
        if not os.path.lexists(path):
            raise UserError(f"list '{path}' does not exist; it names the images, one a line")
        lines = re.split(r"\r\n|\n|\r", read_text(path, _LARGEST_LIST))
        pairs: dict[str, Pair] = {}
        for line in lines:
            if not line.strip():
                continue
            line = line.strip(" \t")
            pair = self._by_paths(line, path) if "/" in line else self._by_name(line, path, folders)
            if pair.image in pairs:
                raise UserError(f"list '{path}' names '{plain(line)}' twice; remove one of the lines")
            pairs[pair.image] = pair
        if not pairs:
            raise UserError(f"list '{path}' is empty; it names the images, one a line")
        return list(pairs.values())

    def _by_name(self, name: str, path: Path, folders: Sequence[str]) -> Pair:
        image = self._folder(IMAGES).file(name, IMAGE_SUFFIXES, _USUAL_SUFFIX)
        if image is None:
            missing = self.root / IMAGES / f"{name}{_USUAL_SUFFIX}"
            raise UserError(
                f"image '{missing}' of list '{path}' does not exist, nor with another suffix"
                f"{self._folder(IMAGES).alike(name)}; restore it, or remove it from the list"
            )
        found = (self._folder(folder).file(name, {_MASK_SUFFIX}, _MASK_SUFFIX) for folder in folders)
        mask = next((mask for mask in found if mask is not None), None)
        if mask is None:
            missing = self.root / folders[0] / f"{name}{_MASK_SUFFIX}"
            alike = self._folder(folders[0]).alike(name)
            raise UserError(
                f"image '{image}' has no mask '{missing}'{alike}; add it, or remove the image from '{path}'"
            )
        return Pair(image, mask)

    def _by_paths(self, line: str, path: Path) -> Pair:
        """Paths that hold blanks are told apart by which files exist."""
        blanks = re.finditer(r"[ \t]+", line) if len(line) <= _LONGEST_LINE else ()
        cuts = [(line[: at.start()], line[at.end() :]) for at in blanks]
        cuts = [cut for cut in cuts if all("/" in part for part in cut)]
        if not cuts or ".." in re.split(r"[/ \t]", line):
            raise UserError(
                f"list '{path}': '{plain(line)}' is neither a name nor the paths of an image and its mask"
            )
        pairs = [Pair(*map(self._inside, cut)) for cut in cuts]
        there = [pair for pair in pairs if os.path.isfile(pair.image) and os.path.isfile(pair.mask)]
        if len(there) > 1:
            raise UserError(
                f"list '{path}': '{plain(line)}' can be cut into two paths in two ways; rename the files"
            )
        if there:
            return there[0]
        image, mask = pairs[0].image, pairs[0].mask
        if os.path.isfile(image):
            raise UserError(f"image '{image}' has no mask '{mask}'; add it, or remove the image from '{path}'")
        raise UserError(
            f"image '{image}' of list '{path}' does not exist (its paths begin at '{self.root}'); restore it, or "
            "remove it from the list"
        )

    def _inside(self, given: str) -> str:
        return os.path.join(self.root, os.path.normpath(given.lstrip("/")))

    def _folder(self, name: str) -> _Folder:
        if name not in self._folders:
            self._folders[name] = _Folder(self.root / name)
        return self._folders[name]


@dataclass
class _Folder:
    """A folder's file names, by what stands before the last dot."""

    path: Path
    stems: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in sorted(os.listdir(self.path)) if self.path.is_dir() else ():
            self.stems.setdefault(os.path.splitext(name)[0], []).append(name)

    def file(self, stem: str, suffixes: Iterable[str], usual: str) -> str | None:
        """The file of that stem with the `usual` suffix, else the one with any of `suffixes`, in any case.

        Raises:
            UserError: there are several.
        """
        names = [name for name in self.stems.get(stem, ()) if os.path.splitext(name)[1].lower() in suffixes]
        if stem + usual in names:
            names = [stem + usual]
        paths = [path for name in names if os.path.isfile(path := os.path.join(self.path, name))]
        if len(paths) > 1:
            raise UserError(
                f"'{plain(stem)}' may be '{paths[0]}' or '{os.path.basename(paths[1])}'; remove one of them"
            )
        return paths[0] if paths else None

    def alike(self, stem: str) -> str:
        """A remark that names a file of that name but for its suffix, letter case or Unicode's normal form."""
        for known, names in self.stems.items():
            same = next((name for name in names if _folded(stem) in (_folded(known), _folded(name))), None)
            if same is not None:
                return f" (there is '{plain(same)}')"
        return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
