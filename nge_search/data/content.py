"""What two machines must have alike for their data sets to be the same, without a look at every byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nge_search.data.sources import ImageSource
from nge_search.errors import UserError

#: Files of a set whose sizes are compared, evenly spaced over it, and those whose bytes are: their first and last.
_MEASURED, _SAMPLED, _BYTES = 4096, 256, 1 << 16
#: Images that are held in memory and are compared.
_COMPARED = 64


class AnyDataset(Protocol):
    """What a data set of any kind has."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def train(self) -> ImageSource: ...

    @property
    def test(self) -> ImageSource: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Content:
    """The classes in their order, names of files below the folder they share, their sizes, and samples of bytes.

    `samples` holds the size and a digest for the files of a sample, by name; of images in memory a digest alone.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    names: str
    fingerprint: str
    samples: dict[str, str]

    def parts(self) -> dict[str, Any]:
        """Everything that can differ, in the order in which it is to be named."""
        return {
            "the classes": list(self.classes),
            "the numbers of training and test images": list(self.counts),
            **{f"the image file '{name}' (bytes, digest)": found for name, found in self.samples.items()},
            "the names of image files (digest)": self.names,
            "the labels or sizes of images (digest)": self.fingerprint,
        }

    def digest(self) -> str:
        return hashlib.sha256(repr(self.parts()).encode()).hexdigest()


def content_of(dataset: AnyDataset) -> Content:
    """The content of a data set. Reads a sample of its files; one that cannot be read counts as such."""
    samples: dict[str, str] = {}
    names = hashlib.sha256()
    sources = {"training": dataset.train, "test": dataset.test}
    root = _common_folder([path for source in sources.values() for path in source.files])
    for part, source in sources.items():
        files = source.files
        for path in files:
            names.update(os.fsencode(path[len(root) :]) + b"\0")
        names.update(b"|")
        spread = _spread(len(files), _MEASURED)
        sampled = set(spread[:: -(-len(spread) // _SAMPLED) or 1])
        for i in spread:
            samples[files[i][len(root) :]] = _file(files[i], i in sampled)
        if not files:
            samples[f"{part} images"] = digest_of_pixels(source)
    return Content(
        tuple(dataset.classes),
        tuple(len(source) for source in sources.values()),
        names.hexdigest()[:12],
        dataset.fingerprint,
        samples,
    )


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that holds all of them, with the slash after it."""
    return os.path.join(os.path.commonpath({os.path.dirname(path) for path in paths}), "") if paths else ""


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 to count - 1, evenly spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]


def _file(path: str, sampled: bool) -> str:
    """A file's size and, if it is sampled, a digest of its first and last bytes."""
    try:
        size = os.stat(path).st_size
        if not sampled:
            return str(size)
        with open(path, "rb") as file:
            found = hashlib.sha256(file.read(_BYTES))
            if size > 2 * _BYTES:
                file.seek(-_BYTES, os.SEEK_END)
            found.update(file.read(_BYTES))
    except OSError as error:
        return error.strerror or "unreadable"
    return f"{size}, {found.hexdigest()[:12]}"


def digest_of_pixels(source: ImageSource) -> str:
    """A digest of some images that are held in memory, each read by itself: sizes may differ."""
    found = hashlib.sha256()
    try:
        for i in _spread(len(source), _COMPARED):
            found.update(source.read([i]).numpy().tobytes())
    except UserError as error:
        return str(error)
    return found.hexdigest()[:12]
