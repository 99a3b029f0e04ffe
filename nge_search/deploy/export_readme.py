"""The README.md of an exported folder: commands and scripts that run as they are written, in that folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nge_search.data.segmentation.voc_masks import VOC_CLASSES
from nge_search.deploy.export_formats import ONNX_FILE, TORCH_FILE, Images
from nge_search.operation_registry import PROGRAM
from nge_search.recipes import changed, word
from nge_search.settings.classification import EvalConfig
from nge_search.settings.names import DATASETS, SEGMENTATION_DATASETS

_HEAD = """# {architecture}, trained on {images}

{num_classes} classes, images of {side}x{side} pixels. All below is to be run in this folder, with nge_search and
timm 1.0.26 or newer installed{needed}. It takes `image.png`: put an image of yours there, or try a grey one:

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
{files} of any height and width from {smallest} pixels on.
"""

_SEGMENTER = """# {architecture}, trained on {images}

{num_classes} classes. All below is to be run in this folder, with nge_search installed{needed}. It takes
`image.png`: put an image of yours there, or try a grey one:

```sh
[ -e image.png ] || python -c "from PIL import Image; Image.new('RGB', ({side}, {side}), 'grey').save('image.png')"
nge segment . image.png --out masks --overwrite{word}
```

In Python:

```python
import numpy
import torch
from PIL import Image

from nge_search.deploy.segmenter import read_trained
{imports}
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
    operations = _operations(document)
    facts = {
        "architecture": document["architecture"],
        "images": _images(described["tag"], True),
        "num_classes": document["num_classes"],
        "mode": "L" if images.channels == 1 else "RGB",
        "channels": images.channels,
        "side": images.side,
        "smallest": images.smallest,
        "command": _training(config, _plugins(operations)),
        **_facts_of(operations),
    }
    given = config.data.name == DATASETS[-1]  # from Python: no command can name such images
    parts = [_HEAD, *_files(formats, _ONNX, images), *([] if given else [_TRAIN])]
    return "".join(part.format(**facts) for part in parts)


def segmentation_readme(document: Mapping[str, Any], formats: Sequence[str], images: Images) -> str:
    """As `readme`, of a segmentation."""
    side = images.side
    resized = "" if images.smallest else f".resize(({side}, {side}), Image.Resampling.BILINEAR)"
    facts = {
        "architecture": document["architecture"],
        "images": _images(document["images"]["tag"], document["label_names"] != list(VOC_CLASSES)),
        "num_classes": document["num_classes"],
        "channels": images.channels,
        "side": side,
        "smallest": images.smallest,
        "opened": f'pixels = numpy.asarray(image.convert("RGB"){resized}, numpy.float32) / 255',
        "classes": "found[0]" if images.argmax else "found[0].argmax(axis=0)",
        **_facts_of(_operations(document)),
    }
    return "".join(part.format(**facts) for part in [_SEGMENTER, *_files(formats, _SEGMENTER_ONNX, images)])


def _images(tag: str, other_classes: bool) -> str:
    """What the images are called; `other_classes`: than VOC's."""
    return "own images" if tag in DATASETS[-2:] or (tag == SEGMENTATION_DATASETS[-1] and other_classes) else tag


def _operations(document: Mapping[str, Any]) -> dict[str, str]:
    """The plugin of each operation of the network that is not of the package, by its name."""
    return dict(document["model_args"]["genotype"].get("plugins", {}))


def _plugins(operations: Mapping[str, str]) -> list[str]:
    """The modules among the plugins of operations, which can be imported."""
    return sorted({plugin for plugin in operations.values() if plugin != PROGRAM})


def _facts_of(operations: Mapping[str, str]) -> dict[str, str]:
    """What is needed, typed and imported for operations of plugins."""
    plugins = _plugins(operations)
    files = " and ".join(f"`{plugin.replace('.', '/')}.py`" for plugin in plugins)
    of_program = ", ".join(f"`{name}`" for name, plugin in sorted(operations.items()) if plugin == PROGRAM)
    return {
        "needed": (f", and with {files} there, or installed" if plugins else "")
        + (f", in a program that registers {of_program} first" if of_program else ""),
        "word": f" {word('plugins', plugins)}" if plugins else "",
        "imports": "".join(f"import {plugin}  # registers operations of the network\n" for plugin in plugins),
    }


def _files(formats: Sequence[str], onnx: str, images: Images) -> list[str]:
    """What is said of ONNX and torch.export files."""
    parts = [part for name, part in (("onnx", onnx), ("torch", _TORCH)) if name in formats]
    if not parts or not images.smallest:
        return parts
    names = [f"`{file}`" for name, file in (("onnx", ONNX_FILE), ("torch", TORCH_FILE)) if name in formats]
    takes = f"{' and '.join(names)} {'take' if len(names) > 1 else 'takes'} images"
    return [_ANY_SIZE.replace("{files}", takes), *parts]


def _training(config: EvalConfig, plugins: Sequence[str]) -> str:
    """The line that goes on from the exported weights with the settings of the training, and these plugins."""
    own = ("network.genotype", "network.weights", "network.reset_classifier", "data.root", "data.download")
    settings: dict[str, Any] = {"network.genotype": ".", "network.weights": ".", "run.name": "further"}
    if config.data.name != "digits":
        settings["data.root"] = str(Path(config.data.root).absolute())
    settings |= changed(asdict(config), asdict(EvalConfig()), ("run", "device", *own))
    if named := list(dict.fromkeys([*config.plugins, *plugins])):
        settings["plugins"] = named
    return shlex.join(["nge", "eval", *(word(key, value) for key, value in settings.items())])
