"""`nge predict bench`: predictors compared on one set of labels, trial by trial; it goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.engine.environment import device_name
from nge_search.engine.launch import read_launch
from nge_search.engine.session import Session, run
from nge_search.engine.trials import carry_out
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.kinds import REPORT
from nge_search.metrics.comparison import compare, summarise, with_deviation
from nge_search.predict.anytime import AnytimePredictor
from nge_search.predict.evaluation import Judged, Trial, judge, judge_anytime
from nge_search.predict.predictors import configured, network_options
from nge_search.predict.splits import Split, by_names, folds, halves, isomorphism_class, read_hashes
from nge_search.settings.predict import BenchSection, PredictBenchConfig
from nge_search.spaces import Space
from nge_search.tables import open_table
from nge_search.tables.labels import Labelled, labels_of

#: Of a row, shown on TensorBoard.
_SHOWN = ("kendall_tau", "spearman", "precision_at_0.01")


def run_bench(config: PredictBenchConfig) -> dict[str, Any]:
    """Compare predictors as configured; return the summary. A run that was stopped goes on after its last trial.

    Raises:
        UserError: labels, a division, a budget or a run folder that cannot be used.
        Interrupted: SIGTERM or SIGINT; trials so far are recorded.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("trials are carried out by one process; start them without torchrun", shared=True)
    return run(config, lambda session: _compare(session, config))


def _compare(session: Session, config: PredictBenchConfig) -> dict[str, Any]:
    labelled, truth_N, half_N = _labels(config)
    data = Judged.of(labelled, truth_N)
    judged = _judging(config, labelled.space, data, half_N)
    rows, seconds = carry_out(
        session,
        list(_trials(config.bench, labelled)),
        lambda trial: trial.names,
        judged,
        labelled.digest(truth_N, half_N),
        labelled.notices,
        _SHOWN,
        lambda row: f"{row['model']}/{row['budget']}",
    )
    return {
        "kind": config.kind,
        "space": labelled.space.name,
        "source": labelled.source,
        "architectures": len(labelled),
        "notices": list(labelled.notices),
        "results": summarise(rows),
        "comparisons": compare(rows),
        "seconds": seconds,
        "device": device_name(session.world.device),
    }


def _judging(
    config: PredictBenchConfig, space: Space, data: Judged, half_N: np.ndarray
) -> Callable[[Trial], dict[str, float]]:
    """What carries out a trial; raises UserError if a predictor cannot be had."""
    if config.bench.half:
        options = network_options(config.options)

        def both(trial: Trial) -> dict[str, float]:
            predictor = AnytimePredictor(space, trial.model, options)
            return judge_anytime(predictor, data, half_N, trial.split, trial.labels, trial.seed)

        for model in config.bench.models:
            AnytimePredictor(space, model, options)
        return both

    def one(trial: Trial) -> dict[str, float]:
        predictor = configured(trial.model, space, config.options)
        return judge(predictor, data, trial.split, trial.labels, trial.seed)

    for model in config.bench.models:
        configured(model, space, config.options).require_installed()
    return one


def _labels(config: PredictBenchConfig) -> tuple[Labelled, np.ndarray, np.ndarray]:
    """What predictors learn from, what judges them, and accuracies half-way, if they learn from these, too."""
    labelled = labels_of(config.labels)
    columns = {name: getattr(config.bench, name) for name in ("score", "half")}
    found = dict.fromkeys(columns, labelled.label_N)
    for name, column in columns.items():
        if not column:
            continue
        if not config.labels.table:
            raise config.bench.refuse(name, "it is a column of a table; set labels.table, or leave it out")
        table = open_table(config.labels.table)
        found[name] = table.column(column)[[table.find(code) for code in labelled.codes]]
        if not ((found[name] >= 0) & (found[name] <= 100)).all():  # nor is NaN
            raise config.bench.refuse(name, "not all architectures have an accuracy from 0 to 100 there")
    return labelled, found["score"], found["half"]


def _trials(section: BenchSection, labelled: Labelled) -> Iterator[Trial]:
    """Budget by budget, seed by seed, so that means of few seeds are there early."""
    splits: dict[int, list[Split]] = {}
    listed = _listed(section, labelled) if section.split == "hashes" else None
    classes = None
    if section.classes:
        classes = [isomorphism_class(labelled.space.graphs(code)) for code in labelled.codes]
    for position, budget in enumerate(section.budgets):
        for seed in section.seeds_of(position):
            if seed not in splits:
                if listed is not None:
                    splits[seed] = [listed]
                elif section.split == "folds":
                    splits[seed] = folds(len(labelled), section.folds, seed, classes)
                else:
                    splits[seed] = [halves(len(labelled), seed, classes)]
            for fold, split in enumerate(splits[seed]):
                labels = section.labels(budget, len(split.pool))
                for model in section.models:
                    yield Trial(model, budget, labels, seed, fold, split)


def _listed(section: BenchSection, labelled: Labelled) -> Split:
    names = [labelled.space.key(code).hex() for code in labelled.codes]
    if labelled.space.name != "nasbench101":
        raise section.refuse("split", f"hashes name cells of nasbench101, and these are of {labelled.space.name}")
    lists = (read_hashes(user_path(path)) for path in (section.train_hashes, section.test_hashes))
    return by_names(names, *lists)


def closing_lines(config: PredictBenchConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of finished trials: tau by model and budget, and what is better than the first."""
    section, where = config.bench, f"{summary['space']}, {summary['source']}: mean +- deviation over seeds"
    lines = _table(section, summary["results"], "kendall_tau", f"Kendall's tau on {where}")
    if section.half:
        lines += _table(section, summary["results"], "half_kendall_tau", f"Kendall's tau half-way on {where}")
    counts = [next(own["seeds"] for own in summary["results"] if own["budget"] == name) for name in section.budgets]
    lines.append(f"seeds: {', '.join(map(str, counts))}, from {section.first_seed}; {summary['seconds']:.0f} s")
    for found in summary["comparisons"]:
        between = "" if found["low"] is None else f" ({found['low']:+.4f} to {found['high']:+.4f})"
        lines.append(f"{found['model']} - {found['against']}, {found['budget']}: {found['mean']:+.4f}{between}")
    return [*lines, f"report {Path(config.run.dir) / REPORT}"]


def _table(section: BenchSection, results: list[dict[str, Any]], figure: str, title: str) -> list[str]:
    """A figure by model and budget, in lines."""
    by_place = {(own["model"], own["budget"]): own for own in results}
    head = " " * 14
    for budget in section.budgets:
        labels = by_place[section.models[0], budget]["labels"]
        count = f"{labels} labels" + (f" ({budget})" if budget.endswith("%") else "")
        head += f"{count:>20}"
    lines = [title, head]
    for model in section.models:
        cells = (with_deviation(by_place[model, budget].get(figure), 4) for budget in section.budgets)
        lines.append(f"{model:14}{''.join(f'{cell:>20}' for cell in cells)}")
    return lines
