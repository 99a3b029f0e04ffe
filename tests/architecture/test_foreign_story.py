"""README's story of a cell from elsewhere, as it is written there: PC-DARTS' text, its size, and an epoch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.load import load_genotype
from nge_search.cli import main

TEXT = (
    "12/01 07:00:00 PM genotype = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), "
    "('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], "
    "normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), "
    "('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
    "reduce_concat=range(2, 6))\n"
)
#: What makes the story's training a short one.
SHORT = (
    *("threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=32", "train.batch_size=16"),
    *("train.epochs=1", "network.channels=2", "network.cells=3"),
)


def test_the_story_of_the_readme(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    block = (checkout / "README.md").read_text().split("\n**Cells from elsewhere.**")[1].split("```")[1]
    lines = [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("nge ")]
    derive, show, train = [[word.replace("configs/", f"{checkout}/configs/") for word in line] for line in lines]
    Path("genotype.txt").write_text(TEXT)
    assert main(derive) == 0
    assert load_genotype("cell.json") == PUBLISHED["pc_darts_cifar"]
    capsys.readouterr()
    assert main(show) == 0
    assert "ImageNet network, C=48, 14 cells" in capsys.readouterr().out
    assert main([*train, *SHORT]) == 0
    assert load_genotype("runs/eval/elsewhere") == PUBLISHED["pc_darts_cifar"]
    assert json.loads(Path("runs/eval/elsewhere/summary.json").read_text())["epochs"] == 1
    inline = TEXT[TEXT.index("Genotype") :].strip()
    again = [f"network.genotype={inline}" if word.startswith("network.genotype") else word for word in train]
    assert main([*again, *SHORT]) == 0  # the same cells: the finished run is shown
