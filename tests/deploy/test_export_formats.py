"""What happens where a network cannot become a file: one line; and operations of one's own that can."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nge_search.architecture.genotype import Cell, Genotype
from nge_search.deploy.classify import read_exported
from nge_search.deploy.export import export_run
from nge_search.deploy.export_formats import FORMATS, Images
from nge_search.errors import RunFailure

#: A cell of the operations of examples/my_ops.py, one of which has state.
CELL = Cell((("ghost_conv", 0), ("drift", 1), ("blur", 0), ("drift", 2)), (2, 3))


class Branching(nn.Module):
    """Decides by what its images hold."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean(dim=(2, 3)) if x_BCHW.sum() > 0 else x_BCHW.amax(dim=(2, 3))


def fails(error: Exception) -> Callable[..., None]:
    def export(*words: object, **more: object) -> None:
        raise error

    return export


def test_a_network_that_torch_cannot_trace(tmp_path):
    with pytest.raises(
        RunFailure, match=r"model\.pt2 cannot be made of this network: .*leave the format out"
    ) as found:
        FORMATS["torch"](Branching(), Images(1, 4), tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.usefixtures("onnx_packages")
def test_an_exporter_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", fails(RuntimeError("no\nsuch operator")))
    with pytest.raises(RunFailure, match=r"model\.onnx cannot be made .* RuntimeError: no such operator;"):
        FORMATS["onnx"](Branching(), Images(1, 4), tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_errors_of_the_system_stay_what_they_are(error, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "export", fails(error))
    with pytest.raises(type(error)) as found:
        FORMATS["torch"](Branching(), Images(1, 4), tmp_path)
    assert found.value is error


@pytest.mark.usefixtures("own_operations")
def test_operations_of_ones_own(tmp_path, write_run):
    """In all formats, with their state as it was trained."""
    run = write_run(tmp_path / "run", "cifar", side=8, resize=0, genotype=Genotype(CELL, CELL), cells=1)
    there = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    out = export_run(run, tmp_path / "model", formats=("onnx", "torch") if there else ("torch",))
    x_BCHW, network = torch.randn(2, 3, 8, 8), read_exported(out).network
    levels = [buffer for name, buffer in network.named_buffers() if name.endswith("level")]
    assert levels
    assert all(level == 0.5 for level in levels)
    expected = network(x_BCHW)
    found = [torch.export.load(out / "model.pt2").module()(x_BCHW)]
    if there:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
        found.append(torch.from_numpy(session.run(None, {"images": x_BCHW.numpy()})[0]))
    for logits in found:
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_small_crops(masks_run, tmp_path):
    """Where crops are smaller than what files of any size take, these are checked at the smallest side."""
    from nge_search.deploy.export_segmentation import describe_segmenter

    config = (masks_run / "config.yaml").read_text()
    assert "crop: 48" in config
    assert "output_stride: 8" in config
    (tmp_path / "run").mkdir()
    for path in masks_run.iterdir():
        (tmp_path / "run" / path.name).symlink_to(path)
    (tmp_path / "run" / "config.yaml").unlink()
    config = config.replace("crop: 48", "crop: 16").replace("output_stride: 8", "output_stride: 32")
    (tmp_path / "run" / "config.yaml").write_text(config)
    model = describe_segmenter(tmp_path / "run", "last", None, dynamic_size=False, argmax=False)
    assert model.images == Images(3, 64, 64)


def test_sizes_that_are_too_large_in_proportion(tmp_path, write_run, refused):
    run = write_run(tmp_path / "run", "cifar", side=8, resize=40, cells=1)
    words = ["export", str(run), "--out", str(tmp_path / "model"), "--image-size", "2048"]
    refused(words, ("--image-size=2048: images would be resized to 10240 pixels", "8192"))


def test_flags_are_spelt_out(digits_run, tmp_path, refused):
    words = ["export", str(digits_run), "--out", str(tmp_path / "model")]
    for flag in ("--over", "--trust"):
        refused([*words, flag], (f"unrecognized arguments: {flag}",))
    assert not Path(tmp_path / "model").exists()
