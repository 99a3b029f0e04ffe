"""`nge predict train`: a predictor from architectures with accuracies, and how far it can be trusted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.engine.environment import device_name
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import PREDICTION, REPORT
from nge_search.metrics.ranking import kendall_tau
from nge_search.predict.cross_validation import FEWEST, SHARES, OutOfFold, cross_validate
from nge_search.predict.evaluation import Judged
from nge_search.predict.importance import importances
from nge_search.predict.labels import Labelled, labels_of
from nge_search.predict.predictors import configured
from nge_search.predict.saved import Lesson, SavedPredictor, save_predictor
from nge_search.settings.predict import PredictConfig

#: Below so many labels an estimate of quality tells little, and a notice says so.
_FEW = 20


def run_train(config: PredictConfig) -> dict[str, Any]:
    """Train a predictor as configured; return the summary. A run that was stopped starts again and finds the same.

    Raises:
        UserError: labels, a predictor or a run folder that cannot be used.
        Interrupted: SIGTERM or SIGINT.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("a predictor is trained by one process; start it without torchrun", shared=True)
    return run(config, lambda session: _train(session, config))


def _train(session: Session, config: PredictConfig) -> dict[str, Any]:
    labelled = labels_of(config.labels)
    predictor = configured(config.predict.model, labelled.space, config.options)
    predictor.require_installed()
    folder = session.begin()
    notices = [*labelled.notices, *_warnings(labelled)]
    for notice in notices:
        session.say(notice)
    data, watch = Judged.of(labelled), Stopwatch()
    trials = _cross_validated(session, config, labelled, data, watch)
    data.fit(predictor, np.arange(len(labelled)), config.seed)
    quality = trials[-1].figures(labelled.label_N) if trials else {}
    document = {
        **quality,
        "folds": min(config.predict.folds, len(labelled)) if trials else 0,
        "curve": [trial.figures(labelled.label_N) for trial in trials],
        "importance": importances(predictor, data, config.seed),
        "predictions": _predictions(labelled, trials),
        "notices": notices,
    }
    folder.write_json(PREDICTION, document)
    lesson = Lesson.of(labelled, config.seed)
    folder.require_present()
    save_predictor(folder.path, SavedPredictor(config.predict.model, labelled.space, predictor, lesson, quality))
    return {
        "kind": config.kind,
        "model": config.predict.model,
        "space": labelled.space.name,
        "source": labelled.source,
        "labels": len(labelled),
        "lowest": lesson.lowest,
        "highest": lesson.highest,
        "folds": document["folds"],
        **{name: quality.get(name) for name in ("kendall_tau", "interval", "covered_0.5", "covered_0.9")},
        "notices": notices,
        "seconds": round(watch.seconds, 2),
        "device": device_name(session.world.device),
    }


def _warnings(labelled: Labelled) -> list[str]:
    """What a user should know of labels from which little can be told."""
    found = []
    if len(labelled) < FEWEST:
        found.append(f"{len(labelled)} labels are too few to tell how good a predictor is; give at least {FEWEST}")
    elif len(labelled) < _FEW:
        found.append(f"{len(labelled)} labels are few: how good the predictor is can only be told roughly")
    if labelled.label_N.min() == labelled.label_N.max():
        found.append("all labels are equal, so that nothing can be learnt from them")
    return found


def _cross_validated(
    session: Session, config: PredictConfig, labelled: Labelled, data: Judged, watch: Stopwatch
) -> list[OutOfFold]:
    """Predictions of all labels by predictors that had not seen them, for rising numbers of labels."""
    if len(labelled) < FEWEST:
        return []
    section, interrupts = config.predict, Interrupts()
    logger, parts = Logger(session.folder, config.run), min(section.folds, len(labelled))

    def after(fold: int, labels: int, score_N: np.ndarray, label_N: np.ndarray) -> None:
        tau = kendall_tau(score_N, label_N) if len(label_N) > 1 else float("nan")
        shown = {"kendall_tau": tau} if np.isfinite(tau) else {}
        row = {"epoch": fold, "labels": labels, "tested": len(label_N), "kendall_tau": shown.get("kendall_tau")}
        logger.row({**row, "seconds": round(watch.seconds, 3)})
        logger.scalars({f"fold/{name}": value for name, value in shown.items()}, fold + 1)
        logger.advance()
        logger.progress("fold", fold + 1, parts, shown)
        if interrupts.received:
            raise Interrupted(interrupts.received)

    logger.start_phase("folds", parts, 0)
    try:
        with interrupts:
            found = cross_validate(
                lambda: configured(section.model, labelled.space, config.options),
                data,
                parts,
                config.seed,
                SHARES if section.curve else SHARES[-1:],
                after,
            )
        for trial in found:
            tau = trial.figures(labelled.label_N)["kendall_tau"]
            logger.scalars({} if tau is None else {"curve/kendall_tau": tau}, trial.labels)
    finally:
        logger.close()
    return found


def _predictions(labelled: Labelled, trials: Sequence[OutOfFold]) -> list[dict[str, Any]]:
    """Of every architecture what it was predicted to have by a predictor that had not seen its label."""
    if not trials:
        return []
    found, last = [], trials[-1]
    for row, code in enumerate(labelled.codes):
        entry = {"architecture": labelled.space.text(code), "label": float(labelled.label_N[row])}
        entry["score"] = float(last.score_N[row])
        if last.quantile_NL is not None:
            entry["quantiles"] = [float(value) for value in last.quantile_NL[row]]
        found.append(entry)
    return found


def closing_lines(config: PredictConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a trained predictor."""
    tau, interval = summary["kendall_tau"], summary["interval"]
    if tau is None:
        quality = "its quality cannot be told from these labels"
    else:
        between = "" if interval is None else f", 95 % interval {interval[0]:.2f} to {interval[1]:.2f}"
        quality = f"Kendall's tau {tau:.2f}{between}, by {summary['folds']}-fold cross-validation on these labels"
    covered = ""
    if summary.get("covered_0.9") is not None:
        covered = (
            f"; its 50 % and 90 % intervals held {100 * summary['covered_0.5']:.0f} % and "
            f"{100 * summary['covered_0.9']:.0f} % of them"
        )
    run_dir = Path(config.run.dir)
    return [
        f"{summary['model']} for {summary['space']}, trained on {summary['labels']} labels of {summary['source']}, "
        f"{summary['seconds']:.1f} s",
        f"{quality}{covered}",
        f"score others: nge predict score {run_dir} ARCHITECTURES.csv",
        f"report {run_dir / REPORT}",
    ]
