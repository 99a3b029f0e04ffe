"""Cells drawn by a link predictor (NAL), against link frequencies, even draws and searches: true accuracies.

    nge table ec_nas_4epoch.csv --out tables/ecnas              NAS-Bench-101's cells of up to 5 vertices
    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    python experiments/design.py oracle tables/ecnas            best and worst of the whole table teach, as in print
    python experiments/design.py honest tables/nb201            100 random queries teach, 60 new cells are drawn
    python experiments/design.py ablations tables/ecnas         Table 4, ours and as printed
    python experiments/design.py searches tables/nb201          the strategy `design` after 30, 50 and 100 queries
    python experiments/design.py honest tables/nb201 --dataset cifar100           nothing else changes
    python experiments/design.py oracle nasbench_only108.tfrecord                 all of NAS-Bench-101
    python experiments/design.py speed tables/ecnas             seconds for one model and ten cells
    python experiments/design.py transfer tables/ecnas          genotypes of DARTS' space; see design_transfer.py

30 repeats (searches: 200) with paired seeds, from 0 on; settings were chosen on seeds 100 to 108. A repeat is kept
in results/design_SPACE_COLUMN_PROTOCOL.json as it ends, so that a stopped command goes on, and is made anew if its
row's settings change; `oracle` and `ablations` share rows. --rows and --repeats say what to run, --show prints what
there is. In `oracle`, mean_new is of the first 100 draws that are no training cells, repeats counted, of which
distinct_new differ; best_by_signal is the score of the drawn cell with the best validation accuracy. In `honest`,
best is that of all 160 queries by validation accuracy, mean_new is of the last 60, and gain says what best is
above that of 160 random queries, of which 100 are the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import design_tables as tables
import design_transfer
import numpy as np
import torch
from design_parts import CHECKPOINTS, COLUMNS, DRAWN, PROTOCOLS, QUERIED, REPEATS, Row, pairs_of, rows_of

from nge_search.design.protocol import DesignSettings, Oracles, build_generator, honest
from nge_search.design.spaces import rules_of
from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_json
from nge_search.settings.strategies import PolicySection
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, Table, open_table

RESULTS = Path(__file__).parent / "results"


class Place(NamedTuple):
    """Where cells are looked up: a table, its columns, and the largest number of vertices (0: the table's)."""

    table: str
    signal: str
    score: str
    vertices: int


class Job(NamedTuple):
    """A repeat of a row."""

    place: Place
    protocol: str
    name: str
    row: Row
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PROTOCOLS, "speed", "transfer"))
    parser.add_argument("table", help="a folder of `nge table`, or a file that it reads")
    parser.add_argument("--dataset", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--vertices", type=int, default=0, help="of NAS-Bench-101's cells; 0: the table's")
    parser.add_argument("--repeats", type=int, default=0, help="seeds; 0: 30, or 200 searches")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--rows", nargs="*", help="some of the part's rows")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--train", nargs="*", help="transfer: train three best and three random; words of nge eval")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        table = open_table(options.table)
        place = Place(options.table, *_columns(table, options.dataset), options.vertices)
        if options.part == "transfer":
            design_transfer.transfer(_oracles(place, False), options.first_seed, options.train, options.out)
        elif options.part == "speed":
            measure_speed(place, options.out)
        elif not compare(options, place, table):
            parser.error("no repeat yet; leave --show out")
    except UserError as error:
        parser.error(str(error))


def _columns(table: Table, dataset: str) -> tuple[str, str]:
    """Signal and score; UserError for a table without them."""
    known = COLUMNS.get((table.space.name, dataset), ())
    for pair in known:
        if {*pair} <= {*table.columns}:
            return pair
    needed = " or ".join(f"{signal} and {score}" for signal, score in known) or "another space or data set"
    raise UserError(f"the table of {table.source} is not one of these comparisons; they take {needed}")


def compare(options: argparse.Namespace, place: Place, table: Table) -> int:
    """Run what is missing of a part, and print its tables; the number of rows there are."""
    protocol, rows = PROTOCOLS[options.part], rows_of(options.part, table.space.name)
    for name in options.rows or ():
        if name not in rows:
            raise UserError(f"row '{name}' is none of {options.part}; there are {', '.join(map(repr, rows))}")
    path = _path(options, place, table.space.name, protocol)
    document = json.loads(path.read_text()) if path.exists() else {"table": table.source}
    if document["table"] != table.source:
        raise UserError(f"{path} is of {document['table']}, not of {table.source}; give another --out")
    stored = document.get("repeats", {})
    current = {name: _settings(row) for name, row in rows.items()}
    for name in [name for name in stored if name in rows and document["settings"][name] != current[name]]:
        del stored[name]
    settings = {name: document["settings"][name] for name in stored} | current
    seeds = range(options.first_seed, options.first_seed + (options.repeats or REPEATS[protocol]))
    jobs = [
        Job(place, protocol, name, rows[name], seed)
        for seed in seeds
        for name in options.rows or rows
        if str(seed) not in stored.get(name, {})
    ]
    header = results_header(f"python experiments/design.py {options.part} TABLE")
    for job, figures in finished([] if options.show else jobs, options.jobs):
        stored.setdefault(job.name, {})[str(job.seed)] = figures
        kept = {name: settings[name] for name in stored}
        figures_of = {"summary": tables.summary(stored), "settings": kept, "repeats": stored}
        write_json(path, {**header, "table": table.source, "columns": place[1:3], **figures_of})
    found = {name: stored[name] for name in rows if name in stored}
    if found:
        print_part(options.part, found, pairs_of(options.part, rows), table.space.name)
    return len(found)


def _path(options: argparse.Namespace, place: Place, space: str, protocol: str) -> Path:
    vertices = f"_v{place.vertices}" if place.vertices else ""
    seeds = f"_seed{options.first_seed}" if options.first_seed else ""
    return options.out / f"design_{space}{vertices}_{place.score}_{protocol}{seeds}.json"


def _settings(row: Row) -> Any:
    """As it is read back from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(row)))


def print_part(part: str, found: tables.Repeats, pairs: Sequence[tuple[str, str]], space: str) -> None:
    """Our tables, then the paper's."""
    rows = tables.summary(found)
    print(f"Means ± standard errors, percent:\n\n{tables.rows_table(rows, part)}")
    compared = tables.differences(found, pairs, tables.COMPARED[part])
    if compared:
        print(f"\nIn pairs of seeds:\n\n{tables.differences_table(compared)}")
    if part == "ablations":
        print("\nBy the mean of 100 draws, from the worst:\n")
        print("\n".join(f"- {line}" for line in tables.orders(rows)))
    if part in ("oracle", "ablations") and space == "nasbench101":
        tables.print_paper(part)


def finished(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, dict[str, float]]]:
    """Repeats with their figures, as they end; one process is this one."""
    if processes == 1 or not jobs:
        yield from ((job, repeat(job)) for job in jobs)
        return
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = {pool.submit(repeat, job): job for job in jobs}
        yield from ((running[future], future.result()) for future in as_completed(running))


