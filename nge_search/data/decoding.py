"""One image: its file, header and pixels, errors that name it, and PNGs as text."""

from __future__ import annotations

import base64
import io
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
    with naming_errors(path), Image.open(path) as image:
        header = Header(*image.size, image.mode)
    if header.mode[0] in "IF":
        raise UserError(f"'{path}' has more than 8 bits per channel (mode {header.mode}); convert it to 8 bits")
    return header


def load(path: str) -> Image.Image:
    """A decoded image. Grey and palette images become RGB; alpha is dropped.

    Raises:
        UserError: a truncated, damaged or missing file; names it.
    """
    with naming_errors(path), Image.open(path) as image:
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()
        return image


def load_given(path: str) -> Image.Image:
    """The image in a file that the user names, as `load` gives it.

    Raises:
        UserError: no file, or none that `load` can read without a loss; names it.
    """
    if not os.path.isfile(path):
        raise UserError(f"'{path}' " + ("is not a file" if os.path.exists(path) else "does not exist"))
    read_header(path)  # refuses what `load` would cut down to 8 bits
    return load(path)


def to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an RGB or grey image: uint8 [C, H, W], a view of its rows of pixels."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def to_image(pixels_CHW: Tensor) -> Image.Image:
    """An RGB or grey image of uint8 pixels."""
    pixels = pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels if len(pixels_CHW) > 1 else pixels[:, :, 0])


def encoded_png(image: Image.Image) -> str:
    """An image as the base64 of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decoded_png(text: str) -> Image.Image:
    """The image that `encoded_png` took."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


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
def naming_errors(path: str) -> Iterator[None]:
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
