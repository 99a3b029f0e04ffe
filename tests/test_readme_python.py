"""README's lines for Python, and for going on with more epochs, as they are written there, at small sizes."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from PIL import Image

import nge_search
from nge_search.cli import main
from nge_search.data import load_dataset
from nge_search.deploy.export_formats import FORMATS
from nge_search.settings.data import DataSection

#: What makes the trainings short ones.
SMALL = (
    "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false", "data.limit=40", "network.channels=2",
    "network.cells=1", "train.batch_size=20", "train.epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(checkout: Path) -> str:
    return (checkout / "README.md").read_text()


def block(text: str, heading: str, language: str = "python") -> str:
    """The first block of code behind a heading in bold."""
    return text.split(f"\n**{heading}**")[1].split(f"```{language}\n")[1].split("```")[0]


def shortened(run: Callable[..., Any], checkout: Path, small: tuple[str, ...]) -> Callable[..., Any]:
    """`run` with more settings behind those that are given."""

    @functools.wraps(run)
    def start(config: str, *words: str, **given: Any) -> Any:
        return run(checkout / config, *words, *small, **given)

    return start


class MyImages(torch.utils.data.Dataset):
    """The digits, as a program's own data set."""

    def __init__(self, part: str):
        source = getattr(load_dataset(DataSection()), part)
        self.images, self.targets = source.images_NCHW, source.labels_N

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[position], self.targets[position]


#: Baselines of a search, which train short ones on the same images.
BASELINES = (
    "search.baselines=true", "search.random_cells=1", "supernet.operations=[sep_conv_3x3,skip_connect]",
    "evaluator.steps=2", "evaluator.batch_size=8", "evaluator.channels=2", "evaluator.cells=2",
)  # fmt: skip


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkout: Path, tiny_search: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nge_search.report.save_drawings", lambda *given: [])  # which take longer than the runs
    search = (*tiny_search, "search.baselines=false")
    monkeypatch.setattr(nge_search, "search", shortened(nge_search.search, checkout, search))
    monkeypatch.setattr(nge_search, "evaluate", shortened(nge_search.evaluate, checkout, SMALL))


def test_every_call_is_one_that_its_function_takes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do is tested where they are; here, that README's arguments are theirs."""
    code = text.split("\n## From Python\n")[1].split("```python\n")[1].split("```")[0]
    called = dict.fromkeys(re.findall(r"nge_search\.(\w+)\(", code))
    for name in called:
        monkeypatch.setattr(nge_search, name, create_autospec(getattr(nge_search, name)))
    exec(code, {})
    assert len(called) == 9
    assert all(getattr(nge_search, name).call_count == 1 for name in called)


