"""Cells of a wanted size: sizes against networks, the likeliest cells against all cells, searches that resume."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import shlex
import signal

import numpy as np
import pytest
import torch

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.cli import main
from nge_search.engine.distributed import World
from nge_search.errors import UserError
from nge_search.gradient import dirichlet
from nge_search.gradient.architecture import ArchitectureOptimiser
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.multiplier import SizeMultiplier
from nge_search.gradient.sized_cells import likeliest, node_options, size_range
from nge_search.gradient.target import TOLERANCE, SizeTarget, target_lines
from nge_search.networks.families import FAMILIES
from nge_search.networks.operation_sizes import OperationSizes
from nge_search.networks.sizes import network_size
from nge_search.operation_registry import Operation
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig, SearchSection
from nge_search.spaces.darts import DartsSpace

SMALL = DartsSpace(CellSpace(nodes=2, operations=("skip_connect", "sep_conv_3x3", "dil_conv_5x5")))
TINY = ("search.target_channels=4", "search.target_cells=3", "search.target_image_size=8")


@pytest.mark.parametrize(("network", "side"), [("cifar", 9), ("imagenet", 33)])
@pytest.mark.parametrize("of", ["macs", "params"])
def test_sizes_are_those_of_the_networks(network, side, of):
    """Of odd images, too, whose halves are rounded up, and of grey ones."""
    space, sizes, image_channels = DartsSpace(), (4, 4, 7), side % 4
    found = OperationSizes(space, network, of, sizes, side, image_channels)
    code = space.random(np.random.default_rng(side))
    with torch.device("meta"):
        built = FAMILIES[network].build(space.graphs(code), *sizes, image_channels)
    assert image_channels == 1
    assert found.size(code) == network_size(built, of, side, image_channels)


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


def test_small_sums_are_told_apart_beside_a_large_one():
    """A node may be thousands of times as large as what is wanted; the first of 2,000 bins holds all such cells."""
    scores = [np.log(np.random.default_rng(seed).dirichlet(np.ones(3), 5)) for seed in range(2)]
    sizes = [np.array([[0.0, 1.0, 2.0]] * 5), np.array([[0.0, 1.0, 4e3]] * 5)]
    for wanted in range(9):
        assert total(sizes, SMALL, likeliest(node_options(scores, sizes, SMALL), wanted, 0.5)) == wanted


@functools.cache
def sizes_of(nodes=4, image_channels=3):
    return OperationSizes(DartsSpace(CellSpace(nodes=nodes)), "cifar", "params", (4, 3, 10), 8, image_channels)


def target_at(share, nodes=4, image_channels=3):
    """A target at a share of the way from the space's smallest to its largest network."""
    sizes = sizes_of(nodes, image_channels)
    matrices = [matrix_EO.numpy() for matrix_EO in sizes.matrices]
    low, high = (end + sizes.rest for end in size_range(node_options(matrices, matrices, sizes.space)))
    return low + share * (high - low)


def section(target):
    given = {f"target_{name}": number for name, number in (("channels", 4), ("cells", 3), ("image_size", 8))}
    return SearchSection(target_params=str(round(target)), **given)


def drawn_p(seed, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.softmax(sharpness * torch.randn(14, 7, generator=generator), 1) for _ in range(2)]


def test_whatever_p_is_cells_have_the_wanted_size():
    """And differ from those of P alone where these have another size; the rows say by how much."""
    target = SizeTarget(section(target_at(0.5)), DartsSpace())
    p = drawn_p(0)
    alone = target.space.derive(p)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        target.wanted = target_at(share)
        derived = target.derive(p, {"seed": 3})
        figures = target.figures(p, derived)
        assert abs(figures["target_size"] / target.wanted - 1) <= TOLERANCE
        assert (figures["target_size"], figures["target_size_of_p"]) == (target.size(derived), target.size(alone))
        assert figures["target_changed"] == len(genes_of(derived) - genes_of(alone))
        assert (figures["target_loss"] > 0) == (figures["target_changed"] > 0)
        provenance = derived.document["provenance"]
        assert (provenance["target_params"], provenance["seed"]) == (target.wanted, 3)
        assert provenance["target_network"] == target.network
    target.wanted = target.size(alone)
    assert target.derive(p).graphs == alone.graphs
    assert target.figures(p, alone)["target_loss"] == target.figures(p, alone)["target_changed"] == 0


