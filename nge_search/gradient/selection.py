"""What becomes of the P that a search ends with: a cell, chosen by more than P, and compared with simple ones.

- Short: the cell that P derives, or one of a likely operation throughout if that learns better, and those one edit
  away, over the likeliest operations of each edge, are trained for a short time each; the best few again, for
  longer, and the best of these stays. One round of edits: a second one follows the noise of the first.
- Predictor: the same cells, by what a predictor expects of them.
- Perturbation: `nge_search.gradient.perturbation`.

Baselines are cells of one operation throughout, and random ones, under the same short training.
"""

from __future__ import annotations

import functools
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.architecture.graph import PLAIN
from nge_search.architecture.load import read_architecture
from nge_search.engine.interrupt import Interrupted, Interrupts
from nge_search.engine.session import Session
from nge_search.gradient.bilevel import BilevelSearch
from nge_search.gradient.perturbation import perturb
from nge_search.gradient.progress import parameter_free_share
from nge_search.registry import resolve
from nge_search.settings.search import SearchConfig, SearchSection
from nge_search.spaces import TRAININGS, Code, EdgeSpace, Trainings, likely_operations

#: Between two remarks on how far short trainings are.
_TOLD_SECONDS = 60

#: What opens the predictor that ships with the package for a space.
SHIPPED = "nge_search.predict.shipped_predictor:open_shipped"

Document = dict[str, Any]


def require_selectable(config: SearchConfig, space: EdgeSpace) -> None:
    """Raise UserError, before anything is trained, unless cells of the space can be chosen as configured."""
    if config.search.selected_by == "predictor":
        resolve(SHIPPED)(space)


def finish(session: Session, task: BilevelSearch, derived: Document) -> Document:
    """Choose a cell and compare it, as configured.

    Called on every rank; short trainings run on the first one alone. A run that was stopped goes on behind the
    trainings that have finished.

    Args:
        derived: the JSON object of the architecture that P derives.

    Returns:
        For the summary: "genotype", and where they were asked for "selection" and "baselines".

    Raises:
        UserError: images that can no longer be used.
        Interrupted: SIGTERM or SIGINT.
    """
    config = task.config
    code = task.space.code_of(read_architecture(derived, "the last epoch's row"))
    if config.search.selected_by == "argmax" and not config.search.baselines:
        return {"genotype": derived}
    with Interrupts() as interrupts, _Asked(session, task, interrupts) as asked:
        chosen, selection = _select(session, task, asked, code)
        found = {"genotype": derived if chosen == code else _document(task, chosen, derived)}
        if selection:
            found["selection"] = {**selection, "derived": derived, "chosen": found["genotype"]}
        if config.search.baselines:
            longer = config.search.selection_longer if {"starts", "finals"} & selection.keys() else 1
            found["baselines"] = compare(asked, task.space, chosen, config.search.random_cells, config.seed, longer)
    return found


def _document(task: BilevelSearch, code: Code, derived: Document) -> Document:
    provenance = {**derived.get("provenance", {}), "selection": task.config.search.selected_by}
    return task.space.to_dict(code, provenance)


@dataclass(frozen=True)
class Answer:
    """What is known of a cell that was trained: the value that counts (the higher, the better), and all figures."""

    value: float
    figures: dict[str, Any]


class _Asked:
    """Short trainings that every rank asks for together, and the first one makes; entered, and left at the end.

    Attributes:
        words: what is measured, for people.
        sign: -1 where values are figures with a minus.
    """

    def __init__(self, session: Session, task: BilevelSearch, interrupts: Interrupts):
        self._session, self._task, self._interrupts = session, task, interrupts
        self.section = task.config.evaluator
        self.words, self.sign = self.section.label(), 1 if self.section.signal == "valid_top1" else -1
        self._trainings: dict[int, Trainings] = {}

    def __enter__(self) -> _Asked:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trainings:
            self._trainings[1].close()

    def answers(self, codes: Sequence[Code], longer: int = 1) -> list[Answer]:
        """Of cells, in their order; they are trained side by side where there are processes for it.

        Args:
            longer: so many times the steps.
        """
        world = self._session.world
        world.on_main(lambda: self._prepare(codes, longer))
        found, start = [], time.monotonic()
        told = start
        for code in codes:  # one by one, since other ranks wait for each
            answer = world.on_main(functools.partial(self._answer, code, longer))
            received = self._interrupts.received
            if any(world.agree(received is not None or answer is None)) or answer is None:
                raise Interrupted(received or signal.SIGTERM)
            found.append(answer)
            if (now := time.monotonic()) - told > _TOLD_SECONDS and len(found) < len(codes):
                minutes, told = math.ceil((now - start) / 60 * (len(codes) / len(found) - 1)), now
                self._session.say(f"short trainings: {len(found)} of {len(codes)}, some {minutes} min to go")
        return found

    def _open(self, longer: int) -> Trainings:
        if not self._trainings:
            config, session = self._task.config, self._session
            self._trainings[1] = resolve(TRAININGS)(
                config, config.evaluator, self._task.space, session.world.device, session.say, self._task.load
            )
        if longer not in self._trainings:
            self._trainings[longer] = self._trainings[1].longer(longer)
        return self._trainings[longer]

    def _prepare(self, codes: Sequence[Code], longer: int) -> None:
        for code in codes:
            self._open(longer).prepare(code)

    def _answer(self, code: Code, longer: int) -> Answer | None:
        """None once a signal has ended the training, which was saved."""
        trainings = self._open(longer)
        try:
            return Answer(trainings(code).value, trainings.figures(code))
        except Interrupted:
            return None


