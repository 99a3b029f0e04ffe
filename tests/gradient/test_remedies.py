"""What keeps a search from collapsing, inside the loop: gradients, schedules, both forms, what is derived."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import signal

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence
from torch.nn import functional

import nge_search
from nge_search.cli import main
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.session import open_session
from nge_search.gradient import dirichlet
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.run import build_task, run_search, undecided
from nge_search.gradient.stopping import EarlyStop
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig, SearchSection
from nge_search.spaces import DartsSpace

DIRICHLET = ("search.mixture=dirichlet", "search.anchor_weight=0.3", "search.edge_normalisation=true")


@pytest.fixture
def make_task(tmp_path, dense_search):
    """Build a small search from extra settings; sessions are closed at the end."""
    numbers = itertools.count()
    with contextlib.ExitStack() as opened:

        def make(*settings):
            words = [*dense_search, "supernet.kernel=reference", "precision=fp64", *settings]
            words.append(f"run.dir={tmp_path / str(next(numbers))}")
            return build_task(opened.enter_context(open_session(load_config(SearchConfig, None, words))))

        yield make


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["nge", "direct"])
def test_the_architecture_gradient_equals_plain_autograd(make_task, kind):
    """Of the whole loss, written down as a function of parameters: network, anchor, entropy, cost, beta-decay."""
    more = ("search.beta_weight=0.8", "search.entropy_weight=0.4", "search.cost_weight=0.7", "search.epochs=5")
    task = make_task(*DIRICHLET, *more, f"embedding.kind={kind}", "embedding.edges=split")
    architecture, space = task.architecture, task.space.cell_space
    with torch.no_grad():
        for parameter in itertools.chain(*(module.parameters() for module in architecture.modules)):
            parameter += 0.3 * torch.randn_like(parameter)
    task.start_epoch(2)
    task.mixture.draw(0, 0, 3)
    parameters = [p for module in architecture.modules for p in module.parameters()]
    batch = next(task.valid.iterate(0))
    (logits_EO,) = architecture.embedding.logits()
    c_EO = functional.elu(logits_EO) + 1
    p_EO = c_EO / c_EO.sum(dim=1, keepdim=True)
    own_E = torch.cat([
        architecture.edge_weights.edges_cell[space.incoming(node).start : space.incoming(node).stop].softmax(dim=0)
        for node in space.inner
    ])  # fmt: skip
    noise = task.mixture.noise[0]
    theta_EO = dirichlet._Path.apply(c_EO, dirichlet.sample(c_EO.detach(), noise))
    logits_BK = task.supernet(batch.images_BCHW, theta_EO * own_E[:, None])
    anchor = kl_divergence(Dirichlet(c_EO), Dirichlet(torch.ones_like(c_EO))).sum()
    centred_EO = logits_EO - logits_EO.mean(dim=1, keepdim=True)
    loss = functional.cross_entropy(logits_BK, batch.labels_B) + 0.3 * anchor
    loss = loss + 0.7 * (task.cost.relative_gradients()[0] * p_EO).sum()
    loss = loss + 0.4 * torch.logsumexp(centred_EO, dim=1).mean()
    loss = loss - 0.4 * (1 - 2 / 5) * torch.special.entr(p_EO).sum(dim=1).mean()
    expected = torch.autograd.grad(loss, parameters)
    found = []
    architecture.optimiser.step = lambda: found.extend(p.grad.clone() for p in parameters)
    task.architecture_step(batch, None)
    for value, target in zip(found, expected, strict=True):
        torch.testing.assert_close(value, target, rtol=1e-8, atol=1e-12)


def test_what_changes_from_epoch_to_epoch(make_task):
    task = make_task(
        *("search.epochs=7", "search.warmup_epochs=2", "search.embedding_warmup_epochs=2", "search.temperature=4"),
        *("search.temperature_end=2", "search.beta_weight=8", "embedding.learning_rate=0.01"),
    )
    seen = []
    for epoch in range(7):
        task.start_epoch(epoch)
        architecture = task.architecture
        rates = {group["lr"] for group in architecture.optimiser.param_groups}
        seen.append((*rates, task.mixture.temperature, architecture.beta_weight))
    assert seen == [
        *[(0.005, 4, 0)] * 3,
        *[(0.01, 3.5, 2), (0.01, 3, 4), (0.01, 2.5, 6), (0.01, 2, 8)],
    ]
    single = make_task("search.epochs=3", "search.warmup_epochs=2", "search.temperature_end=0.5")
    single.start_epoch(2)
    assert single.mixture.temperature == 0.5


def test_by_default_nothing_is_added(make_task):
    task = make_task()
    task.start_epoch(1)
    assert task.mixture is None
    assert task.early_stop is None
    assert task.architecture.edge_weights is None
    assert task.architecture.beta_weight == 0
    assert set(task.state_dict()) == {"supernet", "weight_optimiser", "embedding", "embedding_optimiser"}
    for one, other in zip(task.architecture.mixing(), task.architecture.embedding(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["nge", "direct", "plain", "rnn"])
def test_both_forms_find_the_same(kind, dense_search, tmp_path):
    """In float64; each embedding with all that it shares with the others."""
    more = {
        "nge": (*DIRICHLET, "embedding.edges=split", "embedding.jumping=true"),
        "direct": (*DIRICHLET, "search.loop=batchwise", "search.beta_weight=2"),
        "plain": ("search.temperature_end=0.3", "search.edge_normalisation=true", "embedding.edges=split"),
        "rnn": (*DIRICHLET, "search.order=second", "embedding.edges=split", "embedding.jumping=true"),
    }
    found = []
    for form in ("reference", "fused"):
        words = [*dense_search, f"supernet.kernel={form}", "precision=fp64", f"embedding.kind={kind}"]
        words += ["embedding.learning_rate=0.01", "search.beta_weight=1", *more[kind], f"run.dir={tmp_path / form}"]
        nge_search.search(None, *words)
        found.append(rows_of(tmp_path / form))
    for one, other in zip(*found, strict=True):
        for p_O, other_O in zip(one["p_cell"], other["p_cell"]):
            assert p_O == pytest.approx(other_O, abs=1e-9)
        assert one["edge_weights_cell"] == pytest.approx(other["edge_weights_cell"], abs=1e-9)
    start, end = found[0][0], found[0][-1]
    assert start["p_cell"] != end["p_cell"]
    assert len(set(end["edge_weights_cell"])) == 6  # all six have learned


def test_in_darts_space_both_forms_find_the_same_and_weights_of_edges_decide_which_are_kept(tiny_search, tmp_path):
    found = []
    for form in ("reference", "fused"):
        words = [*tiny_search, *DIRICHLET, f"supernet.kernel={form}", "precision=fp64", "data.limit=40"]
        words += ["embedding.edges=split", "embedding.learning_rate=0.01", "supernet.channels=4"]
        words.append(f"run.dir={tmp_path / form}")
        nge_search.search(None, *words)
        found.append(rows_of(tmp_path / form)[-1])
    for name in ("p_normal", "p_reduce", "edge_weights_normal", "edge_weights_reduce"):
        one, other = (torch.tensor(row[name]) for row in found)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)  # digits: maxima meet ties
    row = found[0]
    for kind in ("normal", "reduce"):
        genes = [tuple(gene) for gene in row["genotype"][kind]]
        for node, own in ((2, range(2)), (3, range(2, 5))):
            strength = {e: max(row[f"p_{kind}"][e]) * row[f"edge_weights_{kind}"][e] for e in own}
            best = sorted(sorted(own, key=lambda e: -strength[e])[:2])
            names = [row["operations"][row[f"p_{kind}"][e].index(max(row[f"p_{kind}"][e]))] for e in best]
            sources = [row["edges"][e][0] for e in best]
            assert genes[2 * (node - 2) : 2 * (node - 1)] == list(zip(names, sources))


def test_strengths_are_p_times_the_weights_of_edges(make_task):
    task = make_task("search.edge_normalisation=true")
    with torch.no_grad():
        task.architecture.edge_weights.edges_cell.copy_(torch.arange(6.0))
    (p_EO,), (own_E,), (found_EO,) = (
        task.architecture.probabilities(),
        task.architecture.edge_weights(),
        task.architecture.strengths(),
    )
    torch.testing.assert_close(found_EO, p_EO * own_E.detach()[:, None])
    assert float(own_E.detach()[2] / own_E.detach()[1]) == pytest.approx(math.e)


STOPPING = (
    *("search.epochs=9", "search.cost_weight=400", "embedding.kind=direct", "embedding.learning_rate=1e-4"),
    *("search.stop_count=5", "search.stop_operations=[skip_connect,none,avg_pool_3x3]", "search.evaluate_every=0"),
    "search.warmup_epochs=1",
)


def free(genotype):
    """How many operations of a cell in NAS-Bench-201's notation have no weights."""
    return sum(genotype["architecture"].count(name) for name in ("skip_connect", "none", "avg_pool_3x3"))


