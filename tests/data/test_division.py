"""Which folders are splits, which are classes, which are no data, and that what is not used is named."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.data import Dataset, load_dataset
from nge_search.deploy.classify import find_images
from nge_search.errors import UserError
from nge_search.settings.data import DataSection


def read(root: Path) -> Dataset:
    return load_dataset(DataSection(name="folder", root=str(root), workers=0))


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(root)
    return str(caught.value)


def put(path: Path) -> None:
    """An image at any path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(path, "PNG")


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("TRAIN", "Test"), ("train", "validation"), ("Train", "VALID"), ("training", "eval")],
)
def test_splits_in_other_words_and_letters(train: str, test: str, write_tree: Callable) -> None:
    root = write_tree(f"{train}/a", f"{train}/b", f"{test}/a", f"{test}/b", count=3)
    dataset = read(root)
    assert (dataset.classes, len(dataset.train), len(dataset.test)) == (("a", "b"), 6, 6)
    assert all(path.startswith(str(root / train)) for path in dataset.train.paths)
    assert dataset.notices == ()


def test_which_test_set_is_used_is_said(write_tree: Callable) -> None:
    root = write_tree(*(f"{part}/{name}" for part in ("train", "val", "test", "more") for name in "ab"))
    (root / "labels").mkdir()
    (root / "labels/names.txt").write_text("a b")
    dataset = read(root)
    assert all(path.startswith(str(root / "test")) for path in dataset.test.paths)
    assert dataset.notices == ("not used, beside 'train', 'test': 'val', 'more'",)


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("train/images", "train/labels"), ("JPEGImages", "SegmentationClass")]
)
def test_images_beside_their_masks_are_no_classes(folders: tuple[str, ...], write_tree: Callable) -> None:
    assert "look like images and their masks" in refusal(write_tree(*folders, count=4))


@pytest.mark.parametrize("name", ["train", "test", "Val", "evaluation"])
def test_a_class_may_be_named_as_a_split(name: str, write_tree: Callable) -> None:
    dataset = read(write_tree("bus", "car", name))
    assert dataset.classes == tuple(sorted(("bus", "car", name)))


def test_a_class_named_as_a_split_may_have_folders_beside_its_images(write_tree: Callable) -> None:
    dataset = read(write_tree("bus", "train", "train/steam", "train/diesel", "test"))
    assert dataset.classes == ("bus", "test", "train")
    assert len(dataset.train) + len(dataset.test) == 20


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (
            ("bus", "car", "train/steam", "train/diesel"),
            "'train', by name and content a split, beside 'bus', 'car'",
        ),
        (("bus/x", "car/y", "train/x", "train/y"), "'train', by name and content a split, beside 'bus', 'car'"),
        (("cat", "dog", "test/cat", "test/dog"), "'test', by name and content a split, beside 'cat', 'dog'"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), "'test', 'val' and no training set"),
        (("train", "test"), "'test', 'train' without class folders in it"),
        (("Train/a", "Train/b", "train/a", "train/b"), "'Train', 'train', which are all training sets"),
        (("training_set/a", "training_set/b", "test_set/a", "test_set/b"), "look like splits, not like classes"),
        (("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"), "look like splits, not like classes"),
        (("seg_train/seg_train/a", "seg_test/seg_test/a", "seg_pred/seg_pred"), "'seg_test', 'seg_train' of"),
        (("my-train/a", "my-train/b", "my-val/a", "my-val/b", "extra"), "'my-train', 'my-val' of"),
        (("trainA", "trainB", "testA", "testB"), "look like splits, not like classes"),
        (("a/train", "a/test", "b/train", "b/test"), "'test', 'train', which look like splits of a class"),
    ],
)
def test_what_may_be_either_is_refused(folders: tuple[str, ...], says: str, write_tree: Callable) -> None:
    message = refusal(write_tree(*folders))
    assert says in message
    assert "<class>" in message or "put the classes into train/ and test/" in message or "rename" in message


def test_classes_with_the_word_in_their_names_are_classes(write_tree: Callable) -> None:
    assert read(write_tree("steam train", "train_station", "bus")).classes == (
        "bus",
        "steam train",
        "train_station",
    )


def test_classes_with_words_of_both_splits_in_their_names_are_classes(write_tree: Callable) -> None:
    classes = ("bus", "test_tube", "train_station")
    assert read(write_tree(*classes, "test_tube/of glass", "train_station/at night")).classes == classes


def test_folders_that_hold_the_same_folders_are_named(write_tree: Callable) -> None:
    dataset = read(write_tree(*(f"{version}/{name}" for version in ("colour", "grey") for name in "ab")))
    assert dataset.classes == ("colour", "grey")
    assert any("the classes are 'colour', 'grey', and each of them holds 'a', 'b'" in x for x in dataset.notices)
    for folders in (("c/a", "c/b", "g/a", "g/x"), ("c/a", "g/a"), ("c/a", "c/b", "g/a", "g/b", "g")):
        assert not any("the classes are" in notice for notice in read(write_tree(*folders)).notices)


