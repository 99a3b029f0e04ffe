"""Which predictor ranks best from how many labels? TA-GATES' tables, with controls and our own beside them.

    python experiments/predict.py table1      NAS-Bench-201: all predictors; the paper's Table 1
    python experiments/predict.py table2      how symmetries are broken, on three spaces; the paper's Table 2
    python experiments/predict.py table3      accuracies half-way and at the end; the paper's Table 3
    python experiments/predict.py ablation    GATES and TA-GATES with analytic features; ours without parts
    python experiments/predict.py spaces      other spaces: ours against GATES and TA-GATES, in pairs of seeds
    python experiments/predict.py cifar100    the same settings on CIFAR-100's validation accuracy
    python experiments/predict.py calibration what the intervals of 50 and 90 % cover
    python experiments/predict.py speed       seconds of one core
    python experiments/predict.py nb101 --tfrecord nasbench_only108.tfrecord --hashes FOLDER    TA-GATES' own split

nb101 reads the hashes of the cells to train on and to test from tagates_split_train.csv and tagates_split_test.csv
in FOLDER, each with a column `hash`; the 7,290 to train on are in the authors' order.

Sets are looked for under --data, by the paths in SOURCES. A row of results/predict_rows.jsonl is one training; rows
that are there are not made again, so that a stopped command goes on, and parts share rows. --models, --budgets and
--seeds choose; --show prints what there is. Each part writes results/predict_PART.json, the same as a picture, and
prints its tables in Markdown. Seeds 0 to 8 are for reports alone: what was chosen was chosen on 100 to 108.

The control is TA-GATES with one pass. Kendall's tau is that of the last epoch; networks also have the mean over the
last five.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import predict_published as paper
import torch
from kept_rows import keep_rows, numbers, read_rows
from predict_parts import OWN, PARTS, SOURCES, VARIANTS
from predict_tables import by_model, ceiling, markdown, plot, print_part

from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_json
from nge_search.metrics.ranking import kendall_tau
from nge_search.predict import analytic, own
from nge_search.predict.anytime import AnytimePredictor
from nge_search.predict.base import Predictor
from nge_search.predict.encoding import Cells
from nge_search.predict.evaluation import Judged, judge, judge_anytime
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.networks import NetworkPredictor
from nge_search.predict.predictors import NETWORKS, open_predictor
from nge_search.predict.splits import Split, by_names, folds, halves, read_hashes
from nge_search.predict.zero_cost import ZeroCostSettings, measure
from nge_search.spaces import SPACES, NasBench201Space, Space
from nge_search.tables import open_table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
#: Sets in which some trainings are repeated, so that their noise is known.
REPEATED = ("ec_nas", "nb101_550")


@dataclass(frozen=True)
class Trial:
    """One training: its set, model, budget as it was asked for, seed, and which of the seed's divisions."""

    source: str
    model: str
    budget: str
    seed: int
    fold: int
    anytime: bool
    epochs: int = 0


@dataclass(frozen=True)
class Places:
    """Where files are: of --data, --tfrecord, --hashes and --cache."""

    data: Path
    tfrecord: str
    hashes: Path
    cache: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "speed"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the sets of SOURCES")
    parser.add_argument("--tfrecord", default="", help="NAS-Bench-101's official file, of nb101")
    parser.add_argument(
        "--hashes", type=Path, default=Path("data/nasbench101"), help="folder of the lists of nb101"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "zero_cost", help="keeps saliencies")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--sources", default="", help="some of the part's sets, as ec_nas,enas")
    parser.add_argument("--models", default="", help="some of the part's models, as 'gates;ta_gates, add'")
    parser.add_argument("--budgets", default="", help="numbers of labels or shares, as 39,10%%")
    parser.add_argument("--seeds", default="", help="as 0-8 or 100,101; by default as many as PARTS says, from 0")
    parser.add_argument("--epochs", type=int, default=0, help="of networks, in place of the published ones")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--count", type=int, default=10_000, help="cells that speed is measured on")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    places = Places(options.data, options.tfrecord, options.hashes, options.cache)
    try:
        if options.part == "speed":
            measure_speed(places, options)
        elif not make_tables(places, options):
            parser.error("no row yet; leave --show out")
    except UserError as error:
        parser.error(str(error))


