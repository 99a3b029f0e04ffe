"""Masks of the user's own classes: their values are the classes, whatever their palettes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data.segmentation.dataset import IGNORED, MaskedDataset
from nge_search.data.segmentation.voc import load_voc
from nge_search.data.segmentation.voc_masks import VOC_CLASSES, voc_palette
from nge_search.errors import UserError
from nge_search.settings.segmentation import MaskedDataSection

CLASSES = ["background", "no", "grass verge"]
TRUTH = np.array([[0, 1, 2, IGNORED], [2, 2, 1, 0]], np.uint8)


def load(root: Path, *classes: str, **settings: int) -> MaskedDataset:
    return load_voc(
        MaskedDataSection(name="voc", root=str(root), classes=list(classes), crop=16, workers=0, **settings)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image for training and one for validation, of four by two pixels."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for part in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{part}.txt").write_text(f"{part}\n")
        Image.new("RGB", (4, 2), (9, 99, 200)).save(tmp_path / "JPEGImages" / f"{part}.jpg")
        Image.fromarray(TRUTH).save(mask_of(tmp_path, part))
    return tmp_path


def mask_of(root: Path, part: str) -> Path:
    return root / "SegmentationClass" / f"{part}.png"


def paint(path: Path, colours: Sequence[tuple[int, int, int]], truth: np.ndarray = TRUTH) -> None:
    image = Image.fromarray(truth, mode="P")
    image.putpalette([part for colour in [*colours, *[(0, 0, 0)] * (256 - len(colours))] for part in colour])
    image.save(path)


def test_values_are_the_classes_whatever_the_palette(root: Path) -> None:
    palettes: list[list[tuple[int, int, int]]] = [
        list(voc_palette()),
        [voc_palette()[5], voc_palette()[0], voc_palette()[15]],  # VOC's colours of other classes
        [(0, 0, 0), (255, 255, 255), (128, 128, 128)],
        [(1, 2, 3), (30, 200, 1), (90, 0, 7)],
    ]
    for colours in palettes:
        paint(mask_of(root, "train"), colours)
        dataset = load(root, *CLASSES)
        assert dataset.classes == tuple(CLASSES)
        np.testing.assert_array_equal(dataset.train.read([0])[0, 3], TRUTH)
        np.testing.assert_array_equal(dataset.train.read_mask(0), TRUTH)
    two = (TRUTH == 1).astype(np.uint8)
    Image.fromarray(two * 255).convert("1").save(mask_of(root, "train"))  # one bit a pixel
    np.testing.assert_array_equal(load(root, "background", "crack").train.read_mask(0), two)


def test_a_json_beside_the_masks_names_them(root: Path) -> None:
    assert load(root).classes == VOC_CLASSES
    path = root / "SegmentationClass" / "classes.json"
    path.write_text(json.dumps(CLASSES))
    dataset = load(root)
    assert dataset.classes == tuple(CLASSES)
    assert f"classes are those of '{path}': masks hold their numbers" in dataset.notices
    given = load(root, *CLASSES)
    assert given.classes == tuple(CLASSES)
    assert not any("classes" in notice for notice in given.notices)
    with pytest.raises(UserError, match=r"data\.classes=.* differs from '.*classes\.json', which has \['"):
        load(root, "background", "a", "b")
    path.unlink()
    other = load(root, "background", "a", "b")
    assert len({dataset.fingerprint, other.fingerprint}) == 2


def test_what_masks_of_own_classes_must_not_be(root: Path) -> None:
    path = mask_of(root, "train")

    def high() -> None:
        Image.fromarray(TRUTH + (TRUTH == 2)).save(path)

    def rgb() -> None:
        Image.fromarray(np.array(voc_palette(), np.uint8)[TRUTH]).save(path)

    def renumbered() -> None:
        paint(path, [(0, 0, 0), (2, 2, 2), (1, 1, 1)])

    def file_by_file() -> None:
        paint(path, [(0, 0, 0), (128, 0, 0), (0, 9, 0)])
        paint(mask_of(root, "val"), [(0, 0, 0), (0, 9, 0), (128, 0, 0)])

    def clear() -> None:
        Image.fromarray(np.stack([TRUTH, TRUTH], axis=2), mode="LA").save(path)

    cases: list[tuple[Callable[[], None], str]] = [
        (high, r"has the value 3; allowed are 0 to 2, and 255 for pixels that do not count; 3 classes are named"),
        (
            rgb,
            "has mode RGB, but with classes of your own no colour tells which is meant; save it as a palette PNG",
        ),
        (renumbered, "a palette of greys, 2 for the value 1, so that either may be the class"),
        (file_by_file, r"have the colour \(0, 9, 0\) for the values 2 and 1"),
        (clear, "has transparent pixels, whose class is not clear"),
    ]
    for spoil, says in cases:
        for part in ("train", "val"):
            Image.fromarray(TRUTH).save(mask_of(root, part))
        spoil()
        with pytest.raises(UserError, match=says) as refused:
            load(root, *CLASSES).train.read_mask(0)
        assert "\n" not in str(refused.value)
    Image.fromarray(np.where(TRUTH == 2, 42, TRUTH).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=r"the value 42; .*; data.classes=\[...\] names classes of your own"):
        load(root).train.read_mask(0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged: not valid JSON"),
        ('{"0": "background"}', "must be a JSON list of the names of classes, as"),
        ('["background", 1]', "must be a JSON list of the names of classes, as"),
        ('["background"]', "give the names of 2 to 255 classes, the background first"),
        (json.dumps([str(i) for i in range(256)]), "give the names of 2 to 255 classes"),
        ('["background", " road"]', "' road' is no name of a class: give up to 100 characters"),
        ('["background", "a\\nb"]', "is no name of a class"),
        ('["background", ""]', "'' is no name of a class"),
        ('["background", "road", "road"]', "the class 'road' stands there twice"),
        ("[" * 5000, "is damaged"),
        ("\xff", "is not a text file"),
    ],
)
def test_names_that_are_refused(content: str, says: str, root: Path) -> None:
    path = root / "SegmentationClass" / "classes.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=says) as refused:
        load(root)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    if content.startswith('["') and ", 1]" not in content:
        with pytest.raises(UserError, match=r"^data\.classes=.*" + says):
            load(root, *json.loads(content))


def test_other_datasets_have_classes_of_their_own() -> None:
    with pytest.raises(UserError, match=r"data\.name=scenes has classes of its own; set data\.name=voc"):
        MaskedDataSection(name="scenes", classes=CLASSES)
