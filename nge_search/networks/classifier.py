"""What all networks stacked from derived cells share: the cells, the pooled classifier, drop-path."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nge_search.architecture.cell_space import reduction_positions
from nge_search.architecture.genotype import Cells, Genotype
from nge_search.errors import UserError
from nge_search.networks.cells import DerivedCell
from nge_search.networks.fast_forms import Shared, suits
from nge_search.operations import ModuleList, Preprocess


class Classifier(nn.Module, ABC):
    """Derived cells with reductions at 1/3 and 2/3 of the depth, global pooling, classifier.

    A subclass adds the stem, before it calls `stack`.

    Attributes:
        cells: the derived cells.
        auxiliary: a second classifier behind cell 2 * cells // 3, used in training only, or None.
        classifier: the linear layer.
        drop_slots: operations that drop-path may drop; the width of `forward`'s `keep_BD`.
        reductions: how many times smaller than the image the output of each cell is.
        compiled: whether the cells are compiled, which the forms of `fast_forms` would keep them from.
        checkpointed: whether training keeps the inputs of cells alone and computes what is in them again for the
            gradients (gradient checkpointing): less memory, more time, the same numbers.
        stem_reduction: how many times smaller than the image what the cells see is.
        auxiliary_sides: sides in pixels of the feature maps that the auxiliary head takes.
    """

    stem_reduction: ClassVar[int]
    auxiliary_sides: ClassVar[range]
    checkpointed = False

    def stack(
        self,
        genotype: Cells,
        channels: int,
        cells: int,
        classes: int,
        inputs: tuple[int, int, bool],
        auxiliary: Callable[[int, int], nn.Module] | None,
        output_stride: int | None = None,
    ) -> None:
        """Make the cells and the heads.

        Args:
            channels: C of the first cell, doubled at each reduction.
            classes: width of the classifier; 0: there is none, and `classifier` hands through.
            inputs: channels of the two inputs of the first cell; whether the older has twice the resolution.
            auxiliary: makes the auxiliary head from (channels, classes); None: there is none.
            output_stride: how many times smaller than the image the last cell's output is: reductions that would
                make it smaller still keep their resolution, and what follows is dilated; None: all reduce.
        """
        self.genotype, self.compiled = Genotype.of(genotype), False
        self.cells: ModuleList[DerivedCell] = ModuleList()
        self.reductions: list[int] = []
        self.auxiliary_after = 2 * cells // 3
        c_auxiliary = 0
        c_before, c_last, reduction_before = inputs
        stride, rates = self.stem_reduction, (1, 1)
        for position in range(cells):
            reduction = position in reduction_positions(cells)
            channels *= 2 if reduction else 1
            graph = self.genotype.reduce if reduction else self.genotype.normal
            keep = output_stride is not None and stride >= output_stride
            cell = DerivedCell(graph, c_before, c_last, channels, reduction, reduction_before, rates, keep)
            self.cells.append(cell)
            c_before, c_last = c_last, cell.c_out
            reduction_before = reduction
            stride *= 2 if reduction and not keep else 1
            self.reductions.append(stride)
            rates = rates[1], cell.rate
            if position == self.auxiliary_after:
                c_auxiliary = c_last
        self.auxiliary = None if auxiliary is None else auxiliary(c_auxiliary, classes)
        self.classifier = nn.Linear(c_last, classes) if classes else nn.Identity()
        ends = [0]
        for cell in self.cells:
            ends.append(ends[-1] + cell.drop_slots)
        self.drop_slots = ends[-1]
        self._slots = list(pairwise(ends))

    def extra_repr(self) -> str:
        reduced = [position for position, cell in enumerate(self.cells) if cell.reduction]
        behind = self.auxiliary_after if self.auxiliary is not None else None
        return f"reductions={reduced}, auxiliary_after={behind}, drop_slots={self.drop_slots}"

    @abstractmethod
    def stems(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs of the first cell."""

    def forward_features(
        self,
        x_BCHW: Tensor,
        keep_BD: Tensor | None = None,
        take: Callable[[int, Tensor], None] = lambda position, output: None,
        end: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Output of the last cell [B, C, H, W], and the auxiliary head's logits in training (else None).

        Args:
            take: is given the output of each cell with its position, and the inputs of the first one as -2 and -1.
            end: how many cells are computed; None: all.
        """
        before, last = self.stems(x_BCHW)
        take(-2, before)
        take(-1, last)
        fast = self.training and not self.compiled and not self.checkpointed and suits(last)
        shared = Shared() if fast and self.cells else None
        if shared is not None:
            shared.prepare(last, self._readers(-1) + [self.cells[0].preprocess0] * (before is last))
        auxiliary = None
        for position, (cell, (start, stop)) in enumerate(zip(self.cells[:end], self._slots)):
            keep = None if keep_BD is None else keep_BD[:, start:stop]
            before, last = last, self._run(cell, before, last, keep, shared)
            take(position, last)
            if shared is not None:
                shared.prepare(last, self._readers(position))
            if self.training and self.auxiliary is not None and position == self.auxiliary_after:
                auxiliary = self.auxiliary(last)
        return last, auxiliary

    def _run(
        self, cell: DerivedCell, before: Tensor, last: Tensor, keep: Tensor | None, shared: Shared | None
    ) -> Tensor:
        """The output of a cell; with gradient checkpointing it is all that is kept of it."""
        if not (self.checkpointed and self.training and torch.is_grad_enabled()):
            return cell(before, last, keep, shared)
        contexts = partial(_once_counted, cell)
        return checkpoint(cell, before, last, keep, None, use_reentrant=False, context_fn=contexts)

    def _readers(self, position: int) -> list[Preprocess]:
        """What the output of a cell is read by, in the cells behind it; that of the stem for position -1."""
        next_, after = self.cells[position + 1 : position + 2], self.cells[position + 2 : position + 3]
        return [cell.preprocess1 for cell in next_] + [cell.preprocess0 for cell in after]

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits [B, classes], and the auxiliary head's in training (else None).

        `keep_BD` is what `drop_path_factors` gives, [B, drop_slots]; None drops nothing.
        """
        last, auxiliary = self.forward_features(x_BCHW, keep_BD)
        return self.classifier(last.mean(dim=(2, 3))), auxiliary

    @classmethod
    def require_auxiliary_fits(cls, image_size: int, cells: int) -> None:
        """Raise UserError unless the auxiliary head's pooling fits images of this side after the reductions."""
        halvings = len(reduction_positions(cells))
        factor = cls.stem_reduction * 2**halvings
        side = -(-image_size // factor)
        if side not in cls.auxiliary_sides:
            low, high = cls.auxiliary_sides[0], cls.auxiliary_sides[-1]
            raise UserError(
                f"network.auxiliary=True: the auxiliary head needs feature maps of {low} to {high} pixels (images "
                f"of {(low - 1) * factor + 1} to {high * factor} with {halvings} reductions), not {side}x{side}; "
                f"set network.auxiliary=false"
            )


def drop_path_factors(uniform_BD: Tensor, rate: float | Tensor) -> Tensor:
    """Drop-path (Larsson et al., 2017) per image and operation: 0 with probability `rate`, else 1 / (1 - rate).

    A rate that is a tensor on the device can change without a compiled step being compiled again.
    """
    return (uniform_BD >= rate).to(uniform_BD.dtype) / (1 - rate)


class _StateKept(contextlib.AbstractContextManager[None]):
    """Within it a module computes from the buffers that it had when this was made; after it, it has its own again.

    Batch normalisation, which in training computes without its running statistics, leaves these as they are.
    """

    def __init__(self, module: nn.Module):
        self._norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
        self._own = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        self._before = [
            (part, name, buffer.detach().clone())
            for part in module.modules()
            if not isinstance(part, _BatchNorm)
            for name, buffer in part.named_buffers(recurse=False)
        ]
        self._after: list[Tensor | None] = []

    def __enter__(self) -> None:
        for norm in self._norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        self._after = [part._buffers[name] for part, name, _ in self._before]
        for part, name, buffer in self._before:
            part._buffers[name] = buffer.clone()  # gradients may be asked for twice

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self._norms, self._own):
            norm.momentum, norm.num_batches_tracked = momentum, count
        for (part, name, _), buffer in zip(self._before, self._after):
            part._buffers[name] = buffer


def _once_counted(module: nn.Module) -> tuple[contextlib.AbstractContextManager[None], _StateKept]:
    """Contexts of the first pass through a checkpointed module, and of the second, which leaves no trace in it."""
    return contextlib.nullcontext(), _StateKept(module)
