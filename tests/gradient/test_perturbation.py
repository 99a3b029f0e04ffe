"""Perturbation-based selection against its definition, in both kernels, and resumed."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.engine.session import open_session
from nge_search.gradient import perturbation
from nge_search.gradient.perturbation import Decision, Perturbation, decided, decisions, without
from nge_search.gradient.run import build_task
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig

DARTS = ("supernet.operations=[skip_connect,max_pool_3x3,sep_conv_3x3]", "precision=fp64")


@pytest.fixture
def make_task(tmp_path: Path, tiny_search, dense_search):
    """An untrained search whose P and statistics have been shaken."""
    numbers = itertools.count()
    with contextlib.ExitStack() as opened:

        def make(dense: bool, *own: str):
            base = [*dense_search, "precision=fp64", "embedding.kind=direct"] if dense else [*tiny_search, *DARTS]
            words = [*base, "device=cpu", "search.batch_size=32", f"run.dir={tmp_path / str(next(numbers))}", *own]
            task = build_task(opened.enter_context(open_session(load_config(SearchConfig, None, words))))
            generator = torch.Generator().manual_seed(5)
            for parameter in task.architecture.embedding.parameters():
                parameter.data += torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            for phase in task.phases[:1]:
                phase.start(0)
                for batches in itertools.islice(phase.batches(0, 0), 3):
                    phase.step(*batches)
            return task

        yield make


def by_definition(task) -> tuple[list[torch.Tensor], list[list[int]]]:
    """P at the end, and what each decision keeps: loops over edges, options and images, and nothing else."""
    space = task.space.cell_space
    p = [p_EO.clone() for p_EO in task.architecture.probabilities()]
    index = task.evaluation.index_M
    batch = next(iter(task.evaluation.iterate(0)))
    assert len(batch.labels_B) == len(index)  # all in one
    task.supernet.eval()

    @torch.no_grad()
    def accuracy(matrices) -> tuple[float, float]:
        logits_NK = task.supernet(batch.images_BCHW, *matrices)
        right = (logits_NK.argmax(dim=1) == batch.labels_B).double().mean()
        return float(right), -float(functional.cross_entropy(logits_NK, batch.labels_B))

    random, kept = np.random.default_rng(task.config.seed), []
    order = [(kind, edge) for kind in range(len(space.kinds)) for edge in range(len(space.edges))]
    for kind, edge in (order[at] for at in random.permutation(len(order))):
        left = []
        for operation in range(len(space.operations)):
            tried = [p_EO.clone() for p_EO in p]
            tried[kind][edge, operation] = 0
            left.append(accuracy(tried))
        kept.append([left.index(min(left))])
        p[kind][edge] = torch.eye(len(space.operations), dtype=torch.float64)[kept[-1][0]]
    if space.inputs == 1:
        return p, kept
    nodes = [(kind, node) for kind in range(len(space.kinds)) for node in range(3, space.vertices)]
    for kind, node in (nodes[at] for at in random.permutation(len(nodes))):
        left = []
        for source in range(node):
            tried = [p_EO.clone() for p_EO in p]
            tried[kind][space.edges.index((source, node))] = 0
            left.append(accuracy(tried))
        kept.append(sorted(sorted(range(node), key=lambda source: left[source])[:2]))
        for source in set(range(node)) - set(kept[-1]):
            p[kind][space.edges.index((source, node))] = 0
    return p, kept


def carry_out(task) -> Perturbation:
    """All decisions, without a loop around them."""
    found = Perturbation(task)
    for epoch in range(found.epochs):
        for phase in found.phases:
            if phase.steps(epoch):
                phase.start(epoch)
                batches = list(phase.batches(epoch, 0)) if phase.name == "train" else phase.batches(epoch, 0)
                for batch in batches:
                    phase.step(*batch)
        found.epoch_row(epoch)
        found.removals.reset()
    return found


@pytest.mark.parametrize("dense", [False, True])
def test_decisions_are_those_of_the_definition(make_task, torch_kernels: None, dense: bool) -> None:
    kernels = ("fused",) if dense else ("reference", "fused")
    for kernel in kernels:
        task = make_task(dense, f"supernet.kernel={kernel}", "search.mixture=sampled")
        matrices, kept = by_definition(task)
        found = carry_out(task)
        assert found.kept == kept
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.matrices, matrices))
        derived = task.space.derive(matrices)
        assert found.code() == task.space.code_of(derived)
    assert len({tuple(own) for own in found.kept}) > 1


def test_the_order_of_decisions() -> None:
    space = CellSpace()
    found = decisions(space, False, 3)
    assert found == decisions(space, False, 3)
    assert found != decisions(space, False, 4)
    assert sorted(found[:28]) == [Decision(kind, (edge,), 1) for kind in range(2) for edge in range(14)]
    assert sorted(found[28:]) == sorted(
        Decision(kind, tuple(space.incoming(node)), 2) for kind in range(2) for node in (3, 4, 5)
    )
    assert len(decisions(space, True, 3)) == 28


def test_what_is_taken_out_and_what_stays() -> None:
    p_EO, q_EO = torch.full((3, 2), 0.5), torch.full((3, 2), 0.25)
    edge, node = Decision(1, (2,), 1), Decision(0, (0, 1, 2), 2)
    assert without([p_EO, q_EO], edge, 1)[1].tolist() == [[0.25, 0.25], [0.25, 0.25], [0.25, 0]]
    assert without([p_EO, q_EO], node, 1)[0].tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    assert decided([p_EO, q_EO], edge, [0])[1].tolist() == [[0.25, 0.25], [0.25, 0.25], [1, 0]]
    assert decided([p_EO, q_EO], node, [0, 2])[0].tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    assert p_EO.eq(0.5).all()
    assert q_EO.eq(0.25).all()


def test_a_search_that_is_killed_within_it_goes_on(
    tmp_path: Path, tiny_search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps of the weights between decisions, which the later ones depend on."""

    def words(name: str, *also: str) -> list[str]:
        own = ("search.epochs=1", "search.selection=perturbation", "search.perturbation_steps=2", "device=cpu")
        two = "supernet.operations=[skip_connect,sep_conv_3x3]"
        return [*tiny_search, *DARTS, two, *own, *also, f"run.dir={tmp_path / name}"]

    whole = nge_search.search(None, *words("whole"))
    step, taken = Perturbation.removal_step, iter(range(1000))

    def killed(task: Perturbation, *rest: object) -> None:
        if next(taken) == 14:
            raise KeyboardInterrupt
        step(task, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Perturbation, "removal_step", killed)
        with pytest.raises(KeyboardInterrupt):
            nge_search.search(None, *words("cut", "run.checkpoint_seconds=0"))
    rows = (tmp_path / "cut" / "trials" / perturbation.NAME / "metrics.jsonl").read_text().splitlines()
    assert 0 < len(rows) < 12
    cut = nge_search.search(None, *words("cut"))
    assert cut["genotype"] == whole["genotype"]
    assert len(whole["selection"]["decisions"]) == 12
    assert cut["selection"]["decisions"] == whole["selection"]["decisions"]
    report = (tmp_path / "whole" / "report.html").read_text()
    assert "Validation top-1 of the supernet" in report
    last = json.loads(
        (tmp_path / "cut" / "trials" / perturbation.NAME / "metrics.jsonl").read_text().splitlines()[-1]
    )
    assert last["epoch"] == 11