def _select(session: Session, task: BilevelSearch, asked: _Asked, code: Code) -> tuple[Code, Document]:
    """The chosen architecture, and what the summary says of the choice; empty where P chooses."""
    section, space, start = task.config.search, task.space, time.perf_counter()
    matrices = [x_EO.double().cpu() for x_EO in task.strengths()]
    likely = likely_operations(matrices, section.selection_operations)
    if section.selected_by == "argmax":
        return code, {}
    if section.selected_by == "perturbation":
        chosen, found = perturb(session, task)
    elif section.selected_by == "predictor":
        chosen, found = by_predictor(space, candidates(space, code, likely))
    else:
        begin, starts = _start(
            session, asked, space, [code, *likely_throughout(space, matrices, section.selection_starts)], section
        )
        few = too_few_convolutions(space, begin, section.selection_convolutions)
        if few:
            chosen, found = begin, {"off": few}
        else:
            chosen, found = _by_trainings(session, asked, space, candidates(space, begin, likely), section)
        found |= {**starts, "signal": asked.words, "sign": asked.sign, "longer": section.selection_longer}
    seconds = round(time.perf_counter() - start, 2)
    return chosen, {
        "method": section.selected_by,
        **found,
        "edit": difference(space, code, chosen),
        "seconds": seconds,
    }


def likely_throughout(space: EdgeSpace, matrices: Sequence[Tensor], count: int) -> list[Code]:
    """The cells of one operation throughout, for the `count` that are likeliest over all edges together.

    Where P is alike on all edges, chance decides between them.
    """
    names = space.cell_space.operations
    ranked = torch.cat([*matrices]).mean(dim=0).argsort(descending=True, stable=True).tolist()
    return [space.throughout(at) for at in ranked if names[at] != "none"][:count]


def _start(
    session: Session, asked: _Asked, space: EdgeSpace, codes: Sequence[Code], section: SearchSection
) -> tuple[Code, Document]:
    """Of the derived cell, the first, and others the best by a longer training, and a record of all."""
    starts = list({space.key(code): code for code in codes}.values())
    if len(starts) == 1:
        return codes[0], {}
    steps = section.selection_longer * asked.section.steps
    session.say(f"selection: the derived cell and {len(starts) - 1} simple ones are trained for {steps} steps each")
    chosen, found = by_short_trainings(space, starts, asked.answers(starts, section.selection_longer))
    return chosen, {"starts": found["trials"], "start": found["best"]}


def _by_trainings(
    session: Session, asked: _Asked, space: EdgeSpace, codes: Sequence[Code], section: SearchSection
) -> tuple[Code, Document]:
    """The best by short trainings, or by longer ones of the best few, and a record of all."""
    steps, times = asked.section.steps, section.selection_longer
    session.say(f"selection: {len(codes)} cells are trained for {steps} steps each")
    chosen, found = by_short_trainings(space, codes, answers := asked.answers(codes))
    best = sorted(range(len(codes)), key=lambda place: (-answers[place].value, place))[
        : section.selection_finalists
    ]
    if len(best) > 1:
        session.say(f"selection: the best {len(best)} are trained for {times * steps} steps each")
        finalists = [codes[place] for place in best]
        chosen, longer = by_short_trainings(space, finalists, asked.answers(finalists, times), codes[0])
        found |= {"best": best[longer["best"]], "finals": longer["trials"]}
    return chosen, found


def too_few_convolutions(space: EdgeSpace, code: Code, least: float) -> str:
    """Why short trainings should not choose, in words; empty if the cells have convolutions enough."""
    graphs = space.graphs(code)
    share = 1 - sum(parameter_free_share(cell, space.kept) for cell in graphs.values()) / len(graphs)
    if share >= least:
        return ""
    return (
        f"{100 * share:.0f} % of the operations to begin with are convolutions, fewer than "
        f"search.selection_convolutions={least:g}: among such cells short trainings favour skips"
    )


def candidates(space: EdgeSpace, code: Code, likely: Sequence[Sequence[Sequence[int]]]) -> list[Code]:
    """The architecture, and then those one edit away over each edge's likely operations; each once.

    Args:
        likely: as `EdgeSpace.edits` takes them.
    """
    found = {space.key(code): code}
    for other in space.edits(code, likely):
        found.setdefault(space.key(other), other)
    return list(found.values())


