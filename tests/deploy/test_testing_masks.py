"""`nge test` of a segmentation of one's own classes: what the numbers in masks are, and what is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nge_search
from nge_search.deploy.export import export_run
from nge_search.deploy.segmenter import read_trained
from nge_search.deploy.testing import measure
from nge_search.metrics.calibration import Calibration

#: Of the computation and of the reading; and of a tiny training.
PLAIN = ("threads=1", "device=cpu", "data.workers=0")
TRAINING = (
    *PLAIN, "task=segmentation", "run.progress=none", "run.tensorboard=false", "data.name=voc", "data.crop=32",
    "network.channels=2", "network.cells=2", "network.head_channels=2", "network.output_stride=16",
    "train.epochs=1", "train.batch_size=2",
)  # fmt: skip
CLASSES = ("background", "crack")


@pytest.fixture
def cracks(tmp_path, write_voc_tree) -> Path:
    """Images of one size, with masks of two classes."""
    root = write_voc_tree(tmp_path / "cracks", 2, 3, ((40, 36),))
    for path in (root / "SegmentationClass").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 255, 255, mask == 5).astype(np.uint8)).save(path)
    return root


def test_own_classes_by_run_and_export(cracks, tmp_path):
    """The run's figures, of its own images and of the same elsewhere, where no training list is."""
    run = tmp_path / "run"
    words = (*TRAINING, f"data.root={cracks}", f"run.dir={run}", f"data.classes=[{','.join(CLASSES)}]")
    miou = nge_search.evaluate(None, *words)["miou"]
    model, moved = export_run(run, tmp_path / "model"), shutil.copytree(cracks, tmp_path / "moved")
    (moved / "ImageSets" / "Segmentation" / "train.txt").unlink()
    for source, more in ((run, ()), (run, (f"data.root={moved}",)), (model, (f"data.root={moved}",))):
        found = nge_search.test(source, *PLAIN, *more)
        assert (found["miou"], found["images"]) == (miou, 3)
        assert tuple(one["class"] for one in found["per_class"]) == CLASSES


@pytest.fixture
def streets(masks_run, tmp_path) -> Path:
    """Masks of the four classes that `masks_run` knows, by number."""
    root, random = tmp_path / "streets", np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in "ab":
        pixels = random.integers(0, 256, (3, 5, 3), np.uint8).repeat(11, axis=0).repeat(10, axis=1)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
        Image.fromarray(random.integers(0, 4, pixels.shape[:2], np.uint8)).save(
            root / "SegmentationClass" / f"{name}.png"
        )
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\n")
    return root


def test_numbers_are_the_networks_classes(masks_run, streets, monkeypatch):
    """Against the masks of `nge segment`; calibration takes image by image, as its float64 takes much room."""
    update, sizes = Calibration.update, list[int]()

    def watch(own: Calibration, logits: torch.Tensor, *more: object) -> None:
        sizes.append(len(logits))
        update(own, logits, *more)

    monkeypatch.setattr(Calibration, "update", watch)
    said: list[str] = []
    found = measure(masks_run, (*PLAIN, f"data.root={streets}"), say=said.append)
    assert said == ["masks hold the numbers of the network's 4 classes"]
    assert sizes == [1, 1]
    model, counts = read_trained(masks_run), np.zeros((4, 4), int)
    for name in "ab":
        pixels = np.array(Image.open(streets / "JPEGImages" / f"{name}.png"))
        truth = np.asarray(Image.open(streets / "SegmentationClass" / f"{name}.png"))
        np.add.at(counts, (truth, model(torch.from_numpy(pixels).permute(2, 0, 1)).numpy()), 1)
    assert (
        np.abs(np.array(found["confusion"]) - counts).sum() <= 4
    )  # of 3,300 pixels; in float64 there, float32 here
    assert sum(count for count, _, _ in found["calibration"]["intervals"]) == counts.sum()


def test_what_says_otherwise(masks_run, streets, tmp_path, refused):
    """A JSON beside the masks, or data.name=voc, whose classes are others."""
    beside = streets / "SegmentationClass" / "classes.json"
    words = ["test", str(masks_run), *PLAIN, f"data.root={streets}"]
    known = ["sky", "road", "tree", "car"]
    refused([*words, "data.name=voc"], ("other classes", "sky, road, tree, car", "data.classes=[...]"))
    refused([*words, "data.classes=[sky,road,tree,bus]"], ("other classes",))
    beside.write_text(json.dumps(known[::-1]))
    refused(words, ("other classes than the network", "sky, road, tree, car"))
    beside.write_text(json.dumps(known))
    assert nge_search.test(masks_run, *words[2:])["images"] == 2
