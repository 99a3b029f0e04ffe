"""Cells of a wanted size: sizes against networks, the likeliest cells against all cells, searches that resume."""

from __future__ import annotations

import itertools
import json
import signal

import numpy as np
import pytest
import torch

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.cli import main
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.sized_cells import likeliest, node_options, size_range
from nge_search.gradient.target import TOLERANCE, SizeTarget
from nge_search.networks.families import FAMILIES
from nge_search.networks.operation_sizes import OperationSizes
from nge_search.networks.sizes import network_size
from nge_search.settings.search import SearchSection
from nge_search.spaces.darts import DartsSpace

SMALL = DartsSpace(CellSpace(nodes=2, operations=("skip_connect", "sep_conv_3x3", "dil_conv_5x5")))
TINY = ("search.target_channels=4", "search.target_cells=3", "search.target_image_size=8")


@pytest.mark.parametrize(("network", "side"), [("cifar", 9), ("imagenet", 33)])
@pytest.mark.parametrize("of", ["macs", "params"])
def test_sizes_are_those_of_the_networks(network, side, of):
    """Of odd images, too, whose halves are rounded up."""
    space, sizes = DartsSpace(), (4, 5, 7)
    found = OperationSizes(space, network, of, sizes, side)
    for code in (space.random(np.random.default_rng(seed)) for seed in range(2)):
        with torch.device("meta"):
            built = FAMILIES[network].build(space.graphs(code), *sizes)
        assert found.size(code) == network_size(built, of, side)


def every_cell(space):
    """Every cell of a space of two nodes, as its part of a code."""
    count = len(space.cell_space.operations)
    first = [(0, 1, *own) for own in itertools.product(range(count), repeat=2)]
    second = [
        (*pair, *own)
        for pair in itertools.combinations(range(3), 2)
        for own in itertools.product(range(count), repeat=2)
    ]
    return [a + b for a in first for b in second]


def total(matrices, space, code):
    found, position = 0.0, 0
    for matrix_EO in matrices:
        for node in space.cell_space.inner:
            incoming = space.cell_space.incoming(node)
            a, b, of_a, of_b = code[position : position + 4]
            found += matrix_EO[incoming[a], of_a] + matrix_EO[incoming[b], of_b]
            position += 4
    return found


def test_the_likeliest_cells_within_bounds_are_found():
    """Against all 59,049 pairs of cells of two nodes."""
    random = np.random.default_rng(0)
    scores = [np.log(random.dirichlet(np.ones(3), 5)) for _ in range(2)]
    sizes = [random.integers(0, 40, (5, 3)).astype(float) for _ in range(2)]  # sums fill fewer bins than there are
    cells = every_cell(SMALL)

    def of_pairs(matrices):
        return np.add.outer(*([total([own], SMALL, cell) for cell in cells] for own in matrices))

    of_size, of_score = of_pairs(sizes), of_pairs(scores)
    assert of_size.size == 59_049
    options = node_options(scores, sizes, SMALL)
    assert size_range(options) == (of_size.min(), of_size.max())
    for wanted in np.linspace(of_size.min(), of_size.max(), 7):
        within = np.abs(of_size - wanted) <= 2
        found = likeliest(options, wanted, 2)
        assert {found[:8], found[8:]} <= set(cells)
        assert abs(total(sizes, SMALL, found) - wanted) <= 2
        assert total(scores, SMALL, found) == pytest.approx(of_score[within].max(), abs=1e-12)
    far = likeliest(options, of_size.max() + 100, 2)
    assert total(sizes, SMALL, far) == of_size.max()


def target_at(share, of="params", nodes=4):
    """A target at a share of the way from the space's smallest to its largest network."""
    space = DartsSpace(CellSpace(nodes=nodes))
    sizes = OperationSizes(space, "cifar", of, (4, 3, 10), 8)
    matrices = [matrix_EO.numpy() for matrix_EO in sizes.matrices]
    low, high = (end + sizes.rest for end in size_range(node_options(matrices, matrices, space)))
    return low + share * (high - low)


def section(target):
    given = {f"target_{name}": number for name, number in (("channels", 4), ("cells", 3), ("image_size", 8))}
    return SearchSection(target_params=str(round(target)), **given)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_whatever_p_is_cells_have_the_wanted_size(share):
    space, wanted = DartsSpace(), target_at(share)
    target = SizeTarget(section(wanted), space)
    for seed in range(5):
        p = [torch.softmax(2 * torch.randn(14, 7, generator=torch.Generator().manual_seed(2 * seed + k)), 1)
             for k in range(2)]  # fmt: skip
        derived = target.derive(p)
        assert abs(target.size(derived) / wanted - 1) <= TOLERANCE
        own = SizeTarget(section(target.size(space.derive(p))), space)
        assert own.derive(p).graphs == space.derive(p).graphs  # of the size already: as P alone


