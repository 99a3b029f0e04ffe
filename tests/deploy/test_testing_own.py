"""Tests of trained networks on images that a Python program gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import nge_search
from nge_search import Images, UserError
from nge_search.data import load_dataset
from nge_search.deploy.export import export_run
from nge_search.deploy.testing import measure
from nge_search.settings.data import DataSection

WORDS = (
    "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=32", "train.epochs=1",
    "train.batch_size=16",
)  # fmt: skip


class Digits:
    """A map-style dataset."""

    def __init__(self, part: str) -> None:
        self.source = getattr(load_dataset(DataSection()), part)
        self.targets = self.source.labels_N[:100]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[object, int]:
        return self.source.images_NCHW[position], int(self.targets[position])


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(Digits("train"), Digits("test"))


def test_images_from_python(images, tmp_path, digits_run, monkeypatch, refused):
    """Given again they are the run's own, by run and export; a folder that is called data, by default, is not."""
    run = tmp_path / "run"
    summary = nge_search.evaluate(
        None, *WORDS, f"run.dir={run}", "network.channels=2", "network.cells=1", dataset=images
    )
    model = export_run(run, tmp_path / "model")
    for source in (run, model):
        found = measure(source, ("device=cpu",), dataset=images)
        assert found["top1_error"] == summary["top1_error"]
        assert found["images"] == 100
    refused(["test", str(run)], ("were given from Python", "data.root=FOLDER"))
    with pytest.raises(UserError, match=r"data\.root=: the images are those of dataset="):
        measure(run, ("data.root=x",), dataset=images)
    assert measure(digits_run, ("device=cpu",), dataset=images)["images"] == 100
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    refused(["test", str(run), "data.root=data"], ("no class folders",))


def test_masks_from_python(masks_run, images):
    with pytest.raises(UserError, match="is a segmentation, whose images have masks"):
        measure(masks_run, dataset=images)