def repeat(job: Job) -> dict[str, float]:
    """The figures of a repeat, and the seconds of a core that it took."""
    row, benchmark = job.row, _benchmark(job.place)
    oracles = _oracles(job.place, row.dangling) if job.protocol == "oracle" else None
    began = time.process_time()
    if row.design is None:
        found = search(benchmark, job)
    elif oracles:
        found = dataclasses.asdict(oracles.run(job.seed, settings=row.design))
    else:
        rules = rules_of(benchmark.space, job.place.vertices, row.dangling)
        found = dataclasses.asdict(honest(rules, benchmark, row.design, job.seed, QUERIED, DRAWN))
    return {**found, "seconds": round(time.process_time() - began, 3)}


def search(benchmark: Benchmark, job: Job) -> dict[str, float]:
    """A search with as many queries as the protocol has; one that settles keeps its last score."""
    assert job.row.strategy is not None
    queries = QUERIED + DRAWN if job.protocol == "honest" else max(CHECKPOINTS)
    strategy = build_strategy(benchmark.space, job.row.strategy, PolicySection(), job.seed)
    asked = run_strategy(strategy, benchmark.queries(queries))
    best_Q = benchmark.scores(asked)
    if job.protocol == "searches":
        return {f"after_{count}": float(best_Q[min(count, len(best_Q)) - 1]) for count in CHECKPOINTS}
    scores = [benchmark.score(code) for code in asked.codes]
    later = {"mean_new": float(np.mean(scores[QUERIED:]))} if len(scores) > QUERIED else {}
    return {
        "mean_queried": float(np.mean(scores[:QUERIED])),
        **later,
        "best": float(best_Q[-1]),
        "queries": len(scores),
    }


_OPEN: dict[Place, Benchmark] = {}
_TAUGHT: dict[tuple[Place, bool], Oracles] = {}


def _benchmark(place: Place) -> Benchmark:
    """Opened once in each process."""
    if place not in _OPEN:
        _OPEN[place] = Benchmark(open_table(place.table), place.signal, place.score)
    return _OPEN[place]


def _oracles(place: Place, dangling: bool) -> Oracles:
    """The best and the worst of a whole table, chosen once in each process."""
    if (place, dangling) not in _TAUGHT:
        benchmark = _benchmark(place)
        rules = rules_of(benchmark.space, place.vertices, dangling)
        _TAUGHT[place, dangling] = Oracles(rules, benchmark, DesignSettings())
    return _TAUGHT[place, dangling]


def measure_speed(place: Place, out: Path, times: int = 3) -> None:
    """Medians of seconds in which one model, and ten, learn from 30 good and 30 bad cells and draw ten each."""
    oracles = _oracles(place, False)
    found, lines = {}, []
    for members in (1, 10):
        clock, core = [], []
        for seed in range(times):
            began = time.perf_counter(), time.process_time()
            settings = DesignSettings(members=members)
            generator = build_generator(oracles.rules, oracles.good, oracles.bad, settings, seed)
            generator.draw(10 * members)
            clock.append(time.perf_counter() - began[0])
            core.append(time.process_time() - began[1])
        found[members] = {"seconds": clock, "core_seconds": core}
        medians = [f"{statistics.median(own):.2f}" for own in (clock, core)]
        lines.append([str(members), str(10 * members), *medians])
    print(tables.markdown(["models", "cells", "seconds", "seconds of a core"], lines))
    space = oracles.rules.space.name
    header = results_header("python experiments/design.py speed TABLE")
    write_json(out / f"design_{space}_speed.json", {**header, "threads": torch.get_num_threads(), "models": found})


if __name__ == "__main__":
    main()
