"""README's story, as it is written there: what is my network like, and remember it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from nge_search.cli import main
from nge_search.report.pages import retrieve_query
from nge_search.settings.load import load_config
from nge_search.settings.retrieve import RetrieveBenchConfig

NETWORK = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width, wider):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(wider, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, wider, 1, bias=False), nn.BatchNorm2d(wider),
        )

    def forward(self, x):
        return (x + self.path(x)).relu()


def network():
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *(Block(16, 64) for _ in range(9)), *head)
"""


def commands(text: str, heading: str) -> list[list[str]]:
    """The words behind `nge` of the first block of commands under a heading."""
    block = text.split(f"\n## {heading}\n")[1].split("```")[1]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("nge ")]


def test_the_story_of_the_readme(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine bottleneck blocks are like a residual network, and share its blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retrieve_query, "layout", lambda embedding_ND: embedding_ND[:, :2])  # instead of seconds
    Path("mine.py").write_text(NETWORK)
    query, add = commands((checkout / "README.md").read_text(), "Retrieve")
    assert main([word for word in query if word != "--trust-code"]) == 2
    assert "add --trust-code if you trust it" in capsys.readouterr().err
    assert main(query) == 0
    printed = capsys.readouterr().out.splitlines()
    ranked = [line for line in printed if line.strip()[:1].isdigit()]
    assert len(ranked) == 10
    assert "family resnet" in ranked[0]
    assert any("Convolution(groups=1, kernel=3, stride=1)" in line for line in printed)
    page = Path("mine.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert 'class="asked"' in page
    assert "http" not in page.split("</style>")[1]
    assert main(add) == 0
    capsys.readouterr()
    assert main(["retrieve", "query", "mine", "--catalogue", "networks"]) == 0
    assert "own:mine: " in capsys.readouterr().out
    assert (
        main(["retrieve", "query", "mine.py:network", "--trust-code", "--catalogue", "networks", "--top", "1"]) == 0
    )
    assert "1. 1.000  own:mine, family ours, 100 % in shared motifs" in capsys.readouterr().out


def test_configs_are_settings(checkout: Path) -> None:
    """With the seeds for reports."""
    paths = {path.stem: path for path in (checkout / "configs" / "retrieve").glob("*.yaml")}
    assert {"nar_paper", "baselines", "ours"} <= paths.keys()
    for path in paths.values():
        assert load_config(RetrieveBenchConfig, path).bench.first_seed == 0
    paper = load_config(RetrieveBenchConfig, paths["nar_paper"])
    assert (paper.encoder.motif_epochs, paper.encoder.epochs, paper.encoder.width) == (5, 15, 512)
