"""A segmentation network outside: exported, read back, and through ONNX Runtime at any size, as classes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nge_search
from nge_search.cli import main
from nge_search.deploy import export_formats
from nge_search.deploy.export import export_run
from nge_search.deploy.export_formats import Images, MostLikely, require_agreement
from nge_search.deploy.segmenter import read_trained
from nge_search.errors import RunFailure

CLASSES = ["sky", "road", "tree", "car"]


@pytest.fixture(scope="session")
def masks_model(masks_run: Path, tmp_path_factory) -> Path:
    return export_run(masks_run, tmp_path_factory.mktemp("masks_model") / "model")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    Image.fromarray(blocks.repeat(11, axis=0).repeat(10, axis=1)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_an_export_segments_as_its_run(masks_run, masks_model, photo, tmp_path):
    """Mirrored images included, as the run validates; weights to the rounding of float32."""
    found, own = read_trained(masks_model), read_trained(masks_run)
    assert (found.classes, found.scales, found.flip) == (tuple(CLASSES), (1.0,), True)
    assert found.genotype == own.genotype
    for name, tensor in own.network.state_dict().items():
        assert torch.equal(tensor, found.network.state_dict()[name])
    assert not [name for name in load_file(masks_model / "model.safetensors") if "auxiliary" in name]
    for model in (masks_run, masks_model):
        assert main(["segment", str(model), str(photo), "--out", str(tmp_path / model.parent.name)]) == 0
    masks = [Path(tmp_path / model.parent.name / "photo.png").read_bytes() for model in (masks_run, masks_model)]
    assert masks[0] == masks[1]
    x = torch.randn(1, 3, 33, 50)
    torch.testing.assert_close(found.network(x)[0], own.network(x)[0])


@pytest.mark.usefixtures("onnx_packages")
def test_classes_of_images_of_any_size_in_onnx(masks_run, photo, tmp_path, monkeypatch, capsys):
    """And all that the folder's README says runs."""
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    assert main(["export", str(masks_run), "--out", "model", "--format", "onnx", "--argmax"]) == 0
    printed = capsys.readouterr().out
    assert "is unfinished" in printed
    assert "one scale, unmirrored" in printed
    session = onnxruntime.InferenceSession("model/model.onnx", providers=["CPUExecutionProvider"])
    (given,), (out,) = session.get_inputs(), session.get_outputs()
    assert (given.shape, out.type) == (["batch", 3, "height", "width"], "tensor(int64)")
    network = read_trained("model").network
    for shape in ((1, 3, 48, 48), (2, 3, 31, 57), (1, 3, 16, 16)):
        x = torch.randn(shape)
        (classes,) = session.run(None, {"images": x.numpy()})
        assert (torch.from_numpy(classes) == network(x)[0].argmax(dim=1)).float().mean() > 0.999
    monkeypatch.chdir("model")
    shutil.copy(photo, "image.png")
    shell, *scripts = (block.partition("\n")[2] for block in Path("README.md").read_text().split("```")[1::2])
    assert main(shell.splitlines()[1].split()[1:]) == 0
    assert Path("masks/image.png").exists()
    capsys.readouterr()
    for number, script in enumerate(scripts):
        Path(f"{number}.py").write_text(script)
        runpy.run_path(f"{number}.py")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(scripts) == 2
    assert all(line.startswith("['") for line in printed)


def test_what_the_sizes_are(masks_run, masks_model, tmp_path):
    """Without a size any; with one that alone."""
    document = json.loads((masks_model / "config.json").read_text())
    assert (document["images"]["input_size"], document["images"]["smallest_side"]) == ([3, 48, 48], 16)
    fixed = export_run(masks_run, tmp_path / "fixed", image_size=64)
    images = json.loads((fixed / "config.json").read_text())["images"]
    assert (images["input_size"], images["smallest_side"]) == ([3, 64, 64], 0)


def test_agreement_of_classes():
    """A class of a logit that is as good as the largest is right; any other is a failure."""

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0], x[:, 0] + 1e-5, x[:, 0] - 1], dim=1)

    images, network = Images(1, 4, smallest=2, argmax=True), Network()
    require_agreement("model", network, MostLikely(network), images)
    require_agreement("model", network, lambda x: torch.zeros_like(x[:, 0]).long(), images)
    with pytest.raises(RunFailure, match=r"differ by 1 on a batch of 2 of 7x12 pixels"):
        require_agreement(
            "model", network, lambda x: 2 * (MostLikely(network)(x) if len(x) == 2 else 0 * x[:, 0].long()), images
        )
    with pytest.raises(RunFailure, match="differ by inf"):
        require_agreement("model", network, lambda x: torch.zeros(1).long(), images)
    assert export_formats.FORMATS.keys() == {"timm", "onnx", "torch"}


