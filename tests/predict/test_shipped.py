"""What ships with the package: its file, when it speaks, and what it says."""

from __future__ import annotations

import configparser
import itertools
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.errors import UserError
from nge_search.predict.input_features import features_by_input
from nge_search.predict.shipped import CELLS, FILE, LARGEST, LEVELS, NAMES, Shipped, expected, shipped
from nge_search.spaces import DartsSpace

ROOT = Path(__file__).parents[2]
DARTS = PUBLISHED["p_darts"]


@pytest.fixture(scope="module")
def text() -> str:
    return resources.files("nge_search.predict").joinpath(FILE).read_text("utf-8")


def test_the_package_holds_the_file(text: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["nge_search.predict"].split() == [FILE]
    assert len(text.encode()) < LARGEST
    assert Shipped.read(text) is not shipped()
    assert Shipped.read(text).text() == text


def test_it_holds_weights_and_no_cell_and_no_label(text: str) -> None:
    document = json.loads(text)
    rest = {key: document.pop(key) for key in ("features", "mean", "deviation", "weight")}
    assert all(len(values) == len(NAMES) for values in rest.values())
    assert set(document) == {
        *("format", "space", "intercept", "residuals", "farthest", "tau", "trainings", "range")
    }
    numbers = [document["intercept"], *itertools.chain(*document["residuals"].values()), *document["tau"]]
    assert len(numbers) + len(document["range"]) == 10
    assert all(10 * value == round(10 * value) for value in document["range"])  # no training's own accuracy


def test_what_it_says_of_itself_is_plausible() -> None:
    own = shipped()
    assert own.trainings == 214
    tau, low, high = own.tau
    assert 0.4 < low < tau < high < 0.7
    (low_50, high_50), (low_90, high_90) = (own.residuals[level] for level in LEVELS)
    assert -1 < low_90 < low_50 < 0 < high_50 < high_90 < 1
    assert own.worst < own.ridge.intercept < own.best


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "nge-shipped-predictor/2"}, "'format' must be one of nge-shipped-predictor/1"),
        ({"space": "nasbench201"}, "'space' must be one of darts"),
        ({"features": ["cell.log_paths"]}, "other features than this version has"),
        ({"weight": [1.0]}, f"'weight' must be {len(NAMES)} numbers"),
        ({"deviation": [0.0] * len(NAMES)}, "'deviation' must be"),
        ({"intercept": float("nan")}, "'intercept' must be a number above 0 and at most 100"),
        ({"residuals": {"50": [-1, 1]}}, "'90' is missing"),
        ({"tau": [0.5]}, "'tau' must be 3 numbers"),
        ({"trainings": 1}, "'trainings' must be an integer from 2"),
    ],
)
def test_another_file_is_refused(text: str, change: dict, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Shipped.read(json.dumps({**json.loads(text), **change}), "mine.json")
    assert says in str(caught.value)
    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{", "null", ""])
def test_what_is_no_object_is_refused(content: str) -> None:
    with pytest.raises(UserError, match=r"mine\.json is damaged"):
        Shipped.read(content, "mine.json")


def test_an_expectation_is_the_regression_with_its_residuals() -> None:
    found, own = expected(DARTS), shipped()
    assert found is not None
    x_F = features_by_input([DARTS.graphs()], CELLS.kinds)[0]
    terms = [
        weight * (x - mean) / deviation
        for weight, x, mean, deviation in zip(
            own.ridge.weight_F, x_F, own.ridge.mean_F, own.ridge.deviation_F, strict=True
        )
    ]
    assert found.error == pytest.approx(100 - own.ridge.intercept - sum(terms))
    for level in LEVELS:
        low, high = found.intervals[level]
        assert low < found.error < high
        assert (found.error - high, found.error - low) == pytest.approx(own.residuals[level])
    figure, source = found.lines()
    assert f"{found.error:.2f} % (50 %: {found.intervals[50][0]:.2f} to" in figure
    assert all(words in figure for words in ("CIFAR-10", "C=36", "20 cells", "600 epochs"))
    assert "214 such trainings of random cells" in source
    assert f"Kendall tau {own.tau[0]:.2f} (90 %: {own.tau[1]:.2f} to {own.tau[2]:.2f})" in source
    assert found.to_dict()["intervals"]["90"] == [round(end, 3) for end in found.intervals[90]]


def test_the_order_of_a_node_s_edges_does_not_matter() -> None:
    def turned(cell: Cell) -> Cell:
        pairs = [cell.genes[first : first + 2] for first in range(0, len(cell.genes), 2)]
        return Cell(tuple(gene for pair in pairs for gene in pair[::-1]), cell.concat[::-1])

    other = expected(Genotype(turned(DARTS.normal), turned(DARTS.reduce)))
    assert other.error == pytest.approx(expected(DARTS).error, abs=1e-9)


def changed(cell: Cell, position: int, gene: tuple[str, int]) -> Cell:
    return Cell((*cell.genes[:position], gene, *cell.genes[position + 1 :]), cell.concat)


@pytest.mark.parametrize(
    "genotype",
    [
        None,
        PUBLISHED["nasnet_a"],
        PUBLISHED["amoebanet_a"],
        Genotype(DARTS.normal, changed(DARTS.reduce, 0, ("sep_conv_7x7", 0))),
        Genotype(changed(DARTS.normal, 0, ("sep_conv_3x3", 1)), DARTS.reduce),  # node 2 reads node 1 twice
        Genotype(Cell(DARTS.normal.genes, (3, 4, 5)), DARTS.reduce),
        Genotype(Cell(DARTS.normal.genes[:4], (2, 3)), Cell(DARTS.reduce.genes[:4], (2, 3))),
    ],
)
def test_of_other_cells_nothing_is_said(genotype: Genotype | None) -> None:
    assert expected(genotype) is None


def test_cells_unlike_all_that_were_trained_are_pointed_out() -> None:
    """A collapsed search's; hardly any random one."""
    skips = Cell(tuple(("skip_connect", node) for _ in range(4) for node in (0, 1)), (2, 3, 4, 5))
    assert "unlike all" in expected(Genotype(skips, skips)).lines()[2]
    space, random = DartsSpace(), np.random.default_rng(0)
    found = [expected(space.genotype(space.random(random))) for _ in range(40)]
    assert sum(one.unlike for one in found) <= 3
    assert all(len(one.lines()) == 2 + one.unlike for one in found)


def test_it_needs_no_torch() -> None:
    """So that `nge derive` stays quick."""
    program = (
        "import sys; from nge_search.architecture.genotype import PUBLISHED\n"
        "from nge_search.predict.shipped import expected; expected(PUBLISHED['darts_v1']).lines()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