def test_own_images_from_start_to_end(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer, smaller images and networks, and two epochs in place of 70; other tests write ONNX files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORMATS, "onnx", lambda network, images, folder: (folder / "model.onnx").touch())
    monkeypatch.setattr("nge_search.deploy.export.require_onnx", lambda: None)
    random = np.random.default_rng(0)
    for folder in ("photos/ant", "photos/bee", "labelled_later/ant", "labelled_later/bee", "new_photos"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(30 if "photos/" in folder else 2):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(f"{folder}/{number}.png")
    quiet = ("data.image_size=16", "threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false")
    small = {
        "search": (
            "supernet.channels=2",
            "supernet.cells=3",
            "supernet.kernel=reference",
            "search.epochs=1",
            *quiet,
        ),
        "eval": ("network.channels=2", "network.cells=3", *quiet),
    }
    lines = block(text, "Your own images, from start to end.", "").splitlines()
    epochs = []
    for words in (shlex.split(line, comments=True)[1:] for line in lines):
        if words[0] == "eval":
            words = [word for word in words if not word.startswith("train.epochs")]
            epochs.append(len(epochs) + 1)
            words.append(f"train.epochs={epochs[-1]}")
        assert main([*words, *small.get(words[0], ())]) == 0, words
    assert epochs == [1, 2]
    summary = json.loads(Path("runs/eval/images/summary.json").read_text())
    assert summary["genotype"] == json.loads(Path("runs/search/images/genotype.json").read_text())
    assert summary["epochs"] == 2
    assert Path("exported/model.onnx").exists()


def test_the_table_names_the_same_recipes(text: str, checkout: Path) -> None:
    for command in ("search", "eval"):
        (line,) = re.findall(rf"`python train_{command}\.py (--config configs/{command}/images\.yaml [^`]*)`", text)
        assert f"nge {command} --config images " in block(text, "Your own images, from start to end.", "")
        assert "data.root=/images" in line


def test_sizes_that_are_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """README's `nge show` of a wanted size, of latency, and of the network whose half is to be searched for."""
    part = text.split("\n**Cells of a wanted size.**")[1].split("\n**")[0]
    lines = [line for line in re.findall(r"nge show [^`\n#]+", part) if " --" in line]
    printed = []
    for line in lines:
        assert main(shlex.split(line.replace("RUN", "darts_v2"))[1:]) == 0
        printed.append(capsys.readouterr().out)
    assert len(printed) == 3
    assert "comes nearest to 600M mult-adds" in printed[0]
    assert "latency" in printed[1]
    assert "528.36M mult-adds" in printed[2]


def test_looking_in(text: str, short: None, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"nge_search": nge_search}
    exec(block(text, "Looking in."), names)
    lines = [line for line in capsys.readouterr().out.splitlines() if line[0].isdigit()]
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert "'skip_connect': 0." in lines[0]
    run = names["run"]
    assert run.trace("normal").shape == (2, len(run.edges), len(run.operations))
    listed = text.split("| of a `Run` | what |")[1].split("\n\n")[0]
    for name in ("p", "edges", "metrics", "history", "epochs", "genotype", "folder", "settings", "summary"):
        assert f"`{name}`" in listed
        assert hasattr(run, name)


def test_own_images_and_network(
    text: str, short: None, monkeypatch: pytest.MonkeyPatch, checkout: Path, tiny_search: tuple[str, ...]
) -> None:
    words = (*tiny_search, *BASELINES, "search.epochs=1")
    monkeypatch.setattr(nge_search, "search", shortened(nge_search.search.__wrapped__, checkout, words))
    names = {"nge_search": nge_search, "torch": torch, "MyImages": MyImages}
    exec(block(text, "Your own images and network."), names)
    summary = json.loads(Path("runs/eval/my_net/summary.json").read_text())
    assert summary["params"] == sum(weight.numel() for weight in names["net"].parameters())
    assert json.loads(Path("runs/search/my_images/dataset.json").read_text())["name"] == "own"
    baselines = json.loads(Path("runs/search/my_images/summary.json").read_text())["baselines"]
    assert (len(baselines["throughout"]), len(baselines["random"])) == (2, 1)
    report = Path("runs/search/my_images/report.html").read_text()
    assert "nge_search.evaluate(None, &#x27;network.genotype=" in report
    assert "dataset=images)" in report


def test_own_objective(text: str) -> None:
    """In ten lines; evolution finds cells of many skips, if these are what is asked for."""
    code = block(text, "Your own objective.")
    assert len([line for line in code.splitlines() if line and not line.startswith("from")]) <= 10

    def objective(genotype: nge_search.Genotype) -> float:
        return sum(operation == "skip_connect" for _, cell in genotype.cells() for operation, _ in cell.genes)

    names: dict[str, Any] = {"objective": objective}
    exec(code, names)
    values = list(names["told"].values())
    assert np.mean(values[-20:]) > np.mean(values[:20]) + 1
    assert objective(names["best"]) == max(values)


def test_ten_more_epochs(text: str, short: None, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/search/digits").mkdir(parents=True)
    genotype = nge_search.load_genotype("darts_v2")
    Path("runs/search/digits/genotype.json").write_text(genotype.to_json())
    script, *words = shlex.split(block(text, "Ten more epochs.", "").strip())[1:]
    assert script == "train_eval.py"
    words[words.index("configs/eval/digits.yaml")] = str(checkout / "configs/eval/digits.yaml")
    before = [word for word in words if not word.startswith(("train.epochs", "train.continuation"))]
    assert main(["eval", *before, *SMALL]) == 0
    assert main(["eval", *words, *SMALL, "train.epochs=2", "run.progress=lines"]) == 0
    printed = capsys.readouterr().out
    assert "train.epochs was 1 and is 2: from epoch 2 on the learning rate falls from" in printed
    assert json.loads(Path("runs/eval/digits/summary.json").read_text())["epochs"] == 2
