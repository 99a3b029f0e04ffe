"""True accuracy of the cell found by a predictor, against the number of architectures asked for; beside others.

    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    python experiments/predictor_search.py tables/nb201
    nge table ec_nas_4epoch.csv --out tables/ecnas
    python experiments/predictor_search.py tables/ecnas         NAS-Bench-101's cells of up to 5 vertices
    nge table nb301_surrogate.json --out tables/darts
    python experiments/predictor_search.py tables/darts         choosing among the genotypes that the table lists

Every row spends the same budget with the same seeds, of which none was used to choose anything, and has the
defaults of `nge search task=queries` but for what its name says. `explore=1` draws nothing from P, and `design` is
without a predictor: cells drawn by a link model, or by link frequencies. --rows and --seeds say what to run; every
search is kept in runs/predictor_search/SPACE.jsonl as it ends, so a call that was stopped goes on, and the tables
are of all that is there (delete it when a predictor has changed). Writes predictor_search_SPACE.json under
experiments/results/; with --queries 50 predictor_search_SPACE_50.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from nge_strategies import CHECKPOINTS, FIRST_SEED, PLAIN, RESULTS, SETTINGS, describe, paired

from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.settings.names import PREDICTORS, PROBABILISTIC
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, DartsSpace
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, Table, open_table

RUNS = Path("runs") / "predictor_search"
COLUMNS = {
    "nasbench201": SETTINGS["nasbench201"]["cifar10"],
    "nasbench101": SETTINGS["nasbench101"]["cifar10, 4 epochs"],
    "darts": ("val_accuracy", "val_accuracy"),
}
#: What `strategy` is set to, by row.
ROWS: dict[str, dict[str, object]] = {
    **{name: {"name": name} for name in PLAIN},
    **{
        name: {"name": "predictor", "predictor": name}
        | ({} if name in PROBABILISTIC else {"acquisition": "greedy"})
        for name in PREDICTORS
    },
    "analytic_gp, thompson": {"name": "predictor", "acquisition": "thompson"},
    "analytic_gp, greedy": {"name": "predictor", "acquisition": "greedy"},
    "analytic_gp, explore=1": {"name": "predictor", "explore": 1.0},
    "analytic_gp, drawn cells": {"name": "predictor", "candidates": "design"},
    "design": {"name": "design"},
    "design, frequencies": {"name": "design", "drawn_by": "frequencies"},
}
#: Table, row, queries and seed of a search.
Job = tuple[str, str, int, int]
#: Of a search, if no other number is asked for.
QUERIES = 100
#: Against each other row.
OURS = ("analytic_gp", "ensemble", "design")


class Listed(DartsSpace):
    """The genotypes of a table, each of which is a neighbour of every other one."""

    def __init__(self, table: Table):
        super().__init__()
        self._codes = [table.code(row) for row in range(len(table))]
        self._code_NE = torch.tensor(self._codes)

    def sample(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        tensors = [torch.from_numpy(p_EO).clamp_min(1e-30) for p_EO in matrices]
        log_N = self.log_probability(self._code_NE, tensors)
        return self._codes[random.choice(len(self._codes), p=torch.softmax(log_N, dim=0).numpy())]

    def neighbours(self, code: Code) -> list[Code]:
        return [other for other in self._codes if other != code]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="a folder of `nge table`, or a file that it reads")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument(
        "--first-seed", type=int, default=FIRST_SEED, help="another one chooses, and writes no table"
    )
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=[*PLAIN, "analytic_gp", "xgboost"])
    options = parser.parse_args()
    space = open_table(options.table).space.name
    kept = RUNS / f"{space}.jsonl"
    done = {(row["row"], row["seed"]) for row in read(kept, options.queries)}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(options.table, name, options.queries, seed) for seed in seeds for name in options.rows]
    kept.parent.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if (job[1], job[3]) not in done]
    with kept.open("a", encoding="utf-8") as file:
        file.write("\n" if kept.stat().st_size else "")  # what was cut short ends here
        for count, row in enumerate(finished(waiting, options.jobs), 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if count % 20 == 0 or count == len(waiting):
                print(f"{count} of {len(waiting)} searches", flush=True)
    scores = by_row(read(kept, options.queries), options.first_seed, options.queries)
    for name, scores_SQ in sorted(scores.items(), key=lambda item: item[1][:, -1].mean()):
        means = [f"{scores_SQ[:, count - 1].mean():.3f}" for count in CHECKPOINTS if count <= options.queries]
        print(f"{name:24} {' / '.join(means)}   {len(scores_SQ)} seeds")
    tests = paired(scores, tuple(name for name in OURS if name in scores))
    for pair, rows in tests.items():
        print(pair, {count: (row["difference"], row["p"]) for count, row in rows.items()})
    if options.first_seed == FIRST_SEED:
        found = {name: {"seeds": len(scores_SQ), **describe(scores_SQ)} for name, scores_SQ in scores.items()}
        header = results_header(f"python experiments/predictor_search.py TABLE --queries {options.queries}")
        counts = {"columns": COLUMNS[space], "first_seed": FIRST_SEED, "queries": options.queries}
        budget = "" if options.queries == QUERIES else f"_{options.queries}"
        path = RESULTS / f"predictor_search_{space}{budget}.json"
        write_json(path, {**header, **counts, "results": found, "paired": tests})


def finished(waiting: Sequence[Job], processes: int) -> Iterator[dict[str, object]]:
    """The rows of searches, as they end; one process is this one."""
    if processes == 1:
        torch.set_num_threads(1)
        yield from (search(*job) for job in waiting)
        return
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(search, *job) for job in waiting]
        yield from (future.result() for future in as_completed(running))


def search(table: str, name: str, queries: int, seed: int) -> dict[str, object]:
    """Scores of the best by signal after each query; a search that settles early keeps its last one."""
    known = open_table(table)
    if known.space.name == DartsSpace.name:
        known = dataclasses.replace(known, space=Listed(known))
    benchmark = Benchmark(known, *COLUMNS[known.space.name])
    strategy = build_strategy(benchmark.space, StrategySection(**ROWS[name]), PolicySection(), seed)
    scores = benchmark.scores(run_strategy(strategy, benchmark.queries(queries)))
    scores = np.r_[scores, np.full(queries - len(scores), scores[-1])]
    return {
        "row": name,
        "seed": seed,
        "queries": queries,
        "strategy": of_row(name),
        "scores": scores.round(4).tolist(),
    }


def of_row(name: str) -> dict[str, object]:
    """All settings of a row: searches with others are not its."""
    return dataclasses.asdict(StrategySection(**ROWS[name]))


def read(path: Path, queries: int) -> list[dict]:
    """The searches of so many queries that were kept; lines that were cut short are passed over."""
    rows, settings, default = [], {name: of_row(name) for name in ROWS}, dataclasses.asdict(StrategySection())
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [
        row
        for row in rows
        # a setting that came later was at its default
        if row["queries"] == queries and {**default, **row["strategy"]} == settings.get(row["row"])
    ]


def by_row(rows: list[dict], first_seed: int, queries: int) -> dict[str, np.ndarray]:
    """Scores [S, Q] of each row with seeds from the first one on, as far as they are there without a gap."""
    found = {}
    for name in ROWS:
        own = {row["seed"]: row["scores"] for row in rows if row["row"] == name}
        seed = first_seed
        while seed in own:
            seed += 1
        if seed > first_seed + 1:
            found[name] = np.array([own[each] for each in range(first_seed, seed)])
    return found


if __name__ == "__main__":
    main()
