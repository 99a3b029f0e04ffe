"""Weights of a cell's edges stacked in one tensor for each kind, and back to the textbook's names, exactly."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nge_search.architecture.cell_space import CellSpace
from nge_search.errors import UserError, plain
from nge_search.supernet import sampled
from nge_search.supernet.folding import wide
from nge_search.supernet.kernels.backends import Backends
from nge_search.supernet.nasbench201 import DenseSupernet
from nge_search.supernet.reference import Supernet

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Statistics(nn.Module):
    """Running mean and variance of stacked batch normalisations: [n, C] each, and their counts [n]."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norms: Sequence[nn.BatchNorm2d]):
        super().__init__()
        self.momentum = norms[0].momentum
        for name in _STATISTICS:
            self.register_buffer(name, torch.stack([getattr(norm, name) for norm in norms]))

    def extra_repr(self) -> str:
        return f"{' x '.join(map(str, self.running_mean.shape))}, momentum={self.momentum}"


def running(norm: nn.BatchNorm2d | Statistics) -> tuple[Tensor, Tensor]:
    """Running mean and variance, which all normalisations of a supernet keep."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return mean, variance


@torch.no_grad()
def move(norm: nn.BatchNorm2d | Statistics, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move running statistics towards a batch's mean and biased variance [..., C]."""
    unbiased = variance * (count / (count - 1))
    momentum, tracked = norm.momentum, norm.num_batches_tracked
    assert momentum is not None
    assert tracked is not None
    for target, observed in zip(running(norm), (mean, unbiased)):
        target.lerp_(observed.to(target.dtype), momentum)
    tracked += 1


class StackedCell(nn.Module):
    """A cell in its fast form.

    Attributes:
        names: by the name of a stack, the textbook's names of what it holds, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}

    def extra_repr(self) -> str:
        weights = self.named_parameters(recurse=False)
        return "\n".join(f"({name}): {' x '.join(map(str, weight.shape))}" for name, weight in weights)

    def stack(self, reference: dict[str, nn.Module], name: str, paths: Sequence[str]) -> None:
        """Adopt the weights or statistics of some modules of the textbook's cell as one stack."""
        modules = [reference[path] for path in paths]
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        if norms:
            setattr(self, name, Statistics(norms))
            for buffer in _STATISTICS:
                self.names[f"{name}.{buffer}"] = [f"{path}.{buffer}" for path in paths]
        else:
            weights = torch.stack([module.get_parameter("weight").detach() for module in modules])
            self.register_parameter(name, nn.Parameter(weights))
            self.names[name] = [f"{path}.weight" for path in paths]


def require_known(operations: Sequence[str], known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Refuse operations of a space that a fast form would leave out, or compute as others.

    Raises:
        UserError: one that is not `known`, one that is there twice, or one of `needed` that is missing.
    """
    reasons = {
        "does not compute": [name for name in operations if name not in known],
        "cannot tell apart two of": [name for name in operations if operations.count(name) > 1],
        "cannot do without": [name for name in needed if name not in operations],
    }
    for reason, names in reasons.items():
        if names:
            raise UserError(f"the fused supernet {reason} '{plain(names[0])}'; set supernet.kernel=reference")


class StackedNetwork(nn.Module, ABC):
    """A supernet whose cells are `StackedCell`; all else it shares with the textbook's, names included.

    Attributes:
        backends: what computes its cells, and the memory of their maps.
        lent: names of tensors of modules that are the textbook's, too.
    """

    edge_order: Tensor
    operation_order: Tensor

    def __init__(self, textbook: Supernet | DenseSupernet):
        super().__init__()
        self.textbook_names = list(textbook.state_dict())
        self.space: CellSpace = textbook.space
        self.partial = textbook.partial
        self.backends = Backends()
        self.lent: Collection[str] = ()
        self._textbook = (copy.deepcopy(textbook).to("meta"),)  # a tuple hides it: it has no tensors of its own

    def extra_repr(self) -> str:
        return str(self.space)

    def forward(self, x_BCHW: Tensor, *matrices: Tensor) -> Tensor:
        """Logits [B, classes] of images under the operation probabilities of each kind of cell, [E, O].

        Where one operation is left for each edge, the textbook's operations are computed, with these weights.
        """
        if any(sampled.sampled_operation(p_O) is None for p_EO in matrices for p_O in p_EO):
            return self.mix(x_BCHW, *(self.ordered(p_EO) for p_EO in matrices))
        textbook = self.textbook
        textbook.train(self.training)
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        tensors = self.to_textbook({name: tensor for name, tensor in own.items() if name not in self.lent})
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)  # faster by a quarter to two fifths on a CPU
        return functional_call(textbook, tensors, (x_BCHW, *matrices))

    @property
    def textbook(self) -> Supernet | DenseSupernet:
        """The textbook's network, without tensors."""
        return self._textbook[0]

    @abstractmethod
    def mix(self, x_BCHW: Tensor, *matrices: Tensor) -> Tensor:
        """As `forward`, of matrices as `ordered` gives them."""

    def take_order(self, edges: Sequence[int], operations: Sequence[int]) -> None:
        """The order in which cells read P: its edges and operations by their indices in the space."""
        for name, order in (("edge_order", edges), ("operation_order", operations)):
            self.register_buffer(name, torch.tensor(order), persistent=False)

    def ordered(self, p_EO: Tensor) -> Tensor:
        """P as cells read it, in wide precision; where channels go by the operations, then the weights of edges."""
        rows_EO = p_EO.index_select(0, self.edge_order)
        found = rows_EO.index_select(1, self.operation_order).to(wide(p_EO))
        if self.partial == 1:
            return found
        return torch.cat([found, rows_EO.sum(dim=1, keepdim=True).to(found.dtype)], dim=1)

    def _stacks(self) -> dict[str, list[str]]:
        return {
            f"{path}.{name}": [f"{path}.{part}" for part in parts]
            for path, cell in self.named_modules()
            if isinstance(cell, StackedCell)
            for name, parts in cell.names.items()
        }

    def to_textbook(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by this module's names (weights, buffers, momenta), by the textbook's names; views."""
        stacks = self._stacks()
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            found.update(zip(stacks[name], tensor.unbind(0)) if name in stacks else [(name, tensor)])
        return found

    def from_textbook(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The reverse of `to_textbook`."""
        found, left = {}, dict(tensors)
        for name, parts in self._stacks().items():
            if parts[0] in left:
                found[name] = torch.stack([left.pop(part) for part in parts])
        return {**left, **found}