def make_tables(places: Places, options: argparse.Namespace) -> int:
    """Train what is missing of a part, and print its tables; the number of rows there are."""
    lacking = left_out({trial.model for trial in trials(options) if not trial.anytime})
    wanted = [trial for trial in trials(options) if trial.anytime or trial.model not in lacking]
    path = options.out / "predict_rows.jsonl"
    found = read_rows(path, Trial)
    if not options.show:
        carry_out([trial for trial in wanted if trial not in found], places, options.jobs, path)
        found = read_rows(path, Trial)
    rows = [found[trial] for trial in wanted if trial in found]
    if rows:
        print_part(options.part, rows, {name: source.what for name, source in SOURCES.items()}, paper_of)
        for name in dict.fromkeys(trial.source for trial in wanted if trial.source in REPEATED):
            repeats_NR = open_table(places.data / SOURCES[name].path).repeats(SOURCES[name].label)
            print(f"\n{name}: {ceiling(repeats_NR)}")
        print(f"\n{len(rows)} of {len(wanted)} trainings")
        header = results_header("python experiments/predict.py", options.part)
        kept = {**header, "trainings": f"{len(rows)} of {len(wanted)}", "figures": by_model(rows)}
        write_json(options.out / f"predict_{options.part}.json", kept)
        plot(
            rows,
            {name: source.what for name, source in SOURCES.items()},
            options.out / f"predict_{options.part}.png",
        )
    return len(rows)


def left_out(models: Iterable[str]) -> set[str]:
    """Those that need a package which is not installed; says so."""
    found = set()
    for model in models:
        try:
            build(model, NasBench201Space(), Path(), 0).require_installed()
        except UserError as error:
            print(f"left out: {error}")
            found.add(model)
    return found


def paper_of(part: str, source: str) -> dict[str, dict[int, Any]]:
    """The paper's figures of a set's space, by model and number of labels."""
    space = SOURCES[source].space
    if part == "table3":
        return paper.TABLE3.get(space, {})
    return {**paper.TABLE2.get(space, {}), **paper.TABLE1.get(space, {})}


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Those of a part, smaller budgets and first seeds first."""
    for part in PARTS[options.part]:
        models = [name for name in part.models if not options.models or name in options.models.split(";")]
        sources = [name for name in part.sources if not options.sources or name in options.sources.split(",")]
        budgets = {name: part.budgets.get(name, 9) for name in options.budgets.split(",") if name} or part.budgets
        for budget, count in budgets.items():
            for seed in numbers(options.seeds) if options.seeds else range(count):
                for source in sources:
                    for fold in range(max(SOURCES[source].folds, 1)):
                        for model in models:
                            yield Trial(source, model, budget, seed, fold, part.anytime, options.epochs)


def carry_out(waiting: list[Trial], places: Places, jobs: int, path: Path) -> None:
    """Train, and add a row to the file for each training as it ends."""
    began = time.perf_counter()
    for done, row in enumerate(keep_rows(path, finished(waiting, places, jobs)), start=1):
        name, minutes = " ".join(map(str, row["trial"].values())), (time.perf_counter() - began) / 60
        print(f"{done}/{len(waiting)} after {minutes:.1f} min: {name}: tau {row['kendall_tau']}", flush=True)


def finished(waiting: list[Trial], places: Places, jobs: int) -> Iterator[dict[str, Any]]:
    """The rows of trials, as they end."""
    if jobs == 1:
        _alone()
        yield from (row_of(trial, places) for trial in waiting)
        return
    with ProcessPoolExecutor(jobs, initializer=_alone) as pool:
        running = [pool.submit(row_of, trial, places) for trial in waiting]
        yield from (future.result() for future in as_completed(running))


def _alone() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Loaded:
    """An open set: its space, architectures with labels, accuracies half-way, and a division, if one is given."""

    space: Space
    data: Judged
    half_N: np.ndarray | None
    split: Split | None


@functools.lru_cache(2)
def load(name: str, places: Places) -> Loaded:
    """Architectures of which the label, and that half-way if there is one, is known."""
    source = SOURCES[name]
    table = open_table(places.tfrecord if name == "nb101" else places.data / source.path)
    label_N = table.column(source.label)
    half_N = table.column(source.half) if source.half in table.columns else None
    listed = hash_lists(places) if name == "nb101" else None
    rows = np.flatnonzero(~np.isnan(label_N) & (True if half_N is None else ~np.isnan(half_N)))
    names = [table.keys_N[row].ljust(16, b"\0").hex() for row in rows.tolist()] if listed else []
    if listed:
        kept = set(listed[0]).union(listed[1])
        rows = rows[[name in kept for name in names]]
        names = [name for name in names if name in kept]
    cells = [table.space.graphs(table.code(row)) for row in rows.tolist()]
    data = Judged(cells, label_N[rows], label_N[rows])
    split = by_names(names, *listed) if listed else None
    return Loaded(table.space, data, None if half_N is None else half_N[rows], split)


def hash_lists(places: Places) -> tuple[list[str], list[str]]:
    """TA-GATES' cells of NAS-Bench-101 to train on and to test."""
    train, test = (read_hashes(places.hashes / f"tagates_split_{side}.csv") for side in ("train", "test"))
    return train, test


