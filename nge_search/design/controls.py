"""What a link model has to beat: moves drawn evenly, and moves by how often good cells have such links.

Legend: L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nge_search.design.growth import Choice, LinkGraph, Rules
from nge_search.design.link_model import LinkModel, move_scores


class Scorer(Protocol):
    """Judges moves.

    Attributes:
        members: M, judges with an opinion of their own each.
    """

    members: int

    def __call__(self, choices: Sequence[Sequence[Choice]], /) -> list[list[np.ndarray]]:
        """For each of M judges, and each of its choices, a score of each move: a logit, float64."""
        ...


class UniformScorer:
    """All moves alike."""

    def __init__(self, members: int = 1):
        self.members = members

    def __call__(self, choices: Sequence[Sequence[Choice]]) -> list[list[np.ndarray]]:
        return [[np.zeros(len(choice.moves)) for choice in own] for own in choices]


class FrequencyScorer:
    """Moves in proportion to the number of links between such operations in good cells; no network.

    Args:
        rules: of the cells that are drawn.
        graphs: those that are counted, with the same labels.
        added: is added to each number, so that what was never seen is rare and not impossible.

    Attributes:
        count_LL: links from nodes of one label (rows) to those of another.
    """

    def __init__(self, rules: Rules, graphs: Sequence[LinkGraph], members: int = 1, added: float = 0.1):
        self._heads, self.members = [part.labels[0] for part in rules.parts], members
        self.count_LL = np.zeros((len(rules.labels), len(rules.labels)))
        for labels, links in graphs:
            for source, target in links:
                self.count_LL[labels[source], labels[target]] += 1
        self._score_LL = np.log(self.count_LL + added)

    def __call__(self, choices: Sequence[Sequence[Choice]]) -> list[list[np.ndarray]]:
        return [[self._scores(choice) for choice in own] for own in choices]

    def _scores(self, choice: Choice) -> np.ndarray:
        labels = choice.graph.labels
        return np.array(
            [
                np.mean(
                    [
                        self._score_LL[labels[source], labels[target] if target >= 0 else self._heads[~target]]
                        for source, target in move.links
                    ]
                )
                for move in choice.moves
            ]
        )


class LinkModelScorer:
    """Moves by the logits of link models.

    Args:
        rules: of the cells that are drawn; their labels are those that the models have learnt.
        together: the models are one judge, by the mean of their logits, and not a judge each.
    """

    def __init__(self, rules: Rules, model: LinkModel, together: bool = False):
        self._parts, self._model, self._together = rules.parts, model, together
        self.members = 1 if together else model.members

    def __call__(self, choices: Sequence[Sequence[Choice]]) -> list[list[np.ndarray]]:
        if not self._together:
            return move_scores(self._model, self._parts, choices)
        of_models = move_scores(self._model, self._parts, [choices[0]] * self._model.members)
        return [[np.mean(scores, axis=0) for scores in zip(*of_models)]]
