"""Images through a trained segmentation network: a palette PNG for each, whose pixels are classes."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nge_search.data.decoding import for_each, load, to_tensor
from nge_search.deploy.classify import find_images
from nge_search.deploy.segmenter import read_trained
from nge_search.engine.distributed import choose_device
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError
from nge_search.files import new_folder, refuse_odd_target, user_path, write_atomic
from nge_search.training.segmentation_results import palette_image


@dataclass(frozen=True)
class Segmented:
    """An image, the PNG with its classes, and the share of pixels of each class that occurs; or why it has none."""

    path: str
    mask: Path | None = None
    shares: tuple[tuple[str, float], ...] = ()
    error: UserError | None = None


def segment(
    model: str | Path, images: Sequence[str], out: str | Path, *, overwrite: bool = False, device: str = "auto"
) -> Iterator[Segmented]:
    """Write `out`/NAME.png, in VOC's palette, for every image in files and folders, in their order.

    Raises:
        UserError: a model, a folder or a device that cannot be used, or PNGs that would replace each other or other
            files. An image that cannot be read is passed on.
    """
    chosen, out = choose_device(device), user_path(out)
    targets = _targets(find_images(images), out, overwrite)
    trained = read_trained(model)
    trained.network.to(chosen)
    allow_tf32(False)
    with new_folder(out), _none_of_few() as written:
        for path, target in targets.items():
            try:
                (image,) = for_each(load, [path], threads=1)  # which silences what Pillow says of metadata
                classes_HW = trained(to_tensor(image).to(chosen)).cpu()
            except UserError as error:
                yield Segmented(path, error=error)
                continue
            content = io.BytesIO()
            palette_image(classes_HW).save(content, "PNG")
            is_new = not target.exists()
            write_atomic(target, content.getvalue())
            written += [target] * is_new
            yield Segmented(path, target, _shares(classes_HW, trained.classes))


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


def _shares(classes_HW: Tensor, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The share of pixels of each class that occurs, largest first."""
    counts = torch.bincount(classes_HW.flatten(), minlength=len(names)) / classes_HW.numel()
    shares = sorted(((share, name) for share, name in zip(counts.tolist(), names) if share), reverse=True)
    return tuple((name, share) for share, name in shares)


def _targets(paths: Sequence[str], out: Path, overwrite: bool) -> dict[str, Path]:
    """Where the PNG of each image goes."""
    targets: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    given = {os.path.realpath(path) for path in paths}
    for path in paths:
        target = out / f"{Path(path).stem}.png"
        if target in taken:
            raise UserError(f"'{taken[target]}' and '{path}' would both become '{target}'; segment them one by one")
        if os.path.realpath(target) in given:
            raise UserError(f"'{target}' would replace an image that is to be segmented; choose another --out")
        refuse_odd_target(target)
        if target.exists() and not overwrite:
            raise UserError(f"'{target}' exists; choose another --out, or add --overwrite")
        targets[path], taken[target] = target, path
    return targets
