"""Pictures of an epoch for TensorBoard."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from nge_search.architecture.genotype import PUBLISHED
from nge_search.data.decoding import encoded_png
from nge_search.report.tensorboard import evaluation_pictures, search_pictures, segmentation_pictures


def png(side: int, colour: tuple[int, int, int]) -> str:
    return encoded_png(Image.new("RGB", (side, side), colour))


def test_probabilities_of_every_kind_of_cell_and_the_cells() -> None:
    p_EO = torch.eye(14, 8).tolist()
    row = {"genotype": PUBLISHED["darts_v2"].to_dict(), "p_normal": p_EO, "p_reduce": p_EO}
    pictures = search_pictures(row, {})
    assert list(pictures) == ["p/normal", "p/reduce", "genotype"]
    assert pictures["p/normal"].shape == (14 * 24, 8 * 24, 3)
    assert pictures["p/normal"][0, 0].tolist() == [8, 48, 107]  # 1
    assert pictures["p/normal"][0, 24].tolist() == [255, 255, 255]  # 0
    assert pictures["genotype"].dtype == np.uint8


def test_mistakes_and_the_images_of_largest_loss() -> None:
    worst = [{"png": png(64, (255, 0, 0))}] * 8 + [{"png": png(8, (0, 0, 255))}]
    pictures = evaluation_pictures({}, {"confusion": [[1, 1], [0, 4]], "worst": worst})
    assert pictures["test/confusion"].shape == (32, 32, 3)
    assert pictures["test/confusion"][::16, ::16, 0].tolist() == [[128, 128], [255, 0]]
    assert pictures["test/worst"].shape == (128, 512, 3)
    assert pictures["test/worst"][::64, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert evaluation_pictures({}, {"confusion": None, "worst": []}) == evaluation_pictures({}, {}) == {}


def test_a_row_of_image_truth_and_prediction() -> None:
    colours = {"image": (1, 2, 3), "truth": (4, 5, 6), "prediction": (7, 8, 9)}
    entry = {name: png(160, colour) for name, colour in colours.items()}
    sheet = segmentation_pictures({}, {"pictures": [entry, entry]})["test/pictures"]
    assert sheet.shape == (320, 480, 3)
    assert sheet[319, ::160].tolist() == [list(colour) for colour in colours.values()]
    assert segmentation_pictures({}, {"pictures": []}) == segmentation_pictures({}, {}) == {}
