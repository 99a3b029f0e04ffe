"""Accuracies half-way and at the end of a training, predicted together (TA-GATES, Sections 3.3 and 4.3).

All networks learn by the squared error of sigmoid(score) against accuracies as shares of 1:

    single_gates    GATES twice, each from one of the two accuracies
    multi_lstm      an LSTM, and a head with two outputs
    multi_gates     GATES, and a head with two outputs
    multi_control   TA-GATES of one pass, and a head with two outputs: what is left without its updates
    ta_gates        TA-GATES of two steps, and a head for each

Legend: T = 2 stages, N architectures with labels, M asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError, nearest
from nge_search.metrics.ranking import kendall_tau, mean_squared_error, pearson
from nge_search.predict.encoding import Cells
from nge_search.predict.members import Members
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.networks import Design, design
from nge_search.predict.preparation import Preparation
from nge_search.predict.published import Published, anytime, published
from nge_search.predict.training import ScoreNetwork, scores, train
from nge_search.settings.names import ANYTIME_PREDICTORS as MODELS
from nge_search.spaces.base import Space

STAGES = ("half", "final")


class AnytimePredictor:
    """Estimates of both accuracies.

    Args:
        space: of the architectures.
        model: one of `MODELS`.
        options: what is not as published; options of GATES are not for `multi_lstm`.

    Raises:
        UserError: an unknown model, a space without published settings, or fewer steps than stages.
    """

    def __init__(self, space: Space, model: str, options: NetworkOptions | None = None):
        if model not in MODELS:
            raise UserError(
                f"no anytime predictor '{model}'{nearest(model, MODELS)}; there are {', '.join(MODELS)}"
            )
        self.options = options or NetworkOptions()
        self.is_single, self.is_stepwise = model == "single_gates", model == "ta_gates"
        if self.is_stepwise and (self.options.steps or len(STAGES)) < len(STAGES):
            raise UserError(f"steps={self.options.steps}: TA-GATES has a step for each of {len(STAGES)} accuracies")
        if model == "multi_lstm" and self.options.of_flow:
            raise UserError(f"{model} has no option {', '.join(self.options.of_flow)}")
        self.design = _design(space, model, self.options)
        self.preparation = Preparation(space, self.options)
        self._trained: list[Members] = []

    def fit(self, known: Sequence[Cells], label_TN: Tensor, seed: int) -> None:
        """Learn from accuracies in percent, those half-way and those at the end; `seed` decides all chance.

        Raises:
            UserError: labels that are no accuracies in percent.
        """
        if label_TN.shape != (len(STAGES), len(known)) or not ((label_TN >= 0) & (label_TN <= 100)).all():
            raise UserError(f"anytime labels are accuracies from 0 to 100, {len(STAGES)} for each architecture")
        share_TN = (label_TN / 100).to(torch.get_default_dtype())
        inputs, self._trained = self.preparation.fit(known), []
        for part_SN in share_TN.split(1) if self.is_single else [share_TN]:
            members = self._untrained(len(part_SN), seed)
            train(members, inputs, part_SN, self.design.training, seed)
            self._trained.append(members)

    def _untrained(self, stages: int, seed: int) -> Members:
        own, prepared = self.design, self.preparation
        heads, outputs = (stages, 1) if self.is_stepwise else (1, stages)

        def build() -> ScoreNetwork:
            encoder = own.encoder(prepared.metrics)
            return ScoreNetwork(encoder, prepared.features, own.head, heads=heads, outputs=outputs)

        return Members(build, self.options.members, seed)

    def estimates(self, asked: Sequence[Cells]) -> Tensor:
        """Accuracies in percent, float64 [T, M]: the mean of the members'."""
        assert self._trained, "fit comes first"
        inputs = self.preparation(asked)
        parts = [torch.sigmoid(scores(members, inputs).double()).mean(dim=0) for members in self._trained]
        return 100 * torch.cat(parts)


def _design(space: Space, model: str, options: NetworkOptions) -> Design:
    own = anytime(space.name)
    if model == "multi_lstm":
        return design(space, "lstm", options, own)
    if model in ("single_gates", "multi_gates"):
        own = Published(published(space.name, "gates").flow, own.head, own.training)
    elif model == "multi_control":
        own = dataclasses.replace(own, flow=dataclasses.replace(own.flow, steps=1))
    return design(space, "ta_gates", options, own)


def anytime_figures(estimate_TM: np.ndarray, label_TM: np.ndarray) -> dict[str, dict[str, float]]:
    """For each stage Kendall's tau, the linear correlation, and the squared error of shares of 1.

    Both are accuracies in percent.
    """
    return {
        stage: {
            "kendall_tau": kendall_tau(estimate_M, label_M),
            "pearson": pearson(estimate_M, label_M),
            "mean_squared_error": mean_squared_error(estimate_M / 100, label_M / 100),
        }
        for stage, estimate_M, label_M in zip(STAGES, estimate_TM, label_TM)
    }
