"""The command that retrains what a search found.

A search on a GPU, of a data set with a published recipe, is retrained by that recipe. All others get a network and
a training that fit their images: see `fitted`.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nge_search.errors import UserError
from nge_search.settings.data import DataSection
from nge_search.settings.names import DATASETS, NETWORKS, SPACES
from nge_search.settings.shipped import shipped_configs
from nge_search.settings.values import as_word

_PUBLISHED = ("digits", "cifar10", "cifar100", "imagenet", "tiny_imagenet")
_CIFAR10 = _PUBLISHED[1]
#: Images that are given from Python.
_OWN = DATASETS[-1]
#: Channels and cells of benchmarks' published networks.
_SIZES = {"nasbench101": (128, 9), "nasbench201": (16, 15)}
#: Networks of DARTS' cells, the most channels and cells of one, and the recipes that train an auxiliary head, with
#: the network that it is for, and the cells that this has at least.
_KINDS = NETWORKS[:2]
_MOST_OF_A_SIZE = 4096
_HEADS, _REDUCED_TWICE = {"cifar10": _KINDS[0], "cifar100": _KINDS[0], "imagenet": _KINDS[1]}, 3
#: The recipe that takes its sizes from the command line.
_OPEN = "folder"

#: Settings of a search's images that do not bear on a retraining, or that `retrain_command` adds by itself.
_OF_SEARCH = ("data.name", "data.root", "data.download", "data.valid_fraction", "data.split")
#: Those of a search that is smaller than its retraining.
_OF_PROXY = ("data.limit", "data.image_size", "data.resize")

#: Training images from which on the network has the published size, on a GPU.
_MANY = 10_000
#: Sides, in pixels, above which the stem halves the resolution three times.
LARGE_SIDE = 64
_FEWEST_STEPS = 20


@dataclass(frozen=True)
class Images:
    """What a search had: training images, their side in pixels, and whether it ran on a CPU."""

    count: int
    side: int
    on_cpu: bool


def fitted(images: Images) -> dict[str, Any]:
    """Settings of a retraining that fit the images and the device.

    The network has the published size for 10,000 training images or more on a GPU, else 8 cells and 16 channels;
    above 64 pixels it starts with ImageNet's stem. The batch is the largest power of two from 8 to 128 that leaves
    20 steps to an epoch. Epochs show the network 20 million images on a GPU, in 50 to 200 epochs, and 100,000 on a
    CPU, in 10 to 100. The number of classes decides nothing but the classifier's outputs.
    """
    published = images.count >= _MANY and not images.on_cpu
    large = images.side > LARGE_SIDE
    channels, cells = ((48, 14) if large else (36, 20)) if published else (16, 8)
    batch = 8
    while batch < 128 and images.count >= 2 * batch * _FEWEST_STEPS:
        batch *= 2
    shown, fewest, most = (100_000, 10, 100) if images.on_cpu else (20_000_000, 50, 200)
    return {
        "network.kind": "imagenet" if large else "cifar",
        "network.channels": channels,
        "network.cells": cells,
        "train.epochs": min(max(round(shown / images.count), fewest), most),
        "train.batch_size": batch,
    }


def retrain_command(
    run: str | Path,
    data: Any,
    images: Images | None = None,
    plugins: Iterable[str] = (),
    sizes: Any = None,
) -> str:
    """A shell line that trains the genotype in `run`, on the images of the search and for as long as suits them.

    Where the search was given its images from Python, it is a line of Python, in which they are `images`.

    Args:
        run: the folder of a search.
        data: the data section of the search's configuration; if it is no mapping, it is ignored.
        images: what the search had; None: that is not known.
        plugins: modules that register operations of the genotype.
        sizes: "kind", "channels" and "cells" of the network that the cells are meant for, as the summary of a
            search for cells of a wanted size has them in "target"; whatever else it is, it is ignored.
    """
    data = data if isinstance(data, Mapping) else {}
    name = data.get("name", "cifar10")
    launcher, recipe = _launcher(_recipe(name, images))
    settings: dict[str, Any] = {"network.genotype": str(run)}
    if Path(run).name not in ("", recipe):
        settings["run.name"] = Path(run).name  # a training of another genotype has the recipe's name, perhaps
    if own := sorted({plugin for plugin in plugins if plugin != "__main__"}):
        settings["plugins"] = own
    if name != recipe:
        settings["data.name"] = name
    if name != "digits":
        settings["data.root"] = data.get("root", "data")
    published = recipe == name and name not in ("digits", _OPEN)
    left_out = _OF_SEARCH + _OF_PROXY * published
    settings.update(changed(data, asdict(DataSection()), left_out, "data."))
    if images is not None and recipe in (_OPEN, None):
        settings.update(fitted(images))
    settings.update(_meant(sizes, recipe))
    words = [word(key, value) for key, value in settings.items()]
    if name == _OWN:
        given = [repr(one) for one in words if not one.startswith(("data.name=", "data.root="))]
        return f"nge_search.evaluate(None, {', '.join(given)}, dataset=images)"
    return shlex.join([*launcher, *words])


def _meant(sizes: Any, recipe: str | None) -> dict[str, Any]:
    """Settings of the network that cells are meant for; without a recipe's auxiliary head that does not fit it."""
    given = sizes if isinstance(sizes, Mapping) else {}
    kind, channels, cells = given.get("kind"), _count(given.get("channels")), _count(given.get("cells"))
    if kind not in _KINDS or not channels or not cells:
        return {}
    settings: dict[str, Any] = {"network.kind": kind, "network.channels": channels, "network.cells": cells}
    if recipe in _HEADS and (kind != _HEADS[recipe] or cells < _REDUCED_TWICE):
        settings["network.auxiliary"] = False
    return settings


