"""What networks take: cells as a batch, and with them what is standardised on the training architectures.

Legend: N architectures, F analytic features of all kinds of cells, S saliencies of an operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError, shorten
from nge_search.predict import analytic
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.network_options import NetworkOptions
from nge_search.predict.symmetry_breaking import SaliencyScale, breaking_numbers
from nge_search.predict.training import Inputs
from nge_search.predict.zero_cost import zero_cost_operations
from nge_search.predict.zero_cost_metrics import SALIENCIES
from nge_search.spaces.base import Space

_SCALE = ("median_S", "mean_S", "std_S")


class Preparation:
    """Makes inputs of cells.

    Args:
        space: of the cells.
        options: whether networks take analytic features, and saliencies of operations.

    Attributes:
        features: F; 0 without them.
        metrics: numbers of an operation; 0 without them.
    """

    def __init__(self, space: Space, options: NetworkOptions):
        self.space, self.options, self.form = space, options, Form.of(space)
        self.features = len(analytic.NAMES) * len(self.form.kinds) if options.analytic else 0
        self.metrics = len(SALIENCIES) if options.needs_saliencies else 0
        self._known: dict[str, Tensor] = {}

    def fit(self, known: Sequence[Cells]) -> Inputs:
        """The inputs of the training architectures, by which those of others are scaled from now on."""
        self._known = {}
        if self.features:
            rows_NF = self._features(known)
            self._known["analytic.mean_F"] = rows_NF.mean(dim=0)
            self._known["analytic.std_F"] = rows_NF.std(dim=0, correction=0)
        if self.metrics:
            scale = SaliencyScale.fit(self._saliencies(known)[1])
            for name in _SCALE:
                self._known[f"saliencies.{name}"] = torch.from_numpy(getattr(scale, name))
        return self(known)

    def __call__(self, asked: Sequence[Cells]) -> Inputs:
        """Their inputs; `fit` comes first where anything is scaled."""
        features_NF = metrics = None
        if self.features:
            features_NF = self._scaled(self._features(asked))
        if self.metrics:
            # What a code stands for is numbered as it is measured.
            asked, saliencies = self._saliencies(asked)
            scale = SaliencyScale(*(self._known[f"saliencies.{name}"].numpy() for name in _SCALE))
            form = self.form
            metrics = breaking_numbers(asked, saliencies, scale, form.on_edges, form.width)
        return Inputs(self.form.batch(asked), len(self.form.kinds), features_NF, metrics)

    def tensors(self) -> dict[str, Tensor]:
        """What `fit` has learnt, by name."""
        return dict(self._known)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            UserError: something else.
        """
        sizes = {"analytic.mean_F": self.features, "analytic.std_F": self.features}
        sizes.update({f"saliencies.{name}": self.metrics for name in _SCALE})
        expected = {name: size for name, size in sizes.items() if size}
        if set(tensors) != set(expected):
            raise UserError(f"a predictor's scales are not those of this one: {shorten(sorted(tensors))}")
        for name, own in tensors.items():
            if own.shape != (expected[name],) or own.dtype != torch.float64 or not own.isfinite().all():
                raise UserError(f"{name} of a predictor is not {expected[name]} finite numbers of 64 bits")
        self._known = dict(tensors)

    def _features(self, cells: Sequence[Cells]) -> Tensor:
        """Analytic features, those of all kinds of cells side by side: float64 [N, F]."""
        own = [analytic.features([one[kind] for one in cells]) for kind in self.form.kinds]
        return torch.from_numpy(np.concatenate(own, axis=1))

    def _scaled(self, rows_NF: Tensor) -> Tensor:
        """Standardised; 0 for what all training architectures have the same."""
        mean_F, std_F = self._known["analytic.mean_F"], self._known["analytic.std_F"]
        varies_F = std_F > 1e-9 * mean_F.abs()
        scaled_NF = (rows_NF - mean_F) / torch.where(varies_F, std_F, 1)
        return torch.where(varies_F, scaled_NF, 0).to(torch.get_default_dtype())

    def _saliencies(self, cells: Sequence[Cells]) -> tuple[list[Cells], list[dict[str, np.ndarray]]]:
        """The graphs of the cells' codes, and what is measured of their operations."""
        codes = [self.space.code(one) for one in cells]
        measured = zero_cost_operations(self.space, codes, self.options.zero_cost, self.options.cache)
        return [self.space.graphs(code) for code in codes], measured
