"""What an evaluation found, class by class and image by image: evaluation.json.

Legend: N images, K classes, n images shown.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nge_search.data import Dataset
from nge_search.data.decoding import encoded_png, to_image
from nge_search.errors import UserError

#: Classes for which the whole confusion matrix is kept.
LARGEST_CONFUSION = 100
_MOST_CONFUSED = 50
_WORST = 24
#: Largest side of a thumbnail, in pixels.
THUMBNAIL = 64


def confusion(labels_N: Tensor, predicted_N: Tensor, classes: int) -> Tensor:
    """How many images of each class (rows) were taken for each (columns): int64 [K, K]; -1 stands for not seen."""
    seen = predicted_N >= 0
    pairs = labels_N[seen] * classes + predicted_N[seen]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def describe_evaluation(
    epoch: int, dataset: Dataset, labels_N: Tensor, predicted_N: Tensor, losses_N: Tensor
) -> dict[str, Any]:
    """The content of evaluation.json: counts by class, the most frequent mistakes, the images of largest loss."""
    classes = len(dataset.classes)
    counts_KK = confusion(labels_N, predicted_N, classes)
    right_K = counts_KK.diagonal()
    wrong_KK = counts_KK - torch.diag(right_K)
    most = wrong_KK.flatten().topk(min(_MOST_CONFUSED, classes**2))
    mistakes = [
        [place // classes, place % classes, count]
        for count, place in zip(most.values.tolist(), most.indices.tolist())
        if count
    ]
    return {
        "epoch": epoch,
        "images": int(counts_KK.sum()),
        "classes": list(dataset.classes),
        "per_class": torch.stack([counts_KK.sum(dim=1), right_K], dim=1).tolist(),
        "confusion": counts_KK.tolist() if classes <= LARGEST_CONFUSION else None,
        "confused": mistakes,
        "worst": _worst(dataset, labels_N, predicted_N, losses_N),
    }


def _worst(dataset: Dataset, labels_N: Tensor, predicted_N: Tensor, losses_N: Tensor) -> list[dict[str, Any]]:
    """The images of largest loss, largest first; those that cannot be read any more are left out."""
    paths = getattr(dataset.test, "paths", None)
    found = []
    for i in losses_N.masked_fill(predicted_N < 0, -math.inf).topk(min(_WORST, len(losses_N))).indices.tolist():
        if predicted_N[i] < 0:
            break
        try:
            pixels_CSS = dataset.test.read([i])[0]
        except UserError:
            continue
        loss = float(losses_N[i])
        found.append(
            {
                "name": f"test image {i}" if paths is None else str(paths[i]),
                "label": int(labels_N[i]),
                "predicted": int(predicted_N[i]),
                "loss": loss if math.isfinite(loss) else None,
                "png": _png(pixels_CSS),
            }
        )
    return found


def _png(pixels_CSS: Tensor) -> str:
    """A thumbnail, in base64."""
    image = to_image(pixels_CSS)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return encoded_png(image)
