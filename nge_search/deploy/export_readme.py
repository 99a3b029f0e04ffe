"""The README.md of an exported folder: commands and scripts that run as they are written, in that folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nge_search.recipes import changed, word
from nge_search.settings.classification import EvalConfig

_HEAD = """# {architecture}, trained on {tag}

{num_classes} classes, images of {side}x{side} pixels. All below is to be run in this folder, with nge_search and
timm 1.0.26 or newer installed. It takes `image.png`: put an image of yours there, or try a grey one:

```sh
[ -e image.png ] || python -c "from PIL import Image; Image.new('RGB', ({side}, {side}), 'grey').save('image.png')"
nge classify . image.png{word}
```

In Python:

```python
import timm
import torch
from PIL import Image

import nge_search.networks.timm_models  # tells timm of the architecture
{imports}
model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
with Image.open("image.png") as image, torch.inference_mode():
    probabilities = model(transform(image.convert("{mode}"))[None]).softmax(dim=1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()], probabilities.max().item())
```
"""

#: Without torch, timm and nge_search; `ImageOps.fit` cuts the centre out as the evaluation did.
_ONNX = """
With onnxruntime alone:

```python
import json

import numpy
import onnxruntime
from PIL import Image, ImageOps

with open("config.json", encoding="utf-8") as file:
    config = json.load(file)
expected = config["pretrained_cfg"]
side, border = expected["input_size"][1], (1 - expected["crop_pct"]) / 2
with Image.open("image.png") as image:
    centre = ImageOps.fit(image.convert("{mode}"), (side, side), Image.Resampling.BILINEAR, bleed=border)
pixels = numpy.asarray(centre, numpy.float32).reshape(side, side, -1) / 255
pixels = (pixels - numpy.float32(expected["mean"])) / numpy.float32(expected["std"])
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {{"images": pixels.transpose(2, 0, 1)[None]}})
print(config["label_names"][logits[0].argmax()])
```
"""

_TORCH = """
With torch alone, given images as the `transform` above makes them:

```python
import torch

network = torch.export.load("model.pt2").module()
print(network(torch.zeros(2, {channels}, {side}, {side})).shape)
```
"""

_TRAIN = """
To train on from these weights, as they were trained:

```sh
{command}
```

For other images set `data.name` and `data.root`, and where their classes are others, too,
`network.reset_classifier=true`.
"""


def readme(document: Mapping[str, Any], config: EvalConfig, formats: Sequence[str]) -> str:
    """The text, for a folder with config.json's `document` and files in `formats`.

    `config` are the settings of the training.
    """
    images = document["pretrained_cfg"]
    channels, side, _ = images["input_size"]
    plugins = sorted(set(document["model_args"]["genotype"].get("plugins", {}).values()) - {"__main__"})
    facts = {
        "architecture": document["architecture"],
        "tag": images["tag"],
        "num_classes": document["num_classes"],
        "mode": "L" if channels == 1 else "RGB",
        "channels": channels,
        "side": side,
        "command": _training(config),
        "word": f" {word('plugins', plugins)}" if plugins else "",
        "imports": "".join(f"import {plugin}  # registers operations of the network\n" for plugin in plugins),
    }
    parts = [_HEAD, *([_ONNX] if "onnx" in formats else []), *([_TORCH] if "torch" in formats else []), _TRAIN]
    return "".join(part.format(**facts) for part in parts)


def _training(config: EvalConfig) -> str:
    """The line that goes on from the exported weights with the settings of the training."""
    own = ("network.genotype", "network.weights", "network.reset_classifier", "data.root", "data.download")
    settings = {"network.genotype": ".", "network.weights": ".", "run.name": "further"}
    if config.data.name != "digits":
        settings["data.root"] = str(Path(config.data.root).absolute())
    settings |= changed(asdict(config), asdict(EvalConfig()), ("run", "device", *own))
    return shlex.join(["nge", "eval", *(word(key, value) for key, value in settings.items())])
