"""Strategies against their definitions; budgets; searches in a made table, from the command line to the report."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, rankdata

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.load import load_architecture
from nge_search.cli import main
from nge_search.engine.interrupt import Interrupted
from nge_search.errors import UserError
from nge_search.settings.load import help_text
from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import PolicySection, QueriesConfig, StrategySection
from nge_search.spaces import Code, NasBench101Space, NasBench201Space
from nge_search.strategies.policy import Policy, rank_weights
from nge_search.strategies.query_loop import ask
from nge_search.strategies.strategies import STRATEGIES as GENERATORS
from nge_search.strategies.strategies import _Learner
from nge_search.tables import Answer, Benchmark, Queries, Table
from nge_search.tables.table import build_table

SPACE = NasBench201Space()
BEST = (3, 1, 3, 2, 3, 4)


def made_signal(code: Code) -> float:
    """Percent; every edge has a best operation, and BEST is the best architecture."""
    distance = sum(abs(operation - best) * (edge + 1) for edge, (operation, best) in enumerate(zip(code, BEST)))
    return 95.0 - distance


@pytest.fixture(scope="module")
def table() -> Table:
    codes = itertools.product(range(5), repeat=6)
    rows = (
        (
            code,
            {
                "made_valid_12": [made_signal(code) - 1, made_signal(code) + 1],
                "made_test_200": made_signal(code) / 2,
                "made_seconds_12": 10.0,
            },
        )
        for code in codes
    )
    return build_table(SPACE, rows, "a made table", "architecture")


@pytest.fixture
def benchmark(table: Table) -> Benchmark:
    return Benchmark(table, "made_valid_12", "made_test_200")


@pytest.fixture(scope="module")
def folder(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table.save(tmp_path_factory.mktemp("tables") / "made")


class Tiny(NasBench201Space):
    """Three edges with three operations: 27 architectures."""

    graph = CellSpace(nodes=2, operations=("none", "skip_connect", "nor_conv_3x3"), inputs=1, kinds=("cell",))
    length = 3
    size = 27


TINY = list(itertools.product(range(3), repeat=3))
REWARDS = np.random.default_rng(3).random(27)


def small_policy(kind: str) -> PolicySection:
    return PolicySection(kind=kind, input_dim=8, hidden_dim=12, output_dim=8, edge_dim=8)


# -- queries


def test_queries_count_distinct_architectures_and_keep_what_was_seen(benchmark: Benchmark) -> None:
    queries = Queries(benchmark, budget=3)
    others = [(0,) * 6, BEST, (1,) * 6]
    assert [queries.ask(code) for code in (others[0], others[0], others[1])] == [
        pytest.approx(made_signal(code)) for code in (others[0], others[0], BEST)
    ]
    assert len(queries) == 2
    queries.ask(others[2])
    assert queries.ask((2,) * 6) is None
    assert queries.ask(BEST) == pytest.approx(95)
    assert queries.codes == others
    assert queries.chosen().tolist() == [0, 1, 1]
    assert queries.scores().tolist() == [made_signal(others[0]) / 2, 47.5, 47.5]
    assert queries.seconds().tolist() == [10, 20, 30]


def test_one_of_repeated_trainings_is_the_same_each_time_it_is_asked_for(table: Table) -> None:
    benchmark = Benchmark(table, "made_valid_12", repeats="one")
    answers = [benchmark.answer(BEST, seed).signal for seed in range(40)]
    assert answers == [benchmark.answer(BEST, seed).signal for seed in range(40)]
    assert set(answers) == {94.0, 96.0}
    assert Benchmark(table, "made_valid_12").answer(BEST) == Answer(table.find(BEST), 95.0, 10.0)


def test_what_a_benchmark_refuses(table: Table) -> None:
    with pytest.raises(UserError, match=r"no column 'made_valid_13'.*did you mean 'made_valid_12'"):
        Benchmark(table, "made_valid_13")
    with pytest.raises(UserError, match=r"a budget of 15626 queries: .* allows 1 to 15625"):
        Queries(Benchmark(table, "made_valid_12"), 15626)
    gap = {name: values.copy() for name, values in table.columns.items()}
    gap["made_test_200"][table.find(BEST)] = np.nan
    with pytest.raises(UserError, match=r"has no made_test_200 for .*; a search needs one for every architecture"):
        Benchmark(dataclasses.replace(table, columns=gap), "made_test_200").answer(BEST)


# -- all strategies


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_exceeds_its_budget_and_each_depends_on_the_seed_alone(
    name: str, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Code] = []
    answer = Benchmark.answer
    monkeypatch.setattr(
        Benchmark, "answer", lambda self, code, seed=0: asked.append(code) or answer(self, code, seed)
    )
    settings, config = StrategySection(name=name, queries=40, population=8, tournament=4), PolicySection()
    found = []
    for seed in (1, 1, 2):
        asked.clear()
        torch.manual_seed(len(found))  # the global generator is of no consequence
        queries = ask(benchmark, settings, config, seed)
        assert len(asked) == len(set(asked)) == len(queries) == 40
        assert asked == queries.codes
        found.append(queries.codes)
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_asks_for_every_architecture_or_settles(name: str) -> None:
    """In a space where operations are on vertices, and whose table holds a few architectures only."""
    space = NasBench101Space(4)
    codes = {}
    for bits in itertools.product(range(2), repeat=len(space.graph.edges)):
        for labels in itertools.product(range(3), repeat=2):
            code = (*bits, *labels)
            if space.allows(code):
                codes.setdefault(space.key(code), code)
    rows = ((code, {"accuracy": float(sum(code))}) for code in codes.values())
    benchmark = Benchmark(build_table(space, rows, "a made table", "architecture"), "accuracy")
    settings = StrategySection(name=name, queries=len(codes), population=8, tournament=4)
    queries = ask(benchmark, settings, small_policy("nge"), 0)
    assert len({space.key(code) for code in queries.codes}) == len(queries)
    assert 20 < len(queries) <= len(codes)
    if name in ("random", "nge_reinforce", "nge_evolution"):
        assert len(queries) == len(codes)


@pytest.mark.parametrize(
    ("name", "least"),
    [("local_search", 95), ("evolution", 94), ("reinforce", 85), ("nge_reinforce", 95), ("nge_evolution", 94)],
)
def test_strategies_that_learn_find_the_best_of_a_smooth_table(
    name: str, least: float, benchmark: Benchmark
) -> None:
    for seed in range(3):
        queries = ask(benchmark, StrategySection(name=name, queries=250), PolicySection(), seed)
        assert 2 * queries.scores()[-1] >= least
    assert 2 * ask(benchmark, StrategySection(name="random", queries=250), PolicySection(), 0).scores()[-1] < 95


# -- each strategy against its definition


def test_random_search_asks_uniformly_without_repeats() -> None:
    first = Counter()
    for seed in range(2700):
        first[next(GENERATORS["random"](Tiny(), StrategySection(), PolicySection(), seed))] += 1
    assert len(first) == 27
    assert chisquare(list(first.values())).pvalue > 1e-3
    proposals = GENERATORS["random"](Tiny(), StrategySection(), PolicySection(), 0)
    codes = [next(proposals)] + [proposals.send(0.0) for _ in range(26)]
    assert sorted(codes) == TINY


def test_local_search_moves_on_at_the_first_better_neighbour_and_starts_anew_at_an_optimum() -> None:
    proposals = GENERATORS["local_search"](SPACE, StrategySection(), PolicySection(), 0)
    here = next(proposals)
    best, tried, optima, orders = made_signal(here), [], [], set()
    code = proposals.send(best)
    for _ in range(400):
        if len(tried) == 24:  # nothing better: the next is a new start
            optima.append(here)
            here, best, tried = code, made_signal(code), []
        else:
            assert code in SPACE.neighbours(here)
            assert code not in tried
            tried.append(code)
            orders.add((len(tried), SPACE.neighbours(here).index(code)))
            if made_signal(code) > best:
                here, best, tried = code, made_signal(code), []
        code = proposals.send(made_signal(code))
    assert len(optima) >= 2
    assert set(optima) == {BEST}
    assert len(orders) > 100  # neighbours come in random order


def children(rewards: tuple[float, float, float], seed: int, count: int, tournament: int) -> list[Code]:
    """Three first architectures, then mutants that are all worth nothing."""
    settings = StrategySection(population=3, tournament=tournament)
    proposals = GENERATORS["evolution"](SPACE, settings, PolicySection(), seed)
    codes = [next(proposals)]
    for reward in (*rewards, *[-1.0] * (count - 1)):
        codes.append(proposals.send(reward))
    return codes


def test_evolution_draws_tournaments_and_mutates_one_decision_uniformly() -> None:
    """Of three the tournament of two is won by the best in 2 of 3, by the second in 1 of 3, by the last never."""
    parents, mutations = Counter(), Counter()
    for seed in range(3000):
        *population, child = children((2.0, 3.0, 1.0), seed, 1, tournament=2)
        near = [place for place, code in enumerate(population) if sum(map(int.__ne__, code, child)) == 1]
        if len(near) != 1:
            continue  # first architectures that happen to be close
        parents[near[0]] += 1
        parent = population[near[0]]
        edge = next(edge for edge in range(6) if parent[edge] != child[edge])
        mutations[edge, (child[edge] - parent[edge]) % 5] += 1
    count = sum(parents.values())
    assert parents[2] == 0
    assert count > 2700
    assert chisquare([parents[0], parents[1]], [count / 3, 2 * count / 3]).pvalue > 1e-3
    assert len(mutations) == 24
    assert chisquare(list(mutations.values())).pvalue > 1e-3


def test_evolution_lets_the_oldest_die_however_good() -> None:
    first, second, _, child, grandchild = children((3.0, 2.0, 1.0), 0, 2, tournament=3)
    assert child in SPACE.neighbours(first)
    assert grandchild in SPACE.neighbours(second)
    assert grandchild not in SPACE.neighbours(first)


def test_nge_evolution_mutates_by_the_probabilities_of_what_is_new() -> None:
    """Replayed: the same policy, taught the same, gives the chances from which the same generator draws."""
    settings = StrategySection(population=4, tournament=4, explore=0.0)
    config = PolicySection(learning_rate=1e-3)
    proposals = GENERATORS["nge_evolution"](SPACE, settings, config, 7)
    codes, rewards = [next(proposals)], []
    learner, random = _Learner(SPACE, settings, config, 7), np.random.default_rng(7)
    assert [SPACE.random(random)] == codes
    for step in range(30):
        reward = made_signal(codes[-1])
        rewards.append(reward)
        learner.learn(codes[-1], reward)
        codes.append(proposals.send(reward))
        if step < 3:
            assert codes[-1] == SPACE.random(random)
            continue
        drawn = random.choice(4, 4, replace=False)
        alive = list(zip(codes[-5:-1], rewards[-4:]))
        parent, _ = max((alive[place] for place in drawn), key=lambda member: member[1])
        fresh = [code for code in SPACE.neighbours(parent) if code not in codes[:-1]]
        p_EO = learner.policy.matrices()[0]
        chance_N = np.array([math.prod(p_EO[edge, code[edge]] for edge in range(6)) for code in fresh])
        random.random()  # whether to explore
        assert codes[-1] == fresh[random.choice(len(fresh), p=chance_N / chance_N.sum())]
    assert abs(p_EO - 0.2).max() > 0.05  # it has learned


def test_nge_reinforce_draws_from_the_policy_mixed_with_all_equally_likely() -> None:
    settings = StrategySection(warmup=3, explore=0.25, temperature=2.0, contrast=0.3, steps=2)
    config = PolicySection(learning_rate=3e-3)
    proposals = GENERATORS["nge_reinforce"](SPACE, settings, config, 5)
    policy, random = Policy(SPACE, config, 5), np.random.default_rng(5)
    codes, rewards = [], []
    for step in range(40):
        codes.append(proposals.send(rewards[-1]) if rewards else next(proposals))
        p_EO = policy.matrices()[0] * 0.75 + 0.25 / 5 if step >= 3 else SPACE.uniform()[0]
        expected = SPACE.draw([p_EO], random)
        while expected in codes[:-1]:
            expected = SPACE.draw([p_EO], random)
        assert codes[-1] == expected
        rewards.append(made_signal(codes[-1]))
        if step:
            weight_N = np.exp(-(rankdata(-np.array(rewards)) - 1) / 2.0)
            policy.ascend(codes, weight_N / weight_N.sum() - 0.3 / len(codes), steps=2)
    assert abs(p_EO - 0.2).max() > 0.1


def test_reinforce_is_the_textbook_s() -> None:
    """Free logits, a softmax, Adam, (R - b) (one-hot - P), b a moving average: in NumPy."""
    settings = StrategySection(baseline_decay=0.8)
    config = PolicySection(learning_rate=0.2)
    proposals = GENERATORS["reinforce"](SPACE, settings, config, 11)
    direct = Policy(SPACE, dataclasses.replace(config, kind="direct"), 11)
    logits_EO = next(direct.embedding.parameters()).detach().double().numpy().copy()
    first_EO, second_EO = np.zeros((6, 5)), np.zeros((6, 5))
    random, baseline, reward = np.random.default_rng(11), None, None
    for step in range(1, 61):
        p_EO = np.exp(logits_EO - logits_EO.max(axis=1, keepdims=True))
        p_EO /= p_EO.sum(axis=1, keepdims=True)
        code = next(proposals) if reward is None else proposals.send(reward)
        assert code == SPACE.draw([p_EO], random)
        reward = made_signal(code)
        baseline = reward / 100 if baseline is None else baseline
        gradient_EO = (np.eye(5)[list(code)] - p_EO) * (reward / 100 - baseline)
        first_EO = config.beta1 * first_EO - (1 - config.beta1) * gradient_EO
        second_EO = config.beta2 * second_EO + (1 - config.beta2) * gradient_EO**2
        scale_EO = np.sqrt(second_EO / (1 - config.beta2**step)) + 1e-8
        logits_EO -= 0.2 * first_EO / (1 - config.beta1**step) / scale_EO
        baseline += 0.2 * (reward / 100 - baseline)
    assert abs(p_EO - 0.2).max() > 0.1


# -- the policy


def expected_reward(policy: Policy) -> torch.Tensor:
    """J = sum over all architectures of P(a) R(a), by its definition."""
    (p_EO,) = policy.embedding()
    chances = [torch.stack([p_EO[edge, code[edge]] for edge in range(3)]).prod() for code in TINY]
    return (torch.stack(chances) * torch.as_tensor(REWARDS)).sum()


@pytest.mark.parametrize("kind", ["nge", "direct", "plain", "rnn"])
def test_reinforce_s_gradient_is_that_of_the_expected_reward(kind: str) -> None:
    """Its expectation, over all 27 architectures, for any baseline; and its mean over draws, within its error."""
    policy = Policy(Tiny(), small_policy(kind), 0)
    policy.embedding.double()
    exact = torch.cat(
        [g.flatten() for g in torch.autograd.grad(expected_reward(policy), list(policy.embedding.parameters()))]
    )
    assert exact.abs().max() > 1e-3
    chance_N = policy.log_probability(TINY).exp().detach().numpy()
    assert chance_N.sum() == pytest.approx(1)

    def estimate(code: Code, baseline: float) -> torch.Tensor:
        reward = REWARDS[TINY.index(code)]
        return torch.cat([g.flatten() for g in policy.gradients([code], np.array([reward - baseline]))])

    for baseline in (0.0, 0.7):
        estimates = torch.stack([estimate(code, baseline) for code in TINY])
        mean = (torch.as_tensor(chance_N)[:, None] * estimates).sum(dim=0)
        torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)
    random = np.random.default_rng(0)
    drawn_N = np.zeros(27)
    for _ in range(4000):
        drawn_N[TINY.index(Tiny().sample(policy.matrices(), random))] += 1
    share_N = torch.as_tensor(drawn_N / 4000)
    mean = (share_N[:, None] * estimates).sum(dim=0)
    error = ((share_N[:, None] * (estimates - mean) ** 2).sum(dim=0) / 4000).sqrt()
    assert ((mean - exact).abs() <= 5 * error + 1e-9).all()


def test_a_policy_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Policy(SPACE, PolicySection(), 5)
    assert torch.equal(torch.rand(3), expected)


def test_ascending_raises_the_chance_of_what_weighs_positively() -> None:
    policy = Policy(SPACE, PolicySection(), 0)
    before = policy.log_probability([BEST, (0,) * 6]).detach()
    policy.ascend([BEST, (0,) * 6], np.array([1.0, -1.0]), steps=5)
    after = policy.log_probability([BEST, (0,) * 6]).detach()
    assert after[0] > before[0]
    assert after[1] < before[1]


@pytest.mark.parametrize("rewards", [[3.0], [1.0, 2.0], [5.0, 5.0, 1.0, 7.0, 5.0], [2.0] * 4])
def test_rank_weights(rewards: list[float]) -> None:
    rank_N = rankdata(-np.array(rewards), method="average") - 1
    weight_N = np.array([math.exp(-rank / 1.5) for rank in rank_N])
    expected_N = weight_N / weight_N.sum() - 0.3 / len(rewards)
    np.testing.assert_allclose(rank_weights(rewards, 1.5, 0.3), expected_N, rtol=1e-12)
    np.testing.assert_allclose(rank_weights([math.exp(r) for r in rewards], 1.5, 0.3), expected_N, rtol=1e-12)


# -- the command


def words(folder: Path, run: Path, **settings: object) -> list[str]:
    own = {
        "task": "queries",
        "benchmark.table": folder,
        "benchmark.signal": "made_valid_12",
        "benchmark.score": "made_test_200",
        "strategy.queries": 30,
        "run.dir": run,
        "run.tensorboard": "false",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"{name}={value}" for name, value in own.items()]


def rows_of(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_search_in_a_table_leaves_a_run_folder(folder: Path, tmp_path: Path, capsys, require_listed) -> None:
    run = tmp_path / "run"
    assert main(["search", *words(folder, run, run__tensorboard="true")]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(30))
    codes = [SPACE.parse(row["architecture"]) for row in rows]
    assert len(set(codes)) == 30
    assert [row["signal"] for row in rows] == pytest.approx([made_signal(code) for code in codes])
    best = max(codes, key=made_signal)
    assert json.loads((run / "genotype.json").read_text()) == summary["genotype"]
    assert SPACE.parse(summary["architecture"]) == best
    assert summary["genotype"]["architecture"] == summary["architecture"]
    assert summary["genotype"]["provenance"]["method"] == "nge_reinforce"
    assert (summary["signal"], summary["score"]) == pytest.approx((made_signal(best), made_signal(best) / 2))
    assert (summary["best"], summary["queries"], summary["simulated_seconds"]) == (47.5, 30, 300)
    assert "after 30 queries" in printed
    assert SPACE.text(best) in printed
    assert list((run / "tensorboard").iterdir())
    require_listed(run)
    report = (run / "report.html").read_text()
    assert SPACE.text(best) in report
    assert "47.5" in report
    assert 'Signal <span class="unit">%</span>' in report
    assert "Finished: 30 queries." in report
    assert "query 30\n" in report
    assert "query 0\n" not in report
    assert f"{summary['signal']:.2f} %" in printed
    assert main(["search", *words(folder, run)]) == 0
    assert "has finished" in capsys.readouterr().out
    assert rows_of(run) == rows
    assert main(["report", str(run)]) == 0


def test_a_search_that_was_stopped_starts_again_and_finds_the_same(folder, tmp_path, monkeypatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    nge_search.search({"task": "queries"}, *words(folder, whole, run__progress="none"))
    count = iter(range(100))
    asked = Queries.ask

    def ask_until_stopped(self, code):
        if next(count) == 12:
            signal.raise_signal(signal.SIGTERM)
        return asked(self, code)

    with monkeypatch.context() as patch:
        patch.setattr(Queries, "ask", ask_until_stopped)
        with pytest.raises(Interrupted):
            nge_search.search(None, *words(folder, cut, run__progress="none"))
    assert rows_of(cut) == rows_of(whole)[:13]
    assert not (cut / "summary.json").exists()
    assert main(["report", str(cut)]) == 0
    nge_search.search(None, *words(folder, cut, run__progress="none"))
    assert rows_of(cut) == rows_of(whole)


def test_ctrl_c_ends_a_loop_over_runs(folder, tmp_path, monkeypatch) -> None:
    """Also one that goes on after a run that failed."""
    asked, started = Queries.ask, []

    def ask_and_stop(self, code):
        signal.raise_signal(signal.SIGINT)
        return asked(self, code)

    monkeypatch.setattr(Queries, "ask", ask_and_stop)

    def sweep() -> None:
        for name in ("a", "b"):
            started.append(name)
            with contextlib.suppress(Exception):
                nge_search.search(None, *words(folder, tmp_path / name, run__progress="none"))

    with pytest.raises(nge_search.Interrupted) as stopped:
        sweep()
    assert started == ["a"]
    assert stopped.value.exit_code == 130


def test_settings_of_a_finished_search_cannot_change(folder: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["search", *words(folder, run)]) == 0
    assert main(["search", *words(folder, run, strategy__queries=31)]) == 2
    assert "strategy.queries was 30, now 31" in capsys.readouterr().err
    assert main(["search", *words(folder, run, strategy__queries=31, run__overwrite="true")]) == 0
    assert len(rows_of(run)) == 31


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"benchmark__table": "''"}, "benchmark.table=: give a table"),
        ({"benchmark__table": "'nowhere'"}, "table 'nowhere' does not exist"),
        ({"benchmark__signal": "made_valid_200"}, "no column 'made_valid_200'"),
        ({"benchmark__score": "x"}, "no column 'x'"),
        ({"strategy__queries": 20000}, "a budget of 20000 queries"),
        ({"strategy__queries": 0}, "strategy.queries=0: must be at least 1"),
        ({"strategy__tournament": 21}, "strategy.tournament=21: more than strategy.population=20"),
        ({"strategy__name": "evolutoin"}, "did you mean 'evolution'?"),
        ({"embedding__input_dim": 3}, "embedding.input_dim=3: must be at least 4"),
        ({"strategy__explore": 1.5}, "strategy.explore=1.5: must be at most 1"),
        ({"task": "querys"}, "did you mean 'queries'?"),
        ({"search__epochs": 3}, "unknown key 'search.epochs'"),
    ],
)
def test_bad_input_is_one_line(folder: Path, tmp_path: Path, setting: dict, message: str, capsys) -> None:
    assert main(["search", *words(folder, tmp_path / "run", **setting)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_torchrun_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="start it without torchrun"):
        nge_search.search(None, *words(folder, tmp_path / "run"))


def test_help_and_derive(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["search", "--help", "task=queries"]) == 0
    assert help_text(QueriesConfig) in capsys.readouterr().out
    assert main(["search", "--help"]) == 0
    assert "--help task=queries" in capsys.readouterr().out
    run = tmp_path / "run"
    assert main(["search", *words(folder, run)]) == 0
    with pytest.raises(UserError, match=r"a search in a table; its architecture is in genotype\.json"):
        nge_search.derive(run)
    with pytest.raises(UserError, match=r"takes cells of darts, .*; set network\.kind=nasbench201"):
        nge_search.evaluate(None, f"network.genotype={run}", f"run.dir={tmp_path / 'eval'}")


@pytest.mark.parametrize("name", ["nge_reinforce", "nge_evolution"])
def test_a_policy_that_is_no_longer_finite_ends_the_search(folder: Path, tmp_path: Path, name: str, capsys) -> None:
    settings = {"strategy__name": name, "embedding__learning_rate": 1e30}
    assert main(["search", *words(folder, tmp_path / "run", **settings)]) == 1
    error = capsys.readouterr().err
    assert "no longer finite; lower embedding.learning_rate=1e+30" in error
    assert error.count("\n") == 1


def test_a_search_with_a_bar_counts_its_queries(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["search", *words(folder, tmp_path / "run", run__progress="bar", run__log_every=1)]) == 0
    assert "queries" in capsys.readouterr().err


def test_a_search_that_settles_says_so(folder: Path, tmp_path: Path, capsys) -> None:
    settings = {"strategy__name": "reinforce", "strategy__queries": 2000, "embedding__learning_rate": 5.0}
    assert main(["search", *words(folder, tmp_path / "run", **settings)]) == 0
    assert "; it settled before its 2000" in capsys.readouterr().out


def test_a_table_with_gaps(tmp_path: Path) -> None:
    codes = list(itertools.product(range(5), repeat=6))
    gaps = {"signal": 1.0, "score": float("nan")}
    rows = [(code, gaps if place % 2 else {**gaps, "score": 2.0}) for place, code in enumerate(codes)]
    table = build_table(SPACE, rows, "a made table", "architecture")
    assert ask(Benchmark(table, "signal"), StrategySection(name="random", queries=9), PolicySection(), 0)
    with pytest.raises(UserError, match=r"has no score for \|"):
        ask(Benchmark(table, "signal", "score"), StrategySection(name="random", queries=9), PolicySection(), 0)
    table = build_table(SPACE, ((code, gaps) for code in codes), "a made table", "architecture")
    with pytest.raises(UserError, match="no figures in its column 'score'"):
        Benchmark(table, "signal", "score")


def test_a_whole_search_in_nasbench101(tmp_path: Path) -> None:
    """From the table to the report, which has no complaints and counts queries."""
    space = NasBench101Space(4)
    random, codes = np.random.default_rng(0), {}
    for _ in range(20_000):
        code = space.random(random)
        codes.setdefault(space.key(code), code)
    rows = ((code, {"accuracy": 50.0 + sum(code)}) for code in codes.values())
    table = build_table(space, rows, "a made table", "architecture").save(tmp_path / "table")
    run = tmp_path / "run"
    summary = nge_search.search(
        {"task": "queries"}, *words(table, run, benchmark__signal="accuracy", benchmark__score="accuracy")
    )
    assert summary["queries"] == 30
    found = [load_architecture(given) for given in (run, run / "genotype.json", summary["architecture"])]
    assert [space.code_of(architecture) for architecture in found] == 3 * [space.parse(summary["architecture"])]
    report = (run / "report.html").read_text()
    assert "not drawn" not in report
    assert ">query</text>" in report
    assert ">epoch</text>" not in report