def _count(given: Any) -> int:
    """A number of channels or cells; 0 for what is none."""
    return given if type(given) is int and 0 < given <= _MOST_OF_A_SIZE else 0


def train_command(architecture: str | Path, space: str) -> str:
    """A shell line that trains an architecture of a space, in its file, by the space's recipe for CIFAR-10."""
    launcher, recipe = _launcher(_CIFAR10 if space == SPACES[0] else space)
    settings: dict[str, Any] = {"network.genotype": str(architecture), "run.name": Path(architecture).stem}
    settings["data.root"] = "data"
    if recipe is None and space in _SIZES:
        channels, cells = _SIZES[space]
        settings |= {"network.kind": space, "network.channels": channels, "network.cells": cells}
    return shlex.join([*launcher, *(word(key, value) for key, value in settings.items())])


def _recipe(name: str, images: Images | None) -> str:
    """The published recipe of a data set, except on a CPU, which all but that of the digits would take weeks."""
    published = name == "digits" or images is None or not images.on_cpu
    return name if name in _PUBLISHED and published else _OPEN


def _launcher(recipe: str) -> tuple[list[str], str | None]:
    """The words that start a training from the current folder, and the recipe they name; None: there is no such."""
    config, checkout = Path("configs") / "eval" / f"{recipe}.yaml", Path(__file__).resolve().parent.parent
    if config.is_file():
        return ["python", "train_eval.py", "--config", str(config)], recipe
    if (checkout / config).is_file():
        return ["python", str(checkout / "train_eval.py"), "--config", str(checkout / config)], recipe
    with contextlib.suppress(UserError):
        if recipe in {shipped.name for shipped in shipped_configs("eval")}:
            return ["nge", "eval", "--config", recipe], recipe
    return ["nge", "eval"], None


def word(key: str, value: Any) -> str:
    """`key=value` as it is typed on the command line, before the shell's own quotes."""
    if isinstance(value, list):
        return f"{key}=[{','.join(map(str, value))}]"
    if isinstance(value, (str, Path)):
        return as_word(key, str(value))
    return f"{key}={json.dumps(value)}"


def changed(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], left_out: Sequence[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """By their whole keys, the settings that are not as they are by default; `left_out` are keys, or sections."""
    found: dict[str, Any] = {}
    for name, default in defaults.items():
        key, value = prefix + name, settings.get(name, default)
        if key in left_out:
            continue
        if isinstance(default, Mapping):
            found |= changed(value, default, left_out, f"{key}.")
        elif value != default:
            found[key] = value
    return found
