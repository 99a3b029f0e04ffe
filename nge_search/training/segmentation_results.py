"""What a validation of masks found: segmentation.json, with images, truths and predictions.

Legend: K classes, H and W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nge_search.data.decoding import encoded_png, to_image
from nge_search.data.segmentation.dataset import MaskedDataset
from nge_search.data.segmentation.voc_masks import voc_palette
from nge_search.metrics.segmentation import intersection_over_union, mean_over_union

_SHOWN = 8
#: Pixels of a picture's long side.
LARGEST = 160


class Samples:
    """Validation images that are shown with their masks after every evaluation, evenly spread over the set."""

    def __init__(self, dataset: MaskedDataset):
        count = len(dataset.test)
        self._source = dataset.test
        self._positions = sorted({count * i // _SHOWN for i in range(_SHOWN)})

    def compare(self, classes_of: Callable[[Tensor], Tensor]) -> list[dict[str, str]]:
        """A name and three PNGs in base64 each; `classes_of` takes raw pixels [1, 4, H, W] to classes [1, H, W]."""
        found = []
        for position in self._positions:
            pixels_14HW = self._source.read([position])
            predicted_HW = classes_of(pixels_14HW)[0]
            parts = {
                "image": to_image(pixels_14HW[0, :3]),
                "truth": palette_image(pixels_14HW[0, 3]),
                "prediction": palette_image(predicted_HW),
            }
            pngs = {name: _png(image) for name, image in parts.items()}
            found.append({"name": self._source.describe(position), **pngs})
        return found


def palette_image(classes_HW: Tensor) -> Image.Image:
    """Classes 0 to 255 as an image in VOC's palette, whose pixels are the classes themselves."""
    image = Image.fromarray(classes_HW.to(torch.uint8).numpy(), mode="P")
    image.putpalette([value for colour in voc_palette() for value in colour])
    return image


def overlay_image(pixels_3HW: Tensor, classes_HW: Tensor) -> Image.Image:
    """An image, uint8, half covered by its classes' colours; bare where class 0 is, the background."""
    colours_3HW = torch.tensor(voc_palette())[classes_HW].permute(2, 0, 1)
    covered_3HW = (pixels_3HW.int() + colours_3HW).div(2, rounding_mode="floor")
    return to_image(torch.where(classes_HW == 0, pixels_3HW, covered_3HW.to(torch.uint8)))


def describe_segmentation(
    epoch: int, dataset: MaskedDataset, counts_KK: Tensor, pictures: list[dict[str, str]]
) -> dict[str, Any]:
    """The content of segmentation.json: intersection over union by class, counts of pixels, pictures.

    A figure over no pixel is None.
    """
    iou_K = intersection_over_union(counts_KK)
    right, total = int(counts_KK.diagonal().sum()), int(counts_KK.sum())
    return {
        "epoch": epoch,
        "images": len(dataset.test),
        "classes": list(dataset.classes),
        "colours": [list(colour) for colour in voc_palette()[: len(dataset.classes)]],
        "miou": mean_over_union(counts_KK),
        "iou": [None if value != value else value for value in iou_K.tolist()],
        "pixel_accuracy": right / total if total else None,
        "confusion": counts_KK.tolist(),
        "pictures": pictures,
    }


def _png(image: Image.Image) -> str:
    """A picture of at most `LARGEST` pixels a side, in base64; a palette image keeps its classes."""
    scale = min(1.0, LARGEST / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BILINEAR
    return encoded_png(image.resize((width, height), method))
