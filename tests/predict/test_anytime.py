"""Accuracies half-way and at the end: which network learns from which label, and the figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nge_search.errors import UserError
from nge_search.predict.anytime import MODELS, AnytimePredictor, anytime_figures
from nge_search.predict.network_options import NetworkOptions
from nge_search.spaces import SPACES


def problem(space: str, count: int = 24) -> tuple[list[dict], Tensor]:
    """Architectures whose accuracies rise with the number of 3x3 operations half-way, and fall at the end."""
    own, random = SPACES[space](), np.random.default_rng(3)
    cells = [own.graphs(own.random(random)) for _ in range(count)]
    spatial_N = torch.tensor([sum("3x3" in name for name in names(one)) for one in cells], dtype=torch.float64)
    return cells, torch.stack([20 + 9 * spatial_N, 90 - 9 * spatial_N]).clamp(0, 100)


def names(cells: dict) -> list[str]:
    return [label.name for cell in cells.values() for label in [*cell.nodes, *(edge.label for edge in cell.edges)]]


@pytest.mark.parametrize("model", MODELS)
def test_both_accuracies_are_learnt(model: str) -> None:
    cells, label_TN = problem("nasbench201")
    options = NetworkOptions(epochs=60, learning_rate=5e-3)
    found = []
    for _ in range(2):
        predictor = AnytimePredictor(SPACES["nasbench201"](), model, options)
        predictor.fit(cells, label_TN, 1)
        found.append(predictor.estimates(cells))
    assert found[0].shape == (2, 24)
    assert torch.equal(*found)
    assert ((found[0] >= 0) & (found[0] <= 100)).all()
    figures = anytime_figures(found[0].numpy(), label_TN.numpy())
    assert all(own["kendall_tau"] > 0.3 for own in figures.values())


@pytest.mark.parametrize("space", ["nasbench101", "darts", "enas_macro"])
def test_other_spaces(space: str) -> None:
    cells, label_TN = problem(space, 4)
    predictor = AnytimePredictor(SPACES[space](), "ta_gates", NetworkOptions(epochs=1, analytic=True))
    predictor.fit(cells, label_TN, 0)
    assert predictor.estimates(cells).isfinite().all()


def test_a_single_network_learns_from_its_own_label_alone() -> None:
    cells, label_TN = problem("nasbench201", 6)
    other_TN = torch.stack([label_TN[0], 100 - label_TN[1]])
    for model, keeps in (("single_gates", True), ("multi_gates", False), ("ta_gates", False)):
        found = []
        for labels in (label_TN, other_TN):
            predictor = AnytimePredictor(SPACES["nasbench201"](), model, NetworkOptions(epochs=2))
            predictor.fit(cells, labels, 0)
            found.append(predictor.estimates(cells))
        assert torch.equal(found[0][0], found[1][0]) == keeps
        assert not torch.equal(found[0][1], found[1][1])


def test_the_head_of_half_way_reads_the_first_step() -> None:
    """Its estimates do not change with what updates do; those of the end do."""
    cells, label_TN = problem("nasbench201", 6)
    predictor = AnytimePredictor(SPACES["nasbench201"](), "ta_gates", NetworkOptions(epochs=1))
    predictor.fit(cells, label_TN, 0)
    before_TN = predictor.estimates(cells)
    (members,) = predictor._trained
    for name, parameter in members.parameters.items():
        if ".update." in name:
            parameter.data.add_(1)
    half_N, final_N = (predictor.estimates(cells) == before_TN).unbind()
    assert half_N.all()
    assert not final_N.all()


def test_figures_by_hand() -> None:
    estimate_TM, label_TM = np.array([[10.0, 20, 30], [50, 60, 40]]), np.array([[20.0, 10, 30], [50, 60, 90]])
    figures = anytime_figures(estimate_TM, label_TM)
    assert figures["half"]["kendall_tau"] == pytest.approx(1 / 3)
    assert figures["half"]["pearson"] == pytest.approx(0.5)
    assert figures["half"]["mean_squared_error"] == pytest.approx(0.02 / 3)
    assert figures["final"]["kendall_tau"] == pytest.approx(-1 / 3)
    assert figures["final"]["mean_squared_error"] == pytest.approx(0.25 / 3)


def test_bad_input() -> None:
    space = SPACES["nasbench201"]()
    with pytest.raises(UserError, match="no anytime predictor 'multi_gate'; did you mean 'multi_gates'"):
        AnytimePredictor(space, "multi_gate")
    with pytest.raises(UserError, match="steps=1: TA-GATES has a step for each of 2"):
        AnytimePredictor(space, "ta_gates", NetworkOptions(steps=1))
    with pytest.raises(UserError, match="multi_lstm has no option readout"):
        AnytimePredictor(space, "multi_lstm", NetworkOptions(readout="mean"))
    cells, label_TN = problem("nasbench201", 3)
    for wrong in (label_TN[:1], label_TN - 91, label_TN * float("nan")):
        with pytest.raises(UserError, match="accuracies from 0 to 100, 2 for each"):
            AnytimePredictor(space, "ta_gates").fit(cells, wrong, 0)
