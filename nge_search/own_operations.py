"""Operations of plugins: built, tried once before they are used, and computed at other rates.

Legend: B images, C channels, H and W the sides of a map; r and s the rates of an operation's input and output.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.counting import multiply_adds
from nge_search.errors import UserError, plain
from nge_search.operation_registry import Operation

#: Of an operation's input and of its output.
Rates = tuple[int, int]

#: Of the images that a new operation is tried on: one side is odd, which a stride rounds up.
_TRIED_SIDES = (8, 7)
#: Operations that were tried, with their channels, stride and affine.
_tried: set[tuple[Operation, int, int, bool]] = set()
#: What plugins have built, as long as it is in use: modules, and those of their parts that hold tensors.
_built: WeakSet[nn.Module] = WeakSet()


def build_own(
    name: str, operation: Operation, channels: int, stride: int, affine: bool, rates: Rates = (1, 1)
) -> nn.Module:
    """An operation of a plugin; arguments as of `operations.build_operation`.

    Raises:
        UserError: it does not build what `register_operation` asks for.
    """
    assert callable(operation.build)
    own_stride = stride * rates[1] // rates[0]
    given = f"operation '{name}' of the plugin '{operation.plugin}'"
    module = _build(given, operation, channels, own_stride, affine)
    key = operation, channels, own_stride, affine
    if key not in _tried and torch.empty(0).device.type == "cpu":  # what is built on the meta device has no numbers
        with torch.random.fork_rng(devices=[]):
            _try(given, module, channels, own_stride)
            with torch.device("meta"):
                _build(given, operation, channels, own_stride, affine)
        _tried.add(key)
    return module if rates == (1, 1) else in_phases(module, stride, rates)


def _build(given: str, operation: Operation, channels: int, stride: int, affine: bool) -> nn.Module:
    """A module that was not there before, whose tensors are trained, saved and loaded like those of any other.

    Raises:
        UserError: it is none; names what is `given`.
    """
    assert callable(operation.build)
    try:
        module = operation.build(channels, stride, affine)
        parts = [*module.modules()] if isinstance(module, nn.Module) else []
    except (Exception, SystemExit) as error:
        on_meta = torch.empty(0).device.type == "meta"
        where = " on the meta device, where tensors have no values to be read," if on_meta else ""
        call = f"build({channels}, {stride}, {affine})"
        raise UserError(f"{given}: {call}{where} fails: {type(error).__name__}: {plain(str(error), 200)}") from None
    if not isinstance(module, nn.Module):
        raise UserError(f"{given} builds a {type(module).__name__}, not a torch.nn.Module")
    own = [part for part in parts if part is module or part._parameters or part._buffers]
    if any(part in _built for part in own):
        raise UserError(
            f"{given}: build gives a module that it gave before, or a part of one; make new ones each time"
        )
    _built.update(own)
    fixed = next((name for name, weight in module.named_parameters() if not weight.requires_grad), None)
    if fixed is not None:
        raise UserError(f"{given}: parameter '{fixed}' does not learn; make it a buffer (register_buffer)")
    saved = module.state_dict().keys()
    lost = next((name for name, _ in module.named_buffers() if name not in saved), None)
    if lost is not None:
        raise UserError(f"{given}: buffer '{lost}' is not saved; leave persistent=False out")
    weight = next((name for name, _ in module.named_parameters()), None)
    if operation.parameter_free and stride == 1 and weight is not None:
        raise UserError(f"{given}: '{weight}' is a weight; register it without parameter_free=True")
    return module


def _try(given: str, module: nn.Module, channels: int, stride: int) -> None:
    """Raise UserError unless a copy computes what an operation should, and can be counted on the meta device."""
    height, width = _TRIED_SIDES
    images = torch.linspace(-1, 1, 2 * channels * height * width).view(2, channels, height, width)
    before = images.clone()
    expected = 2, channels, -(-height // stride), -(-width // stride)
    twin = copy.deepcopy(module)
    for training in (True, False):
        said = f"{given} in {'training' if training else 'evaluation'}"
        try:
            with torch.no_grad():
                found = twin.train(training)(images)
                if not training:
                    multiply_adds(module, (1, channels, height, width))
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{said} fails on images of {channels} channels at stride {stride}: {type(error).__name__}: "
                f"{plain(str(error), 200)} (maps of all sizes come; constants are buffers, to move with it)"
            ) from None
        if not isinstance(found, Tensor):
            raise UserError(f"{said} gives a {type(found).__name__}, not a tensor")
        if tuple(found.shape) != expected:
            raise UserError(
                f"{said} makes {list(found.shape)} of images {list(images.shape)} at stride {stride}, not "
                f"{list(expected)}: channels stay, and sides divided by the stride are rounded up"
            )
        if found.dtype != images.dtype:
            raise UserError(f"{said} gives {found.dtype} where it is given {images.dtype}; keep the type")
        if not found.isfinite().all():
            raise UserError(f"{said} gives numbers that are not finite, of images from -1 to 1")
        if not torch.equal(images, before):
            raise UserError(f"{said} changes the images that it is given, which others read too (inplace=True?)")


def in_phases(module: nn.Module, stride: int, rates: Rates) -> nn.Module:
    """The module itself, which from here on computes at these rates; its tensors keep their names.

    Args:
        module: of stride `stride` * s / r.
        rates: (r, s).
    """
    own = type(module)

    class Phases(own):  # type: ignore[misc, valid-type]
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return _in_phases(super().forward, x_BCHW, stride, rates)

    Phases.__name__ = Phases.__qualname__ = own.__name__
    module.__class__ = Phases
    return module


def _in_phases(operate: Callable[[Tensor], Tensor], x_BCHW: Tensor, stride: int, rates: Rates) -> Tensor:
    """What the operation gives for the pixels of each phase alone, put back in their places (space to batch).

    A phase of the output is every s-th pixel, from one of s * s pixels on; it is computed from every r-th pixel of
    the input from the same place on. So the first phase has what a network whose strides were kept would have;
    where the others end earlier, zeros follow.
    """
    step, phases = rates
    batch, channels, height, width = x_BCHW.shape
    rows, columns = (height + step - 1) // step, (width + step - 1) // step
    reach = (phases - 1) * stride
    padded = functional.pad(x_BCHW, (0, reach + step * columns - width, 0, reach + step * rows - height))
    parts = [
        padded[:, :, top : top + step * rows : step, left : left + step * columns : step]
        for top in range(0, reach + 1, stride)
        for left in range(0, reach + 1, stride)
    ]
    y = operate(torch.cat(parts))
    height_of_phase, width_of_phase = y.shape[2:]
    y = y.reshape(phases, phases, batch, channels, height_of_phase, width_of_phase).permute(2, 3, 4, 0, 5, 1)
    y_BCHW = y.reshape(batch, channels, height_of_phase * phases, width_of_phase * phases)
    bottom = (height + stride - 1) // stride - height_of_phase * phases
    right = (width + stride - 1) // stride - width_of_phase * phases
    return functional.pad(y_BCHW, (0, right, 0, bottom))  # to less, in a way that torch.export keeps open
