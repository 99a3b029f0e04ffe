"""Images through an exported network: what each of them shows, with what probability.

Legend: B images of a batch, K classes, S side in pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import torch
from torch import Tensor, nn

from nge_search.data.class_folders import files_below, is_image_name
from nge_search.data.decoding import for_each, load, to_tensor
from nge_search.data.image_transforms import centre, resized_centre
from nge_search.deploy.export import build_network
from nge_search.deploy.segmenter import ARCHITECTURE as SEGMENTATION_ARCHITECTURE
from nge_search.engine.distributed import choose_device
from nge_search.engine.precision import allow_tf32
from nge_search.engine.run_reader import use_of
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import CONFIG
from nge_search.networks.timm_models import ARCHITECTURES
from nge_search.networks.weights import MODEL_FILE, WEIGHTS_FILE, read_weights
from nge_search.settings.data import LARGEST_RESIZE, LARGEST_SIDE

_MOST_CHANNELS = 1 << 12
_MOST_PIXELS = 1 << 27  # of an image on its way to be cropped
_BATCH_PIXELS = 1 << 22  # of all images of a batch

#: Of pixels in [0, 1]; beyond, float32 would lose all of an image.
_SMALLEST_STD, _LARGEST_MEAN = 1e-6, 1e6


@dataclass(frozen=True)
class Exported:
    """An exported network and what it expects of its images.

    `resize` is the short side to which an image is resized before its centre is cropped; 0: the centre square is
    resized. `mean` and `std` are per channel, of pixels in [0, 1].
    """

    network: nn.Module
    classes: tuple[str, ...]
    channels: int
    side: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def read_image(self, path: str) -> Tensor:
        """The pixels of a file as the evaluation of a training takes them, uint8 [C, S, S].

        Raises:
            UserError: no image that can be read; names it.
        """
        image = load(path)
        short, long = sorted(image.size)
        if self.resize and self.resize**2 * long / short > _MOST_PIXELS:
            raise UserError(f"'{path}' is too long and narrow to be resized to {self.resize} pixels; crop it")
        image = resized_centre(image, self.resize, self.side) if self.resize else centre(image, self.side)
        return to_tensor(image.convert("L") if self.channels == 1 else image)

    def normalise(self, images_BCSS: Tensor) -> Tensor:
        """(x / 255 - mean) / std of uint8 images, in float32."""
        mean_C11, std_C11 = (
            torch.tensor(values, dtype=torch.float32, device=images_BCSS.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return images_BCSS.float().div_(255).sub_(mean_C11).div_(std_C11)


@dataclass(frozen=True)
class Classified:
    """The most probable classes of an image, the first one first, or why it cannot be read."""

    path: str
    classes: tuple[tuple[str, float], ...] = ()
    error: UserError | None = None


def read_exported(folder: str | Path) -> Exported:
    """The network in a folder that `nge export` wrote.

    Raises:
        UserError: another folder, or a damaged one.
    """
    folder = user_path(folder)
    if not (folder / MODEL_FILE).exists():
        if (folder / CONFIG).is_file():
            use = use_of(folder) or f"a run folder; export it first: nge export {quote(str(folder))} --out FOLDER"
            raise UserError(f"'{folder}' is {use}")
        raise UserError(f"'{folder}' holds no {MODEL_FILE}; give a folder that `nge export` wrote")
    config = Reader(str(folder / MODEL_FILE), read_json(folder / MODEL_FILE))
    if config.document.get("architecture") == SEGMENTATION_ARCHITECTURE:
        raise UserError(
            f"'{folder}' is an exported segmentation: nge segment {quote(str(folder))} IMAGES --out FOLDER"
        )
    weights_path = folder / WEIGHTS_FILE
    weights = read_weights(weights_path)
    architecture = config.text("architecture", tuple(ARCHITECTURES.values()))
    classes = config.names("label_names")
    given, images = config.section("model_args"), config.section("pretrained_cfg")
    channels, height, width = images.integers("input_size", 3, 1, LARGEST_SIDE)
    model_args = {
        "genotype": given.section("genotype").document,
        "channels": given.integer("channels", 1, _MOST_CHANNELS),
        "cells": given.integer("cells", 1, _cells(weights)),
        "num_classes": given.integer("num_classes", len(classes), len(classes)),
        "in_chans": given.integer("in_chans", channels, channels),
    }
    if architecture == ARCHITECTURES["cifar"]:
        model_args["stem_multiplier"] = given.integer("stem_multiplier", 1, 1000)
    if height != width or channels not in (1, 3):
        size = [channels, height, width]
        raise UserError(f"{config.source}: 'input_size' must be 1 or 3 channels of a square, not {size}")
    crop_pct = images.number("crop_pct", height / (LARGEST_RESIZE + 1), 1)
    mean, std = images.numbers("mean", channels, -_LARGEST_MEAN), images.numbers("std", channels, above=0)
    if max(mean) > _LARGEST_MEAN or min(std) < _SMALLEST_STD:
        raise UserError(f"{config.source} is damaged: 'mean' {mean} and 'std' {std} are not of pixels in [0, 1]")
    network = build_network(architecture, model_args, weights, str(weights_path))
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise UserError(f"'{weights_path}' holds weights that are not finite; export the network again")
    return Exported(
        network,
        tuple(classes),
        channels,
        height,
        0 if crop_pct == 1 else math.floor(height / crop_pct),
        tuple(mean),
        tuple(std),
    )


def _cells(weights: Mapping[str, Tensor]) -> int:
    """How many cells the weights are of, told by their names; building a network of more takes long."""
    names = {name.split(".")[1] for name in weights if name.startswith("cells.")}
    return max(len(names), 1)


def find_images(places: Sequence[str]) -> list[str]:
    """Files as they are given; of folders the image files at any depth that are data, sorted (`is_data`).

    Raises:
        UserError: a folder that holds no image file, cannot be read, or holds a link to another folder.
    """
    given = [str(user_path(place)) if os.fspath(place).startswith("~") else os.fspath(place) for place in places]
    return [path for place in given for path in (_in_folder(place) if os.path.isdir(place) else [place])]


def _in_folder(folder: str) -> list[str]:
    found = sorted(filter(is_image_name, files_below(folder)))
    if not found:
        raise UserError(f"folder '{folder}' holds no image files")
    return found


def classify(
    model: str | Path, images: Sequence[str], *, top: int = 1, batch: int = 64, device: str = "auto"
) -> Iterator[Classified]:
    """The `top` most probable classes of every image in files and folders, in their order, batch by batch.

    Raises:
        UserError: a model, a folder or a device that cannot be used. An image that cannot be read is passed on.
    """
    chosen = choose_device(device)
    paths = find_images(images)
    exported = read_exported(model)
    allow_tf32(False)
    exported.network.to(chosen)
    threads = torch.get_num_threads()
    batch = max(1, min(batch, _BATCH_PIXELS // exported.side**2))
    for first in range(0, len(paths), batch):
        part = paths[first : first + batch]
        read = for_each(lambda path: _try(exported, path), part, threads)
        best = iter(_best(exported, [image for image in read if isinstance(image, Tensor)], top, chosen))
        for path, image in zip(part, read):
            yield Classified(path, next(best)) if isinstance(image, Tensor) else Classified(path, error=image)


def _try(exported: Exported, path: str) -> Tensor | UserError:
    try:
        return exported.read_image(path)
    except UserError as error:
        return error


@torch.inference_mode()
def _best(
    exported: Exported, images: Sequence[Tensor], top: int, device: torch.device
) -> list[tuple[tuple[str, float], ...]]:
    """For each image the most probable classes and their probabilities."""
    if not images:
        return []
    logits_BK = exported.network(exported.normalise(torch.stack(list(images)).to(device)))
    best = logits_BK.softmax(dim=1).topk(min(top, len(exported.classes)), dim=1)
    return [
        tuple((exported.classes[k], probability) for k, probability in zip(*pair))
        for pair in zip(best.indices.tolist(), best.values.tolist())
    ]
