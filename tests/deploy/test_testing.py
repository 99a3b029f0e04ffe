"""`nge test`: a run's own figures to the bit, on its own images and on a folder's, by the run and by its export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nge_search
from nge_search.cli import main
from nge_search.data.datasets import load_dataset
from nge_search.deploy.export import export_run
from nge_search.engine.run_reader import RunReader
from nge_search.settings.data import DataSection

#: Of a tiny training on a folder of digits.
WORDS = (
    "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.name=folder",
    "network.channels=2", "network.cells=3", "train.epochs=1", "train.batch_size=64",
)  # fmt: skip


@pytest.fixture(scope="session")
def digit_folders(tmp_path_factory) -> Path:
    """The test third of digits as a folder of PNGs per class."""
    root, test = tmp_path_factory.mktemp("labelled") / "digits", load_dataset(DataSection()).test
    for i, (image, label) in enumerate(zip(test.images_NCHW, test.labels_N.tolist())):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(root / str(label) / f"{i:04d}.png")
    return root


def figures(run: Path) -> dict[str, float]:
    """What the run's last row says of its test set."""
    row = RunReader(run).row()
    return {name: row[f"test_{name}"] for name in ("top1", "top5", "loss")}


def require_same(found: dict, run: Path) -> None:
    """All figures of the run to the bit, and the same per class."""
    expected = figures(run)
    assert (
        found["top1_error"]
        == 100 - expected["top1"]
        == json.loads((run / "summary.json").read_text())["top1_error"]
    )
    assert found["top5_error"] == 100 - expected["top5"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)  # the order of the images may be another one
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert found["confusion"] == evaluation["confusion"]
    assert [
        [one["images"], round(one["accuracy"] * one["images"] / 100)] for one in found["per_class"]
    ] == evaluation["per_class"]
    assert [one["class"] for one in found["per_class"]] == evaluation["classes"]


def test_a_run_on_its_own_images(digits_run):
    found = nge_search.test(digits_run)
    require_same(found, digits_run)
    assert found["loss"] == figures(digits_run)["loss"]
    averaged = nge_search.test(digits_run, weights="ema")
    assert averaged["top1_error"] == json.loads((digits_run / "summary.json").read_text())["ema_top1_error"]
    calibration = found["calibration"]
    assert sum(count for count, _, _ in calibration["intervals"]) == found["images"] == 599
    hits = sum(count * right / 100 for count, _, right in calibration["intervals"] if count)
    assert 100 * hits / 599 == pytest.approx(100 - found["top1_error"])


def test_a_folder_by_run_and_export(digits_run, digits_model, digit_folders, capsys):
    """Grey images of 8x8 pixels, read as colour and made grey again, are those of the training."""
    for model in (digits_run, digits_model):
        require_same(nge_search.test(model, f"data.root={digit_folders}"), digits_run)
    require_same(nge_search.test(digits_model, "data.name=digits"), digits_run)
    capsys.readouterr()
    assert main(["test", str(digits_model), f"data.root={digit_folders}", "device=cpu"]) == 0
    out = capsys.readouterr().out
    error = json.loads((digits_run / "summary.json").read_text())["top1_error"]
    assert f"599 images of {digit_folders}: error {error:.2f} % (top-5" in out
    assert "calibration error" in out
    assert len([line for line in out.splitlines() if line.endswith("% accuracy")]) == 10


def test_some_of_the_classes_in_a_test_folder(digits_model, digit_folders, tmp_path):
    """Labels go by the names of the classes, and a test folder beside a training one is what is tested."""
    for part, names in (("train", "01"), ("test", "73")):
        for name in names:
            shutil.copytree(digit_folders / name, tmp_path / "some" / part / name)
    shutil.copytree(digit_folders / "7", tmp_path / "some" / "train" / "7")
    whole = nge_search.test(digits_model, f"data.root={digit_folders}")
    found = nge_search.test(digits_model, f"data.root={tmp_path / 'some'}")
    for number, (one, other) in enumerate(zip(found["per_class"], whole["per_class"])):
        assert one == (other if number in (3, 7) else {"class": str(number), "images": 0, "accuracy": None})
    (tmp_path / "some" / "test" / "3" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert nge_search.test(digits_model, f"data.root={tmp_path / 'some'}", "data.corrupt=skip") == found


def test_what_a_training_would_hold_out(digits_run, digit_folders, tmp_path_factory):
    """A run on a folder without a test folder: on that very folder its own test images, elsewhere as asked for."""
    place = tmp_path_factory.mktemp("folders")
    words = (*WORDS, f"data.root={digit_folders}", f"run.dir={place / 'run'}")
    summary = nge_search.evaluate(None, *words)
    model = export_run(place / "run", place / "model")
    moved = shutil.copytree(digit_folders, place / "moved")
    found = nge_search.test(place / "run", f"data.root={digit_folders}")
    assert found["images"] < 150
    for source, root in ((place / "run", moved), (model, digit_folders)):
        held_out = nge_search.test(source, f"data.root={root}", "data.test_fraction=0.2")
        assert held_out["images"] == found["images"]
        assert held_out["top1_error"] == found["top1_error"] == summary["top1_error"]
    assert nge_search.test(place / "run", f"data.root={moved}")["images"] == 599


def unknown_class(folder: Path) -> None:
    (folder / "3").rename(folder / "three")


REFUSED = {
    "no such model": (["test", "nowhere"], ("'nowhere' is not a folder",)),
    "no images named": (["test", "model"], ("data.root=FOLDER",)),
    "no such folder": (["test", "model", "data.root=nowhere"], ("data.root=nowhere", "no such folder")),
    "a folder of nothing": (["test", "model", "data.root=empty"], ("no class folders",)),
    "unknown class": (["test", "model", "data.root=images"], ("class 'three'", "10 classes")),
    "a damaged image": (["test", "model", "data.root=damaged"], ("damaged/0/x.png",)),
    "another setting": (["test", "model", "train.epochs=3"], ("'train.epochs=3'", "data.*")),
    "a misspelt setting": (["test", "model", "data.rot=images"], ("data.rot", "data.root")),
    "no setting": (["test", "model", "picture"], ("'picture'", "plugins")),
    "a folder alone": (["test", "model", "images"], ("data.root=images",)),
    "averages of an export": (["test", "model", "--weights", "ema", "data.name=digits"], ("--weights ema",)),
    "weights that there are not": (["test", "run", "--weights", "best"], ("'best'", "last, ema")),
    "masks": (["test", "model", "data.name=voc"], ("data.name=voc",)),
    "a search": (["test", "search"], ("run folder",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, digits_run, digits_model, digit_folders, tmp_path, monkeypatch, refused):
    words, says = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    Path("model").symlink_to(digits_model)
    Path("run").symlink_to(digits_run)
    Path("empty").mkdir()
    Path("search").mkdir()
    Path("search/config.yaml").write_text("task: supernet\n")
    for folder in ("images", "damaged"):
        for label in "03":
            Path(folder, label).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(f"{folder}/{label}/a.png")
    unknown_class(Path("images"))
    Path("damaged/0/x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(words, says)


def test_grey_is_pillows():
    from nge_search.data.sources import to_grey

    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert torch.equal(
        to_grey(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0, 0], torch.from_numpy(expected.copy())
    )
