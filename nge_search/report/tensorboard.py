"""What TensorBoard shows of an epoch as pictures, by tag: uint8 [H, W, 3].

Every function takes the epoch's row of metrics.jsonl and what its evaluation found, which may be nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from nge_search.architecture.load import read_architecture
from nge_search.data.decoding import decoded_png
from nge_search.report.drawing.figure import drawing_rgb
from nge_search.training.evaluation import THUMBNAIL
from nge_search.training.segmentation_results import LARGEST

Pictures = dict[str, np.ndarray]

_CELL = 16  # pixels
_PARTS = ("image", "truth", "prediction")


def search_pictures(row: Mapping[str, Any], found: Mapping[str, Any]) -> Pictures:
    """P of every kind of cell, and the cells that it stands for."""
    graphs = read_architecture(row["genotype"]).graphs
    matrices = {f"p/{kind}": heatmap_rgb(np.array(row[f"p_{kind}"])) for kind in graphs}
    return {**matrices, "genotype": drawing_rgb(graphs)}


def evaluation_pictures(row: Mapping[str, Any], found: Mapping[str, Any]) -> Pictures:
    """The classes that images were taken for, and the images of largest loss."""
    pictures = {}
    if found and found["confusion"] is not None:
        pictures["test/confusion"] = draw_confusion(found["confusion"])
    if found and found["worst"]:
        pictures["test/worst"] = draw_worst(found["worst"])
    return pictures


def segmentation_pictures(row: Mapping[str, Any], found: Mapping[str, Any]) -> Pictures:
    """Images beside their true and predicted masks."""
    return {"test/pictures": draw_masks(found["pictures"])} if found and found["pictures"] else {}


def heatmap_rgb(p_EO: np.ndarray, pixels: int = 24) -> np.ndarray:
    """P as a picture, uint8 [E * pixels, O * pixels, 3]: white for 0, dark blue for 1."""
    low, high = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])
    rgb = low + (high - low) * np.clip(p_EO, 0, 1)[..., None]
    return np.kron(rgb, np.ones((pixels, pixels, 1))).astype(np.uint8)


def draw_confusion(counts: list[list[int]]) -> np.ndarray:
    """The matrix as a picture: a cell's darkness is its share of its row."""
    counts_KK = np.array(counts, dtype=np.float64)
    share_KK = counts_KK / counts_KK.sum(axis=1, keepdims=True).clip(1)
    grey = (255 * (1 - share_KK)).round().astype(np.uint8)
    return np.repeat(np.repeat(grey, _CELL, axis=0), _CELL, axis=1)[:, :, None].repeat(3, axis=2)


def draw_worst(worst: list[dict[str, Any]]) -> np.ndarray:
    """The thumbnails side by side, row by row."""
    columns = 8
    rows = -(-len(worst) // columns)
    sheet = Image.new("RGB", (columns * THUMBNAIL, rows * THUMBNAIL))
    for position, entry in enumerate(worst):
        image = decoded_png(entry["png"]).convert("RGB")
        image = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST)
        sheet.paste(image, (position % columns * THUMBNAIL, position // columns * THUMBNAIL))
    return np.asarray(sheet)


def draw_masks(pictures: list[dict[str, str]]) -> np.ndarray:
    """A row of image, truth and prediction for each."""
    rows = [[decoded_png(entry[part]) for part in _PARTS] for entry in pictures]
    sheet = Image.new("RGB", (len(_PARTS) * LARGEST, len(rows) * LARGEST))
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet.paste(image.convert("RGB"), (column * LARGEST, row * LARGEST))
    return np.asarray(sheet)
