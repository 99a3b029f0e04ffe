"""Cells drawn link by link from the scores of moves: NAL's Algorithm 1, corrected.

In print the pool of scores is never emptied, nodes are counted up for links between old ones, the input is drawn
as an operation, the output may never come, links may lead in a circle, and a softmax is taken of what a sigmoid
has flattened. Here the rules of the space (`growth.Rules`) say which moves there are, and a move is drawn by the
softmax of the logits over a temperature.

Legend: N draws, M judges; the i-th draw is the one of judge i mod M.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nge_search.architecture.graph import Graph
from nge_search.design.controls import Scorer
from nge_search.design.growth import Choice, Move, Rules, State
from nge_search.errors import UserError
from nge_search.keyed_random import Stream, fold, uniform
from nge_search.settings.names import SCORES
from nge_search.spaces import Code

#: Numbers that one draw may use: the first for its size, then one for each move.
_NUMBERS = 64
#: States whose moves and probabilities are remembered.
_REMEMBERED = 1 << 16
#: Draws at once, and for each distinct cell that is asked for the most.
_AT_ONCE, _DRAWS_EACH = 2048, 200


@dataclass(frozen=True)
class DrawSettings:
    """How moves are drawn.

    Attributes:
        temperature: scores are divided by it; above 0, infinite: evenly.
        score: "logit", or "probability": the softmax is taken of sigmoids, as printed.
    """

    temperature: float = 0.5
    score: str = "logit"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"a temperature of {self.temperature:g}; give one above 0, such as 0.5")
        if self.score not in SCORES:
            raise UserError(f"moves are drawn by {' or '.join(SCORES)}, not '{self.score}'")


@dataclass(frozen=True)
class Step:
    """How a cell grew by one move.

    Attributes:
        graph: the cell before.
        candidates: source and target of each move, for people.
        scores: of each, logits.
        probabilities: with which each is drawn.
        chosen: position of the one that was.
    """

    graph: Graph
    candidates: tuple[tuple[str, str], ...]
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    chosen: int


@dataclass(frozen=True)
class Distinct:
    """Different cells, in the order in which they were drawn first.

    Attributes:
        codes: the cells.
        numbers: of the draws that gave each first.
        draws: how many there were, all told.
    """

    codes: list[Code]
    numbers: list[int]
    draws: int


class Generator:
    """Draws cells of a space.

    The i-th draw depends on the seed and on i alone, however many there are at once.

    Args:
        rules: how cells grow.
        scorer: judges moves.
        sizes: numbers of moves, one of which each draw takes by chance: those of good cells.
        seed: of all chance.
    """

    def __init__(
        self,
        rules: Rules,
        scorer: Scorer,
        sizes: Sequence[int],
        settings: DrawSettings | None = None,
        seed: int = 0,
    ):
        if not sizes:
            raise UserError("no number of links to draw cells with; give one, or good cells to take it from")
        self._starts = [rules.start(size) for size in sizes]
        self._rules, self._scorer, self._seed = rules, scorer, seed
        self._settings = settings or DrawSettings()
        self._known: dict[tuple[int, State], tuple[tuple[Move, ...], np.ndarray, np.ndarray]] = {}

    def draw(self, count: int, first: int = 0) -> list[Code]:
        """The draws from number `first` on."""
        codes: list[Code] = []
        for start in range(first, first + count, _AT_ONCE):
            last = min(start + _AT_ONCE, first + count)
            codes += [self._rules.code(way[-1][0]) for way in self._ways(range(start, last))]
        return codes

    def record(self, number: int) -> tuple[Code, list[Step]]:
        """One draw with all that was weighed on the way."""
        (way,) = self._ways(range(number, number + 1))
        steps = []
        for state, chosen in way[:-1]:
            moves, score_C, probability_C = self._known[number % self._scorer.members, state]
            written = tuple(self._rules.written(state, move) for move in moves)
            figures = tuple(score_C.tolist()), tuple(probability_C.tolist())
            steps.append(Step(self._rules.drawing(state), written, *figures, chosen))
        return self._rules.code(way[-1][0]), steps

    def distinct(self, count: int, known: Collection[bytes] = (), first: int = 0) -> Distinct:
        """So many different cells, none of those whose keys (`Rules.key`) are `known`.

        Raises:
            UserError: there are not as many in 200 draws for each.
        """
        seen = set(known)
        codes: list[Code] = []
        numbers: list[int] = []
        end = first + _DRAWS_EACH * count
        number = first
        while number < end and len(codes) < count:
            batch = min(max(count - len(codes), self._scorer.members), end - number)
            for code in self.draw(batch, number):
                key = self._rules.key(code)
                if key not in seen and len(codes) < count:
                    seen.add(key)
                    codes.append(code)
                    numbers.append(number)
                number += 1
        if len(codes) < count:
            raise UserError(
                f"{end - first} draws gave {len(codes)} new different cells, not {count}; raise the temperature "
                f"(now {self._settings.temperature:g}), or ask for fewer"
            )
        return Distinct(codes, numbers, numbers[-1] + 1 - first)

    def probabilities(self, member: int, state: State) -> np.ndarray:
        """Of each move in a state, by judge `member`."""
        self._require({(member, state)})
        return self._known[member, state][2]

    def _ways(self, numbers: range) -> list[list[tuple[State, int]]]:
        """For each draw its states with the position of the move that was made; behind the last one -1."""
        members = self._scorer.members
        number_NU = self._numbers(numbers)
        now = [self._starts[int(number_NU[n, 0] * len(self._starts))] for n in range(len(numbers))]
        ways: list[list[tuple[State, int]]] = [[] for _ in numbers]
        growing = list(range(len(numbers)))
        for step in range(1, _NUMBERS):
            self._require({(numbers[n] % members, now[n]) for n in growing})
            still = []
            for n in growing:
                moves, _, probability_C = self._known[numbers[n] % members, now[n]]
                if not moves:
                    ways[n].append((now[n], -1))
                    continue
                chosen = int(np.searchsorted(np.cumsum(probability_C), number_NU[n, step], side="right"))
                chosen = min(chosen, len(moves) - 1)
                ways[n].append((now[n], chosen))
                now[n] = self._rules.moved(now[n], moves[chosen])
                still.append(n)
            growing = still
            if not growing:
                return ways
        raise AssertionError(f"a cell takes more than {_NUMBERS - 1} moves")

    def _numbers(self, numbers: range) -> np.ndarray:
        """What chance says to each draw: [N, _NUMBERS] in [0, 1)."""
        index_B = torch.arange(numbers.start * _NUMBERS, numbers.stop * _NUMBERS)
        drawn_B = uniform(index_B, seed=fold(self._seed), epoch=0, stream=Stream.GROWTH, dtype=torch.float64)
        return drawn_B.reshape(len(numbers), _NUMBERS).numpy()

    def _require(self, wanted: set[tuple[int, State]]) -> None:
        """See to it that moves and probabilities of these states are known, each judge's in the same order."""
        if len(self._known) > _REMEMBERED:
            self._known = {place: self._known[place] for place in wanted if place in self._known}
        new: list[list[tuple[State, Choice]]] = [[] for _ in range(self._scorer.members)]
        for member, state in sorted(wanted - self._known.keys()):
            moves = self._rules.moves(state)
            if moves:
                new[member].append((state, Choice(self._rules.graph(state), moves)))
            else:
                self._known[member, state] = (), np.empty(0), np.empty(0)
        if not any(new):
            return
        scores = self._scorer([[choice for _, choice in own] for own in new])
        for member, own in enumerate(new):
            for (state, choice), score_C in zip(own, scores[member]):
                self._known[member, state] = choice.moves, score_C, self._softmax(score_C)

    def _softmax(self, score_C: np.ndarray) -> np.ndarray:
        if self._settings.score == "probability":
            score_C = 1 / (1 + np.exp(-score_C))
        if math.isinf(self._settings.temperature):
            score_C = np.zeros_like(score_C)
        weight_C = np.exp((score_C - score_C.max()) / self._settings.temperature)
        return weight_C / weight_C.sum()
