"""The predictors of this project: sums of what other modules compute, sure to the right degree, and never lost."""

from __future__ import annotations

import dataclasses
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from nge_search.architecture.graph import Graph
from nge_search.metrics.ranking import kendall_tau
from nge_search.predict import own
from nge_search.predict.analytic import GROUPS, NAMES, features
from nge_search.predict.own import DEFAULTS, Ensemble, FlowNetworks, OwnSettings, Processes
from nge_search.predict.predictors import open_predictor
from nge_search.predict.process import GaussianProcess, mixture, sampled
from nge_search.predict.targets import Target
from nge_search.spaces import SPACES, Space

QUICK = dataclasses.replace(
    DEFAULTS, samples=2, members=2, width=8, training=dataclasses.replace(DEFAULTS.training, epochs=3)
)
MODELS = (Processes, FlowNetworks, Ensemble)


def some(space: Space, count: int, seed: int = 0) -> tuple[list[dict[str, Graph]], torch.Tensor]:
    """Architectures, and labels that their paths decide, with noise of 0.1 % in the error."""
    random = np.random.default_rng(seed)
    cells = [space.graphs(space.random(random)) for _ in range(count)]
    kinds = [features([own[kind] for own in cells]) for kind in cells[0]]
    deep_N = sum(x_NF[:, NAMES.index("flow_convolutions")] for x_NF in kinds)
    many_N = sum(x_NF[:, NAMES.index("log_paths")] for x_NF in kinds)
    error_N = np.exp(2.5 - deep_N / len(kinds) / 2 - many_N / len(kinds) / 4 + 0.1 * random.standard_normal(count))
    return cells, torch.from_numpy(95 - error_N.clip(max=90))


@pytest.fixture(scope="module")
def space() -> Space:
    return SPACES["nasbench201"]()


