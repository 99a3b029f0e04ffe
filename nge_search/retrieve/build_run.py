"""`nge retrieve build`: the networks of installed libraries as a corpus of graphs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nge_search.engine.environment import device_name
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import CORPUS, REPORT
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.corpus_build import Limits, Progress, build_corpus
from nge_search.retrieve.tasks import SMALLEST_FAMILY
from nge_search.settings.retrieve import RetrieveBuildConfig

#: Networks between two lines of progress.
_EVERY = 25
#: Networks without a graph that summary.json names, and the command prints.
_MOST_NAMED, _MOST_PRINTED = 500, 5


def run_build(config: RetrieveBuildConfig) -> dict[str, Any]:
    """Build a corpus as configured; return the summary. A build that was stopped goes on with the next network.

    Raises:
        UserError: a library or a run folder that cannot be used, or no network that has a graph.
        Interrupted: SIGTERM or SIGINT; what was traced is kept.
    """
    if read_launch(os.environ).size > 1:
        raise UserError(
            "a corpus is built by one process, which starts others; start it without torchrun", shared=True
        )
    return run(config, lambda session: _build(session, config))


def _build(session: Session, config: RetrieveBuildConfig) -> dict[str, Any]:
    section, folder, watch = config.build, session.begin(), Stopwatch()
    traced = Path(section.traced) if section.traced else folder.path / "traced"
    logger, interrupts = Logger(folder, config.run), Interrupts()

    def tell(state: Progress) -> None:
        if state.reason:
            logger.say(f"{state.network} has no graph: {state.reason}")
        logger.advance()
        if state.done % _EVERY == 0 or state.done == state.total:
            logger.progress("networks", state.done, state.total, {"seconds": watch.seconds})
        if interrupts.received:
            raise Interrupted(interrupts.received)

    limits = Limits(section.seconds, section.megabytes)
    logger.start_phase("networks", 0, 0)
    try:
        with interrupts:
            corpus = build_corpus(traced, section.libraries, section.names or None, section.processes, limits, tell)
        if not len(corpus):
            first = next(iter(corpus.skipped.items()), None)
            why = "none has such a name" if first is None else f"{first[0]}: {first[1]}"
            raise UserError(
                f"the corpus would be empty: no network of {', '.join(section.libraries)} has a graph ({why})"
            )
        for row in _rows(corpus, section.libraries):
            logger.row({**row, "seconds": round(watch.seconds, 2)})
            logger.scalars({f"networks/{row['library']}": row["networks"]}, row["epoch"] + 1)
    finally:
        logger.close()
    folder.require_present()
    corpus.write(folder.path / CORPUS)
    return {
        "kind": config.kind,
        **described(corpus),
        "seconds": round(watch.seconds, 2),
        "device": device_name(session.world.device),
    }


def _rows(corpus: Corpus, libraries: list[str]) -> list[dict[str, Any]]:
    networks = [network for entry in corpus.entries for network in entry.networks]
    return [
        {
            "epoch": epoch,
            "library": library,
            "networks": sum(network.library == library for network in networks),
            "graphs": sum(entry.of_library(library) is not None for entry in corpus.entries),
            "skipped": sum(name.startswith(f"{library}:") for name in corpus.skipped),
        }
        for epoch, library in enumerate(libraries)
    ]


def described(corpus: Corpus) -> dict[str, Any]:
    """What summaries tell of a corpus."""
    labels = [entry.label for entry in corpus.entries]
    return {
        "graphs": len(corpus),
        "networks": sum(len(entry.networks) for entry in corpus.entries),
        "families": len(corpus.families()),
        "large_families": len(corpus.families(SMALLEST_FAMILY)),
        "labels": {label: labels.count(label) for label in sorted(set(labels))},
        "versions": dict(corpus.versions),
        "skipped": len(corpus.skipped),
        "reasons": dict(list(corpus.skipped.items())[:_MOST_NAMED]),
    }


def closing_lines(config: RetrieveBuildConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a corpus."""
    labels = ", ".join(f"{count} {label}" for label, count in summary["labels"].items())
    lines = [
        f"{summary['networks']} networks, {summary['graphs']} distinct graphs ({labels}), "
        f"{summary['large_families']} families of at least {SMALLEST_FAMILY}, {summary['seconds']:.1f} s",
    ]
    reasons = list(summary["reasons"].items())
    lines += [f"no graph: {name}: {reason}" for name, reason in reasons[:_MOST_PRINTED]]
    if summary["skipped"] > _MOST_PRINTED:
        lines.append(f"no graph: {summary['skipped'] - _MOST_PRINTED} more, which the report names")
    run_dir = Path(config.run.dir)
    return [
        *lines,
        f"train an encoder on it: nge retrieve train corpus.file={run_dir}",
        f"report {run_dir / REPORT}",
    ]