@pytest.fixture(scope="module")
def stopped(dense_search, tmp_path_factory):
    """The folder of a search for cheap cells, which comes to its limit."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    nge_search.search(None, *dense_search, *STOPPING, f"run.dir={run}")
    return run


def test_a_search_stops_when_its_cell_loses_its_weights(stopped, dense_search, capsys):
    """It keeps the cell before, says so, and evaluates its last epoch."""
    summary, rows = json.loads((stopped / "summary.json").read_text()), rows_of(stopped)
    counts = [free(row["genotype"]) for row in rows]
    last = len(rows)
    assert 2 < last < 9
    assert summary["epochs"] == last
    assert counts[-1] == 5
    assert max(counts[1:-1]) < 5
    assert summary["genotype"] == rows[-2]["genotype"] != rows[-1]["genotype"]
    assert [row for row in rows if "valid_top1" in row] == rows[-1:]
    assert summary["stopped"] == rows[-1]["stopped"]
    assert f"stopped after epoch {last} of 9: 5 of the derived cell's operations are" in summary["stopped"]
    assert summary["stopped"].endswith("; with search.stop_count=0 a run in another run.dir searches to the end")
    assert json.loads((stopped / "genotype.json").read_text()) == summary["genotype"]
    assert (
        main(["search", *dense_search, *STOPPING, f"run.dir={stopped}"]) == 0
    )  # has finished: prints what it found
    assert summary["stopped"] in capsys.readouterr().out
    assert "stopped after epoch" in (stopped / "report.html").read_text()


@pytest.mark.parametrize("when", ["evaluation_step", "found_in"])
def test_a_stopped_search_that_was_interrupted_ends_the_same(when, stopped, dense_search, tmp_path, monkeypatch):
    """In the last epoch's evaluation, which an early stop alone asks for; and after its last checkpoint."""
    whole, step = json.loads((stopped / "summary.json").read_text()), getattr(BilevelSearch, when)
    cut = [*dense_search, *STOPPING, f"run.dir={tmp_path / 'cut'}"]

    def stop(self, *given):
        if when == "found_in":
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(BilevelSearch, when, stop)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            run_search(load_config(SearchConfig, None, cut))
    again = nge_search.search(None, *cut)
    for name in ("genotype", "stopped", "epochs", "valid_top1"):
        assert again[name] == whole[name]
    assert rows_of(tmp_path / "cut")[-1]["p_cell"] == rows_of(stopped)[-1]["p_cell"]


