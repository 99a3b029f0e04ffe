"""`nge design train`: link models from architectures with accuracies, and cells that are drawn by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nge_search.design.configured import drawing_rules, learning_rules, settings_of, teachers
from nge_search.design.drawing import Drawn, cell_lines, draw
from nge_search.design.growth import Rules
from nge_search.design.link_model import LinkModel, Progress
from nge_search.design.protocol import DesignSettings, sizes_of, train_links
from nge_search.design.saved import SavedLinks, save_links
from nge_search.engine.environment import device_name
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import REPORT
from nge_search.settings.design import DesignConfig
from nge_search.spaces import Code
from nge_search.tables.labels import Lesson, labels_of


def run_train(config: DesignConfig) -> dict[str, Any]:
    """Train link models as configured, and draw cells; return the summary. A run that was stopped starts again.

    Raises:
        UserError: labels, settings or a run folder that cannot be used, or draws that are not new.
        Interrupted: SIGTERM or SIGINT.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("link models are trained by one process; start it without torchrun", shared=True)
    return run(config, lambda session: _train(session, config))


def _train(session: Session, config: DesignConfig) -> dict[str, Any]:
    labelled, chains = labels_of(config.labels), config.draw.chains()
    rules = learning_rules(config.design, labelled.space, chains)
    into = drawing_rules(rules, config.draw.space, chains)
    good, bad, notices = teachers(rules, labelled, config.design)
    settings = settings_of(config.design, len(labelled))
    folder, watch = session.begin(), Stopwatch()
    notices = [*labelled.notices, *notices]
    for notice in notices:
        session.say(notice)
    model, last = _trained(session, config, rules, good, bad, settings, watch)
    sizes, lesson = tuple(sizes_of(rules, good, settings)), Lesson.of(labelled, config.seed)
    saved = SavedLinks(rules, into, model, settings.together, settings.draw, sizes, tuple(good), tuple(bad), lesson)
    folder.require_present()
    save_links(folder.path, saved)
    drawn = _drawn(session, config, saved)
    return {
        "kind": config.kind,
        "space": rules.space.name,
        "into": into.space.name,
        "source": labelled.source,
        "labels": len(labelled),
        "best": len(good),
        "loss": last.loss,
        "link_accuracy": last.accuracy,
        "drawn": 0 if drawn is None else len(drawn),
        "draws": 0 if drawn is None else drawn.found.draws,
        "cells": [] if drawn is None else drawn.texts,
        "notices": notices,
        "seconds": round(watch.seconds, 2),
        "device": device_name(session.world.device),
    }


def _trained(
    session: Session,
    config: DesignConfig,
    rules: Rules,
    good: list[Code],
    bad: list[Code],
    settings: DesignSettings,
    watch: Stopwatch,
) -> tuple[LinkModel, Progress]:
    """The link models, and what their last epoch reached; a row for each epoch."""
    logger, interrupts, epochs = Logger(session.folder, config.run), Interrupts(), settings.training.epochs

    def after(progress: Progress) -> None:
        figures = {"loss": progress.loss, "link_accuracy": progress.accuracy}
        logger.row({"epoch": progress.epoch - 1, **figures, "seconds": round(watch.seconds, 3)})
        logger.scalars({f"train/{name}": value for name, value in figures.items()}, progress.epoch)
        logger.advance()
        if progress.epoch % config.run.log_every == 0 or progress.epoch == epochs:
            logger.progress("epoch", progress.epoch, epochs, figures)
        if interrupts.received:
            raise Interrupted(interrupts.received)

    logger.start_phase("epochs", epochs, 0)
    try:
        with interrupts:
            model, progress = train_links(rules, good, bad, settings, config.seed, after)
    finally:
        logger.close()
    return model, progress[-1]


def _drawn(session: Session, config: DesignConfig, saved: SavedLinks) -> Drawn | None:
    if not config.draw.cells:
        return None
    assert session.folder is not None
    try:
        drawn = draw(saved, config.draw.cells, config.seed, config.draw.new)
    except UserError as error:
        raise config.draw.refuse(
            "cells", f"{error}; the link models are kept, see nge design draw --help"
        ) from None
    session.folder.require_present()
    drawn.write(session.folder.path)
    return drawn


def closing_lines(config: DesignConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of trained link models and of the cells that they drew."""
    run_dir = Path(config.run.dir)
    lines = [
        f"link models for {summary['space']}, taught by the {summary['best']} best and worst of "
        f"{summary['labels']} labels of {summary['source']}, {summary['seconds']:.1f} s",
        f"{100 * summary['link_accuracy']:.1f} % of links judged right, loss {summary['loss']:.3f}",
    ]
    if summary["drawn"]:
        lines += cell_lines(summary["cells"], summary["draws"], summary["into"], run_dir)
    return [
        *lines,
        f"draw others: nge design draw {run_dir} -n 10 --seed 1 --out FOLDER",
        f"report {run_dir / REPORT}",
    ]
