"""README's story of drawn cells, as it is written there: sixty trained cells, ten new genotypes, and a training."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import numpy as np
import pytest

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.settings.classification import EvalConfig
from nge_search.settings.design import DesignBenchConfig, DesignConfig
from nge_search.settings.load import load_config
from nge_search.spaces import Code, DartsSpace

SPACE = DartsSpace()
#: What makes the story's training a short one.
SHORT = ("design.members=1", "design.epochs=12")


def accuracy(code: Code) -> float:
    """The more separable convolutions, the better: a rule that no link model is told."""
    genotype = SPACE.genotype(code)
    names = [name for cell in (genotype.normal, genotype.reduce) for name, _ in cell.genes]
    return 90 + 0.4 * sum(name.startswith("sep") for name in names)


def test_the_story_of_the_readme(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random, found = np.random.default_rng(0), dict[Code, None]()
    while len(found) < 60:
        found[SPACE.random(random)] = None
    with open("cells.csv", "w", newline="") as file:
        rows = [(SPACE.text(code), f"{accuracy(code):.2f}") for code in found]
        csv.writer(file).writerows([("architecture", "accuracy"), *rows])
    block = (checkout / "README.md").read_text().split("\n## Design\n")[1].split("```")[1]
    train, draw, retrain = (shlex.split(line) for line in block.strip().splitlines())
    assert main([*train[1:], *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "10 different cells of darts" in printed
    assert "train_eval.py" in printed
    assert main(draw[1:]) == 0
    folder = Path(draw[draw.index("--out") + 1])
    assert {"cells.svg", "cells.png", "cell_10.json", "drawn.json"} <= {path.name for path in folder.iterdir()}
    drawn = [SPACE.code(load_genotype(folder / f"cell_{n}.json").graphs()) for n in range(1, 11)]
    assert len(set(drawn)) == 10
    assert np.mean(list(map(accuracy, drawn))) > np.mean(list(map(accuracy, found))) + 0.5
    assert retrain[:2] == ["python", "train_eval.py"]
    config = load_config(EvalConfig, checkout / retrain[retrain.index("--config") + 1], retrain[4:])
    assert load_genotype(config.network.genotype).normal.nodes == 4


def test_configs_are_settings(checkout: Path) -> None:
    """Of both commands, but where cells are drawn in another space; they say which seeds are kept for choosing."""
    paths = {path.stem: path for path in (checkout / "configs" / "design").glob("*.yaml")}
    assert {"nal_paper", "nb101", "nb201", "ec_nas", "darts"} <= paths.keys()
    for name, path in paths.items():
        load_config(DesignConfig, path)
        if name != "darts":
            assert load_config(DesignBenchConfig, path).bench.first_seed == 0
            assert "100 to 108" in path.read_text()
    printed = load_config(DesignConfig, paths["nal_paper"]).design
    assert (printed.samples, printed.epochs, printed.learning_rate, printed.links) == ("paper", 200, 5e-4, 9)
    assert (printed.temperature, printed.best, printed.members, printed.dangling) == (1.0, 30, 10, True)
    lines = [
        shlex.split(line)
        for line in (checkout / "README.md").read_text().splitlines()
        if "nge design bench --" in line
    ]
    measured = [
        load_config(DesignBenchConfig, checkout / line[4], [w for w in line[5:] if "=" in w]) for line in lines
    ]
    assert {(config.labels.table, config.bench.score) for config in measured} == {
        ("tables/nb201", "cifar10_test_200"),
        ("tables/ecnas", "cifar10_test_4"),
    }
