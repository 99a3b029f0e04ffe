"""How the shipped predictor is made: against scikit-learn, loops and counting; from real trainings, if there."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.linear_model import Ridge as SklearnRidge

from nge_search.predict import shipping
from nge_search.predict.shipped import FILE, LEVELS, Shipped
from nge_search.predict.splits import Split, folds
from nge_search.spaces import DartsSpace
from nge_search.tables import Table
from nge_search.tables.table import build_table

ROOT = Path(__file__).parents[2]
TRAININGS = ROOT.parent / "shared" / "data" / "darts_space" / "darts_214_genotype_acc.json"


def problem(count: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features, of which one is constant, and labels that are linear in them but for noise."""
    random = np.random.default_rng(seed)
    x_NF = random.normal(size=(count, 6)) * 3 + 1
    x_NF[:, 2] = 4
    return x_NF, x_NF @ random.normal(size=6) + noise * random.normal(size=count)


def made_table(count: int) -> Table:
    space, random = DartsSpace(), np.random.default_rng(1)
    rows = [(space.random(random), {shipping.LABEL: 96 + random.random()}) for _ in range(count)]
    return build_table(space, rows, "a made table", "cell")


def test_the_ridge_is_that_of_scikit_learn() -> None:
    x_NF, label_N = problem(30)
    own = shipping.fit_ridge(x_NF, label_N, penalty=7.0)
    deviation_F = np.where(x_NF.std(axis=0) > 0, x_NF.std(axis=0), 1)
    z_NF = (x_NF - x_NF.mean(axis=0)) / deviation_F
    theirs = SklearnRidge(alpha=7.0).fit(z_NF, label_N)
    np.testing.assert_allclose(own.weight_F, theirs.coef_, atol=1e-10)
    np.testing.assert_allclose(own(x_NF), theirs.predict(z_NF), atol=1e-10)
    np.testing.assert_allclose(own.distance(x_NF) ** 2 * 6, (z_NF**2).sum(axis=1), atol=1e-10)
    assert own.distance(x_NF).mean() < 1.1


def test_no_score_has_seen_its_own_label() -> None:
    x_NF, label_N = problem(40)
    splits = folds(40, 10, seed=0)
    score_N = shipping.left_out(x_NF, label_N, splits)
    assert np.isfinite(score_N).all()
    for split in splits[:3]:
        other_N = label_N.copy()
        other_N[split.test] = -50
        np.testing.assert_array_equal(shipping.left_out(x_NF, other_N, splits)[split.test], score_N[split.test])


def test_tau_and_its_jackknife() -> None:
    """By the textbook's formula, with a single part that is left out."""
    random = np.random.default_rng(0)
    label_N = random.normal(size=15)
    score_N = label_N + random.normal(size=15)
    split = Split(np.arange(0), np.arange(15))
    tau, low, high = shipping.tau_interval(score_N[None], label_N, [[split]])
    assert tau == pytest.approx(kendalltau(score_N, label_N).statistic)
    rest = [kendalltau(np.delete(score_N, i), np.delete(label_N, i)).statistic for i in range(15)]
    error = np.sqrt(14 / 15 * np.sum((rest - np.mean(rest)) ** 2))
    assert (high - low) / 2 == pytest.approx(1.6449 * error, rel=1e-4)
    assert (high + low) / 2 == pytest.approx(tau)
    splits_S = [folds(30, 3, seed) for seed in range(2)]
    perfect = np.arange(30.0)
    assert shipping.tau_interval(np.stack([perfect, perfect]), perfect, splits_S) == pytest.approx((1, 1, 1))
    assert shipping.fold_tau(-perfect, perfect, splits_S[0]) == pytest.approx(-1)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_hold_what_they_promise_and_no_more(level: int) -> None:
    """A new value falls into each of the gaps between R others with the same probability."""
    for count in (39, 100, 215):
        residual_R = np.random.default_rng(count).permutation(count).astype(float)
        low, high = shipping.between(residual_R, level)
        assert low == count - 1 - high
        gaps = high - low  # between the two, of count + 1 in all
        assert 100 * gaps / (count + 1) >= level > 100 * (gaps - 2) / (count + 1)
    with pytest.raises(ValueError, match="3 residuals are too few"):
        shipping.between(np.arange(3.0), 90)


def test_coverage_is_that_of_cells_that_made_no_part_of_the_interval() -> None:
    """Right where noise is noise; and far off for labels that nothing alike was among."""
    found = shipping.coverage(*problem(100), seeds=[0])
    assert 38 < found[50] < 62
    assert 80 < found[90] < 98
    x_NF, label_N = problem(100, noise=0.1)
    label_N[:10] += 1000
    assert shipping.coverage(x_NF, label_N, seeds=[0])[50] < found[50] + 15


def test_a_predictor_is_made_the_same_again_and_read_as_it_was_written() -> None:
    table = made_table(60)
    text = shipping.ship(table).text()
    assert text == shipping.ship(table).text() == Shipped.read(text).text()
    own, label_N = Shipped.read(text), table.column(shipping.LABEL)
    assert own.trainings == 60
    assert own.worst <= label_N.min() < label_N.max() <= own.best
    x_NF = shipping.table_features(table)
    np.testing.assert_allclose(own.ridge(x_NF), shipping.fit_ridge(x_NF, label_N)(x_NF), atol=1e-3)
    assert own.ridge.distance(x_NF).max() == pytest.approx(own.farthest, rel=1e-4)
    assert own.tau[1] < own.tau[0] < own.tau[2] < 0.5  # labels are noise


def test_what_ships_is_made_of_the_real_trainings(tmp_path: Path) -> None:
    """By the stated command, to the byte; none of their labels is in it."""
    if not TRAININGS.is_file():
        pytest.skip("the trainings of 214 DARTS cells are not at hand (darts_space/darts_214_genotype_acc.json)")
    main = runpy.run_path(str(ROOT / "experiments" / "ship_darts_predictor.py"))["main"]
    main([str(TRAININGS), "--out", str(tmp_path / FILE)])
    text = (tmp_path / FILE).read_text("utf-8")
    assert text == (ROOT / "nge_search" / "predict" / FILE).read_text("utf-8")
    labels = {entry["final_test_acc"] for entry in json.loads(TRAININGS.read_text())}
    numbers = set()
    json.loads(text, parse_float=lambda digits: numbers.add(float(digits)))
    assert len(labels) > 50
    assert not labels & numbers
