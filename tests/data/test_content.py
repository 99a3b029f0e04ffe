"""What tells two data sets apart: names, sizes, bytes, order; and what may differ: where they lie."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data import load_dataset
from nge_search.data.content import Content, _spread, content_of
from nge_search.data.segmentation.voc import load_voc
from nge_search.engine import agreement
from nge_search.settings.data import DataSection
from nge_search.settings.segmentation import MaskedDataSection


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "here"
    for k, name in enumerate(("ants", "bees")):
        (root / name).mkdir(parents=True)
        for i in range(5):
            pixels = np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.bmp")
    return root


def content(root: Path) -> Content:
    return content_of(load_dataset(DataSection(name="folder", root=str(root), workers=0)))


def difference(one: Content, other: Content) -> str:
    """The name of the first part that differs; empty where nothing does."""
    assert (one.digest() == other.digest()) == (one == other)
    found = agreement.first_disagreement([one.parts(), other.parts()])
    return found[1] if found else ""


def test_the_place_makes_no_difference(tree: Path, tmp_path: Path) -> None:
    there = shutil.copytree(tree, tmp_path / "much" / "deeper" / "there")
    assert difference(content(tree), content(there)) == ""


def test_another_name_or_size_or_byte_is_named(tree: Path) -> None:
    before = content(tree)
    path = tree / "bees" / "3.bmp"
    pixels = bytearray(path.read_bytes())
    pixels[-1] ^= 1
    path.write_bytes(pixels)
    assert "'bees/3.bmp'" in difference(before, content(tree))
    path.write_bytes(path.read_bytes() + b"\0")
    assert "'bees/3.bmp'" in difference(before, content(tree))
    path.rename(tree / "bees" / "7.bmp")
    assert "bees/" in difference(before, content(tree))
    (tree / "ants").rename(tree / "wasps")
    assert difference(before, content(tree)) == "the classes"


def test_names_that_are_not_utf8_are_compared(tree: Path) -> None:
    before = content(tree)
    os.rename(tree / "ants" / "0.bmp", os.fsencode(tree / "ants") + b"/\xe4.bmp")
    assert difference(before, content(tree))
    assert difference(content(tree), content(tree)) == ""


def test_masks_count_too(voc_tree: Callable[..., Path]) -> None:
    root = voc_tree(3, 2)

    def masked() -> Content:
        return content_of(load_voc(MaskedDataSection(name="voc", root=str(root), workers=0)))

    before = masked()
    path = root / "SegmentationClass" / "val_001.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert "SegmentationClass/val_001.png" in difference(before, masked())


def test_images_in_memory_are_compared() -> None:
    digits = load_dataset(DataSection())
    before = content_of(digits)
    assert difference(before, content_of(digits)) == ""
    changed = digits.test.images_NCHW.clone()
    changed[-1, 0, 0, 0] += 1
    other = type(digits.test)(changed, digits.test.labels_N)
    assert "test images" in difference(before, content_of(dataclasses.replace(digits, test=other)))


def test_a_file_that_cannot_be_read_is_no_error_here(tree: Path) -> None:
    dataset = load_dataset(DataSection(name="folder", root=str(tree), workers=0))
    before = content_of(dataset)
    (tree / "bees" / "4.bmp").unlink()
    (tree / "ants" / "4.bmp").unlink()
    assert difference(before, content_of(dataset))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 1000])
def test_samples_are_spread(count: int) -> None:
    found = _spread(count, 5)
    assert found == sorted(set(found))
    assert len(found) == min(count, 5)
    assert count == 0 or (found[0], found[-1]) == (0, count - 1)
