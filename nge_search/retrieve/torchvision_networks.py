"""torchvision's networks: to classify, detect, segment, for video and for optical flow; none that is quantised.

A detector reads values between its parts (which regions are kept), so its backbone and heads are traced. In
detectors of two stages the heads of regions hear from the maps that regions are cut from, and from what chose the
regions, over edges that are marked as stand-ins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from nge_search.retrieve.extraction import BATCH, Inputs, images, stand_in
from nge_search.retrieve.sources import CLASSIFICATION, Library, Origin, build_hollow

DETECTION, SEGMENTATION, VIDEO, OPTICAL_FLOW = "detection", "segmentation", "video", "optical flow"

#: By the package that a network is defined in.
_TASKS = {"detection": DETECTION, "segmentation": SEGMENTATION, "video": VIDEO, "optical_flow": OPTICAL_FLOW}

#: What timm calls the families of classifiers that it has under another name.
_TIMM_FAMILIES = {
    "inception": "inception_v3",
    "maxvit": "maxxvit",
    "mnasnet": "efficientnet",
    "mobilenetv2": "efficientnet",
}

_CLIP, _SMALL_CLIP, _FRAME = (3, 16, 224, 224), (3, 16, 112, 112), (3, 128, 128)


class Torchvision(Library):
    """torchvision; families are timm's where it has them."""

    name = "torchvision"

    def version(self) -> str:
        return torchvision.__version__

    def names(self) -> list[str]:
        return [name for name in sorted(torchvision.models.list_models()) if "quantization" not in self._path(name)]

    def origin(self, name: str) -> Origin:
        *package, module = self._path(name)
        task = next((_TASKS[part] for part in package if part in _TASKS), CLASSIFICATION)
        if task == CLASSIFICATION and name.startswith("swin_v2"):
            return Origin("swin_transformer_v2", task)
        if task == CLASSIFICATION:
            return Origin(_TIMM_FAMILIES.get(module, module), task)
        return Origin(f"video_{module}" if task == VIDEO else module, task)

    def build(self, name: str) -> tuple[nn.Module, Inputs]:
        builder = torchvision.models.get_model_builder(name)
        words = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
        network = build_hollow(lambda: builder(weights=None, **words))
        task = self.origin(name).task
        if task == DETECTION:
            detector = Detector(network)
            return detector, images(3, detector.side, detector.side)
        if task == VIDEO:
            return network, images(*(_SMALL_CLIP if "resnet" in self._path(name) else _CLIP))
        if task == OPTICAL_FLOW:
            frames = tuple(torch.empty(BATCH, *_FRAME, device="meta") for _ in range(2))
            return network, Inputs(frames, batch=BATCH)
        return network, images()

    @staticmethod
    def _path(name: str) -> Sequence[str]:
        return torchvision.models.get_model_builder(name).__module__.split(".")


class Detector(nn.Module):
    """The parts of one of torchvision's detectors that a gradient passes, with stand-ins between them.

    Attributes:
        side: height and width of an image as the detector resizes it, in pixels.
    """

    #: Regions of an image that are classified, and those whose masks or key points are drawn: torchvision's limits.
    _regions, _detections = 1000, 100

    def __init__(self, detector: Any):
        super().__init__()
        self.detector = detector
        resizing = detector.transform
        self.side: int = resizing.fixed_size[0] if resizing.fixed_size else resizing.min_size[-1]

    def forward(self, x_BCHW: Tensor) -> list[Any]:
        """What the heads say, for each of the regions in the last ones."""
        maps = self.detector.backbone(x_BCHW)
        maps = {"0": maps} if isinstance(maps, Tensor) else maps
        if not isinstance(self.detector, GeneralizedRCNN):
            return [self.detector.head(list(maps.values()))]
        scores, boxes = self.detector.rpn.head(list(maps.values()))
        heads, batch = self.detector.roi_heads, len(x_BCHW)
        regions = _cut(heads.box_roi_pool, maps, batch * self._regions, [*scores, *boxes])
        found = heads.box_predictor(heads.box_head(regions))
        outputs: list[Any] = [found]
        for part in ("mask", "keypoint"):
            pool = getattr(heads, f"{part}_roi_pool", None)
            if pool is not None:
                regions = _cut(pool, maps, batch * self._detections, list(found))
                outputs.append(_part(heads, part, "predictor")(_part(heads, part, "head")(regions)))
        return outputs


def _part(heads: nn.Module, part: str, role: str) -> Callable[[Tensor], Tensor]:
    return getattr(heads, f"{part}_{role}")


def _cut(pool: Any, maps: dict[str, Tensor], regions: int, chosen_by: list[Tensor]) -> Tensor:
    """What regions are cut to: [regions, C, height, width]."""
    used = [maps[name] for name in pool.featmap_names if name in maps]
    return stand_in((regions, used[0].shape[1], *pool.output_size), "RoiAlign", *used, *chosen_by)
