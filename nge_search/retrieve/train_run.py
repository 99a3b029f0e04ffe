"""`nge retrieve train`: an encoder fitted to a corpus, its index, and how well it finds families it did not see."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nge_search.engine.environment import device_name, package_versions
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import REPORT, RETRIEVAL
from nge_search.retrieve.catalogue import Catalogue, about, graphs_of, key, known_corpus
from nge_search.retrieve.choosing import Candidate, similarities
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.index import Index, Novelty
from nge_search.retrieve.layout import layout
from nge_search.retrieve.models import candidate, require_taken
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.tasks import nearest_with_and_without, same_family
from nge_search.settings.retrieve import RetrieveConfig


def run_train(config: RetrieveConfig) -> dict[str, Any]:
    """Fit an encoder as configured; return the summary. A run that was stopped starts again and finds the same.

    Raises:
        UserError: a corpus, options or a run folder that cannot be used.
        Interrupted: SIGTERM or SIGINT.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("an encoder of networks is trained by one process; start it without torchrun", shared=True)
    return run(config, lambda session: _train(session, config))


def _train(session: Session, config: RetrieveConfig) -> dict[str, Any]:
    section, options = config.retrieve, config.encoder.given()
    require_taken(options, [section.model])
    corpus = known_corpus(config.corpus)
    graphs, families = graphs_of(corpus, config.corpus.views), [entry.family for entry in corpus.entries]
    folder, watch = session.begin(), Stopwatch()
    logger, interrupts = Logger(folder, config.run), Interrupts()
    epochs = 0

    def stop(*_: object) -> None:
        if interrupts.received:
            raise Interrupted(interrupts.received)

    def tell(stage: str, epoch: int, loss: float) -> None:
        nonlocal epochs
        logger.row({"epoch": epochs, "stage": stage, "loss": loss, "seconds": round(watch.seconds, 2)})
        epochs += 1
        logger.scalars({f"loss/{stage}": loss}, epochs)
        logger.progress(f"{stage}, epoch", epoch, epoch, {"loss": loss})
        stop()

    try:
        with interrupts:
            device = session.world.device
            quality, novelty = _judged(config, candidate(section.model, options, device, stop), graphs, families)
            logger.scalars(quality, 1)
            chosen = candidate(section.model, options, device, tell)
            embedder = chosen.make()
            embedder.fit(graphs, families, config.seed)
            embedding_ND = embedder.embed(graphs).astype(np.float32)
    finally:
        logger.close()
    entries = corpus.entries
    index = Index(
        tuple(map(key, entries)), embedding_ND, tuple(map(about, entries)), novelty, smoothing=chosen.smoothing
    )
    said = {"model": section.model, "views": config.corpus.views, "quality": quality, "made": _made(corpus)}
    folder.require_present()
    Catalogue(corpus, embedder, index, said).write(folder.path)
    folder.write_json(RETRIEVAL, {"map": _map(corpus, index, config.seed)})
    return {
        "kind": config.kind,
        "model": section.model,
        "graphs": len(corpus),
        "networks": sum(len(entry.networks) for entry in entries),
        "features": int(embedding_ND.shape[1]),
        "quality": quality,
        "novelty": None if novelty is None else {name: _finite(value) for name, value in vars(novelty).items()},
        "versions": dict(corpus.versions),
        "seconds": round(watch.seconds, 2),
        "device": device_name(session.world.device),
    }


def _judged(
    config: RetrieveConfig, own: Candidate, graphs: Sequence[OrderedGraph], families: Sequence[str]
) -> tuple[dict[str, float], Novelty | None]:
    """How well members of families are found whose names were not seen, and when a network counts as new."""
    task = same_family(families)
    if not len(task.query_Q):
        return {}, None
    found_QN = similarities(own, graphs, families, task, config.retrieve.folds, config.seed)
    near = nearest_with_and_without(found_QN, task)
    quality = {name: round(value, 6) for name, value in task.answers(found_QN).figures().items()}
    return quality, Novelty.calibrated(*near, config.retrieve.false_alarms)


def _made(corpus: Corpus) -> dict[str, Any]:
    """By what the files were made."""
    installed = {name: version for name, version in package_versions().items() if version}
    return {
        "python": platform.python_version(),
        **installed,
        **{f"corpus: {n}": v for n, v in corpus.versions.items()},
    }


def _map(corpus: Corpus, index: Index, seed: int) -> list[dict[str, Any]]:
    """Each entry's point in the plane."""
    points = layout(index.embedding_ND, seed)
    return [
        {
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "name": key(entry),
            "family": entry.family,
            "label": entry.label,
        }
        for entry, (x, y) in zip(corpus.entries, points)
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def closing_lines(config: RetrieveConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of an encoder."""
    lines = [
        f"{summary['model']}: {summary['networks']} networks, {summary['graphs']} distinct graphs, "
        f"{summary['features']} features, {summary['seconds']:.1f} s"
    ]
    if quality := summary["quality"]:
        lines.append(
            f"families whose names it had not seen: MRR {quality['mrr_at_20']:.3f}, "
            f"MAP@20 {quality['map_at_20']:.3f}, NDCG@20 {quality['ndcg_at_20']:.3f}"
        )
    if novelty := summary["novelty"]:
        area = "" if novelty["area"] is None else f", AUROC {novelty['area']:.3f}"
        lines.append(
            f"new: nothing as near as {novelty['threshold']:.3f}, as for "
            f"{100 * (novelty['detections'] or 0):.0f} % of networks whose family is left out, and "
            f"{100 * novelty['false_alarms']:.0f} % of others{area}"
        )
    run_dir = Path(config.run.dir)
    return [
        *lines,
        f"ask it: nge retrieve query NETWORK --catalogue {run_dir}",
        f"report {run_dir / REPORT}",
    ]