@pytest.mark.parametrize(
    "settings",
    [QUICK, dataclasses.replace(QUICK, samples=0, subtrees=False, target="label", weighted=False)],
)
def test_processes_are_the_plain_ones(space: Space, settings: OwnSettings) -> None:
    """A mean, point by point, of processes that are fitted to the same columns by hand."""
    cells, label_N = some(space, 50)
    predictor = Processes(space, settings)
    predictor.fit(cells[:30], label_N[:30], 0)
    mean_M, deviation_M = predictor.posterior(cells[30:])
    x_NF, groupings = predictor.columns(cells), predictor.groupings()
    y_N = predictor.target(label_N[:30])
    if settings.samples:
        drawn = [(groups, sampled(x_NF[:30], y_N, groups, 2, 0)) for groups in groupings]
    else:
        drawn = [(groups, [GaussianProcess(x_NF[:30], y_N, groups).at]) for groups in groupings]
    plain = [GaussianProcess(x_NF[:30], y_N, groups, at) for groups, own in drawn for at in own]
    found = [process.predict(x_NF[30:]) for process in plain]
    per = max(settings.samples, 1)
    assert len(found) == 3 * per
    left = [process.left_out(y_N) for process in plain]
    weights = [1 / len(found)] * len(found)
    if settings.weighted:
        means = [sum(mean_N for mean_N, _ in left[k : k + per]) / per for k in range(0, len(left), per)]
        explained = [1 - sum((float(y) - float(m)) ** 2 for y, m in zip(y_N, mean_N)) / 30 for mean_N in means]
        assert min(explained) > 0.1
        assert max(explained) - min(explained) > 1e-3
        squares = [share**2 for share in explained]
        weights = [square / sum(squares) / per for square in squares for _ in range(per)]
    for m in range(20):
        means, squares = [float(mean[m]) for mean, _ in found], [float(deviation[m]) ** 2 for _, deviation in found]
        mean = sum(w * one for w, one in zip(weights, means))
        variance = sum(w * (square + (one - mean) ** 2) for w, one, square in zip(weights, means, squares))
        assert abs(float(mean_M[m]) - mean) < 1e-10
        assert abs(float(deviation_M[m]) - predictor.widening * math.sqrt(variance)) < 1e-8
    mean_N, deviation_N = mixture(left, weights)
    expected = math.sqrt(sum(float((y - m) / s) ** 2 for y, m, s in zip(y_N, mean_N, deviation_N)) / 30)
    assert abs(predictor.widening - min(max(expected, 1), 2)) < 1e-10
    normal = [NormalDist().inv_cdf(0.5 + (k + 0.5) / 60) for k in range(30)]
    off = [abs(float((y - m) / s)) / predictor.widening for y, m, s in zip(y_N, mean_N, deviation_N)] + normal
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    within, most = np.quantile(off, 0.5), np.quantile(off, 0.9)
    away_L = predictor.deviations(torch.tensor(levels, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(away_L, [-most, -within, 0, within, most], rtol=1e-9)
    assert abs(within - NormalDist().inv_cdf(0.75)) > 0.01
    target_ML = predictor.target(predictor.quantiles(cells[30:], levels)).numpy()
    np.testing.assert_allclose(
        target_ML, mean_M.numpy()[:, None] + deviation_M.numpy()[:, None] * away_L, rtol=1e-6
    )


@pytest.mark.parametrize("case", ["best lie close", "worst lie close"])
def test_the_target_is_the_likeliest(space: Space, case: str) -> None:
    """By densities of labels, whose integral is 1: that of targets times their numerical slope."""
    cells, label_N = some(space, 40)
    if case == "worst lie close":
        label_N = 100 - label_N
    predictor = Processes(space, QUICK)
    predictor.fit(cells, label_N, 0)
    x_NF, groups, step, densities = predictor.columns(cells), predictor.groupings()[0], 1e-5, []
    wide = 2 + float(label_N.std(correction=0))
    for kind, offset in (("log_error", 2.0), ("log_error", wide), ("label", 0.0)):
        target = Target.of(label_N, kind, offset)
        slope_N = (target(label_N + step) - target(label_N - step)) / (2 * step)
        process = GaussianProcess(x_NF, target(label_N), groups)
        densities.append((process.log_likelihood + float(slope_N.log().sum()), target))
    densities.sort(key=lambda pair: pair[0])
    assert densities[-1][0] > densities[-2][0] + 1e-3
    assert predictor._target == densities[-1][1]
    assert predictor._target.kind == {"best lie close": "log_error", "worst lie close": "label"}[case]


def test_settings_leave_parts_out(space: Space) -> None:
    cells, label_N = some(space, 20)

    def groups(**changes: bool) -> list[list[str]]:
        predictor = Processes(space, dataclasses.replace(QUICK, **changes))
        predictor.fit(cells, label_N, 0)
        columns = predictor.columns
        name_of = {tuple(own): name for name, own in columns.words.items()}
        for scale, groups in (("quantiles", columns.quantiles), ("standard", columns.standard)):
            name_of |= {tuple(own): scale for own in groups.values()}
            name_of[tuple(column for own in groups.values() for column in own)] = f"all {scale}"
        return [[name_of[tuple(own)] for own in part] for part in predictor.groupings()]

    bags = ["subtrees", "places"]
    number = len(GROUPS)
    assert groups(grouped=False) == [["all quantiles", *bags]]
    assert groups(features=False) == [bags, ["subtrees"]]
    assert groups(features=False, places=False) == [["subtrees"]]
    by_group = [["quantiles"] * number, ["standard"] * number]
    assert groups(subtrees=False) == [["all quantiles", "places"], *by_group]
    assert groups() == [["all quantiles", *bags], by_group[0], [*by_group[1], "subtrees"]]
    bare = FlowNetworks(space, dataclasses.replace(QUICK, features=False))
    bare.fit(cells, label_N, 0)
    with_features = FlowNetworks(space, QUICK)
    with_features.fit(cells, label_N, 0)
    widths = [
        net._members.parameters["heads.0.0.weight"].shape[-1] for net in (bare, with_features) if net._members
    ]
    assert widths[0] == 8
    assert widths[1] == 8 + len(with_features.columns.scales.kept)


def test_ensemble_is_the_mean_of_both(space: Space) -> None:
    cells, label_N = some(space, 40)
    both, processes, networks = (model(space, QUICK) for model in (Ensemble, Processes, FlowNetworks))
    for predictor in (both, processes, networks):
        predictor.fit(cells[:25], label_N[:25], 3)
    mean_N, asked = processes.scores(cells[:25]).tolist(), cells[25:]
    centre = sum(mean_N) / 25
    spread = math.sqrt(sum((mean - centre) ** 2 for mean in mean_N) / 25)
    mean_M, deviation_M = both.posterior(asked)
    for m, score in enumerate(networks.scores(asked).tolist()):
        sure, unsure = float(processes.posterior(asked)[0][m]), float(processes.posterior(asked)[1][m])
        second = centre + spread * score
        assert abs(float(mean_M[m]) - (sure + second) / 2) < 1e-9
        assert abs(float(deviation_M[m]) - math.sqrt(unsure**2 + (sure - second) ** 2 / 4)) < 1e-9


def test_networks_are_standardised_one_by_one(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, label_N = some(space, 20)
    predictor = FlowNetworks(space, QUICK)
    predictor.fit(cells, label_N, 0)
    raw = own.scores(predictor._members, predictor._inputs(cells, predictor.columns(cells)[:, predictor.heard]))[
        :, -1
    ].double()
    expected = torch.stack([(one - one.mean()) / one.std(unbiased=False) for one in raw]).mean(dim=0)
    torch.testing.assert_close(predictor.scores(cells), expected)


@pytest.mark.parametrize("name", ["nasbench101", "darts", "enas_macro"])
def test_learns_to_rank_on_every_space(name: str) -> None:
    """Also what has not been seen; in the order of a distance between labels that the noise does not reach."""
    other = SPACES[name]()
    cells, label_N = some(other, 60)
    predictor = Ensemble(other, QUICK)
    predictor.fit(cells[:30], label_N[:30], 0)
    assert kendall_tau(predictor.scores(cells[30:]).numpy(), label_N[30:].numpy()) > 0.5


@pytest.mark.parametrize("model", [Processes, Ensemble])
def test_sure_to_the_right_degree(space: Space, model: type[Processes] | type[Ensemble]) -> None:
    """Labels with normal noise in the logarithm of their errors: intervals hold as many as they should."""
    cells, label_N = some(space, 560)
    training = dataclasses.replace(QUICK.training, epochs=60)
    predictor = model(space, dataclasses.replace(QUICK, training=training))
    predictor.fit(cells[:60], label_N[:60], 0)
    levels = (0.05, 0.25, 0.75, 0.95)
    least, low, high, most = predictor.quantiles(cells[60:], levels).T
    assert (least < low).all()
    assert (high < most).all()
    asked_M = label_N[60:]
    assert 0.4 < float(((low <= asked_M) & (asked_M <= high)).double().mean()) < 0.7
    assert 0.85 < float(((least <= asked_M) & (asked_M <= most)).double().mean()) < 0.98


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", ["two", "equal labels", "one twice", "all the same", "dead"])
def test_little_to_learn_from(space: Space, model, case: str) -> None:
    cells, label_N = some(space, 12)
    known = {
        "two": cells[:2],
        "equal labels": cells,
        "one twice": [cells[0], cells[0], *cells[1:4]],
        "all the same": cells[:1] * 5,
        "dead": [space.graphs((0,) * 6), space.graphs((0,) * 6)],
    }[case]
    label_N = torch.full((12,), 90.0).double() if case == "equal labels" else label_N[: len(known)]
    predictor = model(space, QUICK)
    predictor.fit(known, label_N, 0)
    asked, _ = some(space, 30, seed=1)
    asked.append(space.graphs((0,) * 6))
    score_M = predictor.scores(asked)
    assert score_M.dtype == torch.float64
    assert score_M.isfinite().all()
    assert predictor.scores([]).shape == (0,)
    if model is not FlowNetworks:
        assert predictor.posterior(asked)[1].min() > 0
        assert predictor.quantiles(asked, [0.05, 0.95]).isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_written_down_and_read(space: Space, model) -> None:
    """Bit for bit, with a document that survives JSON; and the seed alone decides what is learnt."""
    cells, label_N = some(space, 45)
    first, again, read = (model(space, QUICK) for _ in range(3))
    for predictor in (first, again):
        predictor.fit(cells[:25], label_N[:25], 7)
    tensors, document = first.state()
    read.load_state({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(document)))
    assert torch.equal(first.scores(cells), again.scores(cells))
    assert torch.equal(first.scores(cells), read.scores(cells))
    if model is not FlowNetworks:
        assert torch.equal(first.quantiles(cells, [0.1, 0.9]), read.quantiles(cells, [0.1, 0.9]))


def test_a_weight_for_each_process(space: Space) -> None:
    cells, label_N = some(space, 20)
    predictor = Processes(space, QUICK)
    predictor.fit(cells, label_N, 0)
    tensors, document = predictor.state()
    with pytest.raises(ValueError, match="2 weights of 3 processes"):
        Processes(space, QUICK).load_state(tensors, {**document, "weights": document["weights"][:2]})


def test_isomorphic_cells_score_the_same() -> None:
    other = SPACES["nasbench101"]()
    cells, label_N = some(other, 30)
    predictor = Processes(other, QUICK)
    predictor.fit(cells[:20], label_N[:20], 0)
    moved = [{"cell": own["cell"].renumbered(range(len(own["cell"].nodes))[::-1])} for own in cells]
    assert torch.equal(predictor.scores(moved), predictor.scores(cells))


def test_names() -> None:
    found = [open_predictor(name, SPACES["nasbench201"]()) for name in ("analytic_gp", "flow", "ensemble")]
    assert [type(predictor) for predictor in found] == list(MODELS)