def by_short_trainings(
    space: EdgeSpace, codes: Sequence[Code], answers: Sequence[Answer], derived: Code | None = None
) -> tuple[Code, Document]:
    """The best by its value, of equals the first, and a record of each, beside `derived`, or else the first."""
    best = max(range(len(codes)), key=lambda place: (answers[place].value, -place))
    first = derived or codes[0]
    trials = [_record(space, first, code, answer) for code, answer in zip(codes, answers)]
    return codes[best], {"trials": trials, "best": best}


def by_predictor(space: EdgeSpace, codes: Sequence[Code]) -> tuple[Code, Document]:
    """The best by the predictor that ships with the package, of equals the first, and a record of each."""
    scores = resolve(SHIPPED)(space).scores(list(map(space.graphs, codes))).tolist()
    best = max(range(len(codes)), key=lambda place: (scores[place], -place))
    trials = [
        {"architecture": space.text(code), "edit": difference(space, codes[0], code), "value": score}
        for code, score in zip(codes, scores)
    ]
    return codes[best], {"signal": "expected test accuracy, %", "sign": 1, "trials": trials, "best": best}


def _record(space: EdgeSpace, derived: Code, code: Code, answer: Answer) -> Document:
    return {
        "architecture": space.text(code),
        "edit": difference(space, derived, code),
        "value": answer.value,
        **answer.figures,
    }


def difference(space: EdgeSpace, code: Code, other: Code) -> str:
    """What is edited from one architecture to another, in words; empty where they are the same."""
    parts = []
    before, after = space.graphs(code), space.graphs(other)
    for kind in before:
        removed, added = (
            ", ".join(
                f"{edge.label.name} {edge.source}→{edge.target}"
                for edge in first[kind].edges
                if edge.label != PLAIN and edge not in second[kind].edges
            )
            for first, second in ((before, after), (after, before))
        )
        if removed or added:
            parts.append(f"{kind}: {removed or 'none'} becomes {added or 'none'}")
    return "; ".join(parts)


def compare(
    asked: _Asked, space: EdgeSpace, chosen: Code, random_cells: int, seed: int, longer: int = 1
) -> Document:
    """The chosen architecture beside cells of one operation throughout, and random ones: the figures, the verdict.

    The random ones depend on the seed alone.

    Args:
        longer: all are trained for so many times the steps, as those were by which the choice was made.
    """
    names = space.cell_space.operations
    throughout = {name: space.throughout(at) for at, name in enumerate(names) if name != "none"}
    random = np.random.default_rng(seed)
    drawn = [space.random(random) for _ in range(random_cells)]
    answers = asked.answers([chosen, *throughout.values(), *drawn], longer)
    found, of_same = answers[0], answers[1 : 1 + len(throughout)]
    of_random = answers[1 + len(throughout) :]

    def record(name: str, code: Code, answer: Answer) -> Document:
        return {"name": name, "architecture": space.text(code), "value": answer.value, **answer.figures}

    same = [record(name, code, answer) for (name, code), answer in zip(throughout.items(), of_same)]
    others = [record(f"random {at + 1}", *pair) for at, pair in enumerate(zip(drawn, of_random))]
    best_same, best_other = (max(records, key=lambda own: own["value"]) for records in (same, others))
    beats = all(found.value > own["value"] for own in (best_same, best_other))
    return {
        "signal": asked.words,
        "sign": asked.sign,
        "found": record("found", chosen, found),
        "throughout": same,
        "random": others,
        "beats": beats,
        "longer": longer,
        "verdict": _verdict(asked, found.value, best_same, [own["value"] for own in others], beats, longer),
    }


def result_lines(summary: Document) -> list[str]:
    """What is printed of a selection, and of a comparison, in a finished search."""
    lines = []
    selection, baselines = summary.get("selection"), summary.get("baselines")
    if selection:
        parts = [selection.get("off"), selection.get("edit") or "the cell that P derives stays"]
        lines.append(f"selection ({selection['method']}): {'; '.join(part for part in parts if part)}")
    if baselines:
        lines.append(baselines["verdict"])
    return lines


def _verdict(asked: _Asked, value: float, same: Document, others: Sequence[float], beats: bool, longer: int) -> str:
    """In one line, whether the search has found more than is to be had without it."""
    shown = f"{asked.words} {asked.sign * value:.4g}"
    best = f"{same['name']} throughout has {asked.sign * same['value']:.4g}"
    mean = (
        f"{len(others)} random cells {asked.sign * max(others):.4g} at best, {asked.sign * np.mean(others):.4g} on"
    )
    verb = "beats" if beats else "does not beat"
    return (
        f"after a short training the cell found {verb} the simple ones: {shown}; {best}, {mean} average "
        f"(one training of {longer * asked.section.steps} steps each)"
    )