def test_a_p_that_has_hardly_moved_is_said():
    """By the kind of cell that is settled least."""
    space = DartsSpace().cell_space
    most = math.log(len(space.operations))
    row = {"entropy_normal": 0.9 * most, "entropy_reduce": 0.999 * most}
    said = f"P of the reduce cell is close to uniform still (entropy {0.999 * most:.3f} of {most:.3f} nats)"
    assert undecided(row, space).startswith(said)
    assert not undecided({**row, "entropy_reduce": math.nan, "entropy_normal": math.nan}, space)
    assert not undecided({**row, "entropy_reduce": 0.99 * most}, space)


def test_a_search_does_not_stop_before_it_has_something_to_keep():
    """A P that has hardly moved derives any number of the operations that are counted."""
    space = DartsSpace()
    settings = SearchSection(stop_count=5, stop_operations=["skip_connect"], epochs=9)
    names = space.cell_space.operations
    many, few = (
        [torch.nn.functional.one_hot(torch.full((14,), names.index(name)), len(names)).double()] * 2
        for name in ("skip_connect", "sep_conv_3x3")
    )
    stop = EarlyStop(settings, space)
    for epoch, (matrices, ends) in enumerate(((many, 0), (many, 0), (few, 0), (many, 4))):
        assert stop.met(matrices) is bool(ends)
        stop.end_epoch(epoch, matrices, {"epoch": epoch})
        assert stop.epochs == ends
    assert (stop.kept, stop.count) == ({"epoch": 2}, 8)
    assert "stopped after epoch 4 of 9: 8 of the derived normal cell's operations are skip_connect" in stop.text()
