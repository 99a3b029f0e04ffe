"""`nge bench retrain`: training a derived CIFAR network here, against the way DARTS does it.

DARTS' way, `darts`: its network operation by operation, eager, in fp32 and NCHW; images decoded, cropped, flipped,
normalised and cut out one by one by the workers of a DataLoader; loss and accuracy read back at every step. Ours,
`fast`: what `train_eval.py` does with the same settings, on a GPU in bf16 with compiled cells.

A step is everything between two batches, the input included. Each form runs in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nge_search.architecture.load import load_genotype
from nge_search.bench.darts import DartsNetwork
from nge_search.bench.measuring import Clock, heading, printed
from nge_search.bench.serving import Served, in_turn, serve
from nge_search.data import Dataset, MemoryImages
from nge_search.engine.distributed import World, choose_device
from nge_search.engine.environment import describe, peak_memory_mb
from nge_search.engine.memory import keep_freed_memory
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError
from nge_search.networks.cifar import CifarNetwork
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config
from nge_search.settings.run import DEVICE_HELP, DEVICES
from nge_search.training.run import build_task

FORMS = {"darts": "DARTS' way (eager, fp32, NCHW, DataLoader)", "fast": "ours"}
_CLASSES, _IMAGES, _SIDE = 10, 4096, 32
_EPOCHS, _EPOCH = 600, 300  # half way, so that drop-path acts
_WARM_UP = 2


def main(words: Sequence[str], parser_class: type[argparse.ArgumentParser]) -> None:
    parser = parser_class(prog="nge bench retrain", description="Compare training with DARTS' way of doing it.")
    parser.add_argument("--device", default="auto", choices=DEVICES, help=DEVICE_HELP)
    parser.add_argument(
        "--genotype",
        default="darts_v2",
        help="architecture to train: published name, file or run folder (darts_v2)",
    )
    for name, default, least, meaning in (
        ("batch", 64, 2, "number of images per step"),
        ("channels", 36, 1, "number of channels C of the first cell"),
        ("cells", 20, 1, "number of cells in the network"),
        ("steps", 5, 1, "number of measured steps of each form"),
        ("workers", 2, 0, "number of worker processes of DARTS' DataLoader"),
        ("threads", 0, 0, "number of CPU threads; 0: torch's own choice"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
        parser.set_defaults(**{f"least_{name}": least})
    parser.add_argument("--form", choices=tuple(FORMS), help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(list(words))
    for name in ("batch", "channels", "cells", "steps", "workers", "threads"):
        least = getattr(options, f"least_{name}")
        if not least <= getattr(options, name) <= 4096:
            raise UserError(f"--{name}={getattr(options, name)}: must be between {least} and 4096")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    allow_tf32(False)
    if options.form:
        form = _Form(options, device)
        serve({}, form.seconds)
        return
    result = _compare(options, device, list(words))
    with printed(result, options.json, _lines):
        result["differences"] = _differences(options)


def _dataset() -> Dataset:
    """Noise in the shape of CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (_IMAGES, 3, _SIDE, _SIDE), dtype=torch.uint8, generator=generator)
    images = MemoryImages(pixels, torch.arange(_IMAGES) % _CLASSES)
    names = tuple("abcdefghij")
    return Dataset("cifar10", images, images, names, _SIDE, 3, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))


def _settings(options: argparse.Namespace, device: torch.device) -> EvalConfig:
    words = [
        "data.name=cifar10",
        "data.cutout=16",
        f"device={device.type}",
        f"network.channels={options.channels}",
        f"network.cells={options.cells}",
        "network.auxiliary=true",
        "network.drop_path=0.3",
        f"train.epochs={_EPOCHS}",
        f"train.batch_size={options.batch}",
    ]
    if device.type == "cuda":
        words += ["precision=bf16", "train.compile=true"]
    return load_config(EvalConfig, None, words)


class _Form:
    """One way of training, warmed up; asked for its peak memory, it answers in MB."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        self._device, self._clock = device, Clock(device)
        start = _darts if options.form == "darts" else _fast
        self._steps = start(options, device)
        for _ in range(_WARM_UP):
            next(self._steps)

    def seconds(self, kind: str) -> float:
        if kind == "memory":
            return peak_memory_mb(self._device)
        self._clock.start()
        next(self._steps)
        return self._clock.lap()


def _fast(options: argparse.Namespace, device: torch.device) -> Iterator[None]:
    """Steps of our training, without end."""
    config, dataset = _settings(options, device), _dataset()
    task = build_task(config, load_genotype(options.genotype), dataset, World(device))
    phase = task.phases[0]
    with keep_freed_memory() if device.type == "cpu" else contextlib.nullcontext():
        while True:
            phase.start(_EPOCH)
            for batches in phase.batches(_EPOCH, 0):
                phase.step(*batches)
                yield


class _Transformed(TorchDataset):
    """Images as DARTS' transforms hand them out, one by one."""

    def __init__(self, dataset: Dataset):
        from torchvision import transforms

        self._images = dataset.train
        self._transforms = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(_SIDE, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean, dataset.std),
                _cut_out,
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transforms(self._images.read([index])[0]), int(self._images.labels_N[index])


