"""The README.md of an exported folder: commands and scripts that run as they are written, in that folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nge_search.deploy.export_formats import Images
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

_ANY_SIZE = """
`model.onnx` and `model.pt2` take images of any height and width from {smallest} pixels on.
"""

_SEGMENTER = """# {architecture}, trained on {tag}

{num_classes} classes. All below is to be run in this folder, with nge_search installed. It takes `image.png`: put
an image of yours there, or try a grey one:

```sh
[ -e image.png ] || python -c "from PIL import Image; Image.new('RGB', ({side}, {side}), 'grey').save('image.png')"
nge segment . image.png --out masks --overwrite
```

In Python:

```python
import numpy
import torch
from PIL import Image

from nge_search.deploy.segmenter import read_trained

model = read_trained(".")
with Image.open("image.png") as image:
    pixels = torch.from_numpy(numpy.array(image.convert("RGB"))).permute(2, 0, 1)
classes = model(pixels)
print([model.classes[number] for number in classes.unique().tolist()])
```
"""

_SEGMENTER_ONNX = """
With onnxruntime alone:

```python
import json

import numpy
import onnxruntime
from PIL import Image

with open("config.json", encoding="utf-8") as file:
    config = json.load(file)
expected = config["images"]
with Image.open("image.png") as image:
    {opened}
pixels = (pixels - numpy.float32(expected["mean"])) / numpy.float32(expected["std"])
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(found,) = session.run(None, {{"images": pixels.transpose(2, 0, 1)[None]}})
classes = {classes}
print([config["label_names"][number] for number in numpy.unique(classes)])
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


def readme(document: Mapping[str, Any], config: EvalConfig, formats: Sequence[str], images: Images) -> str:
    """The text, for a folder with config.json's `document` and files in `formats`, which take `images`.

    `config` are the settings of the training.
    """
    described = document["pretrained_cfg"]
    plugins = sorted(set(document["model_args"]["genotype"].get("plugins", {}).values()) - {"__main__"})
    facts = {
        "architecture": document["architecture"],
        "tag": described["tag"],
        "num_classes": document["num_classes"],
        "mode": "L" if images.channels == 1 else "RGB",
        "channels": images.channels,
        "side": images.side,
        "smallest": images.smallest,
        "command": _training(config),
        "word": f" {word('plugins', plugins)}" if plugins else "",
        "imports": "".join(f"import {plugin}  # registers operations of the network\n" for plugin in plugins),
    }
    return "".join(part.format(**facts) for part in [_HEAD, *_files(formats, _ONNX, images), _TRAIN])


def segmentation_readme(document: Mapping[str, Any], formats: Sequence[str], images: Images) -> str:
    """As `readme`, of a segmentation."""
    side = images.side
    resized = "" if images.smallest else f".resize(({side}, {side}), Image.Resampling.BILINEAR)"
    facts = {
        "architecture": document["architecture"],
        "tag": document["images"]["tag"],
        "num_classes": document["num_classes"],
        "channels": images.channels,
        "side": side,
        "smallest": images.smallest,
        "opened": f'pixels = numpy.asarray(image.convert("RGB"){resized}, numpy.float32) / 255',
        "classes": "found[0]" if images.argmax else "found[0].argmax(axis=0)",
    }
    return "".join(part.format(**facts) for part in [_SEGMENTER, *_files(formats, _SEGMENTER_ONNX, images)])


def _files(formats: Sequence[str], onnx: str, images: Images) -> list[str]:
    """What is said of ONNX and torch.export files."""
    parts = [part for name, part in (("onnx", onnx), ("torch", _TORCH)) if name in formats]
    return [*([_ANY_SIZE] if parts and images.smallest else []), *parts]


def _training(config: EvalConfig) -> str:
    """The line that goes on from the exported weights with the settings of the training."""
    own = ("network.genotype", "network.weights", "network.reset_classifier", "data.root", "data.download")
    settings = {"network.genotype": ".", "network.weights": ".", "run.name": "further"}
    if config.data.name != "digits":
        settings["data.root"] = str(Path(config.data.root).absolute())
    settings |= changed(asdict(config), asdict(EvalConfig()), ("run", "device", *own))
    return shlex.join(["nge", "eval", *(word(key, value) for key, value in settings.items())])
