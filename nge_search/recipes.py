"""The command that retrains what a search found, for the images it was found on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nge_search.setting_values import as_word

_RECIPES = {name: name for name in ("digits", "cifar10", "cifar100", "imagenet", "tiny_imagenet")}


def retrain_command(run: str | Path, data: Mapping[str, Any]) -> str:
    """A shell line that trains the genotype in `run`; `data` is the data section of the search's configuration."""
    name = data.get("name", "cifar10")
    words = ["python", "train_eval.py", "--config", f"configs/eval/{_RECIPES.get(name, 'cifar10')}.yaml"]
    words.append(as_word("network.genotype", str(run)))
    if name != "digits":
        words.append(as_word("data.root", str(data.get("root", "data"))))
    if name not in _RECIPES:
        # The recipe's cutout and auxiliary head are made for 32x32 images.
        words += [f"data.name={name}", f"data.image_size={data.get('image_size', 0)}"]
        words += ["data.cutout=0", "network.auxiliary=false"]
    return shlex.join(words)
