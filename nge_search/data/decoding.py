"""One image file: its header, its pixels as an RGB square, and errors that name it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from nge_search.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHANNELS = 3


class Header(NamedTuple):
    """What a file says of its image: sides in pixels, and Pillow's mode ("RGB", "L", "P", ...)."""

    width: int
    height: int
    mode: str


def read_header(path: str) -> Header:
    """The header of an image file, without decoding its pixels.

    Raises:
        UserError: not an image that Pillow reads with 8 bits per channel, or too large; names the file.
    """
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UserError(f"'{path}' is not a file; every file of a class folder must be an image")
    with _naming(path), Image.open(path) as image:
        header = Header(*image.size, image.mode)
    if header.mode[0] in "IF":
        raise UserError(f"'{path}' has more than 8 bits per channel (mode {header.mode}); convert it to 8 bits")
    return header


def decode(path: str, side: int) -> Tensor:
    """The pixels of an image: uint8 [3, side, side].

    Other sizes are resized, bilinearly with antialiasing, so that the short side has `side` pixels, and cropped at
    the centre (in one operation: the centre square is resized). Grey and palette images become RGB; alpha is
    dropped.

    Raises:
        UserError: a truncated, damaged or missing file; names it.
    """
    with _naming(path), Image.open(path) as image:
        pixels = image if image.mode == "RGB" else image.convert("RGB")
        if pixels.size != (side, side):
            width, height = pixels.size
            short = min(width, height)
            left, top = (width - short) / 2, (height - short) / 2
            box = (left, top, left + short, top + short)
            pixels = pixels.resize((side, side), Image.Resampling.BILINEAR, box=box)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def decode_all(paths: Sequence[str], side: int, threads: int) -> Tensor:
    """The pixels of many images: uint8 [len(paths), 3, side, side]. Raises UserError as `decode` does."""
    images = torch.empty((len(paths), _CHANNELS, side, side), dtype=torch.uint8)

    def fill(position: int) -> None:
        images[position] = decode(paths[position], side)

    for_each(fill, range(len(paths)), threads)
    return images


def for_each(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """[function(item) for item in items], where `function` reads image files, in up to `threads` threads.

    The first error ends it. Pillow's warnings concern metadata and are silenced, but for a file that claims to
    hold more pixels than Pillow thinks sane, which becomes an error.
    """
    with warnings.catch_warnings():  # here and not in `decode`: it is not thread-safe
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if threads < 2 or len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn whatever opening or decoding `path` raises into a UserError that names it."""
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"'{path}' claims more pixels than is safe to decode; shrink or remove it") from None
    except UnidentifiedImageError:
        raise UserError(f"'{path}' is not an image that can be read; remove or replace it") from None
    except FileNotFoundError:
        raise UserError(f"'{path}' has disappeared, or is a broken link; restore or remove it") from None
    except Exception as error:  # each decoder has its own: OSError, SyntaxError, ValueError, EOFError, struct.error
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read image '{path}' ({reason}); remove or replace it") from None