def test_the_multiplier_follows_what_p_derives():
    space = DartsSpace()
    target = SizeTarget(section(target_at(0.5)), space)
    light, heavy = torch.full((14, 7), 0.1), torch.full((14, 7), 0.1)
    light[:, 0] = heavy[:, 4] = 0.4
    before = target.multiplier
    target.end_epoch((heavy, heavy))
    risen = target.multiplier
    target.end_epoch((light, light))
    assert before == 0 < risen
    assert target.multiplier < risen
    other = SizeTarget(section(target_at(0.5)), space)
    other.load_state_dict(target.state_dict(), "here")
    assert other.multiplier == target.multiplier


@pytest.fixture(scope="module")
def aimed(tiny_search, tmp_path_factory):
    """Words of a search for a size, the size, and its run folder."""
    wanted, run = round(target_at(0.6, nodes=2)), tmp_path_factory.mktemp("aimed") / "run"
    words = [*tiny_search, *TINY, f"search.target_params={wanted}", "search.epochs=3", "search.evaluate_every=2"]
    nge_search.search(None, *words, f"run.dir={run}")
    return words, wanted, run


def test_a_search_finds_cells_of_the_size(aimed, capsys):
    """What is printed, kept and recorded agrees with the network."""
    words, wanted, whole = aimed
    assert main(["search", *words, f"run.dir={whole}"]) == 0  # has finished: prints what it found
    printed = capsys.readouterr().out
    assert "CIFAR network, C=4, 3 cells, 10 classes, 8x8" in printed
    summary = json.loads((whole / "summary.json").read_text())
    found = summary["target"]
    assert found["wanted"] == wanted
    assert abs(found["size"] / wanted - 1) <= 0.1  # of cells of two nodes there are few
    sizes = ["--channels", "4", "--cells", "3", "--image-size", "8"]
    assert f"Size of the derived network, wanted {wanted} parameters" in (whole / "report.html").read_text()
    assert main(["show", str(whole), *sizes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == found["size"]
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["target_multiplier"] == 0
    assert rows[1]["target_multiplier"] == pytest.approx(min(rows[0]["target_size_of_p"] / wanted - 1, 1))


def test_a_search_goes_on_as_if_it_had_not_stopped(aimed, tmp_path, monkeypatch):
    """Its multiplier, and so P."""
    step = BilevelSearch.evaluation_step

    def stop(self, *given):
        signal.raise_signal(signal.SIGTERM)  # in epoch 2, in which the multiplier is no longer 0
        return step(self, *given)

    words, _, whole = aimed
    with monkeypatch.context() as patch:
        patch.setattr(BilevelSearch, "evaluation_step", stop)
        assert main(["search", *words, f"run.dir={tmp_path / 'cut'}"]) == 128 + signal.SIGTERM
    assert main(["search", *words, f"run.dir={tmp_path / 'cut'}"]) == 0
    last, other = (
        json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in (whole, tmp_path / "cut")
    )
    for key in ("p_normal", "p_reduce", "target_multiplier", "genotype"):
        assert last[key] == other[key]
    assert last["target_multiplier"] != 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search.target_macs=lots"], "search.target_macs='lots': give a number above 0"),
        (["search.target_params=-3M"], "search.target_params='-3M': give a number above 0"),
        (["search.target_macs=1M", "search.target_params=1M"], "give it or search.target_macs, not both"),
        (["search.target_macs=1M", "search.cost_weight=1"], "leave search.cost_weight at 0"),
        (["search.target_macs=1M", "search.selection=predictor"], "leave search.selection at argmax"),
        (["search.target_macs=1M", "search.cost=latency"], "leave search.cost at macs"),
        (["search.target_macs=1M", "search.stop_count=2"], "leave search.stop_count at 0"),
        (["search.target_params=1k", *TINY], "the space's cells in the CIFAR network, C=4, 3 cells"),
        (["search.target_macs=90G", *TINY], "search.target_macs=90G: the space's cells"),
        (["search.target_macs=1M", "search.target_network=voc"], "search.target_network"),
        (["search.target_macs=1M", "search.target_cells=0"], "search.target_cells"),
    ],
)
def test_what_cannot_be_aimed_at_is_refused(words, message, tmp_path, capsys, tiny_search):
    assert main(["search", *tiny_search, f"run.dir={tmp_path / 'run'}", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_targets_are_of_darts_space(tmp_path, capsys, dense_search):
    assert main(["search", *dense_search, f"run.dir={tmp_path / 'run'}", "search.target_macs=1M"]) == 2
    assert "is of cells of DARTS' space" in capsys.readouterr().err