def division(name: str, loaded: Loaded, seed: int, fold: int) -> Split:
    """What a seed trains on and tests; with lists of hashes, the seed is of the training alone."""
    if loaded.split is not None:
        return loaded.split
    count = len(loaded.data.cells)
    return folds(count, SOURCES[name].folds, seed)[fold] if SOURCES[name].folds else halves(count, seed)


def build(model: str, space: Space, cache: Path, epochs: int) -> Predictor:
    """An untrained predictor by its name in the registry or in VARIANTS."""
    name, given = VARIANTS.get(model, (model, {}))
    if name in NETWORKS:
        return open_predictor(name, space, NetworkOptions(**given, epochs=epochs or None, cache=cache))
    if not given:
        return open_predictor(name, space)
    classes: dict[str, Callable[..., Predictor]] = {
        "analytic_gp": own.Processes,
        "flow": own.FlowNetworks,
        "ensemble": own.Ensemble,
    }
    return classes[name](space, replace(own.DEFAULTS, **given))


def row_of(trial: Trial, places: Places) -> dict[str, Any]:
    """Train and judge; figures that are not finite are null."""
    loaded = load(trial.source, places)
    split = division(trial.source, loaded, trial.seed, trial.fold)
    share = float(trial.budget.rstrip("%")) / 100
    labels = math.floor(share * len(split.pool) + 1e-9) if trial.budget.endswith("%") else int(trial.budget)
    began = time.perf_counter()
    if trial.anytime:
        if loaded.half_N is None:
            raise UserError(f"{trial.source} has no accuracies half-way")
        pair = AnytimePredictor(loaded.space, trial.model, NetworkOptions(epochs=trial.epochs or None))
        figures = judge_anytime(pair, loaded.data, loaded.half_N, split, labels, trial.seed)
    else:
        predictor = build(trial.model, loaded.space, places.cache, trial.epochs)
        figures = judge(predictor, loaded.data, split, labels, trial.seed)
        if isinstance(predictor, NetworkPredictor):
            score_KN = predictor.scores_of_last_epochs(loaded.data.asked(split.test)).numpy()
            truth_N = loaded.data.truth_N[split.test]
            figures["kendall_tau_last_5"] = float(np.mean([kendall_tau(score_N, truth_N) for score_N in score_KN]))
    seconds = time.perf_counter() - began
    told = {"trial": asdict(trial), "labels": labels, "tested": len(split.test), "seconds": round(seconds, 2)}
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {**told, "date": datetime.date.today().isoformat(), "torch": torch.__version__, **finite}


#: Numbers of labels that fits are timed on.
_TIMED = (39, 78, 390, 781)


def measure_speed(places: Places, options: argparse.Namespace) -> None:
    """Seconds on one core, each measured once: predict_speed.json, and a table."""
    torch.set_num_threads(1)
    loaded, random = load("nb201", places), np.random.default_rng(0)
    cells, seconds = loaded.data.cells, {}
    models = options.models.split(";") if options.models else ["ta_gates", "gates", "control", *OWN]
    lacking = left_out(models)
    for labels in [int(name) for name in options.budgets.split(",") if name] or _TIMED:
        train_N = halves(len(cells), 0).train(labels)
        for model in [name for name in models if name not in lacking]:
            predictor = build(model, loaded.space, places.cache, options.epochs)
            fit = functools.partial(loaded.data.fit, predictor, train_N, 0)
            seconds[f"{model}: {labels} labels"] = timed(fit)
            seconds[f"{model}: scores of {len(cells):,} architectures"] = timed(lambda p=predictor: p.scores(cells))
            print(f"{model}: {labels} labels: {seconds[f'{model}: {labels} labels']:.1f} s", flush=True)
    for name in SPACES:
        space = SPACES[name]()
        drawn = [space.graphs(space.random(random)) for _ in range(options.count)]
        seconds[f"analytic features of {options.count:,} cells of {name}"] = timed(lambda d=drawn: features(d))
    codes = [loaded.space.random(random) for _ in range(min(10, options.count))]
    every = timed(lambda: [measure(loaded.space, code, ZeroCostSettings()) for code in codes])
    seconds["zero-cost metrics of an architecture of nasbench201"] = every / len(codes)
    print(markdown(["what", "seconds"], [[name, f"{value:.2f}"] for name, value in seconds.items()]))
    header = results_header("python experiments/predict.py speed")
    write_json(options.out / "predict_speed.json", {**header, "cores": 1, "seconds": seconds})


def features(drawn: Sequence[Cells]) -> list[np.ndarray]:
    """The analytic features of all kinds of cells."""
    return [analytic.features([one[kind] for one in drawn]) for kind in drawn[0]]


def timed(work: Callable[[], Any]) -> float:
    """Of the processor: other work on the machine does not count."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
