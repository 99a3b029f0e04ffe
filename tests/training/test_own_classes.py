"""README's story of one's own classes, as it is written there: masks of two classes, a training, and overlays."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.cli import main
from nge_search.training.segmentation_results import overlay_image

#: What makes the story's training a short one.
SHORT = (
    "threads=1", "run.progress=none", "run.tensorboard=false", "data.crop=32", "data.workers=0",
    "network.channels=2", "network.cells=3", "network.head_channels=4", "train.epochs=1", "train.batch_size=4",
)  # fmt: skip


@pytest.fixture
def story(checkout: Path) -> list[list[str]]:
    """The words behind `nge` of the commands under README's heading."""
    text = (checkout / "README.md").read_text().split("\n**Your own classes.**")[1].split("```")[1]
    lines = [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("nge ")]
    return [[word.replace("configs/", f"{checkout}/configs/") for word in line] for line in lines]


def test_the_story_of_the_readme(
    story: list[list[str]],
    tmp_path: Path,
    write_voc_tree: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_voc_tree(tmp_path / "cracks", 4, 2, ((40, 36),))
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 5).astype(np.uint8)).save(path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("val_000", "val_001"):
        (photos / f"{name}.jpg").write_bytes((root / "JPEGImages" / f"{name}.jpg").read_bytes())
    train, segment = story
    assert main([*train, *SHORT]) == 0
    assert json.loads(Path("runs/segmentation/cracks/dataset.json").read_text())["classes"] == [
        "background",
        "crack",
    ]
    found = json.loads(Path("runs/segmentation/cracks/segmentation.json").read_text())
    assert np.array(found["confusion"]).shape == (2, 2)
    assert "crack" in Path("runs/segmentation/cracks/report.html").read_text()
    capsys.readouterr()
    assert main(segment) == 0
    shown = capsys.readouterr().out
    assert "masks/val_000.png and masks/val_000_overlay.png (" in shown
    names = {f"{name}{end}.png" for name in ("val_000", "val_001") for end in ("", "_overlay")}
    assert {path.name for path in Path("masks").iterdir()} == names
    for name in ("val_000", "val_001"):
        require_overlay(
            photos / f"{name}.jpg", Path("masks") / f"{name}.png", Path("masks") / f"{name}_overlay.png"
        )
    refuse_overlays(segment, photos, capsys)


def require_overlay(photo: Path, mask: Path, overlay: Path) -> None:
    """Pixel by pixel: the photo where the first class is, else the mean of it and the class's colour."""
    image, classes = np.asarray(Image.open(photo).convert("RGB")), np.asarray(Image.open(mask))
    colours = np.asarray(Image.open(mask).convert("RGB"))
    laid = np.asarray(Image.open(overlay))
    assert laid.shape == image.shape
    for y, x in np.ndindex(*classes.shape):
        bare, colour = image[y, x].tolist(), colours[y, x].tolist()
        expected = bare if classes[y, x] == 0 else [(a + b) // 2 for a, b in zip(bare, colour)]
        assert laid[y, x].tolist() == expected
    assert set(np.unique(classes).tolist()) <= {0, 1}


def test_an_overlay_mixes_the_image_with_the_colours_of_classes() -> None:
    """Half and half for classes 1 and 2, whose VOC colours are (128, 0, 0) and (0, 128, 0); bare for class 0."""
    pixels_3HW = torch.tensor([[[10, 11, 12]], [[200, 201, 202]], [[30, 31, 33]]], dtype=torch.uint8)
    overlay = overlay_image(pixels_3HW, torch.tensor([[0, 1, 2]]))
    assert np.asarray(overlay).tolist() == [[[10, 200, 30], [69, 100, 15], [6, 165, 16]]]


def refuse_overlays(segment: list[str], photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = segment[1]
    twin = photos / "val_000_overlay.jpg"
    for words, says in (
        (segment[1:], "exists; choose another --out, or add --overwrite"),
        ([run, str(photos), "--out", str(photos / "masks"), "--overlay", "--nothing"], "--nothing"),
        ([run, str(photos / "none.jpg"), "--out", "new", "--overlay"], "does not exist"),
    ):
        assert main(["segment", *words]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    twin.write_bytes((photos / "val_000.jpg").read_bytes())
    assert main(["segment", run, str(photos), "--out", "new", "--overlay"]) == 2
    assert "would both become 'new/val_000_overlay.png'" in capsys.readouterr().err
    assert main(["segment", run, str(photos / "val_000.jpg"), "--out", "new", "--overlay"]) == 0
    Path("new/val_000_overlay.png").unlink()
    Path("new/val_000_overlay.png").symlink_to(twin)
    assert main(["segment", run, str(photos / "val_000.jpg"), "--out", "new", "--overlay", "--overwrite"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert not Path("new/val_001.png").exists()


def test_masks_of_0_and_255_are_refused_with_what_to_do(
    story: list[list[str]],
    write_voc_tree: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_voc_tree(tmp_path / "cracks", 4, 2, ((40, 36),))
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) == 5).astype(np.uint8) * 255).save(path)
    for words, says in (
        ([], "as 0 and 1 for two (not 0 and 255)"),
        (["data.classes=[background]"], "data.classes=['background']: give the names of 2 to 255 classes"),
        (["data.classes=background,crack"], "data.classes=background,crack: must be a list of names"),
        (["data.classes=[crack, crack]"], "the class 'crack' stands there twice"),
        (
            ["data.classes=[crack,Background]"],
            "'Background' is the number 1 there, and in masks it is 0: name it first",
        ),
        (
            ["data.classes=[background,", "crack]"],
            "the list does not end; leave out blanks, or quote the whole word",
        ),
        (["data.classes={0: crack}"], "data.classes"),
        (["data.name=scenes"], "data.name=scenes has classes of its own"),
    ):
        assert main([*story[0], *SHORT, *words]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not Path("runs").exists()
