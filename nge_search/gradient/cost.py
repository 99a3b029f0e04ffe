"""Expected mult-adds of a supernet's cells: linear in P, so its gradient is a constant matrix per kind of cell."""

from __future__ import annotations

import torch
from torch import Tensor

from nge_search.counting import multiply_adds
from nge_search.supernet import DenseSupernet, Supernet


class ExpectedCost:
    """Mult-adds of all mixed cells per image, in expectation over P: the sum over kinds of cell of <cost, P>.

    It counts the operations on every edge of the supernet's cells, also those that a derived cell will not keep (6
    of 14 in DARTS' space), and neither stem, preprocessing nor classifier: not the cost of any network, but what
    P can change of the supernet's.

    Attributes:
        matrices: float64 [E, O], one for each kind of cell; mult-adds that each unit of probability adds, summed
            over the cells of the kind.
    """

    def __init__(self, supernet: Supernet | DenseSupernet, image_size: int):
        space = supernet.space
        self.matrices = [torch.zeros(space.shape, dtype=torch.float64) for _ in space.kinds]
        known: dict[tuple[int, ...], Tensor] = {}
        for kind, edge, operations, shape in supernet.mixed_operations(image_size):
            which = kind, space.edges[edge][0] < space.inputs, *shape
            if which not in known:
                costs = [multiply_adds(operation, (1, *shape)) for operation in operations]
                known[which] = torch.tensor(costs, dtype=torch.float64)
            self.matrices[kind][edge] += known[which]

    def expected(self, *matrices: Tensor) -> float:
        """Mult-adds per image under the given probabilities (read back to the host)."""
        pairs = zip(self.matrices, matrices)
        return sum(float((cost_EO * p_EO.detach().cpu().double()).sum()) for cost_EO, p_EO in pairs)

    def relative_gradients(self) -> tuple[Tensor, ...]:
        """Gradients with respect to each P of the expected cost divided by that of uniform P."""
        uniform = sum(float(cost_EO.mean(dim=1).sum()) for cost_EO in self.matrices)
        return tuple(cost_EO / uniform for cost_EO in self.matrices)
