"""`nge bench input`: training images per second, against torchvision's ImageFolder and DataLoader.

Both decode the same files in as many workers and apply the same augmentation: resized crop, flip, colour jitter,
normalisation. Their rounds alternate, so that a change of the machine's speed meets both; a round is a whole pass
with its start of workers. The loader's overhead is what a training step of DARTS_V2, for such images, takes longer
when they come from the workers, where reading an image costs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from nge_search.architecture.load import load_genotype
from nge_search.bench.measuring import Clock, heading
from nge_search.data import Augmentation, Dataset, Draw, FileImages, ImageTransforms, Loader, StreamedImages
from nge_search.data.class_folders import read_tree
from nge_search.engine.distributed import choose_device
from nge_search.engine.environment import describe
from nge_search.engine.memory import keep_freed_memory
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.networks.families import FAMILIES
from nge_search.settings.data import DataSection
from nge_search.settings.run import DEVICE_HELP, DEVICES

_CLASSES = 2
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90
_TITLES = {"ours": "nge", "torchvision": "torchvision"}
_LARGEST_SMALL = 64  # pixels, up to which images go to a CIFAR network


def main(words: Sequence[str], parser_class: type[argparse.ArgumentParser]) -> None:
    parser = parser_class(prog="nge bench input", description="Training images per second, against torchvision.")
    parser.add_argument("--root", help="folder with train/ and its class folders, instead of generated photographs")
    parser.add_argument("--device", default="auto", choices=DEVICES, help=DEVICE_HELP)
    for name, default, _, _, meaning in _NUMBERS:
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} ({default})")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(list(words))
    for name, _, low, high, _ in _NUMBERS:
        if not low <= getattr(options, name) <= high:
            raise UserError(f"--{name}={getattr(options, name)}: must be between {low} and {high}")
    device = choose_device(options.device)
    allow_tf32(False)
    with _training_images(options) as root, keep_freed_memory():
        result = _compare(options, root, device)
    print(json.dumps(result, indent=2) if options.json else "\n".join(_lines(result)))


#: Options: name, default, smallest, largest, meaning.
_NUMBERS = (
    ("batch", 64, 2, 4096, "number of images per batch"),
    ("size", 224, 1, 1024, "side of the crops in pixels"),
    ("workers", os.cpu_count() or 1, 0, 256, "number of worker processes of each"),
    ("count", 1000, 4, 10**6, "number of generated images, where there is no --root"),
    ("rounds", 5, 1, 1000, "number of measured passes of each"),
    ("jitter", 0.4, 0.0, 1.0, "largest relative change of brightness, contrast and saturation"),
    ("hue", 0.1, 0.0, 0.5, "largest change of hue, in turns"),
)


@contextmanager
def _training_images(options: argparse.Namespace) -> Iterator[Path]:
    """The folder of the class folders: that of --root, or one made for the occasion."""
    if options.root:
        root = user_path(options.root) / "train"
        if not root.is_dir():
            raise UserError(f"--root={options.root}: holds no train/ with a folder of images per class")
        yield root
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.count):
            path = Path(folder) / f"class{number % _CLASSES}" / f"{number:06}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(photograph(number)).save(path, quality=_QUALITY)
        yield Path(folder)


def photograph(seed: int) -> np.ndarray:
    """Smooth gradients and noise, uint8 [375, 500, 3], which a JPEG of quality 90 stores in about 80 kB."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, 9, (_HEIGHT, _WIDTH, 1)).astype(np.float32)
    return (smooth + grain).clip(0, 255).astype(np.uint8)


def _compare(options: argparse.Namespace, root: Path, device: torch.device) -> dict[str, Any]:
    tree = read_tree(root)
    pipelines = {"ours": _ours(options, tree, device), "torchvision": _torchvision(options, root, device)}
    clock = Clock(device)
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(-1, options.rounds):  # the first pass also brings the files into memory
        for name, batches in list(pipelines.items())[:: 1 if number % 2 else -1]:  # who is first alternates
            clock.start()
            count = sum(len(images) for images in batches(number + 1))
            seconds = clock.lap()
            if number >= 0:
                rates[name].append(count / seconds)
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["torchvision"])]
    return {
        "benchmark": "input",
        "n": options.rounds,
        "environment": describe(device, 1, 0),
        "settings": {
            "images": len(tree.paths),
            "mean_kb": round(sum(os.path.getsize(path) for path in tree.paths) / len(tree.paths) / 1000, 1),
            **{name: getattr(options, name) for name in ("batch", "size", "workers", "jitter", "hue")},
        },
        "images_per_second": {
            name: {"median": statistics.median(values), "spread": max(values) - min(values)}
            for name, values in rates.items()
        },
        "ratio": {"median": statistics.median(ratios), "spread": max(ratios) - min(ratios)},
        "loader_overhead": _loader_overhead(options, device, clock),
    }


