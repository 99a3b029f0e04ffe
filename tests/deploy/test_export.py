"""A trained network outside: exported, loaded by timm, ONNX Runtime and torch.export, with the run's weights."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.deploy import export
from nge_search.deploy.classify import read_exported
from nge_search.deploy.export import export_run
from nge_search.deploy.export_folder import RECORD
from nge_search.deploy.export_formats import Images, require_agreement
from nge_search.errors import RunFailure, UserError
from nge_search.networks.weights import read_weights


@pytest.mark.parametrize("which", ["last", "ema"])
def test_weights_are_those_of_the_run_bit_for_bit(which, digits_run, tmp_path, trained):
    out = export_run(digits_run, tmp_path / "model", weights=which)
    expected = trained(digits_run, {"last": "network", "ema": "ema"}[which])
    for given in (load_file(out / "model.safetensors"), read_weights(out)):
        assert given.keys() == expected.keys()
        assert all(torch.equal(given[name], expected[name]) for name in expected)
    assert sorted(path.name for path in out.iterdir()) == [
        RECORD,
        "README.md",
        "config.json",
        "genotype.json",
        "model.safetensors",
    ]
    assert load_genotype(out) == load_genotype(digits_run)
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1


def test_the_two_kinds_of_weights_differ(digits_run, trained):
    assert not torch.equal(trained(digits_run)["stem.0.weight"], trained(digits_run, "ema")["stem.0.weight"])


def test_float64_weights_become_float32_without_the_auxiliary_head(imagenet_run, imagenet_model, trained):
    expected = trained(imagenet_run)
    given = load_file(imagenet_model / "model.safetensors")
    assert given.keys() == expected.keys()
    for name, tensor in given.items():
        assert tensor.dtype == (torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))


def test_read_weights_takes_all_forms(imagenet_run, imagenet_model):
    forms = [read_weights(path) for path in (imagenet_run, imagenet_model, imagenet_model / "model.safetensors")]
    for form in forms[1:]:
        assert form.keys() == forms[0].keys()
        assert all(torch.equal(form[name], tensor) for name, tensor in forms[0].items())


@pytest.mark.parametrize(("side", "resize"), [(64, 73), (64, 64), (64, 0)])
def test_timm_loads_it_with_its_preprocessing(side, resize, tmp_path, write_run):
    """For a wide photograph timm's own crop is ours to the rounding of a pixel, and exactly ours under `resize`."""
    out = export_run(write_run(tmp_path / "run", "imagenet", side, resize), tmp_path / "model")
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == ["ant", "bee", "cat", "dog", "eel"]
    data = resolve_data_config({}, model=model)
    assert tuple(data["input_size"]) == (3, side, side)
    assert math.floor(side / data["crop_pct"]) == (resize or side)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 151, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    theirs = create_transform(**data)(Image.open(tmp_path / "photo.png"))
    exported = read_exported(out)
    ours = exported.normalise(exported.read_image(str(tmp_path / "photo.png"))[None])[0]
    assert ours.shape == theirs.shape
    if resize:
        torch.testing.assert_close(ours, theirs)
    else:
        assert (ours - theirs).abs().mean() < 0.25
    x = ours[None]
    own = exported.network.state_dict()
    assert model.state_dict().keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    # Some processors round by where tensors lie in memory: equal weights do not make equal bits.
    torch.testing.assert_close(model(x), exported.network(x))


def test_features_of_an_exported_model(imagenet_model):
    model = timm.create_model(f"local-dir:{imagenet_model}", pretrained=True, features_only=True).eval()
    whole = timm.create_model(f"local-dir:{imagenet_model}", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(x)[-1], whole.forward_features(x))


def test_unfinished_run_says_so(imagenet_run, tmp_path, capsys):
    assert main(["export", str(imagenet_run), "--out", str(tmp_path / "model")]) == 0
    assert "is unfinished: these are the weights after 0 of 1 epochs" in capsys.readouterr().out


#: Batches, heights and widths of images, whatever side a network was trained on.
ANY_SIZE = ((1, 64, 64), (2, 67, 101), (1, 96, 64))


def shapes(side: int, any_size: bool) -> list[tuple[int, int, int]]:
    return [(batch, side, side) for batch in (1, 2, 5)] + [*ANY_SIZE] * any_size


def require_onnx(out: Path, any_size: bool = False) -> None:
    """The network's outputs, for batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    exported = read_exported(out)
    for batch, height, width in shapes(exported.side, any_size):
        x = torch.randn(batch, exported.channels, height, width)
        (logits,) = session.run(None, {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), exported.network(x), atol=1e-4, rtol=1e-4)


def require_torch_export(out: Path, any_size: bool = False) -> None:
    program = torch.export.load(out / "model.pt2").module()
    exported = read_exported(out)
    for batch, height, width in shapes(exported.side, any_size):
        x = torch.randn(batch, exported.channels, height, width)
        torch.testing.assert_close(program(x), exported.network(x), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("onnx_packages")
def test_onnx(digits_files, simple_run, tmp_path, capfd):
    capfd.readouterr()
    out = export_run(simple_run, tmp_path / "model", formats=("onnx",), dynamic_size=True)
    assert capfd.readouterr() == ("", "")
    require_onnx(out, any_size=True)
    assert "any height and width from 32 pixels on" in (out / "README.md").read_text()
    require_onnx(digits_files)


def test_torch_export(digits_files, simple_run, tmp_path, capfd):
    capfd.readouterr()
    out = export_run(simple_run, tmp_path / "model", formats=("torch",), dynamic_size=True)
    assert capfd.readouterr() == ("", "")
    require_torch_export(out, any_size=True)
    require_torch_export(digits_files)


def test_a_file_that_computes_something_else_is_a_failure(digits_run, tmp_path, monkeypatch):
    def export_something_else(model: torch.nn.Module, images: Images, folder: Path) -> None:
        (folder / "model.pt2").touch()
        require_agreement("model.pt2", model, model, images)
        require_agreement("model.pt2", model, lambda x: model(x) + 2e-4 * (len(x) == 3), images)

    monkeypatch.setitem(export.FORMATS, "torch", export_something_else)
    with pytest.raises(RunFailure, match=r"model\.pt2 does not compute .* differ by 0\.0002 on a batch of 3"):
        export_run(digits_run, tmp_path / "model", formats=("torch",))
    assert not (tmp_path / "model").exists()


def test_missing_onnx_is_named(digits_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'nge-search\[export\]'"):
        export_run(digits_run, tmp_path / "model", formats=("onnx",))
    assert not (tmp_path / "model").exists()