def test_a_folder_that_is_two_is_refused(write_tree: Callable) -> None:
    root = write_tree("one/train/a", "one/train/b", "two/a")
    os.symlink("train", root / "one/test")
    assert "are one and the same folder" in refusal(root / "one")
    os.symlink("a", root / "two/b")
    assert "class folders 'a', 'b' of" in refusal(root / "two")
    os.symlink("nowhere", root / "two/c")
    assert f"'{root}/two/c' is a broken link" in refusal(root / "two")


def test_litter_is_no_data_wherever_it_lies(write_tree: Callable) -> None:
    root = write_tree("train/a", "train/b", "test/a", "test/b", count=3)
    before = read(root)
    for name in ("@eaDir/000.png", "#recycle", "__MACOSX/a", "lost+found", "System Volume Information", "@__thumb"):
        for parent in (".", "train", "train/a", "test/b/deeper"):
            put(root / parent / name / "SYNOPHOTO_THUMB_M.png")
    put(root / "test/b/deeper/last.png")
    for name in (
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "._000.png",
        "000.png:Zone.Identifier",
        "000.png@SynoEAStream",
    ):
        for parent in (".", "train", "train/a", "test/b"):
            (root / parent / name).write_bytes(b"\0")
    after = read(root)
    assert (after.classes, after.notices) == (before.classes, ())
    assert after.train.paths == before.train.paths
    assert set(after.test.paths) - set(before.test.paths) == {str(root / "test/b/deeper/last.png")}
    found = find_images([str(root / "train"), str(root / "test/b/000.png")])
    assert found == [*before.train.paths, str(root / "test/b/000.png")]


def test_a_folder_of_litter_alone_holds_no_images(write_tree: Callable) -> None:
    root = write_tree("a", "b", "c/@eaDir")
    assert refusal(root) == f"class folder '{root}/c' holds no images; fill or remove it"
    with pytest.raises(UserError, match="holds no image files"):
        find_images([str(root / "c")])


def test_images_in_no_class_folder_are_named(write_tree: Callable) -> None:
    root = write_tree("train/a", "train/b", "val/a", "val/b")
    for name in ("one.png", "train/two.JPG"):
        put(root / name)
    assert read(root).notices == (
        "not used, beside 'train', 'val': 1 image(s), as 'one.png'",
        f"not used, as in no class folder: 1 image(s) in '{root}/train', as 'two.JPG'",
    )
    notices = read(root / "train").notices
    assert notices[1:] == (f"not used, as in no class folder: 1 image(s) in '{root}/train', as 'two.JPG'",)


def test_images_that_annotations_leave_out_are_named(write_tree: Callable) -> None:
    root = write_tree("train/a", "train/b", "val/images")
    lines = "000.png\ta\r\n001.png\tb\r\n"
    (root / "val/val_annotations.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    dataset = read(root)
    assert len(dataset.test) == 2
    assert "does not name them: 2 image(s), as '002.png', '003.png'" in dataset.notices[0]
    (root / "val/val_annotations.txt").write_text(lines + "000.png\tb\n")
    assert "line 3: names '000.png' a second time" in refusal(root)


def test_names_that_look_the_same(write_tree: Callable) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for number, twin in enumerate(
        (decomposed, f"{composed} ", f"\u200b{composed}", composed.replace("é", "e\u0301"))
    ):
        root = write_tree(f"{number}/{composed}", f"{number}/{twin}", f"{number}/tea") / str(number)
        message = refusal(root)
        assert "have names that look the same" in message
        assert "caf\\xe9" in message  # escaped, so that the difference shows


def test_letter_case_alone_is_a_notice(write_tree: Callable) -> None:
    """Folders of letters have both `A` and `a`."""
    dataset = read(write_tree("A", "a", "b"))
    assert dataset.classes == ("A", "a", "b")
    assert dataset.notices[1:] == ("classes whose names differ in letter case alone: 'A', 'a'",)


@pytest.mark.parametrize("twin", ["Tea", "tea ", unicodedata.normalize("NFD", "thé")])
def test_a_difference_between_splits_that_hardly_shows_is_explained(twin: str, write_tree: Callable) -> None:
    name = "thé" if twin.startswith("the") else "tea"
    root = write_tree(f"train/{name}", "train/b", f"test/{twin}", "test/b")
    message = refusal(root)
    assert f"test/ lacks class '{name}' (it has {twin!a}, which looks like {name!a})" in message


def test_links_in_a_folder_to_classify_are_not_passed_over(write_tree: Callable) -> None:
    root = write_tree("photos", "more")
    os.symlink(root / "more", root / "photos/linked")
    with pytest.raises(UserError, match="holds a link to a folder"):
        find_images([str(root / "photos")])
