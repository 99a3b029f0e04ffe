"""Loading a dataset by name: scikit-learn's digits, torchvision's CIFAR, or folders of images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nge_search.data.decoding import to_image, to_tensor
from nge_search.data.folder import load_folder
from nge_search.data.image_transforms import ImageTransforms
from nge_search.data.sources import Dataset, MemoryImages
from nge_search.data.split import hold_out, limited
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.settings import names
from nge_search.settings.data import DataSection

_DIGITS_TEST_FRACTION = 1 / 3
_DIGITS_LARGEST = 16
_RESIZED_AT_ONCE = 1024


def load_dataset(config: DataSection) -> Dataset:
    """The dataset that `data.name` names, with `data.limit` and `data.image_size` applied.

    Raises:
        UserError: files that are missing, damaged or unfit, or settings that do not suit them; one line.
    """
    return _LOADERS[config.name](config)


def _load_digits(config: DataSection) -> Dataset:
    """1,797 grey 8x8 digits; a third of every class is the test set, the same for every seed."""
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    scaled = torch.from_numpy(bunch.images) * (255 / _DIGITS_LARGEST)
    images_NCHW = scaled.round().to(torch.uint8)[:, None]
    labels_N = torch.from_numpy(bunch.target).long()
    train, test = hold_out(labels_N, len(bunch.target_names), _DIGITS_TEST_FRACTION)
    return _in_memory(
        config,
        MemoryImages(images_NCHW[train], labels_N[train]),
        MemoryImages(images_NCHW[test], labels_N[test]),
        [str(name) for name in bunch.target_names],
    )


def _load_cifar(config: DataSection) -> Dataset:
    """CIFAR-10 or CIFAR-100 from torchvision's files in `data.root`, checksums included."""
    train, test = _cifar_part(config, train=True), _cifar_part(config, train=False)
    return _in_memory(config, _from_torchvision(train), _from_torchvision(test), train.classes)


def _cifar_part(config: DataSection, train: bool) -> Any:
    """torchvision's dataset object, downloaded if that is asked for."""
    from torchvision import datasets  # takes a second to import

    kind = datasets.CIFAR10 if config.name == "cifar10" else datasets.CIFAR100
    root = user_path(config.root)
    with warnings.catch_warnings():
        # CIFAR's files come from an old NumPy, at which NumPy 2.4.0 to 2.4.4 warn.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
        try:
            return kind(root, train=train, download=config.download)
        except (OSError, RuntimeError) as error:  # RuntimeError is how torchvision reports missing or damaged files
            reason = str(error)
    if config.download:
        raise UserError(
            f"data.download=true: cannot download {config.name} from {kind.url} into '{config.root}' ({reason}); "
            f"check the network and the folder, or put the files into '{config.root}/{kind.base_folder}' yourself"
        )
    raise config.refuse(
        "root", f"{config.name}'s files ({kind.base_folder}/) are missing or damaged; set data.download=true"
    )


def _from_torchvision(part: Any) -> MemoryImages:
    images_NCHW = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(images_NCHW, torch.tensor(part.targets, dtype=torch.int64))


def _in_memory(config: DataSection, train: MemoryImages, test: MemoryImages, classes: Sequence[str]) -> Dataset:
    """The record of a dataset that is held decoded, with limit and size applied."""
    facts = config.facts
    kept = limited(train.labels_N, len(classes), config)
    train = MemoryImages(train.images_NCHW[kept], train.labels_N[kept])
    side = config.image_size or train.images_NCHW.shape[-1]
    config.check_side(side)
    return Dataset(
        name=config.name,
        train=_sized(train, ImageTransforms(config, side, config.works_per_image)),
        test=_sized(test, ImageTransforms(config, side, False)),
        classes=tuple(classes),
        image_size=side,
        channels=facts.channels,
        mean=facts.mean,
        std=facts.std,
    )


def _sized(source: MemoryImages, transforms: ImageTransforms) -> MemoryImages:
    """The same images as evaluation sees them: by `data.resize`, or bilinear, antialiased where they shrink."""
    originals, side = source.images_NCHW, transforms.side
    images_NCHW = originals
    if transforms.config.resize:
        images_NCHW = torch.stack([to_tensor(transforms(to_image(image), None)) for image in originals])
    elif originals.shape[-1] != side:
        images_NCHW = torch.cat([_resize(part, side) for part in originals.split(_RESIZED_AT_ONCE)])
    return MemoryImages(images_NCHW, source.labels_N, transforms, originals)


def _resize(images_NCHW: Tensor, side: int) -> Tensor:
    sized = interpolate(images_NCHW.float(), (side, side), mode="bilinear", antialias=True)
    return sized.round().clamp(0, 255).to(torch.uint8)


def _load_own(config: DataSection) -> Dataset:
    raise config.refuse("name", "such images are given from Python: nge_search.search(..., dataset=(train, test))")


_LOADERS: dict[str, Callable[[DataSection], Dataset]] = {
    "digits": _load_digits,
    "cifar10": _load_cifar,
    "cifar100": _load_cifar,
    "imagenet": load_folder,
    "tiny_imagenet": load_folder,
    "folder": load_folder,
    "own": _load_own,
}
names.require_names(_LOADERS, names.DATASETS)
