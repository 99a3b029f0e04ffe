"""Our settings chosen anew, by families that the report is not on: the part `choice` of `retrieve.py`.

Legend: Q queries.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
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


def show(ask: Ask, out: Path, seeds: int = 3) -> None:
    """For each seed of `unseen`, the choice of highest MAP on all families that it does not draw, on those it does.

    The control is chosen in the same way, of those with surroundings.
    """
    found, tests = [], []
    drawn = [set(ask("unseen", seed).task.family_Q.tolist()) for seed in range(seeds)]
    for question in _QUESTIONS:
        of_ours, of_controls = figures(ask(question, 0))
        own_rows = [chosen(question, seed, drawn[seed], of_ours, of_controls) for seed in range(seeds)]
        found += [{name: value for name, value in row.items() if name != "totals"} for row in own_rows]
        tests.append({"question": question, "p": tested([row["totals"] for row in own_rows])})
    lines = [
        [
            row["question"],
            str(row["seed"]),
            *row["chosen"],
            *(f"{three(r)} / {three(m)}" for r, m in zip(row["mrr_at_20"], row["map_at_20"])),
        ]
        for row in found
    ]
    print(markdown(["question", "seed", "chosen", "control", "MRR / MAP@20", "the control's"], lines))
    print("\n" + markdown(["question", "p"], [[test["question"], f"{test['p']:.2g}"] for test in tests]))
    header = results_header("python experiments/retrieve.py choice")
    write_json(out / "retrieve_choice.json", {**header, "results": found, "tests": tests})


def chosen(
    question: str, seed: int, drawn: set[str], of_ours: dict[str, Figures], of_controls: dict[str, Figures]
) -> dict[str, Any]:
    """What the families that are not drawn choose, on those that are."""
    report_Q = np.isin(next(iter(of_ours.values())).family_Q, list(drawn))
    names = [
        max(all_figures, key=lambda name: np.nanmean(all_figures[name].precision_Q[~report_Q]))
        for all_figures in (of_ours, of_controls)
    ]
    best = [of_ours[names[0]], of_controls[names[1]]]
    totals: dict[str, list[float]] = {}
    for place, own_figures in enumerate(best):
        for family, precision in zip(own_figures.family_Q[report_Q], own_figures.precision_Q[report_Q]):
            totals.setdefault(str(family), [0.0, 0.0])[place] += float(np.nan_to_num(precision))
    return {
        "question": question,
        "seed": seed,
        "chosen": names,
        "map_at_20": [float(np.nanmean(one.precision_Q[report_Q])) for one in best],
        "mrr_at_20": [float(np.nanmean(one.rank_Q[report_Q])) for one in best],
        "totals": totals,
    }


def tested(totals_of_seeds: list[dict[str, list[float]]]) -> float:
    """P that what is chosen finds no more than the control: families exchanged, those of all seeds together."""
    totals: dict[str, list[float]] = {}
    for of_seed in totals_of_seeds:
        for family, pair in of_seed.items():
            own_pair = totals.setdefault(family, [0.0, 0.0])
            own_pair[:] = [a + b for a, b in zip(own_pair, pair)]
    total_F2 = np.array(list(totals.values())).reshape(-1, 2)
    return family_permutation_test(total_F2[:, 0], total_F2[:, 1], np.array(list(totals)))


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
