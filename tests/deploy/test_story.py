"""README's lines on what was trained, as they are written there: exported, tested, and asked what images show."""

from __future__ import annotations

import functools
import importlib.util
import json
import shlex
import shutil
from pathlib import Path

from nge_search.cli import main
from nge_search.deploy.export_formats import FORMATS


def test_the_lines_of_the_readme(checkout, digits_run, masks_run, digit, tmp_path, monkeypatch, capsys):
    """ONNX and torch.export files of a classifier, which other tests write and read, are left empty here."""
    monkeypatch.chdir(tmp_path)
    packages = ("onnx", "onnxruntime", "onnxscript")
    write_onnx, has_onnx = FORMATS["onnx"], all(map(importlib.util.find_spec, packages))

    def write(network, images, folder, file):
        if images.argmax and has_onnx:
            write_onnx(network, images, folder)
        else:
            (folder / file).touch()

    for name, file in (("onnx", "model.onnx"), ("torch", "model.pt2")):
        monkeypatch.setitem(FORMATS, name, functools.partial(write, file=file))
    if not has_onnx:
        monkeypatch.setattr("nge_search.deploy.export.require_onnx", lambda: None)
    shutil.copytree(digits_run, "runs/eval/cifar10")
    shutil.copytree(masks_run, "runs/segmentation/scenes")
    for place in ("photos", "labelled/7", "labelled/3"):
        Path(place).mkdir(parents=True)
        shutil.copy(digit, place)
    block = (checkout / "README.md").read_text().split("\n## Use what was trained\n")[1].split("```")[1]
    lines = [shlex.split(line, comments=True) for line in block.splitlines() if line]
    assert [line[:2] for line in lines] == [["nge", word] for word in 3 * ["export"] + 2 * ["test"] + ["classify"]]
    printed = []
    for line in lines:
        assert main(line[1:]) == 0, line
        printed.append(capsys.readouterr().out)
    error = json.loads((digits_run / "summary.json").read_text())["top1_error"]
    assert f"error {error:.2f} %" in printed[3]
    assert "2 images of labelled: error" in printed[4]
    assert printed[5].startswith("photos/digit.png: ")
    assert {path.name for path in Path("exported/all").iterdir()} >= {"model.onnx", "model.pt2", "config.json"}
    assert bool(Path("exported/scenes/model.onnx").stat().st_size) == has_onnx
    assert json.loads(Path("exported/scenes/config.json").read_text())["architecture"] == "nge_deeplab"
