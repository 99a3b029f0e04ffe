"""Our settings chosen anew, by families that the report is not on: the part `choice` of `retrieve.py`.

Legend: Q queries.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from predict_tables import markdown, three
from retrieve_encoders import FINGERPRINTS, Once, Untrained

from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.metrics.retrieval import family_permutation_test
from nge_search.retrieve import own
from nge_search.retrieve.choosing import Candidate
from nge_search.retrieve.embedders import Embedder
from nge_search.retrieve.questions import Question
from nge_search.retrieve.smoothing import Smoothing

#: A question of a seed, by its name.
Ask = Callable[[str, int], Question]

#: What our settings were chosen among: which of our fingerprints, and how they are smoothed.
_SEEN = {
    "surroundings": own.FINGERPRINTS[:2],
    "and operations": own.FINGERPRINTS[:3],
    "and all without views": own.FINGERPRINTS,
}
_SMOOTHED = {
    "plain": Smoothing(),
    "smoothed": Smoothing(8),
    "both": Smoothing(8, kept=0.5),
    "both, 5 neighbours": Smoothing(5, kept=0.5),
}
_CONTROLS = [name for name in FINGERPRINTS if name.startswith("wl")]
_QUESTIONS = ("families", "twins", "torchvision")


class Figures(NamedTuple):
    """Of each query."""

    precision_Q: np.ndarray
    rank_Q: np.ndarray
    family_Q: np.ndarray


def show(ask: Ask, path: Path, seeds: int = 3) -> None:
    """For each seed of `unseen`, the choice of highest MAP on all families that it does not draw, on those it does.

    The choice is made by the question itself, or once by the mean over all questions, as one encoder ships. The
    control, of those with surroundings, is always chosen by the question itself.
    """
    of_ours, of_controls = {}, {}
    for question in _QUESTIONS:
        of_ours[question], of_controls[question] = figures(ask(question, 0))
    found, tests = [], []
    drawn = [set(ask("unseen", seed).task.family_Q.tolist()) for seed in range(seeds)]
    for by, question in itertools.product(("the question", "all questions"), _QUESTIONS):
        asked = (question,) if by == "the question" else _QUESTIONS
        rows = []
        for seed, families in enumerate(drawn):
            names = best(of_ours, asked, families), best(of_controls, (question,), families)
            pair = of_ours[question][names[0]], of_controls[question][names[1]]
            rows.append(
                {"by": by, "question": question, "seed": seed, "chosen": [*names], **reported(pair, families)}
            )
        tests.append({"by": by, "question": question, **tested(rows)})
        found += [{name: value for name, value in row.items() if name != "totals"} for row in rows]
    print(table(found, tests))
    header = results_header("python experiments/retrieve.py choice")
    write_json(path, {**header, "results": found, "tests": tests})


def table(found: Sequence[dict[str, Any]], tests: Sequence[dict[str, Any]]) -> str:
    """What was chosen, and what it finds."""

    def pairs(row: dict[str, Any]) -> list[str]:
        return [f"{three(r)} / {three(m)}" for r, m in zip(row["mrr_at_20"], row["map_at_20"])]

    lines = [[row["by"], row["question"], str(row["seed"]), *row["chosen"], *pairs(row)] for row in found]
    means = [[test["by"], test["question"], *pairs(test), f"{test['p']:.2g}"] for test in tests]
    figures_of = ["MRR / MAP@20", "the control's"]
    chosen = markdown(["chosen by", "question", "seed", "chosen", "control", *figures_of], lines)
    return f"{chosen}\n\n{markdown(['chosen by', 'question', *figures_of, 'p'], means)}"


def best(figures_of: Mapping[str, Mapping[str, Figures]], asked: Collection[str], drawn: Collection[str]) -> str:
    """The name of highest MAP over families that are not drawn, the mean of some questions."""

    def map_of(name: str) -> float:
        ones = [figures_of[question][name] for question in asked]
        return float(np.mean([np.nanmean(one.precision_Q[~np.isin(one.family_Q, list(drawn))]) for one in ones]))

    return max(figures_of[next(iter(asked))], key=map_of)


def reported(pair: tuple[Figures, Figures], drawn: Collection[str]) -> dict[str, Any]:
    """What a choice and its control find of the families that are drawn, and each family's sums of precisions."""
    report_Q = np.isin(pair[0].family_Q, list(drawn))
    totals: dict[str, list[float]] = {}
    for place, one in enumerate(pair):
        for family, precision in zip(one.family_Q[report_Q], one.precision_Q[report_Q]):
            totals.setdefault(str(family), [0.0, 0.0])[place] += float(np.nan_to_num(precision))
    return {
        "map_at_20": [float(np.nanmean(one.precision_Q[report_Q])) for one in pair],
        "mrr_at_20": [float(np.nanmean(one.rank_Q[report_Q])) for one in pair],
        "totals": totals,
    }


def tested(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and "p" that what is chosen finds no more than the control.

    Families are exchanged as a whole, those of all seeds together.
    """
    totals: dict[str, list[float]] = {}
    for row in rows:
        for family, pair in row["totals"].items():
            totals[family] = [a + b for a, b in zip(totals.get(family, [0.0, 0.0]), pair)]
    total_F2 = np.array(list(totals.values())).reshape(-1, 2)
    means = {name: np.mean([row[name] for row in rows], axis=0).tolist() for name in ("map_at_20", "mrr_at_20")}
    return {**means, "p": family_permutation_test(total_F2[:, 0], total_F2[:, 1], np.array(list(totals)))}


def figures(question: Question) -> tuple[dict[str, Figures], dict[str, Figures]]:
    """All choices, and all controls, on a question."""

    def judged(tried: Candidate) -> Figures:
        answers = question.answers(tried, 5, 0)
        return Figures(answers.average_precisions(20), answers.reciprocal_ranks(20), question.task.family_Q)

    of_ours = {
        f"{sees}; {how}": judged(Candidate(functools.partial(_fitted, sees), smoothing, families=False))
        for (sees, (how, smoothing)) in itertools.product(_SEEN, _SMOOTHED.items())
    }
    of_controls = {name: judged(Candidate(functools.partial(_fitted, name), families=False)) for name in _CONTROLS}
    return of_ours, of_controls


@functools.cache
def _fitted(name: str) -> Embedder:
    """Fitted once to the same graphs."""
    if name in _SEEN:
        return Once(own.OwnEmbedder(replace(own.OwnSettings(), fingerprints=_SEEN[name])))
    return Once(Untrained(FINGERPRINTS[name]))
