"""Expected mult-adds of a supernet's cells: linear in P, so its gradient is a constant matrix per kind of cell."""

from __future__ import annotations

import torch
from torch import Tensor

from nge_search.counting import multiply_adds
from nge_search.genotype import INPUT_NODES
from nge_search.supernet import Supernet


class ExpectedCost:
    """Mult-adds of all mixed cells per image, in expectation over P: E = <cost_normal, P> + <cost_reduce, P'>.

    Attributes:
        normal_EO, reduce_EO: float64; mult-adds that each unit of probability adds, summed over the cells
            of the kind.
    """

    def __init__(self, supernet: Supernet, image_size: int):
        space = supernet.space
        self.normal_EO = torch.zeros(space.shape, dtype=torch.float64)
        self.reduce_EO = torch.zeros(space.shape, dtype=torch.float64)
        size = image_size
        for cell in supernet.cells:
            matrix_EO = self.reduce_EO if cell.reduction else self.normal_EO
            out_size = (size + 1) // 2 if cell.reduction else size
            cost_O = {}
            for edge, (source, _) in enumerate(space.edges):
                from_input = source < INPUT_NODES
                if from_input not in cost_O:
                    side = size if from_input else out_size
                    shape = (1, cell.channels, side, side)
                    cost_O[from_input] = torch.tensor(
                        [multiply_adds(operation, shape) for operation in cell.edges[edge]], dtype=torch.float64
                    )
                matrix_EO[edge] += cost_O[from_input]
            size = out_size

    def expected(self, p_normal_EO: Tensor, p_reduce_EO: Tensor) -> float:
        """Mult-adds per image under the given probabilities (read back to the host)."""
        pairs = ((self.normal_EO, p_normal_EO), (self.reduce_EO, p_reduce_EO))
        return sum(float((cost_EO * p_EO.detach().cpu().double()).sum()) for cost_EO, p_EO in pairs)

    def relative_gradients(self) -> tuple[Tensor, Tensor]:
        """Gradients with respect to the two P of the expected cost divided by that of uniform P."""
        uniform = float(self.normal_EO.mean(dim=1).sum() + self.reduce_EO.mean(dim=1).sum())
        return self.normal_EO / uniform, self.reduce_EO / uniform
