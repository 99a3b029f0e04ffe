"""Image files through an exported network: what evaluation would say of them, in a line each."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.data import Augmentation, load_dataset
from nge_search.deploy.classify import classify, find_images, read_exported
from nge_search.networks.families import FAMILIES
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import load_config


def test_classifying_is_what_evaluation_does(digits_run, digits_model, tmp_path, trained):
    """Test images written to files get the logits that the trained network gives the dataset's own."""
    config = load_config(EvalConfig, digits_run / "config.yaml")
    dataset = load_dataset(config.data)
    images = dataset.test.read(range(20))
    for position, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{position:02}.png")
    network = FAMILIES["cifar"].build(load_genotype(digits_run), 2, 3, 10, 1)
    network.load_state_dict(trained(digits_run))
    with torch.no_grad():
        probabilities = network.eval()(Augmentation(config.data, dataset).evaluate(images))[0].softmax(dim=1)
    found = list(classify(digits_model, [str(tmp_path)], top=3, batch=7))
    assert [Path(one.path).name for one in found] == [f"{position:02}.png" for position in range(20)]
    for one, expected in zip(found, probabilities):
        best = expected.topk(3)
        assert [int(name) for name, _ in one.classes] == best.indices.tolist()
        assert [probability for _, probability in one.classes] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_images_of_every_kind_become_what_the_network_takes(imagenet_model, digits_model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 64, 4), np.uint8)
    photo = Image.fromarray(pixels)
    for name, mode in (("a.png", "RGBA"), ("b.png", "P"), ("c.jpg", "L"), ("d.png", "1"), ("e.bmp", "RGB")):
        (photo if mode == "RGBA" else photo.convert("RGB").convert(mode)).save(tmp_path / name)
    for model in (imagenet_model, digits_model):
        found = list(classify(model, [str(tmp_path)]))
        assert len(found) == 5
        assert all(one.error is None and len(one.classes) == 1 for one in found)
    exported = read_exported(digits_model)
    grey = exported.read_image(str(tmp_path / "c.jpg"))
    assert grey.shape == (1, 8, 8)


def test_folders_are_searched(tmp_path):
    for name in ("b/z.png", "b/a.JPG", "a.webp", ".hidden/a.png", "b/.a.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path), "as it is"])
    assert found == [*(str(tmp_path / name) for name in ("a.webp", "b/a.JPG", "b/z.png")), "as it is"]


def test_commands(digits_run, digit, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["export", str(digits_run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "config.json" in printed
    assert "unfinished" not in printed
    assert main(["classify", str(out), str(digit), "--top", "2"]) == 0
    line = capsys.readouterr().out
    (found,) = classify(out, [str(digit)], top=2)
    assert line == f"{digit}: " + ", ".join(f"{name} {share:.4f}" for name, share in found.classes) + "\n"
    assert main(["classify", str(out), str(digit), str(digit), "--top", "99", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(documents) == 2
    assert documents[0]["image"] == str(digit)
    assert sum(one["probability"] for one in documents[0]["classes"]) == pytest.approx(1)
    assert len(documents[0]["classes"]) == 10


def test_folder_without_images_and_other_words(imagenet_model, digit, tmp_path, monkeypatch, refused):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(["classify", str(imagenet_model), str(tmp_path)], (f"'{tmp_path}' holds no image files",))
    for words, says in (
        (["--top", "0"], "--top=0"),
        (["--batch", "x"], "--batch"),
        (["--device", "cuda"], "no GPU"),
    ):
        refused(["classify", str(imagenet_model), str(digit), *words], (says,))


def test_unreadable_images_are_named_after_the_others(
    imagenet_model, digit, tmp_path, monkeypatch, capsys, refused
):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save("deep.png")
    Path("half.png").write_bytes(digit.read_bytes()[:90])
    os.mkfifo("pipe.png")
    shutil.copy(digit, "good.png")
    shutil.copy(digit, "last.png")
    words = ["text.png", "good.png", "deep.png", "pipe.png", "nowhere.png", "half.png", "last.png"]
    assert main(["classify", str(imagenet_model), *words, "--batch", "2"]) == 2
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["good.png", "last.png"]
    lines = err.splitlines()
    assert len(lines) == 5
    for line, name in zip(lines, [name for name in words if name not in ("good.png", "last.png")]):
        assert line.startswith("error: ")
        assert f"'{name}'" in line
    refused(["classify", str(imagenet_model), "text.png"], ("'text.png'",))
