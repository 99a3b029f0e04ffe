"""The folder of an export: what is replaced there, what stays, and that none is ever left half written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from nge_search.cli import main
from nge_search.deploy import export
from nge_search.deploy.export import export_run
from nge_search.deploy.export_folder import RECORD
from nge_search.errors import UserError
from nge_search.networks.weights import read_weights


def write_something(model: torch.nn.Module, input_size: list[int], folder: Path) -> None:
    (folder / "model.pt2").write_text("something")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_overwriting_keeps_other_files_and_leaves_none_of_another_format(
    digits_run, tmp_path, monkeypatch, trained
):
    out = tmp_path / "model"
    out.mkdir()
    monkeypatch.setitem(export.FORMATS, "torch", write_something)
    export_run(digits_run, out, formats=("torch",))
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_run(digits_run, out)
    export_run(digits_run, out, weights="ema", overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    assert not (out / "model.pt2").exists()
    assert torch.equal(read_weights(out)["stem.0.weight"], trained(digits_run, "ema")["stem.0.weight"])


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "config.json"])
def test_what_no_export_wrote_is_not_replaced(name, digits_run, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}' was not written by nge export"):
        export_run(digits_run, out, overwrite=True)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


def test_models_that_no_export_wrote_stay(digits_run, tmp_path, monkeypatch):
    """One of a name that is not written this time, one that took the place of an export's, one behind a link."""
    out, said = tmp_path / "model", []
    out.mkdir()
    (out / "model.onnx").write_text("mine")
    monkeypatch.setitem(export.FORMATS, "torch", write_something)
    export_run(digits_run, out, formats=("torch",), overwrite=True, say=said.append)
    (out / "model.pt2").write_text("quantised by me")
    export_run(digits_run, out, overwrite=True, say=said.append)
    assert (out / "model.onnx").read_text() == "mine"
    assert (out / "model.pt2").read_text() == "quantised by me"
    assert len([line for line in said if "stays" in line]) == 3
    (out / "model.safetensors").replace(tmp_path / "weights")
    (out / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(UserError, match=r"model\.safetensors' was not written"):
        export_run(digits_run, out, overwrite=True)
    assert (out / "model.safetensors").is_symlink()


def test_exports_from_before_there_was_a_record_are_replaced(digits_run, tmp_path):
    out = tmp_path / "model"
    export_run(digits_run, out)
    (out / RECORD).unlink()
    export_run(digits_run, out, weights="ema", overwrite=True)
    (out / RECORD).unlink()
    (out / "README.md").write_text("# My model")
    with pytest.raises(UserError, match="was not written by nge export"):
        export_run(digits_run, out, overwrite=True)


def test_an_interrupted_export_leaves_no_model(digits_run, tmp_path, monkeypatch):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(export, "readme", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out)
    assert not out.exists()
    export_run(digits_run, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(export, "readme", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out, weights="ema", overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: interrupt() if "config" in str(new) else replace(old, new))
        with pytest.raises(KeyboardInterrupt):
            export_run(digits_run, out, weights="ema", overwrite=True)
    assert not (out / "config.json").exists()
    (out / ".nge-export.tmp").mkdir()  # as SIGKILL leaves it
    (out / ".nge-export.tmp" / "model.onnx").touch()
    export_run(digits_run, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / ".nge-export.tmp").mkdir()
    (out / ".nge-export.tmp" / "mine.txt").touch()
    with pytest.raises(UserError, match="was not left by an export"):
        export_run(digits_run, out, overwrite=True)
    assert (out / ".nge-export.tmp" / "mine.txt").exists()


def test_without_room_no_model_is_left_and_the_next_try_succeeds(
    digits_run, digits_files, tmp_path, largest_file, refused
):
    whole, out = shutil.copytree(digits_files, tmp_path / "whole"), tmp_path / "new" / "model"
    words = ["export", str(digits_run), "--format", "torch", "--out"]
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    for room in (10, len(before["model.safetensors"]), len(before["model.pt2"]) * 9 // 10):
        with largest_file(room):
            refused([*words, str(out)], (f"cannot use '{out}'",))
            refused([*words, str(whole), "--overwrite"], (f"cannot use '{whole}'",))
        assert not out.exists()
        assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert main(["export", str(digits_run), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == before.keys() - {"model.onnx", "model.pt2"}