def _cut_out(image_CHW: Tensor, length: int = 16) -> Tensor:
    y, x = torch.randint(_SIDE, (2,)).tolist()
    top, left = max(0, y - length // 2), max(0, x - length // 2)
    image_CHW[:, top : y + length // 2, left : x + length // 2] = 0
    return image_CHW


def _darts(options: argparse.Namespace, device: torch.device) -> Iterator[None]:
    """Steps of DARTS' training, without end."""
    torch.manual_seed(0)
    genotype = load_genotype(options.genotype)
    network = DartsNetwork(genotype, options.channels, options.cells, _CLASSES, auxiliary=True).to(device)
    network.drop_path = 0.3 * _EPOCH / _EPOCHS
    optimiser = torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    pinned = device.type == "cuda"
    loader = DataLoader(
        _Transformed(_dataset()), options.batch, shuffle=True, num_workers=options.workers, pin_memory=pinned
    )
    while True:
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimiser.zero_grad()
            logits, head = network(images)
            loss = functional.cross_entropy(logits, labels) + 0.4 * functional.cross_entropy(head, labels)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5)
            optimiser.step()
            loss.item()
            (logits.topk(5, dim=1).indices == labels[:, None]).sum(dim=0).tolist()
            yield


def _differences(options: argparse.Namespace) -> dict[str, float]:
    """Largest relative difference of a training step's logits and of any gradient, in float64 on the CPU."""
    torch.manual_seed(0)
    genotype, size = load_genotype(options.genotype), (options.channels, options.cells, _CLASSES)
    plain = DartsNetwork(genotype, *size, auxiliary=True).double()
    ours = CifarNetwork(genotype, *size, auxiliary=True).double().to(memory_format=torch.channels_last)
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    batch = min(4, options.batch)
    images, labels = torch.randn(batch, 3, _SIDE, _SIDE, dtype=torch.float64), torch.arange(batch) % _CLASSES
    found = []
    for network, x in ((ours, images.contiguous(memory_format=torch.channels_last)), (plain, images)):
        logits, head = network(x)
        loss = functional.cross_entropy(logits, labels) + 0.4 * functional.cross_entropy(head, labels)
        loss.backward()
        found.append([logits.detach(), *(p.grad for p in network.parameters())])
    logits, *gradients = (
        float((mine - theirs).norm() / theirs.norm().clamp_min(1e-30)) for mine, theirs in zip(*found)
    )
    return {"logits": logits, "gradients": max(gradients)}


def _compare(options: argparse.Namespace, device: torch.device, words: list[str]) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        served = {}
        for form in FORMS:
            served[form] = stack.enter_context(contextlib.closing(Served("retrain", form, words)))
        laps = in_turn(served, "step", options.steps)
        memory = {form: own.seconds("memory") for form, own in served.items()}
    forms = {
        form: {
            "seconds": statistics.median(seconds),
            "spread": max(seconds) - min(seconds),
            "images_per_second": options.batch / statistics.median(seconds),
            "peak_memory_mb": memory[form],
        }
        for form, seconds in laps.items()
    }
    slow, fast = forms["darts"], forms["fast"]
    ratios = [darts / ours for darts, ours in zip(laps["darts"], laps["fast"])]
    return {
        "benchmark": "retrain",
        "n": options.steps,
        "environment": describe(device, 1, 0),
        "settings": {
            name: getattr(options, name) for name in ("genotype", "batch", "channels", "cells", "workers")
        },
        "forms": forms,
        "speedup": {"median": statistics.median(ratios), "spread": max(ratios) - min(ratios)},
        "memory": fast["peak_memory_mb"] / slow["peak_memory_mb"],
    }


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [heading(result)]
    for form, figures in result["forms"].items():
        lines.append(
            f"{FORMS[form]}: step {figures['seconds']:.3f} s (spread {figures['spread']:.3f}), "
            f"{figures['images_per_second']:.1f} images/s, peak memory {figures['peak_memory_mb']:.0f} MB"
        )
    speedup = result["speedup"]
    lines.append(
        f"ours: {speedup['median']:.2f}x the images per second, round by round (spread {speedup['spread']:.2f}), "
        f"{result['memory']:.2f} of the memory"
    )
    if "differences" in result:
        worst = ", ".join(f"{name} {value:.1e}" for name, value in result["differences"].items())
        lines.append(f"largest relative difference in float64: {worst}")
    return lines
