"""True accuracy of the cell found in a table, against the number of architectures asked for, by strategy.

    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    python experiments/nge_strategies.py tables/nb201       200 seeds; three minutes a setting on two cores
    nge table ec_nas_4epoch.csv --out tables/ecnas
    python experiments/nge_strategies.py tables/ecnas --queries 100     NAS-Bench-101's cells of up to 5 vertices

On NAS-Bench-201 three settings: validation after 200 epochs as the signal and CIFAR-10's test accuracy as the
score; validation after 12 epochs with the same score; and CIFAR-100's validation accuracy as both. --embeddings
adds `nge_reinforce` with P from the other embeddings. Strategies have the defaults of `nge search task=queries`,
the same everywhere; predictor_search.py compares them with searches by predictors and link models. Writes
nge_strategies_SPACE.json and .png under experiments/results/.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy.stats import wilcoxon

from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.settings.names import STRATEGIES
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, open_table

RESULTS = Path(__file__).parent / "results"
#: By space, the signal and the score of each setting.
SETTINGS = {
    "nasbench201": {
        "cifar10": ("cifar10_valid_200", "cifar10_test_200"),
        "cifar10, 12 epochs": ("cifar10_valid_12", "cifar10_test_200"),
        "cifar100, validation": ("cifar100_valid_200", "cifar100_valid_200"),
    },
    "nasbench101": {"cifar10, 4 epochs": ("cifar10_valid_4", "cifar10_test_4")},
}
CHECKPOINTS = (30, 50, 100, 300)
#: Those without a predictor or a link model.
PLAIN = tuple(name for name in STRATEGIES if name not in ("predictor", "design"))
#: No strategy was tuned on these seeds.
FIRST_SEED = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="a folder of `nge table`, or a file that it reads")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--embeddings", action="store_true", help="nge_reinforce from other embeddings too")
    parser.add_argument("--settings", nargs="*", help="some of the settings of the table's space")
    options = parser.parse_args()
    table = open_table(options.table)
    space = table.space.name
    known = SETTINGS.get(space, {})
    if not known or not known.keys() >= set(options.settings or ()):
        parser.error(f"settings of {space}: {', '.join(map(repr, known)) or 'none'}")
    settings = {name: known[name] for name in options.settings or known}
    searches = [(name, "nge") for name in PLAIN]
    if options.embeddings:
        searches += [("nge_reinforce", kind) for kind in ("direct", "plain", "rnn")]
    found, curves = {}, {}
    with ProcessPoolExecutor(options.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for setting, columns in settings.items():
            scores = {}
            for name, kind in searches:
                label = name if kind == "nge" else f"{name}, {kind}"
                began = time.perf_counter()
                jobs = [
                    (options.table, columns, name, kind, options.queries, FIRST_SEED + seed)
                    for seed in range(options.seeds)
                ]
                scores[label] = np.array(list(pool.map(search, jobs, chunksize=5)))
                seconds = time.perf_counter() - began
                found.setdefault(setting, {})[label] = {**describe(scores[label]), "seconds": round(seconds, 1)}
                means = [round(value, 3) for value in found[setting][label]["mean"].values()]
                print(f"{setting}: {label}: mean {means} after {CHECKPOINTS} queries, {seconds:.0f} s", flush=True)
            found[setting]["paired"] = paired(scores, ("nge_reinforce", "nge_evolution"))
            curves[setting] = scores
    header = results_header(f"python experiments/nge_strategies.py TABLE{words(options)}")
    counts = {"table": table.source, "seeds": options.seeds, "first_seed": FIRST_SEED, "queries": options.queries}
    write_json(RESULTS / f"nge_strategies_{space}.json", {**header, **counts, "results": found})
    plot(curves, RESULTS / f"nge_strategies_{space}.png")


def words(options: argparse.Namespace) -> str:
    """The options that change what is measured, as typed."""
    chosen = "".join(f" '{name}'" for name in options.settings or ())
    return (
        f" --seeds {options.seeds} --queries {options.queries}"
        + (" --embeddings" if options.embeddings else "")
        + (f" --settings{chosen}" if chosen else "")
    )


def search(job: tuple[str, tuple[str, str], str, str, int, int]) -> np.ndarray:
    """Score of the best by signal after each query [Q]; a search that settles early keeps its last one."""
    table, columns, name, kind, queries, seed = job
    benchmark = Benchmark(_table(table), *columns)
    strategy = build_strategy(benchmark.space, StrategySection(name=name), PolicySection(kind=kind), seed)
    scores = benchmark.scores(run_strategy(strategy, benchmark.queries(queries)))
    return np.r_[scores, np.full(queries - len(scores), scores[-1])]


_OPEN: dict[str, object] = {}


def _table(path: str):
    """Opened once in each process."""
    if path not in _OPEN:
        _OPEN[path] = open_table(path)
    return _OPEN[path]


def describe(scores_SQ: np.ndarray) -> dict[str, dict[int, float]]:
    """Over seeds, after each of CHECKPOINTS queries, percent."""
    reached = [count for count in CHECKPOINTS if count <= scores_SQ.shape[1]]
    at_SC = scores_SQ[:, [count - 1 for count in reached]]
    quartiles_3C = np.percentile(at_SC, (25, 50, 75), axis=0)
    rows = {
        "mean": at_SC.mean(axis=0),
        "standard_error": at_SC.std(axis=0, ddof=1) / len(at_SC) ** 0.5,
        "quartile_1": quartiles_3C[0],
        "median": quartiles_3C[1],
        "quartile_3": quartiles_3C[2],
    }
    return {name: dict(zip(reached, np.round(row, 4).tolist())) for name, row in rows.items()}


def paired(scores: dict[str, np.ndarray], some: tuple[str, ...]) -> dict[str, dict[int, dict[str, float]]]:
    """Some strategies against each other one, seed by seed: mean difference and Wilcoxon's signed-rank test.

    Where one has more seeds than the other, the first ones that both have count.
    """
    tests = {}
    for ours in some:
        for theirs in scores:
            if theirs == ours:
                continue
            shared = min(len(scores[ours]), len(scores[theirs]))
            for count in CHECKPOINTS:
                if count > scores[ours].shape[1]:
                    continue
                difference_S = scores[ours][:shared, count - 1] - scores[theirs][:shared, count - 1]
                p = wilcoxon(difference_S).pvalue if difference_S.any() else 1.0
                row = {"difference": round(float(difference_S.mean()), 4), "p": float(f"{p:.2g}"), "seeds": shared}
                tests.setdefault(f"{ours} - {theirs}", {})[count] = row
    return tests


def plot(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Medians and quartiles of the six strategies, a panel for each setting."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(5 * len(curves), 4), squeeze=False)
    for axis, (setting, scores) in zip(axes[0], curves.items()):
        for index, name in enumerate(PLAIN):
            quartiles_3Q = np.percentile(scores[name], (25, 50, 75), axis=0)
            queries_Q = np.arange(1, quartiles_3Q.shape[1] + 1)
            axis.plot(queries_Q, quartiles_3Q[1], color=f"C{index}", label=name, linewidth=1.5)
            axis.fill_between(
                queries_Q, quartiles_3Q[0], quartiles_3Q[2], color=f"C{index}", alpha=0.12, linewidth=0
            )
        best = max(quartile[:, -1].max() for quartile in scores.values())
        axis.set(title=setting, xlabel="distinct queries", ylabel="accuracy, %", ylim=(best - 4, best + 0.1))
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
