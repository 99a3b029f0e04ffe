"""The predictor that ships with the package (`shipped`), as one that scores like all others.

Legend: M architectures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.genotype import SPACE
from nge_search.errors import UserError
from nge_search.predict.base import ProbabilisticPredictor, State
from nge_search.predict.encoding import Cells
from nge_search.predict.input_features import features_by_input
from nge_search.predict.shipped import CELLS, Shipped, shipped
from nge_search.spaces.base import Space


class ShippedPredictor(ProbabilisticPredictor):
    """Scores are expected test accuracies on CIFAR-10 in percent, of trainings as `shipped` says.

    Args:
        space: that of DARTS.
        own: the weights.
    """

    def __init__(self, space: Space, own: Shipped):
        self.space, self.own = space, own

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        """Raises UserError: it has been trained, and what it was trained on does not ship."""
        raise UserError("the predictor that ships with the package is trained already; name another one to train")

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        """Normal densities, all as wide as the 90 % interval; UserError for cells of other spaces."""
        for cells in asked:
            if set(cells) != set(CELLS.kinds):
                raise UserError(f"an architecture of {SPACE} has cells {', '.join(CELLS.kinds)}")
            self.space.code(cells)
        mean_M = torch.from_numpy(self.own.ridge(features_by_input(asked, CELLS.kinds)))
        low, high = self.own.residuals[90]
        ninety = torch.special.ndtri(torch.tensor(0.95, dtype=torch.float64))
        return mean_M, (high - low) / (2 * ninety).expand(len(asked))

    def target(self, label: Tensor) -> Tensor:
        return label

    def label(self, target: Tensor) -> Tensor:
        return target

    def state(self) -> State:
        return {}, self.own.to_dict()

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self.own = Shipped.of(dict(document), "the predictor's state")


def open_shipped(space: Space) -> ShippedPredictor:
    """The predictor that ships with the package for a space.

    Raises:
        UserError: another space than DARTS'.
    """
    if space.name != SPACE or space.cell_space != CELLS:
        raise UserError(
            f"the predictor that ships with the package is for cells of {SPACE}, not of {space.name}; train one of "
            "your own"
        )
    return ShippedPredictor(space, shipped())
