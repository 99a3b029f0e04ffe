"""Makes the predictor of DARTS cells that ships with the package, and compares what it might have been.

    python experiments/ship_darts_predictor.py darts_214_genotype_acc.json
    python experiments/ship_darts_predictor.py darts_214_genotype_acc.json --compare           a minute on one core
    python experiments/ship_darts_predictor.py darts_214_genotype_acc.json --compare --slow    hours

The first line writes nge_search/predict/darts.json. The file that it reads lists the 214 random cells that
antoyang/NAS-Benchmark trained (ICLR 2020), each with its genotype and its accuracies. The package holds
neither, only weights; the same file gives the same bytes. --compare writes results/ship_darts_predictor.json:
Kendall's tau in ten folds, averaged over them, by model and by seed. Seeds 100 to 108 have chosen the features,
the model and its penalty; seeds 0 to 8 report, with an interval over the choice of cells. --slow adds GATES,
TA-GATES, a Gaussian process and networks on the same features; of them, as many seeds as --slow-seeds says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nge_search.engine.environment import results_header
from nge_search.files import write_atomic, write_json
from nge_search.predict import shipping
from nge_search.predict.predictors import open_predictor
from nge_search.predict.process import GaussianProcess
from nge_search.predict.shipped import CELLS, FILE, NAMES
from nge_search.predict.shipping import CHOOSING, FOLDS, LABEL, PENALTY, REPORTING, Fit, fit_ridge
from nge_search.predict.splits import Split, folds
from nge_search.tables import Table, open_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results" / "ship_darts_predictor.json"
PENALTIES = (10.0, 20.0, 50.0, 100.0, 200.0)
HALF_WAY = "acc_ep300"

#: Scores of all architectures, each by what was fitted without it: from the splits of a seed, and the seed.
Scorer = Callable[[Sequence[Split], int], np.ndarray]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="JSON file of the trainings")
    parser.add_argument("--compare", action="store_true", help="compare models, and write no predictor")
    parser.add_argument("--slow", action="store_true", help="with the slow ones")
    parser.add_argument("--slow-seeds", type=int, default=3, help="number of seeds of the slow ones (3)")
    parser.add_argument("--out", type=Path, default=ROOT / "nge_search" / "predict" / FILE, help="file to write")
    options = parser.parse_args(words)
    table = open_table(options.table)
    if options.compare:
        compare(table, options.slow_seeds if options.slow else 0)
        return
    text = shipping.ship(table).text()
    write_atomic(options.out, text)
    print(f"wrote {options.out}, {len(text)} bytes")


def compare(table: Table, slow_seeds: int) -> None:
    """Measure all models, and write down what came of it after each."""
    label_N, x_NF = table.column(LABEL), shipping.table_features(table)
    words = ["--compare", *(["--slow", "--slow-seeds", str(slow_seeds)] if slow_seeds else [])]
    document: dict[str, Any] = {
        **results_header("python experiments/ship_darts_predictor.py", table.source, *words),
        "table": table.source,
        "label": LABEL,
        "penalties": {},
        "coverage": {str(level): share for level, share in shipping.coverage(x_NF, label_N, REPORTING).items()},
        "models": {},
    }
    for penalty in PENALTIES:
        scorer = by_features(x_NF, label_N, lambda x, y, at=penalty: fit_ridge(x, y, at))
        document["penalties"][f"{penalty:g}"] = measured(scorer, label_N, CHOOSING)["tau"]
    for name, scorer in quick(table, x_NF, label_N).items():
        document["models"][name] = both(scorer, label_N, len(REPORTING))
        print(name, document["models"][name], flush=True)
    for name, scorer in slow(table, x_NF, label_N).items() if slow_seeds else ():
        document["models"][name] = both(scorer, label_N, slow_seeds)
        print(name, document["models"][name], flush=True)
        write_json(RESULTS, document)
    write_json(RESULTS, document)


def both(scorer: Scorer, label_N: np.ndarray, seeds: int) -> dict[str, Any]:
    return {
        "choosing": measured(scorer, label_N, CHOOSING[:seeds]),
        "reporting": measured(scorer, label_N, REPORTING[:seeds]),
    }


def measured(scorer: Scorer, label_N: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
    """Tau by seed, its mean, and the interval of that."""
    splits_S = [folds(len(label_N), FOLDS, seed) for seed in seeds]
    score_SN = np.stack([scorer(splits, seed) for splits, seed in zip(splits_S, seeds)])
    tau, low, high = shipping.tau_interval(score_SN, label_N, splits_S)
    by_seed = [shipping.fold_tau(*pair) for pair in zip(score_SN, [label_N] * len(seeds), splits_S)]
    return {
        "tau": round(tau, 4),
        "interval_90": [round(low, 4), round(high, 4)],
        "by_seed": [round(value, 4) for value in by_seed],
    }


def by_features(x_NF: np.ndarray, label_N: np.ndarray, fit: Fit) -> Scorer:
    return lambda splits, seed: shipping.left_out(x_NF, label_N, splits, fit)


def quick(table: Table, x_NF: np.ndarray, label_N: np.ndarray) -> dict[str, Scorer]:
    """The predictor, what it is better than, and its features in part."""
    wholes = [f"{kind}.{name.split('.')[-1]}" for kind in CELLS.kinds for name in NAMES[: len(NAMES) // 6]]
    columns = {
        "parameters": [f"{kind}.log_weights" for kind in CELLS.kinds],
        "ridge, normal cell only": [name for name in NAMES if name.startswith("normal.")],
        "ridge, inputs alike": wholes,
    }
    models = {"random": lambda splits, seed: np.random.default_rng(seed).standard_normal(len(label_N))}
    for name, chosen in columns.items():
        models[name] = by_features(x_NF[:, [NAMES.index(column) for column in chosen]], label_N, fit_ridge)
    models["frequencies of operations"] = by_features(frequencies(table), label_N, fit_ridge)
    models[f"ridge, penalty {PENALTY:g} (ships)"] = by_features(x_NF, label_N, fit_ridge)
    models[f"half-way accuracy ({HALF_WAY}), not a prediction"] = lambda splits, seed: table.column(HALF_WAY)
    return models


def frequencies(table: Table) -> np.ndarray:
    """How often each operation stands in each kind of cell: [N, kinds x operations]."""
    architectures = [table.space.graphs(table.code(row)) for row in range(len(table))]
    return np.array(
        [
            [
                sum(edge.label.name == operation for edge in cells[kind].edges)
                for kind in CELLS.kinds
                for operation in CELLS.operations
            ]
            for cells in architectures
        ],
        dtype=float,
    )


def slow(table: Table, x_NF: np.ndarray, label_N: np.ndarray) -> dict[str, Scorer]:
    """What takes minutes a seed."""
    return {
        "networks, bagged": by_features(x_NF, label_N, fit_networks),
        "gates": by_predictor(table, label_N, "gates"),
        "ta_gates": by_predictor(table, label_N, "ta_gates"),
        "gaussian process, a group for each kind": by_features(x_NF, label_N, fit_process),
    }


def by_predictor(table: Table, label_N: np.ndarray, name: str) -> Scorer:
    architectures = [table.space.graphs(table.code(row)) for row in range(len(table))]

    def scores(splits: Sequence[Split], seed: int) -> np.ndarray:
        score_N = np.full(len(label_N), np.nan)
        for split in splits:
            predictor = open_predictor(name, table.space)
            known = [architectures[row] for row in split.pool]
            predictor.fit(known, torch.from_numpy(label_N[split.pool]), seed)
            score_N[split.test] = predictor.scores([architectures[row] for row in split.test]).numpy()
        return score_N

    return scores


def standardised(x_NF: np.ndarray) -> Callable[[np.ndarray], torch.Tensor]:
    mean_F, deviation_F = x_NF.mean(axis=0), x_NF.std(axis=0)
    return lambda x_MF: torch.from_numpy((x_MF - mean_F) / np.where(deviation_F > 1e-9, deviation_F, 1))


def fit_process(x_NF: np.ndarray, label_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    scale, half = standardised(x_NF), len(NAMES) // 2
    target_N = torch.from_numpy((label_N - label_N.mean()) / label_N.std())
    process = GaussianProcess(scale(x_NF), target_N, [range(half), range(half, 2 * half)])
    return lambda x_MF: process.predict(scale(x_MF))[0].numpy()


def fit_networks(x_NF: np.ndarray, label_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Eight networks with 16 hidden units, each on a resample, with dropout of .3 before both layers."""
    scale, random = standardised(x_NF), torch.Generator().manual_seed(0)
    x, y = scale(x_NF).float(), torch.from_numpy((label_N - label_N.mean()) / label_N.std()).float()
    first = torch.randn(8, x.shape[1], 16, generator=random).div(x.shape[1] ** 0.5).requires_grad_()
    bias = torch.zeros(8, 1, 16, requires_grad=True)
    second = torch.randn(8, 16, 1, generator=random).div(4).requires_grad_()
    optimiser = torch.optim.AdamW([first, bias, second], 1e-2, weight_decay=1.0)
    rows = torch.randint(len(x), (8, len(x)), generator=random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(50):
            hidden = torch.relu(functional.dropout(x[rows], 0.3) @ first + bias)
            loss = ((functional.dropout(hidden, 0.3) @ second)[..., 0] - y[rows]).square().mean(dim=1).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return lambda x_MF: (torch.relu(scale(x_MF).float() @ first + bias) @ second).mean(dim=0)[:, 0].detach().numpy()


if __name__ == "__main__":
    main()