def _config(options: argparse.Namespace) -> DataSection:
    return DataSection(
        name="imagenet",
        image_size=options.size,
        crop="resized",
        jitter=options.jitter,
        hue=options.hue,
        workers=options.workers,
    )


def _loader(source: Any, options: argparse.Namespace, device: torch.device) -> Loader:
    """A training loader as a run makes it."""
    config = _config(options)
    dataset = Dataset("bench", source, source, (), options.size, 3, config.facts.mean, config.facts.std)
    return Loader(
        StreamedImages(source, device, options.workers),
        torch.arange(len(source)),
        Augmentation(config, dataset),
        batch_size=min(options.batch, len(source)),
        train=True,
    )


def _ours(options: argparse.Namespace, tree: Any, device: torch.device) -> Callable[[int], Iterable[Tensor]]:
    transforms = ImageTransforms(_config(options), options.size, augments=True)
    loader = _loader(FileImages(tree.paths, tree.labels_N, transforms, options.workers), options, device)
    return lambda epoch: (batch.images_BCHW for batch in loader.iterate(epoch))


def _torchvision(
    options: argparse.Namespace, root: Path, device: torch.device
) -> Callable[[int], Iterable[Tensor]]:
    from torchvision import datasets, transforms

    config = _config(options)
    steps = [
        transforms.RandomResizedCrop(options.size, (config.min_area, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(options.jitter, options.jitter, options.jitter, options.hue),
        transforms.ToTensor(),
        transforms.Normalize(config.facts.mean, config.facts.std),
    ]
    loader = DataLoader(
        datasets.ImageFolder(str(root), transforms.Compose(steps)),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
    )
    return lambda epoch: (images.to(device, non_blocking=True) for images, _ in loader)


class _Instant:
    """Images whose reading costs nothing."""

    augments = True

    def __init__(self, count: int, size: int):
        self.labels_N = torch.zeros(count, dtype=torch.int64)
        self.size = size

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def nbytes(self) -> int:
        return len(self) * 3 * self.size**2

    def read(self, indices: Sequence[int] | Tensor, draw: Draw | None = None) -> Tensor:
        return torch.empty((len(indices), 3, self.size, self.size), dtype=torch.uint8)

    def describe(self, index: int) -> str:
        return f"image {index}"


def _loader_overhead(options: argparse.Namespace, device: torch.device, clock: Clock) -> dict[str, float]:
    """Seconds of a step with and without the loader, and the loader's share, over the step's own time."""
    family = FAMILIES["cifar" if options.size <= _LARGEST_SMALL else "imagenet"]
    size = family.channels, family.cells, family.classes
    network = family.build(load_genotype("darts_v2"), *size).to(device).to(memory_format=torch.channels_last)

    def step(images_BCHW: Tensor) -> None:
        network(images_BCHW)[0].square().mean().backward()
        network.zero_grad()

    batches = options.rounds + 2
    loader = _loader(_Instant(batches * options.batch, options.size), options, device)
    alone, fed = [], []
    stream = loader.iterate(0)
    kept_BCHW = next(stream).images_BCHW
    step(kept_BCHW)
    for _ in range(batches - 1):
        clock.start()
        step(kept_BCHW)
        alone.append(clock.lap())
        step(next(stream).images_BCHW)
        fed.append(clock.lap())
    stream.close()
    own = statistics.median(alone)
    extra = statistics.median(with_loader - without for with_loader, without in zip(fed, alone))
    return {"step_seconds": own, "extra_seconds": extra, "share": extra / own}


def _lines(result: dict[str, Any]) -> list[str]:
    rates = (
        f"{_TITLES[name]} {rate['median']:.1f} images/s (spread {rate['spread']:.1f})"
        for name, rate in result["images_per_second"].items()
    )
    overhead, ratio = result["loader_overhead"], result["ratio"]
    return [
        heading(result),
        f"{', '.join(rates)}: {ratio['median']:.2f}x, round by round (spread {ratio['spread']:.2f})",
        f"the loader adds {1000 * overhead['extra_seconds']:.1f} ms to a step of {overhead['step_seconds']:.3f} s: "
        f"{100 * overhead['share']:.2f} %",
    ]
