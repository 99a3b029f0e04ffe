"""README's story of a predictor, as it is written there: thirty trained cells, and the ten best of a thousand."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest

from nge_search.cli import main
from nge_search.metrics.ranking import kendall_tau
from nge_search.settings.load import load_config
from nge_search.settings.predict import PredictBenchConfig
from nge_search.spaces import Code, NasBench201Space

SPACE = NasBench201Space()
#: What makes the story's training a short one.
SHORT = ("predict.folds=3",)


def accuracy(code: Code) -> float:
    """The more convolutions on paths to the output, the better, up to a limit: a rule that no predictor is told."""
    live = SPACE.graphs(code)["cell"].pruned()
    names = [edge.label.name for edge in live.edges] if live else []
    weights = {"nor_conv_3x3": 1.0, "nor_conv_1x1": 0.5, "skip_connect": 0.2}
    return 60.0 + 33 * (1 - 0.5 ** sum(weights.get(name, 0.0) for name in names))


def commands(text: str, heading: str) -> list[list[str]]:
    """The words behind `nge` of the first block of commands under a heading."""
    block = text.split(f"\n## {heading}\n")[1].split("```")[1]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("nge ")]


def test_the_story_of_the_readme(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random, found = np.random.default_rng(0), dict[Code, None]()
    while len(found) < 1030:
        found[SPACE.random(random)] = None
    trained, candidates = list(found)[:30], list(found)[30:]
    for name, head, rows in (
        ("cells.csv", ["architecture", "accuracy"], [(SPACE.text(c), f"{accuracy(c):.2f}") for c in trained]),
        ("candidates.csv", ["architecture"], [(SPACE.text(code),) for code in candidates]),
    ):
        with open(name, "w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    train, score = commands((checkout / "README.md").read_text(), "Predict")
    assert main([*train, *SHORT]) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    assert main(score) == 0
    printed = capsys.readouterr().out.splitlines()
    with open("scores.csv") as file:
        scores = list(csv.DictReader(file))
    truth_N = np.array([accuracy(SPACE.parse(row["architecture"])) for row in scores])
    predicted_N = np.array([float(row["predicted"]) for row in scores])
    assert len(scores) == 1000
    assert kendall_tau(predicted_N, truth_N) > 0.6
    low_N, high_N = (np.array([float(row[f"{side}_90"]) for row in scores]) for side in ("low", "high"))
    assert 0.6 < np.mean((low_N <= truth_N) & (truth_N <= high_N)) <= 1
    assert len([line for line in printed if line.endswith("|")]) == 10
    assert {path.name for path in Path("best").iterdir()} == {"best.png", "best.svg"}
    report = Path("runs/predict/mine/report.html").read_text()
    assert "What it looks at" in report
    assert "Calibration" in report


def test_configs_are_settings(checkout: Path) -> None:
    """With the seeds for reports, and saying which ones are kept for choosing."""
    paths = sorted((checkout / "configs" / "predict").glob("*.yaml"))
    names = {"nb201_ensemble", "nb201_ta_gates", "nb101_ta_gates", "darts_ta_gates", "enas_ta_gates", "anytime"}
    assert names <= {path.stem for path in paths}
    for path in paths:
        if path.stem in names:
            config = load_config(PredictBenchConfig, path)
            assert config.bench.first_seed == 0
            assert "100 to 108" in path.read_text()
