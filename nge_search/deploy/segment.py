"""Images through a trained segmentation network: a palette PNG for each, whose pixels are classes, and overlays."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nge_search.data.decoding import for_each, load, to_tensor
from nge_search.data.segmentation.voc_masks import voc_palette
from nge_search.deploy.classify import find_images
from nge_search.deploy.segmenter import read_trained
from nge_search.engine.distributed import choose_device
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError
from nge_search.files import new_folder, refuse_odd_target, user_path, write_atomic
from nge_search.training.segmentation_results import overlay_image, palette_image

#: What a file's name has before .png: the classes, and the image with their colours laid over it.
_MASK, _OVERLAY = "", "_overlay"


@dataclass(frozen=True)
class Segmented:
    """An image, the PNG with its classes, and those that occur: name, share of pixels, colour; or why it has none.

    Colours are as `#rrggbb`. `overlay` is the PNG of the image under its classes' colours, where there is one.
    """

    path: str
    mask: Path | None = None
    shares: tuple[tuple[str, float, str], ...] = ()
    error: UserError | None = None
    overlay: Path | None = None


def segment(
    model: str | Path,
    images: Sequence[str],
    out: str | Path,
    *,
    overlay: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Iterator[Segmented]:
    """Write `out`/NAME.png, in VOC's palette, for every image in files and folders, in their order.

    With `overlay`, also NAME_overlay.png: the image, half covered by its classes' colours.

    Raises:
        UserError: a model, a folder or a device that cannot be used, or PNGs that would replace each other or other
            files. An image that cannot be read is passed on.
    """
    chosen, out = choose_device(device), user_path(out)
    targets = _targets(find_images(images), out, (_MASK, _OVERLAY) if overlay else (_MASK,), overwrite)
    trained = read_trained(model)
    trained.network.to(chosen)
    allow_tf32(False)
    with new_folder(out, for_content=True), _none_of_few() as written:
        for path, (mask, *overlays) in targets.items():
            try:
                (image,) = for_each(load, [path], threads=1)  # which silences what Pillow says of metadata
                pixels_3HW = to_tensor(image)
                classes_HW = trained(pixels_3HW.to(chosen)).cpu()
            except UserError as error:
                yield Segmented(path, error=error)
                continue
            _write(palette_image(classes_HW), mask, written)
            for target in overlays:
                _write(overlay_image(pixels_3HW, classes_HW), target, written)
            shares = _shares(classes_HW, trained.classes)
            yield Segmented(path, mask, shares, overlay=next(iter(overlays), None))


def _write(image: Image.Image, target: Path, written: list[Path]) -> None:
    """Write a PNG, and add it to `written` if there was none."""
    content = io.BytesIO()
    image.save(content, "PNG")
    is_new = not target.exists()
    write_atomic(target, content.getvalue())
    written += [target] * is_new


@contextlib.contextmanager
def _none_of_few() -> Iterator[list[Path]]:
    """A list of new files that go again where the disk has no room for the next: they would be in the way later."""
    written: list[Path] = []
    try:
        yield written
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _shares(classes_HW: Tensor, names: Sequence[str]) -> tuple[tuple[str, float, str], ...]:
    """Each class that occurs, its share of the pixels and its colour; the largest first."""
    counts = torch.bincount(classes_HW.flatten(), minlength=len(names)) / classes_HW.numel()
    known = zip(names, counts.tolist(), voc_palette())
    shares = [(name, share, "#{:02x}{:02x}{:02x}".format(*colour)) for name, share, colour in known if share]
    return tuple(sorted(shares, key=lambda own: own[1::-1], reverse=True))


def _targets(paths: Sequence[str], out: Path, ends: Sequence[str], overwrite: bool) -> dict[str, list[Path]]:
    """Where the PNGs of each image go, one for each of `ends`."""
    targets: dict[str, list[Path]] = {}
    taken: dict[Path, str] = {}
    given = {os.path.realpath(path) for path in paths}
    for path, end in itertools.product(paths, ends):
        target = out / f"{Path(path).stem}{end}.png"
        if target in taken:
            raise UserError(f"'{taken[target]}' and '{path}' would both become '{target}'; segment them one by one")
        if os.path.realpath(target) in given:
            raise UserError(f"'{target}' would replace an image that is to be segmented; choose another --out")
        refuse_odd_target(target)
        if target.exists() and not overwrite:
            raise UserError(f"'{target}' exists; choose another --out, or add --overwrite")
        targets.setdefault(path, []).append(target)
        taken[target] = path
    return targets
