"""What every operation of a derived network adds to its size: sizes of networks are sums, and so are found at once.

Legend: E edges, O operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nge_search.errors import UserError, plain
from nge_search.networks.classifier import Classifier
from nge_search.networks.families import FAMILIES
from nge_search.networks.sizes import network_size
from nge_search.operations import build_operation
from nge_search.settings.names import INPUT_NODES
from nge_search.spaces.base import Code
from nge_search.spaces.darts import DartsSpace


class OperationSizes:
    """The size of the networks of a kind, of any cells of DARTS' space: its operations' and that of all the rest.

    Exact: neither the channels nor the resolution at which an operation works depend on the other operations.

    Args:
        space: of the cells.
        network: "cifar" or "imagenet"; without its auxiliary head.
        of: "macs", mult-adds per image, or "params".
        sizes: channels of the first cell, cells, classes.
        image_size: side of the images in pixels.
        image_channels: of the images.

    Attributes:
        rest: size of the stem, of the cells' preprocessing and of the classifier.
        matrices: float64 [E, O] for the normal and the reduction cell: what an operation on an edge adds, over all
            cells of its kind.

    Raises:
        UserError: too few channels for such a network, or an operation of a plugin that fails on the meta device.
    """

    def __init__(
        self,
        space: DartsSpace,
        network: str,
        of: str,
        sizes: tuple[int, int, int],
        image_size: int,
        image_channels: int = 3,
    ):
        self.space = space
        first = space.throughout(0)
        with torch.device("meta"):
            built = FAMILIES[network].build(space.graphs(first), *sizes, image_channels)
            assert isinstance(built, Classifier)
            whole = _counted("the network", built, of, image_size, image_channels)
        self.matrices = [torch.zeros(space.cell_space.shape, dtype=torch.float64) for _ in space.cell_space.kinds]
        known: dict[tuple[int, int, int], list[int]] = {}
        reduced = [built.stem_reduction, *built.reductions]
        for cell, before in zip(built.cells, reduced):
            channels = cell.c_out // len(cell.cell.concat)
            for edge, (source, _) in enumerate(space.cell_space.edges):
                stride = 2 if cell.reduction and source < INPUT_NODES else 1
                side = -(-image_size // (before * (2 if cell.reduction and stride == 1 else 1)))
                which = channels, stride, side
                if which not in known:
                    known[which] = self._operations(of, *which)
                self.matrices[int(cell.reduction)][edge] += torch.tensor(known[which], dtype=torch.float64)
        self.rest = 0
        self.rest = whole - self.size(first)

    def _operations(self, of: str, channels: int, stride: int, side: int) -> list[int]:
        """The size of each operation on inputs of so many channels and pixels."""
        with torch.device("meta"):
            built = {name: build_operation(name, channels, stride) for name in self.space.cell_space.operations}
            return [
                _counted(f"operation '{name}'", operation, of, side, channels) for name, operation in built.items()
            ]

    def size(self, code: Code) -> int:
        """The size of the network of an architecture."""
        total, position = float(self.rest), 0
        for matrix_EO in self.matrices:
            for node in self.space.cell_space.inner:
                incoming = self.space.cell_space.incoming(node)
                *sources, first, second = code[position : position + 4]
                for source, operation in zip(sources, (first, second)):
                    total += float(matrix_EO[incoming[source], operation])
                position += 4
        return round(total)

    def expected_gradients(self) -> list[Tensor]:
        """Gradients, with respect to each P, of the expected size of the operations relative to that of uniform P.

        Each node is taken to keep each of its incoming edges with the same chance: [E, O] for each kind of cell.
        """
        shares_E = torch.tensor([2 / target for _, target in self.space.cell_space.edges], dtype=torch.float64)
        owed = [matrix_EO * shares_E[:, None] for matrix_EO in self.matrices]
        uniform = sum(float(matrix_EO.mean(dim=1).sum()) for matrix_EO in owed)
        return [matrix_EO / max(uniform, 1.0) for matrix_EO in owed]


def _counted(what: str, module: nn.Module, of: str, side: int, channels: int) -> int:
    """`network_size`; operations of plugins may fail there, where those of the package do not.

    Raises:
        UserError: the module does not compute on the meta device.
    """
    try:
        return network_size(module, of, side, channels)
    except Exception as error:
        raise UserError(
            f"{what} has no size on {channels} channels of {side}x{side} pixels: {type(error).__name__}: "
            f"{plain(str(error), 200)} (it is built and counted on the meta device, which has no numbers)"
        ) from None
