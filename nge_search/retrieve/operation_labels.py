"""What nodes of autograd graphs are called here, and what can be read from them: attributes and mult-adds."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from nge_search.architecture.graph import Label

#: What is no node: parameters, and the transposition of a linear layer's.
SPLICED = frozenset({"AccumulateGrad", "T"})

#: What only looks at numbers in another way, takes some of them, or copies them.
VIEWS = frozenset(
    {
        *("View", "UnsafeView", "ReshapeAlias", "AsStrided", "Alias", "ViewAsReal", "ViewAsComplex"),
        *("Permute", "Transpose", "T", "Mt", "Expand", "Squeeze", "Unsqueeze"),
        *("Slice", "Select", "Narrow", "Diagonal", "Unbind"),
        *("Split", "SplitWithSizes", "UnsafeSplit", "UnsafeSplitWithSizes"),
        *("Clone", "ToCopy"),
    }
)


def operation_name(function: Any) -> str:
    """`ConvolutionBackward0` -> Convolution."""
    return type(function).__name__.partition("Backward")[0]


def label_of(function: Any) -> Label:
    """The operation, with its kernel, stride and groups where it has them, its dilation where it is dilated.

    A kernel or stride is one number if it is the same along all axes, else as "1x7". `groups` are 1, "some" or
    "depthwise", so that the label says nothing of widths.
    """
    name = operation_name(function)
    if name == "Convolution":
        weight = function._saved_weight.shape
        found: dict[str, int | str] = {
            "kernel": _side(weight[2:]),
            "stride": _side(function._saved_stride),
            "groups": _groups(function._saved_groups, function._saved_transposed, weight),
        }
        if any(step != 1 for step in function._saved_dilation):
            found["dilation"] = _side(function._saved_dilation)
        return Label.of(f"Transposed{name}" if function._saved_transposed else name, **found)
    if "Pool" in name and hasattr(function, "_saved_kernel_size"):
        kernel = function._saved_kernel_size
        stride = getattr(function, "_saved_stride", ()) or kernel
        return Label.of(name, kernel=_side(kernel), stride=_side(stride))
    return Label(name)


def _groups(groups: int, transposed: bool, weight: tuple[int, ...]) -> int | str:
    if groups == 1:
        return 1
    return "depthwise" if weight[0 if transposed else 1] == (groups if transposed else 1) else "some"


def _side(values: Any) -> int | str:
    sides = [int(value) for value in ((values,) if isinstance(values, int) else values)]
    return sides[0] if len(set(sides)) == 1 else "x".join(map(str, sides))


#: Matrix products, and under which names they keep their factors.
_PRODUCTS = {
    "Addmm": ("mat1", "mat2"),
    "Mm": ("self", "mat2"),
    "Bmm": ("self", "mat2"),
    "Baddbmm": ("batch1", "batch2"),
}


def multiply_adds_of(function: Any) -> int:
    """Of an operation on the whole batch: those of convolutions and matrix products; 0 for any other."""
    name = operation_name(function)
    if name == "Convolution":
        weight = function._saved_weight.shape
        # Each number that comes in, or goes out, meets the weights of one filter.
        numbers = function._saved_input.numel() if function._saved_transposed else _numbers_out(function)
        return numbers * math.prod(weight[1:])
    if name in _PRODUCTS:
        return _numbers_out(function) * _inner_side(function, *_PRODUCTS[name])
    return 0


def _numbers_out(function: Any) -> int:
    return math.prod(function._input_metadata[0].shape)


def _inner_side(function: Any, first: str, second: str) -> int:
    """The side that the factors share; one of them is kept if the other one has a gradient."""
    left: Tensor | None = getattr(function, f"_saved_{first}")
    if left is not None:
        return left.shape[-1]
    right: Tensor = getattr(function, f"_saved_{second}")
    return right.shape[-2]
