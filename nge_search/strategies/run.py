"""A whole search in a table of accuracies: the table, the strategy, and the files it leaves."""

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
from nge_search.kinds import REPORT
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import Queries
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
        raise UserError("a search in a table is a matter of seconds; start it without torchrun", shared=True)
    return run(config, lambda session: _search(session, config), finds=True)


def _search(session: Session, config: QueriesConfig) -> dict[str, Any]:
    section = config.benchmark
    if not section.table:
        raise section.refuse("table", "give a table; `nge table --help` says how to make one")
    benchmark = Benchmark(open_table(section.table), section.signal, section.score, section.repeats, config.seed)
    # What these refuse, they refuse before anything is written.
    answers = benchmark.queries(config.strategy.queries)
    strategy = build_strategy(benchmark.space, config.strategy, config.embedding, config.seed)
    folder = session.begin()
    watch, logger, interrupts = Stopwatch(), Logger(folder, config.run), Interrupts()

    def after(queries: Queries) -> None:
        row = _row(queries, benchmark, watch)
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
        with interrupts:
            queries = run_strategy(strategy, answers, after)
    finally:
        logger.close()
    position = int(queries.chosen()[-1])
    best, signal = queries.codes[position], queries.evaluations[position].value
    provenance = {
        "method": config.strategy.name,
        "table": benchmark.table.source,
        "signal": benchmark.signal_name,
        "seed": config.seed,
    }
    genotype = benchmark.space.to_dict(best, provenance)
    return {
        "kind": config.kind,
        "genotype": genotype,
        "architecture": benchmark.space.text(best),
        "signal": signal,
        "score": benchmark.score(best),
        "score_column": benchmark.score_name,
        "best": benchmark.best(),
        "queries": len(queries),
        "simulated_seconds": float(queries.seconds()[-1]),
        "figures": benchmark.table.figures(benchmark.table.find(best)),
        "seconds": round(watch.seconds, 2),
        "device": device_name(session.world.device),
    }


def closing_lines(config: QueriesConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished search."""
    judged = f", {summary['score_column']} {summary['score']:.2f} %" if config.benchmark.score else ""
    cost = summary["simulated_seconds"]
    saved = f"; training them would have taken {cost / 3600:.1f} h" if cost else ""
    settled = f"; it settled before its {config.strategy.queries}" * (summary["queries"] < config.strategy.queries)
    return [
        summary["architecture"],
        f"{config.benchmark.signal} {summary['signal']:.2f} %{judged} "
        f"(the best in the table {summary['best']:.2f} %) after {summary['queries']} queries{settled}, "
        f"{summary['seconds']:.1f} s{saved}",
        f"report {Path(config.run.dir) / REPORT}",
    ]


def _row(queries: Queries, benchmark: Benchmark, watch: Stopwatch) -> dict[str, Any]:
    """The last query, for metrics.jsonl; `epoch` counts queries from 0."""
    best = int(queries.chosen()[-1])
    return {
        "epoch": len(queries) - 1,
        "architecture": queries.space.text(queries.codes[-1]),
        "signal": queries.evaluations[-1].value,
        "best_signal": queries.evaluations[best].value,
        "score": benchmark.score(queries.codes[best]),
        "simulated_seconds": float(queries.seconds()[-1]),
        "seconds": round(watch.seconds, 3),
    }
