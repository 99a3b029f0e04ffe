"""Settings of predictors: budgets, seeds, and what does not go together."""

from __future__ import annotations

import pytest

from nge_search.errors import UserError
from nge_search.settings.load import load_config
from nge_search.settings.predict import BenchSection, PredictBenchConfig, PredictConfig


def test_budgets_are_counts_or_shares_rounded_down() -> None:
    section = load_config(PredictBenchConfig, None, ["bench.budgets=[0.5%,1%,10 %,100%,39]"]).bench
    assert [section.labels(budget, 7813) for budget in section.budgets] == [39, 78, 781, 7813, 39]
    assert BenchSection(budgets=["7%"]).labels("7%", 100) == 7  # 7.000000000000001 as floating point
    for budget, pool in (("1%", 100), ("39", 38)):
        with pytest.raises(
            UserError, match=rf"bench.budgets: '{budget}' is \d+ of {pool} labels to train on; give 2"
        ):
            BenchSection(budgets=[budget]).labels(budget, pool)


def test_seeds_of_budgets() -> None:
    section = BenchSection(budgets=["1%", "5%"], seeds=["9", "3"], first_seed=100)
    assert [list(section.seeds_of(place)) for place in (0, 1)] == [list(range(100, 109)), [100, 101, 102]]
    assert list(BenchSection(seeds=["2"]).seeds_of(2)) == [0, 1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bench.models=[]"], "bench.models=[]: must be a list of names, as [a,b]"),
        (["bench.models=[ta_gates,ta_gates]"], "one stands there twice"),
        (["bench.models=[ta_gate]"], "did you mean 'ta_gates'"),
        (["bench.budgets=[0%]"], "'0%' is neither a number of labels, as 39, nor a share"),
        (["bench.budgets=[101%]"], "'101%' is neither"),
        (["bench.budgets=[-3]"], "'-3' is neither"),
        (["bench.budgets=[1e3]"], "'1e3' is neither"),
        (["bench.seeds=[0]"], "give whole numbers from 1 to 1000"),
        (["bench.seeds=[1,2]"], "give one number, or 3, one for each of bench.budgets"),
        (["bench.split=hashes"], "bench.train_hashes and bench.test_hashes go with hashes alone"),
        (["bench.train_hashes=a.csv"], "bench.train_hashes and bench.test_hashes go with hashes alone"),
        (["labels.file=a.csv", "labels.table=b"], "labels come from one of them"),
        (["labels.file=a.csv", "labels.column=b"], "a CSV's labels are in its column `accuracy`"),
        (["labels.space=nasbench301"], "did you mean 'nasbench201'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(PredictBenchConfig, None, words)
    assert says in str(error.value)


def test_labels_have_to_be_named() -> None:
    with pytest.raises(UserError, match=r"labels.file=: give a CSV"):
        PredictConfig().labels.require_given()
    with pytest.raises(UserError, match=r"labels.column=: name the column"):
        load_config(PredictConfig, None, ["labels.table=b"]).labels.require_given()
