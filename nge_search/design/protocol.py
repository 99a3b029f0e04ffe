"""From cells with accuracies to drawn cells, and how good those are: the printed protocol, and an honest one.

Legend: N cells drawn by each of M models, K of the best and of the worst, R repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nge_search.design.controls import FrequencyScorer, LinkModelScorer, Scorer, UniformScorer
from nge_search.design.generator import DrawSettings, Generator
from nge_search.design.growth import Rules
from nge_search.design.link_model import (
    LinkModel,
    LinkModelSettings,
    Progress,
    TrainingSettings,
    build_model,
    train,
)
from nge_search.design.samples import SampleSettings, build_samples, choose_cells
from nge_search.design.spaces import code_in
from nge_search.errors import UserError
from nge_search.keyed_random import fold
from nge_search.settings.names import DESIGN_METHODS
from nge_search.spaces import Code
from nge_search.tables import Benchmark

#: What seeds are used for.
_SAMPLES, _WEIGHTS, _ORDER, _DRAWS, _QUERIES = range(5)


@dataclass(frozen=True)
class DesignSettings:
    """How cells are drawn.

    Attributes:
        method: what draws them: NAL's link model, or a control (`DESIGN_METHODS`).
        best: K.
        lowest: cells of lower accuracy are not among the worst, in percent.
        members: M.
        together: whether the M models judge moves together, by the mean of their logits, or each draws cells of its
            own, as printed.
        links: of drawn cells; 0: as many as one of the good cells, by chance.
        samples, model, training, draw: of the link model.
    """

    method: str = "links"
    best: int = 30
    lowest: float = 0.0
    members: int = 10
    together: bool = False
    links: int = 0
    samples: SampleSettings = field(default_factory=SampleSettings)
    model: LinkModelSettings = field(default_factory=LinkModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    draw: DrawSettings = field(default_factory=DrawSettings)


@dataclass(frozen=True)
class Oracle:
    """The printed protocol: the best and worst of a whole table by the score teach, M x N cells are drawn.

    Accuracies are scores in percent; "new" cells are no training cells.

    Attributes:
        mean: of the first M N draws.
        mean_new: of the first M N draws that are new; repeats count.
        best, best_new: the best of the first M N draws, and of those that are new, by the score itself.
        best_by_signal, best_by_signal_new: the score of the one with the best signal.
        valid, unique, novel: shares of the first M N draws that are cells of the space, different, new.
        distinct_new: different cells of those behind `mean_new`.
        draws: all told, until M N were new.
        queries: training cells, and different drawn ones behind `mean`.
    """

    mean: float
    mean_new: float
    best: float
    best_new: float
    best_by_signal: float
    best_by_signal_new: float
    valid: float
    unique: float
    novel: float
    distinct_new: int
    draws: int
    queries: int


@dataclass(frozen=True)
class Honest:
    """Random queries teach, and different new cells are drawn.

    Attributes:
        mean_queried, mean_new: scores of the queried and of the drawn cells in percent.
        best: the score of the cell with the best signal of all.
        best_random: of as many random ones, the first of which are those that were queried.
        draws: until there were as many new cells.
        queries: all told.
    """

    mean_queried: float
    mean_new: float
    best: float
    best_random: float
    draws: int
    queries: int


def train_links(
    rules: Rules,
    good: Sequence[Code],
    bad: Sequence[Code],
    settings: DesignSettings,
    seed: int,
    after: Callable[[Progress], None] = lambda progress: None,
) -> tuple[LinkModel, list[Progress]]:
    """M link models, trained on samples of their own each, and how that went."""
    samples = [
        build_samples(rules, good, bad, settings.samples, np.random.default_rng(fold(seed, _SAMPLES, member)))
        for member in range(settings.members)
    ]
    model = build_model(rules, settings.model, settings.members, fold(seed, _WEIGHTS) >> 1)
    return model, train(model, samples, rules.parts, settings.training, fold(seed, _ORDER) >> 1, after)


def build_generator(
    rules: Rules,
    good: Sequence[Code],
    bad: Sequence[Code],
    settings: DesignSettings,
    seed: int,
    into: Rules | None = None,
) -> Generator:
    """What draws cells after good and bad ones.

    Controls draw in proportion to their weights (temperature 1), and cells of the sizes that good ones have, too.

    Args:
        into: rules of the cells that are drawn, with the same labels; None: those of the cells that teach.

    Raises:
        UserError: an unknown method, or labels that differ.
    """
    into = into or rules
    require_teachable(rules, into)
    draw, scorer = DrawSettings(temperature=1.0), _control(rules, good, settings, into)
    if scorer is None:
        model, _ = train_links(rules, good, bad, settings, seed)
        draw, scorer = settings.draw, LinkModelScorer(into, model, settings.together)
    return Generator(into, scorer, sizes_of(rules, good, settings), draw, draw_seed(seed))


def require_teachable(rules: Rules, into: Rules) -> None:
    """Raise UserError if what cells teach cannot draw those of other rules, whose labels differ."""
    if into.labels != rules.labels:
        raise UserError(f"what cells of {rules.space.name} teach cannot draw cells of {into.space.name}")


def sizes_of(rules: Rules, good: Sequence[Code], settings: DesignSettings) -> list[int]:
    """Numbers of moves, one of which each drawn cell takes by chance."""
    return [settings.links] if settings.links else [rules.size(code) for code in good]


def draw_seed(seed: int) -> int:
    """The seed of the draws of a run with this seed."""
    return fold(seed, _DRAWS)


def _control(rules: Rules, good: Sequence[Code], settings: DesignSettings, into: Rules) -> Scorer | None:
    if settings.method == "frequencies":
        return FrequencyScorer(into, [graph for code in good for graph in rules.graphs(code)], settings.members)
    if settings.method == "uniform":
        return UniformScorer(settings.members)
    if settings.method != "links":
        raise UserError(f"cells are drawn by {', '.join(DESIGN_METHODS)}, not '{settings.method}'")
    return None


class _Answers:
    """What a benchmark knows of the cells of rules, which may be those of its space with fewer vertices."""

    def __init__(self, rules: Rules, benchmark: Benchmark):
        self._rules, self._benchmark = rules, benchmark

    def score(self, code: Code) -> float:
        return self._benchmark.score(self._code(code))

    def signal(self, code: Code) -> float:
        return self._benchmark(self._code(code)).value

    def best_by_signal(self, codes: Sequence[Code]) -> float:
        """The score of the cell with the best signal, the first of equals."""
        return self.score(max(codes, key=self.signal))

    def _code(self, code: Code) -> Code:
        space, own = self._benchmark.space, self._rules.space
        return code if space.length == own.length else space.code(own.graphs(code))


class Oracles:
    """The printed protocol on one table, whose best and worst cells are chosen once.

    Args:
        benchmark: a table of all cells that can be drawn, with its signal and its score.

    Attributes:
        good, bad: the best and the worst cells, as codes of the rules' space.

    Raises:
        UserError: too few cells.
    """

    def __init__(self, rules: Rules, benchmark: Benchmark, settings: DesignSettings):
        self.rules, self._answers, self._settings = rules, _Answers(rules, benchmark), settings
        table, label_N = benchmark.table, benchmark.table.column(benchmark.score_name)
        known = {
            row: code_in(rules, table.space, table.code(row)) for row in np.flatnonzero(~np.isnan(label_N)).tolist()
        }
        rows = [row for row, code in known.items() if code is not None]
        codes = [code for code in known.values() if code is not None]
        self.good, self.bad = choose_cells(rules, codes, label_N[rows], settings.best, settings.lowest)

    def run(self, seed: int, cells: int = 10, settings: DesignSettings | None = None) -> Oracle:
        """One repeat with M models of `cells` cells each.

        Args:
            settings: in place of those that the cells were chosen by.

        Raises:
            UserError: too few draws are new, or the table lacks one.
        """
        settings, rules = settings or self._settings, self.rules
        generator = build_generator(rules, self.good, self.bad, settings, seed)
        training = {rules.key(code) for code in (*self.good, *self.bad)}
        count = settings.members * cells
        drawn = generator.draw(count)
        new = [code for code in drawn if rules.key(code) not in training]
        novel, draws = len(new) / count, count
        while len(new) < count:
            if draws >= 200 * count:
                raise UserError(f"{draws} draws gave {len(new)} that are no training cells; raise the temperature")
            more = generator.draw(count, draws)
            for code in more:
                draws += len(new) < count
                new += [code] if rules.key(code) not in training and len(new) < count else []
        first_new = new[: round(novel * count)] or new[:1]
        return Oracle(
            mean=float(np.mean(self._scores(drawn))),
            mean_new=float(np.mean(self._scores(new))),
            best=max(self._scores(drawn)),
            best_new=max(self._scores(first_new)),
            best_by_signal=self._answers.best_by_signal(drawn),
            best_by_signal_new=self._answers.best_by_signal(first_new),
            valid=float(np.mean([rules.space.allows(code) for code in drawn])),
            unique=len({rules.key(code) for code in drawn}) / count,
            novel=novel,
            distinct_new=len({rules.key(code) for code in new}),
            draws=draws,
            queries=len(training | {rules.key(code) for code in drawn}),
        )

    def _scores(self, codes: Sequence[Code]) -> list[float]:
        return [self._answers.score(code) for code in codes]


def honest(
    rules: Rules, benchmark: Benchmark, settings: DesignSettings, seed: int, queried: int = 100, drawn: int = 60
) -> Honest:
    """One repeat of the honest protocol: random queries, of which the best and worst by signal teach.

    Args:
        queried, drawn: cells that are asked for at random, and new ones.

    Raises:
        UserError: too few cells to learn from, or the table lacks one.
    """
    random, answers = random_cells(rules, queried + drawn, seed), _Answers(rules, benchmark)
    known = random[:queried]
    signal_N = np.array([answers.signal(code) for code in known])
    good, bad = choose_cells(rules, known, signal_N, settings.best, settings.lowest)
    generator = build_generator(rules, good, bad, settings, seed)
    found = generator.distinct(drawn, {rules.key(code) for code in known})
    return Honest(
        mean_queried=float(np.mean([answers.score(code) for code in known])),
        mean_new=float(np.mean([answers.score(code) for code in found.codes])),
        best=answers.best_by_signal([*known, *found.codes]),
        best_random=answers.best_by_signal(random),
        draws=found.draws,
        queries=queried + drawn,
    )


def random_cells(rules: Rules, count: int, seed: int) -> list[Code]:
    """Different cells of the space at random, as its codes are; the first ones are the same for any number.

    Raises:
        UserError: a space that has hardly as many.
    """
    random = np.random.default_rng(fold(seed, _QUERIES))
    found: dict[bytes, Code] = {}
    for _ in range(1000 * count):
        code = rules.space.random(random)
        found.setdefault(rules.space.key(code), code)
        if len(found) == count:
            return list(found.values())
    raise UserError(f"{rules.space.name} has hardly {count} different cells; ask for fewer")


def paired(first_R: Sequence[float], second_R: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the differences of two methods over the same seeds."""
    difference_R = np.asarray(first_R) - np.asarray(second_R)
    return float(difference_R.mean()), float(difference_R.std(ddof=1) / len(difference_R) ** 0.5)
