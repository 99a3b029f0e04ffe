"""Expected cost of a supernet's cells: linear in P, so its gradient is a constant matrix per kind of cell.

It is counted in mult-adds, or measured in seconds on the device that searches.
"""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.counting import multiply_adds
from nge_search.engine.distributed import World
from nge_search.engine.environment import device_name
from nge_search.errors import UserError, plain
from nge_search.networks.latency import WARM_UP, pass_seconds
from nge_search.supernet import DenseSupernet, Supernet

#: What an operation costs on an input of a shape.
OperationCost = Callable[[nn.Module, tuple[int, ...]], float]
#: Forward passes whose median is an operation's latency, and the images of each.
_PASSES, _BATCH = 7, 8


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
        self.matrices = _summed(supernet, image_size, multiply_adds)

    def expected(self, *matrices: Tensor) -> float:
        """Mult-adds per image under the given probabilities (read back to the host)."""
        pairs = zip(self.matrices, matrices)
        return sum(float((cost_EO * p_EO.detach().cpu().double()).sum()) for cost_EO, p_EO in pairs)

    def relative_gradients(self) -> tuple[Tensor, ...]:
        """Gradients with respect to each P of the expected cost divided by that of uniform P."""
        uniform = sum(float(cost_EO.mean(dim=1).sum()) for cost_EO in self.matrices)
        return tuple(cost_EO / uniform for cost_EO in self.matrices)


class MeasuredCost(ExpectedCost):
    """As `ExpectedCost`, in seconds per image: the median of forward passes of each operation by itself, in fp32.

    What the first rank measures holds on all of them, and in a search that is taken up again: there nothing is
    measured.

    Attributes:
        known: whether it has been measured, or loaded.
        how: how and where; empty until then.
    """

    def __init__(self, supernet: Supernet | DenseSupernet, image_size: int):
        self._supernet, self._image_size = supernet, image_size
        self.matrices = [torch.zeros(supernet.space.shape, dtype=torch.float64) for _ in supernet.space.kinds]
        self.how: dict[str, Any] = {}

    @property
    def known(self) -> bool:
        return bool(self.how)

    def measure(self, world: World) -> None:
        """Measure on the first rank; every rank calls this."""
        seconds = functools.partial(_operation_seconds, world.device)
        how = {
            "batch": _BATCH,
            "passes": _PASSES,
            "warm_up": WARM_UP,
            "threads": torch.get_num_threads(),
            "device": device_name(world.device),
        }
        self.matrices, self.how = world.on_main(lambda: (_summed(self._supernet, self._image_size, seconds), how))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": torch.stack(self.matrices), "how": self.how}

    def load_state_dict(self, state: Any, source: str) -> None:
        """Raises UserError, naming `source`, for what `state_dict` never gave."""
        own, given = torch.stack(self.matrices), state.get("seconds") if isinstance(state, dict) else None
        if not isinstance(given, Tensor) or given.shape != own.shape or given.dtype != own.dtype:
            raise UserError(f"{source} is damaged: 'latency' holds no {own.dtype} {tuple(own.shape)}")
        how = state.get("how")
        if not isinstance(how, dict):
            raise UserError(f"{source} is damaged: 'latency' does not say how it was measured")
        self.matrices, self.how = list(given), how


def _summed(supernet: Supernet | DenseSupernet, image_size: int, cost: OperationCost) -> list[Tensor]:
    """What each operation on each edge costs, over the cells of a kind: float64 [E, O] for each kind."""
    space = supernet.space
    found = [torch.zeros(space.shape, dtype=torch.float64) for _ in space.kinds]
    known: dict[tuple[int, ...], Tensor] = {}
    for kind, edge, operations, shape in supernet.mixed_operations(image_size):
        which = kind, space.edges[edge][0] < space.inputs, *shape
        if which not in known:
            costs = [
                _cost_of(cost, name, operation, shape) for name, operation in zip(space.operations, operations)
            ]
            known[which] = torch.tensor(costs, dtype=torch.float64)
        found[kind][edge] += known[which]
    return found


def _cost_of(cost: OperationCost, name: str, operation: nn.Module, shape: tuple[int, ...]) -> float:
    """What an operation costs; UserError, naming it, where it does not take such maps, as a plugin's may not."""
    try:
        return cost(operation, (1, *shape))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a plugin's code may raise anything
        raise UserError(
            f"operation '{name}' does not take maps of {list(shape)} (channels, height, width), which the supernet "
            f"has: {plain(str(error), 200)}; larger images have larger maps (data.image_size)"
        ) from None


def _operation_seconds(device: torch.device, operation: nn.Module, shape: tuple[int, ...]) -> float:
    """Seconds per image; a copy is measured, and the operation left as it is."""
    twin = copy.deepcopy(operation).to(device, torch.float32).eval()
    images_BCHW = torch.zeros(_BATCH, *shape[1:], device=device)
    return statistics.median(pass_seconds(twin, images_BCHW, _PASSES)) / _BATCH
