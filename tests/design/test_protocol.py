"""The two protocols on a small table whose accuracies follow a rule."""

from __future__ import annotations

import numpy as np
import pytest

from nge_search.design.darts import DartsRules
from nge_search.design.link_model import TrainingSettings
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.nasbench201 import NasBench201Rules
from nge_search.design.protocol import (
    DesignSettings,
    Oracles,
    build_generator,
    honest,
    paired,
    random_cells,
    train_links,
)
from nge_search.design.samples import choose_cells
from nge_search.errors import UserError
from nge_search.tables import Benchmark

RULES = NasBench101Rules(4)
FAST = DesignSettings(best=10, members=2, training=TrainingSettings(epochs=40, learning_rate=5e-3))


def of_method(method: str) -> DesignSettings:
    return DesignSettings(method, best=10, members=2, training=FAST.training)


def test_links_that_teach_draw_better_cells(small_benchmark: Benchmark) -> None:
    oracles = Oracles(RULES, small_benchmark, FAST)
    links, uniform = oracles.run(100, 20), oracles.run(100, 20, of_method("uniform"))
    assert links.mean > uniform.mean + 2
    assert links == oracles.run(100, 20)
    assert links != oracles.run(101, 20)


@pytest.mark.parametrize("method", ["uniform", "frequencies"])
def test_figures_of_the_oracle(small_benchmark: Benchmark, method: str) -> None:
    settings = of_method(method)
    oracles = Oracles(RULES, small_benchmark, settings)
    found = oracles.run(100, 15)
    training = {RULES.key(code) for code in (*oracles.good, *oracles.bad)}
    assert len(training) == 20
    score_N = np.sort(small_benchmark.table.column("cifar10_test_4"))
    assert min(map(small_benchmark.score, oracles.good)) == score_N[-10]
    assert max(map(small_benchmark.score, oracles.bad)) == score_N[9]
    generator = build_generator(RULES, oracles.good, oracles.bad, settings, 100)
    drawn = generator.draw(found.draws)
    scores, novel = (
        [small_benchmark.score(code) for code in drawn],
        [RULES.key(code) not in training for code in drawn],
    )
    assert found.mean == pytest.approx(np.mean(scores[:30]))
    assert found.mean_new == pytest.approx(np.mean([score for score, new in zip(scores, novel) if new][:30]))
    assert sum(novel) == 30
    assert novel[-1] or found.draws == 30
    assert found.novel == sum(novel[:30]) / 30
    assert found.valid == 1
    assert found.best == max(scores[:30])
    assert found.best_new == max(score for score, new in zip(scores[:30], novel) if new)
    by_signal = max(drawn[:30], key=lambda code: small_benchmark(code).value)
    assert found.best_by_signal == small_benchmark.score(by_signal)
    assert found.unique == len({RULES.key(code) for code in drawn[:30]}) / 30
    assert found.queries == 20 + len({RULES.key(code) for code in drawn[:30]} - training)


def test_honest_protocol(small_benchmark: Benchmark) -> None:
    settings = of_method("frequencies")
    found = honest(RULES, small_benchmark, settings, 100, queried=40, drawn=15)
    known = random_cells(RULES, 40, 100)
    assert known == random_cells(RULES, 55, 100)[:40]
    assert len({RULES.key(code) for code in known}) == 40
    assert found.mean_queried == pytest.approx(np.mean([small_benchmark.score(code) for code in known]))
    assert found.queries == 55
    assert found.draws >= 15
    random = max(random_cells(RULES, 55, 100), key=lambda code: small_benchmark(code).value)
    assert found.best_random == small_benchmark.score(random)


def test_new_cells_are_different_and_were_not_queried(small_benchmark: Benchmark) -> None:
    settings = of_method("uniform")
    found = honest(RULES, small_benchmark, settings, 100, queried=60, drawn=10)
    known = random_cells(RULES, 60, 100)
    signals = np.array([small_benchmark(code).value for code in known])
    good, bad = choose_cells(RULES, known, signals, settings.best)
    codes, keys = [], {RULES.key(code) for code in known}
    for code in build_generator(RULES, good, bad, settings, 100).draw(found.draws):
        if RULES.key(code) not in keys:
            keys.add(RULES.key(code))
            codes.append(code)
    assert len(codes) == 10
    assert found.mean_new == pytest.approx(np.mean([small_benchmark.score(code) for code in codes]))
    best = max([*known, *codes], key=lambda code: small_benchmark(code).value)
    assert found.best == small_benchmark.score(best)


def test_genotypes_after_cells_of_nasbench101(small_benchmark: Benchmark) -> None:
    oracles = Oracles(RULES, small_benchmark, FAST)
    into = DartsRules()
    for method in ("links", "frequencies"):
        (code,) = build_generator(RULES, oracles.good, oracles.bad, of_method(method), 100, into).draw(1)
        assert into.space.genotype(code).normal.nodes == 4
    with pytest.raises(UserError, match="cannot draw cells of nasbench201"):
        build_generator(RULES, oracles.good, oracles.bad, FAST, 100, NasBench201Rules())


def test_models_differ_and_report_their_training(small_benchmark: Benchmark) -> None:
    oracles = Oracles(RULES, small_benchmark, FAST)
    model, progress = train_links(RULES, oracles.good, oracles.bad, FAST, 100)
    assert len(progress) == FAST.training.epochs
    assert progress[-1].loss < progress[0].loss
    assert not (model.score_weight_MH[0] == model.score_weight_MH[1]).any()


def test_paired_differences() -> None:
    mean, error = paired([3.0, 5.0, 7.0], [1.0, 2.0, 6.0])
    assert mean == 2
    assert error == pytest.approx(1 / 3**0.5)


def test_what_cannot_be_run(small_benchmark: Benchmark) -> None:
    with pytest.raises(UserError, match="too few for the 500 best"):
        Oracles(RULES, small_benchmark, DesignSettings(best=500))
    with pytest.raises(UserError, match="not 'guess'"):
        Oracles(RULES, small_benchmark, of_method("guess")).run(100)
    with pytest.raises(UserError, match="hardly 5"):
        random_cells(NasBench101Rules(2), 5, 0)
