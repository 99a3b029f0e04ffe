"""`nge retrieve bench`: encoders compared by questions whose answers are known, trial by trial; it can go on."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from nge_search.engine.environment import device_name
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.session import Session, run
from nge_search.engine.trials import carry_out
from nge_search.errors import UserError
from nge_search.kinds import REPORT
from nge_search.metrics.comparison import with_deviation
from nge_search.retrieve.catalogue import graphs_of, known_corpus
from nge_search.retrieve.comparison import compare, figures, summarise
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.models import candidate, require_taken
from nge_search.retrieve.questions import Asked
from nge_search.settings.retrieve import RetrieveBenchConfig

#: Of a row, shown on TensorBoard and beside progress.
_SHOWN = ("mrr_at_20", "map_at_20", "ndcg_at_20")


class Trial(NamedTuple):
    """A question of a seed, put to an encoder that is trained by that seed."""

    task: str
    model: str
    seed: int


def run_bench(config: RetrieveBenchConfig) -> dict[str, Any]:
    """Compare encoders as configured; return the summary. A run that was stopped goes on after its last trial.

    Raises:
        UserError: a corpus, a question, options or a run folder that cannot be used.
        Interrupted: SIGTERM or SIGINT; trials so far are recorded.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("trials are carried out by one process; start them without torchrun", shared=True)
    return run(config, lambda session: _compare(session, config))


def _compare(session: Session, config: RetrieveBenchConfig) -> dict[str, Any]:
    section, options = config.bench, config.encoder.given()
    require_taken(options, section.models)
    corpus = known_corpus(config.corpus)
    asked = Asked(corpus, graphs_of(corpus, config.corpus.views), config)
    trials = [
        Trial(task, model, seed)
        for task in section.tasks
        for seed in range(section.first_seed, section.first_seed + section.seeds)
        for model in section.models
    ]
    asked.question(section.tasks[0], section.first_seed)
    interrupts, question = Interrupts(), functools.lru_cache(1)(asked.question)

    def stop(*_: object) -> None:
        if interrupts.received:
            raise Interrupted(interrupts.received)

    def judged(trial: Trial) -> dict[str, Any]:
        put = question(trial.task, trial.seed)
        own = candidate(trial.model, options, session.world.device, stop)
        return figures(put.answers(own, section.folds, trial.seed), put.task.family_Q)

    rows, seconds = carry_out(
        session,
        trials,
        Trial._asdict,
        judged,
        _digest(corpus),
        shown=_SHOWN,
        path=lambda row: f"{row['task']}/{row['model']}",
        needed=_SHOWN,
        what="networks",
        interrupts=interrupts,
    )
    return {
        "kind": config.kind,
        "graphs": len(corpus),
        "versions": dict(corpus.versions),
        "results": summarise(rows),
        "comparisons": compare(rows),
        "seconds": seconds,
        "device": device_name(session.world.device),
    }


def _digest(corpus: Corpus) -> str:
    """What names the networks, by which a run that goes on tells that they are the same."""
    found = hashlib.sha256()
    for entry in corpus.entries:
        found.update(f"{entry.digest} {entry.family} ".encode())
    return found.hexdigest()[:16]


def closing_lines(config: RetrieveBenchConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of finished trials: figures by question and encoder, and what finds more than the first."""
    section, lines = (
        config.bench,
        [f"{summary['graphs']} graphs; mean +- deviation over {config.bench.seeds} seeds"],
    )
    for task in section.tasks:
        own = [result for result in summary["results"] if result["task"] == task]
        lines.append(f"{task}, {own[0]['queries']:.0f} queries".ljust(34) + "".join(f"{n:>18}" for n in _SHOWN))
        for result in own:
            cells = "".join(f"{with_deviation(result[name], 4):>18}" for name in _SHOWN)
            lines.append(f"  {result['model']:32}{cells}")
    for found in summary["comparisons"]:
        lines.append(
            f"{found['model']} - {found['against']}, {found['task']}: MAP@20 {found['difference']:+.4f} "
            f"(p {found['p']:.2g}), MRR {found['mrr_difference']:+.4f}"
        )
    return [*lines, f"report {Path(config.run.dir) / REPORT}"]