EXPORTS = {
    "averages": (("--weights", "ema"), ("keeps no average",)),
    "a size of nothing": (("--image-size", "0"), ("--image-size=0", "between 1 and 2048")),
    "a size without end": (("--image-size", "4096"), ("--image-size=4096",)),
    "a size that is none": (("--image-size", "large"), ("--image-size", "'large'")),
    "too small for any size": (
        ("--format", "torch", "--dynamic-size", "--image-size", "8"),
        ("--dynamic-size", "from 16 pixels on, not of 8"),
    ),
    "classes of no file": (("--argmax",), ("--format onnx or torch",)),
    "any size of no file": (("--dynamic-size",), ("--format onnx or torch",)),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_that_are_refused(name, masks_run, tmp_path, monkeypatch, refused):
    words, says = EXPORTS[name]
    monkeypatch.chdir(tmp_path)
    refused(["export", str(masks_run), "--out", "model", *words], says)
    assert not Path("model").exists()


def test_classes_of_a_classifier_are_refused(digits_run, tmp_path, refused):
    words = ["export", str(digits_run), "--out", str(tmp_path / "model"), "--format", "torch", "--argmax"]
    refused(words, ("--argmax is for segmentations",))
    refused([*words[:-1], "--dynamic-size", "--image-size", "7"], ("from 8 pixels on, not of 7",))


def changed(*keys: str, value: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        document = json.loads((model / "config.json").read_text())
        inner = document
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (model / "config.json").write_text(json.dumps(document))

    return change


def narrower(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["classifier.weight"] = torch.zeros(3, 4, 1, 1)
    save_file(weights, model / "model.safetensors")


MODELS = {
    "format": (changed("format", value="nge-segmentation/9"), ("'format'",)),
    "classes": (changed("label_names", value=["a"]), ("'classifier.weight'", "(4, 4, 1, 1)", "(1, 4, 1, 1)")),
    "no classes": (changed("label_names", value=[]), ("'label_names'",)),
    "more cells than weights": (changed("model_args", "cells", value=150), ("'cells'", "from 1 to 2")),
    "stride": (changed("model_args", "output_stride", value=5), ("network.output_stride=5",)),
    "genotype": (changed("model_args", "genotype", value={}), ("'format' is missing",)),
    "scales": (changed("evaluation", "scales", value=["1"]), ("'scales'",)),
    "a scale of nothing": (changed("evaluation", "scales", value=[1e-9]), ("eval_scales",)),
    "flip": (changed("evaluation", "flip", value="no"), ("'flip'",)),
    "std": (changed("images", "std", value=[0, 1, 1]), ("'std'",)),
    "weights": (narrower, ("'classifier.weight'",)),
    "no weights": (lambda model: os.remove(model / "model.safetensors"), ("does not exist",)),
}


@pytest.mark.parametrize("name", MODELS)
def test_exports_that_cannot_segment(name, masks_model, photo, tmp_path, monkeypatch, refused):
    damage, says = MODELS[name]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(masks_model, "model")
    damage(Path("model"))
    refused(["segment", "model", "photo.png", "--out", "masks"], says)
    assert not Path("masks").exists()


def test_an_export_in_the_wrong_hands(masks_model, digits_model, photo, tmp_path, refused, voc_tree):
    refused(["classify", str(masks_model), str(photo)], ("exported segmentation", "nge segment"))
    refused(["segment", str(digits_model), str(photo), "--out", str(tmp_path / "m")], ("exported classifier",))
    (tmp_path / "note.png").write_text("no picture")
    refused(["segment", str(masks_model), str(tmp_path / "note.png"), "--out", str(tmp_path / "m")], ("note.png",))
    assert not (tmp_path / "m").exists()
    refused(["test", str(masks_model)], ("data.root=FOLDER",))
    images = [f"data.root={voc_tree(1, 1)}", "data.name=voc"]
    refused(["test", str(masks_model), *images], ("other classes", "sky, road, tree, car"))


def test_other_sizes_of_a_classifier(imagenet_run, tmp_path):
    """Resized in proportion before the centre is cut out, and said in config.json."""
    out = export_run(imagenet_run, tmp_path / "model", image_size=96)
    expected = json.loads((out / "config.json").read_text())["pretrained_cfg"]
    assert expected["input_size"] == [3, 96, 96]
    assert int(96 / expected["crop_pct"]) == round(73 * 96 / 64)
    assert nge_search.deploy.classify.read_exported(out).side == 96
