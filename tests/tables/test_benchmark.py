"""A table as an evaluator, and the score by which searches in it are judged."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.spaces import Evaluation, NasBench201Space
from nge_search.tables import Benchmark, Table
from nge_search.tables.table import build_table

SPACE = NasBench201Space()
CODE = (0, 2, 0, 0, 0, 1)


@pytest.fixture(scope="module")
def table() -> Table:
    """Of 64 architectures: value(code) - 1 and + 1 by two trainings of ten seconds, and a score of its square."""
    rows = (
        (
            code,
            {
                "made_valid_12": [sum(code) - 1.0, sum(code) + 1.0],
                "made_test_200": float(sum(code)) ** 2,
                "made_seconds_12": 10.0,
            },
        )
        for code in itertools.product(range(2), range(3), (0,), range(3), (0, 4), range(2))
    )
    return build_table(SPACE, rows, "a made table", "architecture")


def test_a_benchmark_evaluates_by_its_signal_and_judges_by_its_score(table: Table) -> None:
    benchmark = Benchmark(table, "made_valid_12", "made_test_200")
    assert benchmark(CODE) == Evaluation(3.0, 10.0)
    queries = benchmark.queries(3)
    assert [queries.ask(code) for code in (CODE, (0,) * 6, (1, 2, 0, 2, 4, 1))] == [3, 0, 10]
    assert benchmark.scores(queries).tolist() == [9, 9, 100]
    assert benchmark.score(CODE) == 9
    assert benchmark.best() == 100
    assert queries.seconds().tolist() == [10, 20, 30]


def test_rows_have_the_sizes_that_the_table_knows() -> None:
    figures = {(0,) * 6: {"made": 1.0, "params": 3.0}, CODE: {"made": 2.0, "macs": 5e6}}
    made = build_table(SPACE, figures.items(), "a made table", "architecture")
    benchmark = Benchmark(made, "made")
    assert [benchmark.row(code) for code in figures] == [{"params": 3.0}, {"macs": 5e6}]


def test_without_times_trainings_cost_nothing(table: Table) -> None:
    assert Benchmark(table, "made_test_200")(CODE) == Evaluation(9.0, 0.0)


def test_one_of_repeated_trainings_is_the_same_each_time_it_is_asked_for(table: Table) -> None:
    values = [Benchmark(table, "made_valid_12", repeats="one", seed=seed)(CODE).value for seed in range(40)]
    assert values == [Benchmark(table, "made_valid_12", repeats="one", seed=seed)(CODE).value for seed in range(40)]
    assert set(values) == {2.0, 4.0}


def test_what_a_benchmark_refuses(table: Table) -> None:
    with pytest.raises(UserError, match=r"no column 'made_valid_13'.*did you mean 'made_valid_12'"):
        Benchmark(table, "made_valid_13")
    benchmark = Benchmark(table, "made_valid_12")
    for budget in (0, 73):
        with pytest.raises(UserError, match=rf"a budget of {budget} queries: .* allows 1 to 72"):
            benchmark.queries(budget)
    with pytest.raises(UserError, match="the table of a made table does not hold"):
        benchmark((4,) * 6)


def test_a_table_with_gaps(table: Table) -> None:
    gap = {name: values.copy() for name, values in table.columns.items()}
    gap["made_test_200"][table.find(CODE)] = np.nan
    table = dataclasses.replace(table, columns=gap)
    for benchmark in (Benchmark(table, "made_test_200"), Benchmark(table, "made_valid_12", "made_test_200")):
        assert benchmark((0,) * 6).value == 0
        with pytest.raises(
            UserError, match=r"has no made_test_200 for .*; a search needs one for every architecture"
        ):
            benchmark(CODE)
    assert Benchmark(table, "made_valid_12")(CODE).value == 3
    gap["made_test_200"][:] = np.nan
    with pytest.raises(UserError, match="no figures in its column 'made_test_200'"):
        Benchmark(table, "made_valid_12", "made_test_200")
