"""What is exported of a segmentation: DeepLabv3's weights, and a config.json that says how to use them.

config.json holds "format", "architecture", "num_classes", "label_names", "model_args" (the genotype and the sizes
of the network), "images" ("mean" and "std" per colour of pixels in [0, 1], "input_size" of ONNX and torch.export
files, "smallest_side" where these take any size) and "evaluation" ("scales" and "flip", as the run validated).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.architecture.genotype import Genotype
from nge_search.deploy.export_formats import Images
from nge_search.deploy.export_readme import segmentation_readme
from nge_search.deploy.segmenter import ARCHITECTURE, FORMAT, read_run_segmenter
from nge_search.errors import UserError
from nge_search.kinds import SUMMARY


@dataclass(frozen=True)
class Exportable:
    """All that goes into the folder of an export.

    Attributes:
        network: gives logits [B, K, ...] of images, in evaluation mode.
        weights: its tensors, in float32.
        document: the content of config.json.
        images: what ONNX and torch.export files take.
        notices: lines for the user.
        readme: from the names of the formats to the text of README.md.
    """

    network: nn.Module
    weights: dict[str, Tensor]
    document: dict[str, Any]
    genotype: Genotype
    images: Images
    notices: tuple[str, ...]
    readme: Callable[[Sequence[str]], str]


class _Logits(nn.Module):
    """The logits of a network that gives an auxiliary head's, too."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network(x_BCHW)[0]


def smallest_side(side: int, reduction: int) -> int:
    """The smallest height and width of images of any size: two pixels on the last map.

    Raises:
        UserError: the images to export for are smaller.
    """
    smallest = 2 * reduction
    if side < smallest:
        raise UserError(
            f"--dynamic-size: this network takes images of any size from {smallest} pixels on, not of {side}; "
            f"leave it out, or add --image-size={smallest}"
        )
    return smallest


def describe_segmenter(
    run: Path, weights: str, image_size: int | None, dynamic_size: bool, argmax: bool
) -> Exportable:
    """What is exported of a segmentation; the arguments are those of `export_run`.

    Raises:
        UserError: a run without weights, or an average of weights, which segmentations do not keep.
    """
    if weights != "last":
        raise UserError(f"'{run}' is a segmentation, which keeps no average of its weights; use --weights last")
    trained = read_run_segmenter(run)
    config, network = trained.config, trained.network.to(memory_format=torch.contiguous_format)
    reduction = network.backbone.reductions[-1]
    # Crops may be smaller than what files of any size take.
    side = max(config.data.crop, 2 * reduction) if image_size is None else image_size
    any_size = dynamic_size or image_size is None
    images = Images(3, side, smallest_side(side, reduction) if any_size else 0, argmax)
    section = config.network
    sizes = {name: getattr(section, name) for name in ("channels", "cells", "output_stride", "head_channels")}
    document = {
        "format": FORMAT,
        "architecture": ARCHITECTURE,
        "num_classes": len(trained.classes),
        "label_names": list(trained.classes),
        "model_args": {"genotype": trained.genotype.to_dict(), **sizes},
        "images": {
            "tag": config.data.name,
            "mean": list(trained.normalisation.mean),
            "std": list(trained.normalisation.std),
            "input_size": [3, side, side],
            "smallest_side": images.smallest,
        },
        "evaluation": {"scales": list(trained.scales), "flip": trained.flip},
    }
    notices = list(trained.notices)
    if not (run / SUMMARY).exists():
        notices.append(f"'{run}' is unfinished: these are the weights of its last checkpoint")
    if trained.scales != (1.0,) or trained.flip:
        notices.append(
            "ONNX and torch.export files compute one scale, unmirrored; nge segment and nge test go on as the run "
            "validated"
        )
    weights_by_name = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return Exportable(
        _Logits(network).eval(),
        weights_by_name,
        document,
        trained.genotype,
        images,
        tuple(notices),
        lambda formats: segmentation_readme(document, formats, images),
    )
