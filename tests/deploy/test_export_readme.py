"""The README.md of an exported folder: it speaks of what is there, and all of it runs as it is written."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from nge_search.cli import main
from nge_search.data.segmentation.voc_masks import VOC_CLASSES
from nge_search.deploy.classify import classify, find_images
from nge_search.deploy.export_formats import Images
from nge_search.deploy.export_readme import readme, segmentation_readme
from nge_search.settings.classification import EvalConfig
from nge_search.settings.data import DataSection


def test_readme_loads_it(digits_model, digit, tmp_path):
    """The example, as it is written, and `nge classify` agree."""
    text = (digits_model / "README.md").read_text()
    script = text.split("```python\n")[1].split("```")[0].replace("image.png", str(digit))
    assert 'convert("L")' in script
    ended = run([sys.executable, "-W", "error", "-c", script], digits_model)
    assert ended.returncode == 0, ended.stderr
    name, probability = ended.stdout.split()
    (found,) = classify(digits_model, [str(digit)])
    assert found.classes[0][0] == name
    assert found.classes[0][1] == pytest.approx(float(probability), abs=1e-6)


@pytest.mark.usefixtures("onnx_packages")
def test_all_that_the_readme_says_runs(digits_run, digits_files, tmp_path, monkeypatch, capsys):
    """In a folder with a blank in its name: shell lines and scripts, as they are written, from top to bottom."""
    out = shutil.copytree(digits_files, tmp_path / "my model")
    monkeypatch.chdir(out)
    blocks = (out / "README.md").read_text().split("```")[1::2]
    languages = [block.partition("\n")[0] for block in blocks]
    assert languages == ["sh", "python", "python", "python", "sh"]
    (make, classify_line), script, onnx, pt2, (train_line,) = (block.splitlines()[1:] for block in blocks)
    assert make.startswith("[ -e image.png ] || python -c ")
    made = shlex.split(make.replace("python", sys.executable).partition("||")[2])
    assert run(made, out).returncode == 0
    assert len(find_images(["."])) == 1
    assert main(shlex.split(classify_line)[1:]) == 0
    named = capsys.readouterr().out.split()[1]
    for number, lines in enumerate((script, onnx, pt2)):
        (tmp_path / f"{number}.py").write_text("\n".join(lines))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what loading a .pt2 file warns of is torch's own affair
            runpy.run_path(str(tmp_path / f"{number}.py"))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [named, named, "torch.Size([2,"]
    assert main([*shlex.split(train_line)[1:], "threads=1", "run.progress=none"]) == 0
    further = json.loads((out / "runs" / "eval" / "further" / "summary.json").read_text())
    assert further["epochs"] == 1
    assert further["params"] == json.loads((digits_run / "summary.json").read_text())["params"]


def test_the_readme_speaks_of_what_is_there(digits_model):
    text = (digits_model / "README.md").read_text()
    assert "model.onnx" not in text
    assert "model.pt2" not in text


def described(plugins: dict[str, str]) -> dict[str, Any]:
    """What config.json says of a network with operations of plugins, as far as README.md needs it."""
    return {
        "architecture": "nge_cifar",
        "num_classes": 2,
        "model_args": {"genotype": {"plugins": plugins}},
        "pretrained_cfg": {"tag": "own"},
        "images": {"tag": "own"},
        "label_names": ["background", "crack"],
    }


def test_it_says_which_modules_have_the_operations() -> None:
    """Of retrainings and segmentations: in words, in commands and in scripts."""
    document = described({"blur": "my_ops", "ghost": "lab.ops"})
    texts = (
        readme(document, EvalConfig(plugins=["mine", "my_ops"]), ["timm"], Images(3, 8)),
        segmentation_readme(document, ["timm"], Images(3, 8)),
    )
    for text in texts:
        assert "installed, and with `lab/ops.py` and `my_ops.py` there, or installed. It" in text
        (script,) = (part.partition("```")[0] for part in text.split("```python\n")[1:])
        assert "\nimport my_ops  # registers" in script
        assert "plugins=[lab.ops,my_ops]\n```" in text.partition("In Python")[0]
    assert "'plugins=[mine,my_ops,lab.ops]'" in texts[0]
    plain = segmentation_readme(described({}), ["timm"], Images(3, 8))
    assert "plugins" not in plain
    assert "nge_search installed. It takes" in plain


@pytest.mark.parametrize(
    ("tag", "classes", "expected"),
    [
        ("voc", list(VOC_CLASSES), "voc"),
        ("voc", ["background", "crack"], "own images"),
        ("scenes", ["background", "disc"], "scenes"),
    ],
)
def test_its_title_names_the_images(tag, classes, expected) -> None:
    document = described({}) | {"images": {"tag": tag}, "label_names": classes}
    assert segmentation_readme(document, ["timm"], Images(3, 8)).startswith(f"# nge_cifar, trained on {expected}\n")


@pytest.mark.parametrize(
    ("tag", "expected"), [("folder", "own images"), ("own", "own images"), ("cifar10", "cifar10")]
)
def test_its_title_names_the_images_of_a_classifier(tag, expected) -> None:
    document = described({}) | {"pretrained_cfg": {"tag": tag}}
    assert readme(document, EvalConfig(), ["timm"], Images(3, 8)).startswith(
        f"# nge_cifar, trained on {expected}\n"
    )


def test_it_names_no_images_or_operations_that_a_program_has() -> None:
    """They were given from Python, where no command finds them."""
    document = described({"blur": "__main__"})
    config = EvalConfig(data=DataSection(name="own"))
    text = readme(document, config, ["timm"], Images(3, 8))
    assert "nge eval" not in text
    assert "__main__" not in text
    assert "in a program that registers `blur` first. It" in text


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