def genes_of(architecture):
    """Each kept operation with its cell, node and source."""
    cells = architecture.genotype.cells()
    return {(kind, at // 2, gene) for kind, cell in cells for at, gene in enumerate(cell.genes)}


def test_targets_end_where_the_space_does():
    low, high = target_at(0), target_at(1)
    for wanted in (0.99 * low, 1.01 * high):
        with pytest.raises(UserError, match="the space's cells in the CIFAR network"):
            SizeTarget(section(wanted), DartsSpace())
    assert SizeTarget(section(low), DartsSpace()).wanted == low
    with pytest.raises(UserError, match=r"search\.target_channels=1: the ImageNet network has at least 2"):
        SizeTarget(SearchSection(target_params="1M", target_network="imagenet", target_channels=1), DartsSpace())


def multiplier_of(wanted, steps=10):
    return SizeMultiplier(sizes_of(), wanted, steps, torch.device("cpu"), torch.float32)


def test_the_size_on_the_device_is_that_of_the_derived_cells():
    sizes, multiplier = sizes_of(), multiplier_of(1.0)
    for seed in range(5):
        p = drawn_p(seed)
        assert float(multiplier.size(p)) == sizes.size(sizes.space.code_of(sizes.space.derive(p)))


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_step_of_the_multiplier(share):
    """Against the formulas; it leads away from the size that P has."""
    wanted, p = target_at(share), drawn_p(1)
    multiplier = multiplier_of(wanted)
    off = math.log(float(multiplier.size(p)) / wanted)
    gradients = [torch.ones(14, 7) for _ in range(2)]  # which no softmax passes on
    multiplier.push(gradients, p, multiplier.directions)
    value = 2 * off / 10
    assert float(multiplier.value) == pytest.approx(value, rel=1e-4)
    weight, length = min(value + 4 * off, 4), sum(float(own.abs().sum()) for own in multiplier.directions)
    for gradient_EO, direction_EO in zip(gradients, multiplier.directions):
        torch.testing.assert_close(gradient_EO - 1, weight * 2 * 98 / length * direction_EO, rtol=1e-3, atol=1e-4)

    def expected(logits):
        return sum((torch.softmax(x, 1) * own).sum() for x, own in zip(logits, multiplier.directions))

    logits = [x.log().requires_grad_() for x in p]
    torch.autograd.backward([torch.softmax(x, 1) for x in logits], gradients)
    moved = [x - 1e-3 * x.grad for x in logits]
    assert bool(expected(moved) < expected(logits)) == (off > 0)
    for _ in range(200):
        multiplier.push([torch.ones(14, 7), torch.ones(14, 7)], p, multiplier.directions)
    assert abs(float(multiplier.value)) == 4


def test_p_itself_comes_to_the_size():
    """Under a loss that is linear in P, and noise as large, as a search by Adam has it."""
    generator = torch.Generator().manual_seed(0)
    for share in (0.2, 0.7):
        wanted = target_at(share)
        multiplier = multiplier_of(wanted, steps=20)
        logits = [torch.zeros(14, 7).requires_grad_() for _ in range(2)]
        loss = [torch.randn(14, 7, generator=generator) for _ in logits]
        adam = torch.optim.Adam(logits, lr=1e-2, betas=(0.5, 0.999))
        for _ in range(200):
            p = [torch.softmax(x, 1) for x in logits]
            gradients = [own + torch.randn(14, 7, generator=generator) for own in loss]
            multiplier.push(gradients, [x.detach() for x in p], multiplier.directions)
            adam.zero_grad()
            torch.autograd.backward(p, gradients)
            adam.step()
        assert abs(float(multiplier.size([torch.softmax(x, 1) for x in logits])) / wanted - 1) < 0.15


@pytest.mark.parametrize("mixture", ["dirichlet", "weighted"])
def test_what_leads_to_the_size_is_of_what_mixtures_are_made_of(mixture):
    """Of concentrations through their mean; and P's strengths have the weights of edges."""
    words = ["embedding.kind=direct", f"search.mixture={mixture}", "search.edge_normalisation=true"]
    config = load_config(SearchConfig, None, words)
    sizes, multiplier = sizes_of(), multiplier_of(target_at(0.3))
    space, zeros = sizes.space.cell_space, [torch.zeros(14, 7)] * 2
    own = ArchitectureOptimiser(config, space, World(torch.device("cpu")), zeros, multiplier)
    generator = torch.Generator().manual_seed(0)
    made = [torch.rand(14, 7, generator=generator) + 0.5 for _ in range(2)]
    if mixture == "weighted":
        made = [x / x.sum(dim=1, keepdim=True) for x in made]
    leaves = [x.requires_grad_() for x in (*made, *(torch.rand(14, generator=generator) for _ in range(2)))]
    means = [dirichlet.mean(x) if mixture == "dirichlet" else 1 * x for x in made]
    strengths = [x.detach() * edges.detach()[:, None] for x, edges in zip(means, leaves[2:])]
    expected = sum((mean * direction).sum() for mean, direction in zip(means, multiplier.directions))
    directions = torch.autograd.grad(expected, made)
    other = multiplier_of(target_at(0.3))
    by_hand = [torch.ones(14, 7) for _ in range(2)]
    other.push(by_hand, strengths, directions)
    gradients = [torch.ones_like(x) for x in leaves]
    own._lead_to_size(multiplier, gradients, leaves)
    for found, wanted in zip(gradients, [*by_hand, torch.ones(14), torch.ones(14)]):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(multiplier.value, other.value)


def test_a_multiplier_is_kept():
    first, second = multiplier_of(target_at(0.3)), multiplier_of(target_at(0.3))
    first.push([torch.ones(14, 7)] * 2, drawn_p(0), first.directions)
    second.load_state_dict(first.state_dict(), "here")
    assert torch.equal(first.value, second.value)
    for damaged in (None, {}, {"multiplier": 1.0}, {"multiplier": torch.ones(2)}, {"multiplier": torch.tensor(9.0)},
                    {"multiplier": torch.tensor(math.nan)}, {"multiplier": torch.tensor(1)}):  # fmt: skip
        with pytest.raises(UserError, match="here is damaged: 'multiplier'"):
            second.load_state_dict(damaged, "here")


def test_an_operation_that_cannot_be_counted_is_named(no_plugins, monkeypatch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise ValueError("no such size")

    known = Operation(lambda channels, stride, affine: Fails(), plugin="my_ops")
    monkeypatch.setitem(nge_search.operation_registry._OPERATIONS, "fails", known)
    space = DartsSpace(CellSpace(nodes=2, operations=("skip_connect", "fails")))
    with pytest.raises(UserError, match="operation 'fails' has no size on 4 channels of 8x8 pixels: ValueError"):
        OperationSizes(space, "cifar", "macs", (4, 3, 10), 8)


@pytest.fixture(scope="module")
def aimed(tiny_search, tmp_path_factory):
    """Words of a search for a size, the size, and its run folder."""
    wanted = round(target_at(0.6, nodes=2, image_channels=1))
    run = tmp_path_factory.mktemp("aimed") / "run"
    words = [*tiny_search, *TINY, f"search.target_params={wanted}", "search.evaluate_every=2"]
    nge_search.search(None, *words, f"run.dir={run}")
    return words, wanted, run


def test_a_search_finds_cells_of_the_size(aimed, capsys):
    """What is printed, kept and recorded agrees with the network."""
    words, wanted, whole = aimed
    assert main(["search", *words, f"run.dir={whole}"]) == 0  # has finished: prints what it found
    printed = capsys.readouterr().out
    assert "CIFAR network, C=4, 3 cells, 10 classes, 8x8" in printed
    retrain = {"network.kind=cifar", "network.channels=4", "network.cells=3"}
    lines = [line for line in printed.splitlines() if line.startswith("retrain it: ")]
    assert retrain <= set(shlex.split(lines[0]))
    assert all(word in (whole / "report.html").read_text() for word in retrain)
    summary = json.loads((whole / "summary.json").read_text())
    found = summary["target"]
    assert found["wanted"] == wanted
    assert abs(found["size"] / wanted - 1) <= TOLERANCE
    network = [found[name] for name in ("kind", "channels", "cells", "classes", "image_size")]
    assert network == ["cifar", 4, 3, 10, 8]
    assert "on_images" not in found
    sizes = ["--channels", "4", "--cells", "3", "--image-size", "8", "--image-channels", "1"]
    report = (whole / "report.html").read_text()
    assert f"Size of the derived network, wanted {wanted} parameters" in report
    assert ">Size of the derived network<" in report  # at its head, too
    assert main(["show", str(whole), *sizes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == found["size"]
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert 0 != rows[0]["target_multiplier"] != rows[1]["target_multiplier"]
    assert {"target_changed", "target_loss"} <= rows[-1].keys()


def test_the_size_on_the_searched_images_is_told_beside_that_of_the_network():
    """Of grey images of 5 pixels and three classes, where the target is of images of 8 and ten classes."""
    given, p = section(target_at(0.5)), drawn_p(0)
    assert (
        SizeTarget(given, DartsSpace(), 1, 3).settings["classes"] == 3
    )  # unless others are wanted, the images' own
    wider = SizeTarget(dataclasses.replace(given, target_classes=10), DartsSpace(), 1, 3)
    derived = wider.derive(p)
    summary = wider.summary({**wider.figures(p, derived), "target_multiplier": 0.5}, derived, 5, 3)
    with torch.device("meta"):
        built = FAMILIES["cifar"].build(derived.graphs, 4, 3, 3, 1)
    assert summary["on_images"] == network_size(built, "params", 5, 1) < summary["size"]
    first, second = target_lines({"target": summary})
    assert "10 classes, 8x8" in first
    assert second.startswith("on the searched images that network has")


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
        (["search.target_macs=1M", "search.cost_weight=1"], "needs search.cost_weight=0, not 1.0, which knows"),
        (["search.target_macs=1M", "search.selection=predictor"], "needs search.selection=argmax, not predictor"),
        (["search.target_macs=1M", "search.cost=latency"], "needs search.cost=macs, not latency"),
        (["search.target_macs=1M", "search.stop_count=2"], "needs search.stop_count=0, not 2"),
        (["search.target_params=1k", *TINY], "the space's cells in the CIFAR network, C=4, 3 cells"),
        (["search.target_macs=90G", *TINY], "search.target_macs=90G: the space's cells"),
        (["search.target_macs=1M", "search.target_network=voc"], "search.target_network"),
        (["search.target_macs=1M", "search.target_cells=0"], "search.target_cells"),
        (["search.target_channels=16"], "give search.target_macs or search.target_params, too"),
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
