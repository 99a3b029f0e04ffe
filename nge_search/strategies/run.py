"""A whole search by queries, to a table or by short trainings: the judge, the strategy, and the files it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.load import read_architecture
from nge_search.data import load_dataset
from nge_search.data.distributed import load_everywhere
from nge_search.engine.environment import device_name
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.launch import read_launch
from nge_search.engine.logger import Logger
from nge_search.engine.run_folder import Stopwatch
from nge_search.engine.run_reader import RunReader
from nge_search.engine.session import Session, run
from nge_search.errors import UserError
from nge_search.kinds import REPORT
from nge_search.recipes import retrain_command
from nge_search.registry import resolve
from nge_search.settings import names
from nge_search.settings.strategies import QueriesConfig
from nge_search.settings.trial import EvaluatorSection
from nge_search.spaces import SPACES, TRAININGS, DartsSpace, Judge, Queries, Space, Trainings
from nge_search.strategies import build_strategy
from nge_search.strategies.query_loop import run_strategy
from nge_search.tables import Benchmark, open_table


def run_queries(config: QueriesConfig) -> dict[str, Any]:
    """Search as configured; return the summary. A run that was killed starts again and finds the same.

    Raises:
        UserError: a table, column, budget or run folder that cannot be used.
        RunFailure: the policy's probabilities are no longer finite.
        Interrupted: SIGTERM or SIGINT; queries so far are recorded.
    """
    if read_launch(os.environ).size > 1:
        why = "a search in a table is a matter of seconds; start it without torchrun"
        if config.evaluator.kind == "training":
            why = "short trainings run in evaluator.processes= of one machine; start the search without torchrun"
        raise UserError(why, shared=True)
    if config.evaluator.kind == "table":
        config = dataclasses.replace(config, device="cpu")  # whatever there is, a table needs none
    return run(config, lambda session: _search(session, config), finds=True)


@contextlib.contextmanager
def _table(session: Session, config: QueriesConfig) -> Iterator[Judge]:
    """The table of accuracies."""
    section = config.benchmark
    if not section.table:
        raise section.refuse("table", "give a table; `nge table --help` says how to make one")
    yield Benchmark(open_table(section.table), section.signal, section.score, section.repeats, config.seed)


def _space(section: EvaluatorSection) -> Space:
    """What short trainings search."""
    if section.space == DartsSpace.name:
        return DartsSpace(CellSpace(operations=tuple(section.operations)))
    return SPACES[section.space]()


@contextlib.contextmanager
def _training(session: Session, config: QueriesConfig) -> Iterator[Judge]:
    """Short trainings, which end with the search."""
    assert session.folder is not None
    session.folder.recorded_rows()  # refuses other settings: its trainings would not be comparable
    space, section = _space(config.evaluator), config.evaluator
    judge: Trainings = resolve(TRAININGS)(
        config,
        section,
        space,
        session.world.device,
        session.say,
        lambda data: load_everywhere(session, data, load_dataset),
    )
    try:
        yield judge
    finally:
        judge.close()


_JUDGES = {"table": _table, "training": _training}
names.require_names(_JUDGES, names.EVALUATORS)


def _search(session: Session, config: QueriesConfig) -> dict[str, Any]:
    with Interrupts() as interrupts, _JUDGES[config.evaluator.kind](session, config) as judge:
        return _search_by(judge, session, config, interrupts)


def _search_by(judge: Judge, session: Session, config: QueriesConfig, interrupts: Interrupts) -> dict[str, Any]:
    # What these refuse, they refuse before anything is written.
    answers = judge.queries(config.strategy.queries)
    strategy = build_strategy(judge.space, config.strategy, config.embedding, config.seed)
    folder = session.begin()
    for name, document in judge.documents.items():
        folder.write_json(name, document)
    watch, logger = Stopwatch(), Logger(folder, config.run)

    def after(queries: Queries) -> None:
        row = _row(queries, judge, watch)
        logger.row(row)
        logger.scalars({name: row[name] for name in ("signal", "best_signal", "score")}, len(queries))
        logger.advance()
        if len(queries) % config.run.log_every == 0:
            values = {"best signal": row["best_signal"], "its score": row["score"]}
            logger.progress("queries", len(queries), config.strategy.queries, values)
        if interrupts.received:
            raise Interrupted(interrupts.received)

    logger.start_phase("queries", config.strategy.queries, 0)
    try:
        queries = run_strategy(strategy, answers, after, config.evaluator.pending)
    finally:
        logger.close()
    return {**_found(queries, judge, config), "seconds": round(watch.seconds, 2), "device": _device(session)}


def _device(session: Session) -> str:
    return device_name(session.world.device)


def _found(queries: Queries, judge: Judge, config: QueriesConfig) -> dict[str, Any]:
    """What the search has come to."""
    position = int(queries.chosen()[-1])
    best, signal = queries.codes[position], queries.evaluations[position].value
    provenance = {
        "method": config.strategy.name,
        **judge.provenance,
        "signal": judge.signal_name,
        "seed": config.seed,
    }
    failed = [code for code in queries.codes if "failed" in judge.row(code)]
    return {
        "kind": config.kind,
        "genotype": judge.space.to_dict(best, provenance),
        "architecture": judge.space.text(best),
        "signal": signal,
        "score": judge.score(best),
        "score_column": judge.score_name,
        "best": judge.best(),
        "queries": len(queries),
        **({"failed": len(failed)} if failed else {}),
        "simulated_seconds": float(queries.seconds()[-1]),
        "figures": judge.figures(best),
    }


def closing_lines(config: QueriesConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished search."""
    cost = summary["simulated_seconds"]
    settled = f"; it settled before its {config.strategy.queries}" * (summary["queries"] < config.strategy.queries)
    after = f"after {summary['queries']} queries{settled}, {summary['seconds']:.1f} s"
    report = f"report {Path(config.run.dir) / REPORT}"
    if config.evaluator.kind == "training":
        failed = f"; {summary['failed']} failed" if "failed" in summary else ""
        found = (
            f"{config.evaluator.label()} {abs(summary['signal']):.4g}, validation top-1 {summary['score']:.2f} %"
        )
        retrain = []
        if (genotype := read_architecture(summary["genotype"]).genotype) is not None:
            images = RunReader(config.run.dir, lenient=True).searched_images()
            data, plugins = dataclasses.asdict(config.data), genotype.plugins.values()
            retrain = [f"retrain it: {retrain_command(config.run.dir, data, images, plugins)}"]
        lines = [summary["architecture"], f"{found} {after}; the trainings took {cost:.1f} s{failed}"]
        return [*lines, report, *retrain]
    judged = f", {summary['score_column']} {summary['score']:.2f} %" if config.benchmark.score else ""
    saved = f"; training them would have taken {cost / 3600:.1f} h" if cost else ""
    return [
        summary["architecture"],
        f"{config.benchmark.signal} {summary['signal']:.2f} %{judged} "
        f"(the best in the table {summary['best']:.2f} %) {after}{saved}",
        report,
    ]


def _row(queries: Queries, judge: Judge, watch: Stopwatch) -> dict[str, Any]:
    """The last query, for metrics.jsonl; `epoch` counts queries from 0."""
    best = int(queries.chosen()[-1])
    return {
        "epoch": len(queries) - 1,
        "architecture": queries.space.text(queries.codes[-1]),
        "signal": queries.evaluations[-1].value,
        **judge.row(queries.codes[-1]),
        "best_signal": queries.evaluations[best].value,
        "score": judge.score(queries.codes[best]),
        "simulated_seconds": float(queries.seconds()[-1]),
        "seconds": round(watch.seconds, 3),
    }
