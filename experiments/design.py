"""Cells drawn by a link predictor (NAL), against link frequencies, even draws and searches: true accuracies.

    nge table ec_nas_4epoch.csv --out tables/ecnas            NAS-Bench-101's cells of up to 5 vertices
    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    python experiments/design.py oracle tables/ecnas          best and worst of the whole table teach, as in print
    python experiments/design.py honest tables/nb201          100 random queries teach, 60 new cells are drawn
    python experiments/design.py ablations tables/ecnas       Table 4, ours and as printed

30 repeats with paired seeds, from 0 on; settings were chosen on seeds 100 to 108. What a stopped run has finished,
and methods that --methods leaves out, stay in the file. Writes design_SPACE_PROTOCOL.json under
experiments/results/ and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from nge_search.design.generator import DrawSettings
from nge_search.design.link_model import LinkModelSettings, TrainingSettings
from nge_search.design.protocol import DesignSettings, Oracles, honest, paired
from nge_search.design.samples import SampleSettings
from nge_search.design.spaces import rules_of
from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, open_table

RESULTS = Path(__file__).parent / "results"
#: By space, the signal and the score.
COLUMNS = {
    "nasbench201": ("cifar10_valid_200", "cifar10_test_200"),
    "nasbench101": ("cifar10_valid_4", "cifar10_test_4"),
}
#: Of our draws where a whole table teaches: at 0.5 hardly 20 of 100 new cells of NAS-Bench-201 differ.
ORACLE_TEMPERATURE = {"nasbench201": 1.3, "nasbench101": 0.5}
OURS = DesignSettings()
PRINTED = DesignSettings(samples=SampleSettings("paper"), draw=DrawSettings(1.0))
METHODS = {
    "uniform": DesignSettings("uniform"),
    "frequencies": DesignSettings("frequencies"),
    "ours": OURS,
    "printed": PRINTED,
    "printed, probabilities": dataclasses.replace(PRINTED, draw=DrawSettings(1.0, "probability")),
}
#: Searches that spend as many queries as the honest protocol.
SEARCHES = ("random", "local_search", "evolution")


def ablations(full: DesignSettings) -> dict[str, DesignSettings]:
    """Table 4: common samples (S off), no network on reversed links (I off), no attention (G off)."""
    common = dataclasses.replace(full.samples, construction="common")
    rows = {
        "S off, I off": (common, LinkModelSettings(reverse=False)),
        "S off": (common, full.model),
        "I off": (full.samples, LinkModelSettings(reverse=False)),
        "G off": (full.samples, LinkModelSettings(attention=False)),
        "full": (full.samples, full.model),
    }
    return {
        name: dataclasses.replace(full, samples=samples, model=model) for name, (samples, model) in rows.items()
    }


ABLATIONS = {
    **{f"ours, {name}": settings for name, settings in ablations(OURS).items()},
    **{f"printed, {name}": settings for name, settings in ablations(PRINTED).items()},
    "printed, full, 200 epochs": dataclasses.replace(
        PRINTED, training=TrainingSettings(epochs=200, learning_rate=5e-4)
    ),
}
PROTOCOLS = {"oracle": METHODS, "honest": METHODS | dict.fromkeys(SEARCHES), "ablations": ABLATIONS}
#: Columns of what is printed.
SHOWN = {
    "oracle": ("mean", "mean_new", "best", "best_new", "unique", "novel", "distinct_new"),
    "honest": ("mean_new", "best", "mean_queried", "draws"),
}
SHOWN["ablations"] = SHOWN["oracle"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("table", help="a folder of `nge table`, or a file that it reads")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--methods", nargs="*", help="some of the protocol's methods")
    options = parser.parse_args()
    space, known = open_table(options.table).space.name, PROTOCOLS[options.protocol]
    if space not in COLUMNS or not known.keys() >= set(options.methods or ()):
        parser.error(f"tables of {' or '.join(COLUMNS)}; methods {', '.join(map(repr, known))}")
    name = f"design_{space}_{options.protocol}"
    path = RESULTS / f"{name if not options.first_seed else f'{name}_seed{options.first_seed}'}.json"
    found = json.loads(path.read_text())["repeats"] if path.exists() else {}
    seeds = range(options.first_seed, options.first_seed + options.repeats)
    jobs = [
        (options.protocol, options.table, method, seed)
        for seed in seeds
        for method in options.methods or known
        if str(seed) not in found.get(method, {})
    ]
    header = results_header(f"python experiments/design.py {options.protocol} TABLE --repeats {options.repeats}")
    with ProcessPoolExecutor(options.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done in as_completed([pool.submit(repeat, *job) for job in jobs]):
            method, seed, figures = done.result()
            found.setdefault(method, {})[str(seed)] = figures
            rows = {method: found[method] for method in known if method in found}
            write_json(path, {**header, "table": space, "summary": summary(rows), "repeats": rows})
    print(markdown(summary(found), SHOWN[options.protocol]))


def repeat(protocol: str, table: str, method: str, seed: int) -> tuple[str, int, dict[str, float]]:
    """One repeat of a method: its figures, and the seconds that it took."""
    benchmark, rules, oracles = _opened(table)
    settings, began = PROTOCOLS[protocol][method], time.perf_counter()
    if settings is None:
        found = _search(benchmark, method, seed)
    elif protocol == "honest":
        found = dataclasses.asdict(honest(rules, benchmark, settings, seed))
    else:
        if settings.draw == OURS.draw:
            draw = DrawSettings(ORACLE_TEMPERATURE[benchmark.space.name])
            settings = dataclasses.replace(settings, draw=draw)
        found = dataclasses.asdict(oracles.run(seed, settings=settings))
    return method, seed, {**found, "seconds": round(time.perf_counter() - began, 2)}


def _search(benchmark: Benchmark, name: str, seed: int, queries: int = 160) -> dict[str, float]:
    strategy = build_strategy(benchmark.space, StrategySection(name=name), PolicySection(), seed)
    asked = run_strategy(strategy, benchmark.queries(queries))
    scores = [benchmark.score(code) for code in asked.codes]
    return {
        "mean_queried": float(np.mean(scores[:100])),
        "mean_new": float(np.mean(scores[100:])),
        "best": float(benchmark.scores(asked)[-1]),
        "queries": len(asked),
    }


_OPEN: dict[str, tuple] = {}


def _opened(path: str) -> tuple:
    """Opened, and its best and worst cells chosen, once in each process."""
    if path not in _OPEN:
        table = open_table(path)
        benchmark, rules = Benchmark(table, *COLUMNS[table.space.name]), rules_of(table.space)
        _OPEN[path] = benchmark, rules, Oracles(rules, benchmark, OURS)
    return _OPEN[path]


def summary(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, object]]:
    """For each method means with standard errors, and differences to the frequencies over the same seeds."""
    rows: dict[str, dict[str, object]] = {}
    for method, repeats in found.items():
        figures = {
            key: [one[key] for one in repeats.values() if key in one] for key in next(iter(repeats.values()))
        }
        rows[method] = {key: _mean(values) for key, values in figures.items()}
        control = found.get("frequencies", {})
        shared = [seed for seed in repeats if seed in control]
        if method != "frequencies" and len(shared) > 1:
            for key in ("mean_new", "best"):
                ours, theirs = ([one[seed][key] for seed in shared] for one in (repeats, control))
                difference, error = paired(ours, theirs)
                rows[method][f"{key} - frequencies"] = [round(difference, 3), round(error, 3)]
    return rows


def _mean(values: list[float]) -> list[float]:
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return [round(float(np.mean(values)), 3), round(error, 3)]


def markdown(rows: dict[str, dict[str, object]], shown: tuple[str, ...]) -> str:
    """Means +- standard errors."""
    columns = [*shown, "mean_new - frequencies", "best - frequencies", "seconds"]
    lines = [f"| method | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for method, row in rows.items():
        cells = ["{:g} +- {:g}".format(*row[column]) if column in row else "" for column in columns]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
