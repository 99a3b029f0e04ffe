"""`nge design bench`: cells drawn by link models and by controls, looked up; it goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nge_search.design.configured import learning_rules, settings_of
from nge_search.design.growth import Rules
from nge_search.design.protocol import DesignSettings, Oracles, honest
from nge_search.engine.environment import device_name
from nge_search.engine.launch import read_launch
from nge_search.engine.session import Session, run
from nge_search.engine.trials import carry_out
from nge_search.errors import UserError
from nge_search.kinds import REPORT
from nge_search.metrics.comparison import compare, summarise, with_deviation
from nge_search.settings.design import DesignBenchConfig
from nge_search.tables import Benchmark, open_table
from nge_search.tables.labels import Labelled, table_labels

#: Of a row: what competes, and on what terms.
PLACE = ("method", "protocol")
#: Figures that are shown on TensorBoard and compared in pairs, those that the protocol has.
COMPARED = ("mean_new", "best", "best_new")
#: What is printed by protocol.
SHOWN = {
    "oracle": (
        "mean",
        "mean_new",
        "best",
        "best_new",
        "best_by_signal",
        "unique",
        "novel",
        "distinct_new",
        "queries",
    ),
    "honest": ("mean_queried", "mean_new", "best", "best_random", "draws", "queries"),
}


class Trial(NamedTuple):
    """Cells that one method draws once.

    Attributes:
        protocol: what teaches it.
        method: what draws.
        seed: of all chance.
    """

    protocol: str
    method: str
    seed: int


def run_bench(config: DesignBenchConfig) -> dict[str, Any]:
    """Measure drawn cells as configured; return the summary. A run that was stopped goes on after its last trial.

    Raises:
        UserError: a table, settings or a run folder that cannot be used.
        Interrupted: SIGTERM or SIGINT; trials so far are recorded.
    """
    if read_launch(os.environ).size > 1:
        raise UserError("trials are carried out by one process; start them without torchrun", shared=True)
    return run(config, lambda session: _measure(session, config))


def _measure(session: Session, config: DesignBenchConfig) -> dict[str, Any]:
    labelled, benchmark = _table(config)
    rules = learning_rules(config.design, labelled.space)
    judged = _Trials(config, rules, benchmark, len(labelled))
    bench, seeds = config.bench, range(config.bench.first_seed, config.bench.first_seed + config.bench.seeds)
    trials = [
        Trial(protocol, method, seed)
        for seed, protocol, method in itertools.product(seeds, bench.protocols, bench.methods)
    ]
    rows, seconds = carry_out(
        session,
        trials,
        Trial._asdict,
        judged,
        labelled.digest(benchmark.table.column(benchmark.score_name)),
        labelled.notices,
        COMPARED,
        lambda row: f"{row['protocol']}/{row['method']}",
    )
    return {
        "kind": config.kind,
        "space": labelled.space.name,
        "source": labelled.source,
        "signal": benchmark.signal_name,
        "score": benchmark.score_name,
        "architectures": len(labelled),
        "notices": list(labelled.notices),
        "results": summarise(rows, PLACE),
        "comparisons": [found for figure in COMPARED for found in compare(rows, figure, place=PLACE)],
        "seconds": seconds,
        "device": device_name(session.world.device),
    }


def _table(config: DesignBenchConfig) -> tuple[Labelled, Benchmark]:
    """The table's labels, and the table as drawn cells are looked up in it."""
    section = config.labels
    if not section.table:
        raise section.refuse("table", "drawn cells are looked up in a table of the whole space; give one")
    section.require_given()
    table = open_table(section.table)
    if section.space and table.space.name != section.space:
        raise section.refuse("space", f"the architectures of {table.source} are of {table.space.name}")
    labelled = table_labels(table, section.column)
    return labelled, Benchmark(table, section.column, config.bench.score)


class _Trials:
    """Carries out trials: what teaches is chosen once where it is the whole table."""

    def __init__(self, config: DesignBenchConfig, rules: Rules, benchmark: Benchmark, labels: int):
        self._bench, self._rules, self._benchmark = config.bench, rules, benchmark
        taught = {"oracle": labels, "honest": config.bench.queried}
        self._settings = {name: settings_of(config.design, taught[name]) for name in config.bench.protocols}
        self._oracles = None
        if "oracle" in self._settings:
            try:
                self._oracles = Oracles(rules, benchmark, self._settings["oracle"])
            except UserError as error:
                raise config.design.refuse("best", str(error)) from None

    def __call__(self, trial: Trial) -> Mapping[str, float]:
        settings: DesignSettings = dataclasses.replace(self._settings[trial.protocol], method=trial.method)
        bench = self._bench
        if trial.protocol == "honest":
            found = honest(self._rules, self._benchmark, settings, trial.seed, bench.queried, bench.drawn)
            return dataclasses.asdict(found)
        assert self._oracles is not None
        return dataclasses.asdict(self._oracles.run(trial.seed, bench.cells, settings))


def closing_lines(config: DesignBenchConfig, summary: dict[str, Any]) -> list[str]:
    """What is printed of finished trials: a table by protocol, and what differs from the first method."""
    bench = config.bench
    lines = []
    for protocol in bench.protocols:
        results = [own for own in summary["results"] if own["protocol"] == protocol]
        lines += _lines(protocol, results, summary)
    first, last = bench.first_seed, bench.first_seed + bench.seeds - 1
    lines.append(f"seeds {first} to {last}; {summary['seconds']:.0f} s")
    for found in summary["comparisons"]:
        between = "" if found["low"] is None else f" ({found['low']:+.3f} to {found['high']:+.3f})"
        where = f"{found['protocol']}, {found['figure']}"
        lines.append(f"{found['method']} - {found['against']}, {where}: {found['mean']:+.3f}{between}")
    return [*lines, f"report {Path(config.run.dir) / REPORT}"]


def _lines(protocol: str, results: list[dict[str, Any]], summary: dict[str, Any]) -> list[str]:
    """Figures by method, with their deviations over seeds."""
    shown = SHOWN[protocol]
    where = f"{summary['space']}, {summary['source']}, {summary['score']}"
    lines = [
        f"{protocol} on {where}: mean +- deviation over seeds",
        " " * 12 + "".join(f"{name:>18}" for name in shown),
    ]
    for own in results:
        lines.append(f"{own['method']:12}{''.join(f'{with_deviation(own.get(name), 2):>18}' for name in shown)}")
    return lines
