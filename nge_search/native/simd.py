"""Short vectors as values in numba functions: what a CPU's SIMD registers hold, whatever their width.

numba vectorises loops when it sees that it may; these types say it outright. A vector is one LLVM value, which LLVM
splits into the registers that the CPU has. Addresses are plain integers.

A `Strip` is a compile-time constant: functions that take one are compiled, and cached on disk, per strip.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox


@dataclass(frozen=True)
class Strip:
    """`positions` adjacent positions (a power of two) of `channels` numbers of `bits` bits."""

    channels: int
    positions: int
    bits: int


class StripType(types.Type):
    """The numba type of one particular strip."""

    def __init__(self, strip: Strip):
        self.strip = strip
        super().__init__(name=f"Strip({strip.channels} x {strip.positions} x f{strip.bits})")


class Lanes(types.Type):
    """The numba type of a vector of `width` floating-point numbers of `bits` bits."""

    def __init__(self, width: int, bits: int):
        self.width, self.bits = width, bits
        super().__init__(name=f"Lanes({width} x f{bits})")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(ir.FloatType() if self.bits == 32 else ir.DoubleType(), self.width)


@typeof_impl.register(Strip)
def _typeof_strip(strip: Strip, context: Any) -> StripType:
    return StripType(strip)


@unbox(StripType)
def _unbox_strip(kind: StripType, found: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


@lower_constant(StripType)
def _constant_strip(context: Any, builder: Any, kind: StripType, strip: Strip) -> Any:
    return context.get_dummy_value()


register_model(StripType)(models.OpaqueModel)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes):
        super().__init__(manager, lanes, lanes.llvm)


def _section(builder: Any, vector: Any, first: int, count: int) -> Any:
    """Numbers `first` to `first + count` of a vector."""
    if vector.type.count == count:
        return vector
    return _shuffle(builder, vector, vector, [first + i for i in range(count)])


def _shuffle(builder: Any, left: Any, right: Any, which: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(which)), which))


def _joined(builder: Any, parts: list[Any]) -> Any:
    """One vector from a power of two of them."""
    while len(parts) > 1:
        order = list(range(2 * parts[0].type.count))
        parts = [_shuffle(builder, left, right, order) for left, right in zip(parts[::2], parts[1::2])]
    return parts[0]


def _whole(kind: StripType) -> Lanes:
    return Lanes(kind.strip.channels * kind.strip.positions, kind.strip.bits)


def _position(kind: StripType) -> Lanes:
    return Lanes(kind.strip.channels, kind.strip.bits)


def _load(builder: Any, address: Any, lanes: Lanes) -> Any:
    loaded = builder.load(builder.inttoptr(address, lanes.llvm.as_pointer()))
    loaded.align = lanes.bits // 8  # that of one number
    return loaded


def _store(builder: Any, address: Any, value: Any, bits: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = bits // 8


@intrinsic
def single(context, strip):
    """The strip of one position with the same channels."""
    one = StripType(Strip(strip.strip.channels, 1, strip.strip.bits))
    return one(strip), lambda context, builder, signature, given: context.get_dummy_value()


@intrinsic
def half(context, strip):
    """The strip of half as many positions."""
    less = StripType(Strip(strip.strip.channels, strip.strip.positions // 2, strip.strip.bits))
    return less(strip), lambda context, builder, signature, given: context.get_dummy_value()


@intrinsic
def wide(context, strip):
    """The strip of one position in float64."""
    one = StripType(Strip(strip.strip.channels, 1, 64))
    return one(strip), lambda context, builder, signature, given: context.get_dummy_value()


@intrinsic
def position_bytes(context, strip):
    """Bytes of one position."""
    size = strip.strip.channels * strip.strip.bits // 8
    return types.int64(strip), lambda context, builder, signature, given: ir.Constant(ir.IntType(64), size)


@intrinsic
def number_bytes(context, strip):
    size = strip.strip.bits // 8
    return types.int64(strip), lambda context, builder, signature, given: ir.Constant(ir.IntType(64), size)


@intrinsic
def channels(context, strip):
    count = strip.strip.channels
    return types.int64(strip), lambda context, builder, signature, given: ir.Constant(ir.IntType(64), count)


@intrinsic
def positions(context, strip):
    count = strip.strip.positions
    return types.int64(strip), lambda context, builder, signature, given: ir.Constant(ir.IntType(64), count)


@intrinsic
def zero(context, strip):
    lanes = _whole(strip)
    return lanes(strip), lambda context, builder, signature, given: ir.Constant(lanes.llvm, None)


@intrinsic
def load(context, strip, address):
    """Adjacent positions."""
    lanes = _whole(strip)
    return lanes(strip, types.int64), lambda context, builder, signature, given: _load(builder, given[1], lanes)


@intrinsic
def store(context, strip, address, x):
    """Adjacent positions."""

    def generate(context, builder, signature, given):
        _store(builder, given[1], given[2], strip.strip.bits)
        return context.get_dummy_value()

    return types.void(strip, types.int64, _whole(strip)), generate


@intrinsic
def tile(context, strip, address):
    """The channels at one address, repeated for each position."""
    width, channels = _whole(strip).width, strip.strip.channels

    def generate(context, builder, signature, given):
        part = _load(builder, given[1], _position(strip))
        return _shuffle(builder, part, part, [i % channels for i in range(width)])

    return _whole(strip)(strip, types.int64), generate


@intrinsic
def spread(context, strip, address, step):
    """One number per position, `step` bytes apart, repeated for all its channels."""

    def generate(context, builder, signature, given):
        address, channels, parts = given[1], strip.strip.channels, []
        for _ in range(strip.strip.positions):
            part = _load(builder, address, Lanes(1, strip.strip.bits))
            parts.append(_shuffle(builder, part, part, [0] * channels))
            address = builder.add(address, given[2])
        return _joined(builder, parts)

    return _whole(strip)(strip, types.int64, types.int64), generate


@intrinsic
def fold(context, strip, x):
    """The sum over positions: a vector of one position."""
    channels = strip.strip.channels

    def generate(context, builder, signature, given):
        parts = [_section(builder, given[1], i * channels, channels) for i in range(strip.strip.positions)]
        return functools.reduce(builder.fadd, parts)

    return _position(strip)(strip, _whole(strip)), generate


@intrinsic
def gather(context, strip, address, step):
    """Positions `step` bytes apart."""

    def generate(context, builder, signature, given):
        address, parts = given[1], []
        for _ in range(strip.strip.positions):
            parts.append(_load(builder, address, _position(strip)))
            address = builder.add(address, given[2])
        return _joined(builder, parts)

    return _whole(strip)(strip, types.int64, types.int64), generate


@intrinsic
def scatter(context, strip, address, step, x):
    """Positions `step` bytes apart."""
    channels = strip.strip.channels

    def generate(context, builder, signature, given):
        address = given[1]
        for i in range(strip.strip.positions):
            _store(builder, address, _section(builder, given[3], i * channels, channels), strip.strip.bits)
            address = builder.add(address, given[2])
        return context.get_dummy_value()

    return types.void(strip, types.int64, types.int64, _whole(strip)), generate


@intrinsic
def uniform(context, strip, number):
    """One float64 number everywhere."""

    def generate(context, builder, signature, given):
        lanes, number = _whole(strip), given[1]
        if lanes.bits == 32:
            number = builder.fptrunc(number, ir.FloatType())
        part = builder.insert_element(ir.Constant(Lanes(1, lanes.bits).llvm, None), number, ir.IntType(32)(0))
        return _shuffle(builder, part, part, [0] * lanes.width)

    return _whole(strip)(strip, types.float64), generate


@intrinsic
def add(context, x, y):
    return x(x, x), lambda context, builder, signature, given: builder.fadd(*given)


@intrinsic
def subtract(context, x, y):
    return x(x, x), lambda context, builder, signature, given: builder.fsub(*given)


@intrinsic
def multiply(context, x, y):
    return x(x, x), lambda context, builder, signature, given: builder.fmul(*given)


@intrinsic
def maximum(context, x, y):
    """y where it is greater or not a number, else x."""

    def generate(context, builder, signature, given):
        x, y = given
        chosen = builder.or_(builder.fcmp_ordered(">", y, x), builder.fcmp_unordered("uno", y, y))
        return builder.select(chosen, y, x)

    return x(x, x), generate


@intrinsic
def where_equal(context, x, y, z):
    """z where x = y, else 0."""

    def generate(context, builder, signature, given):
        x, y, z = given
        return builder.select(builder.fcmp_ordered("==", x, y), z, ir.Constant(z.type, None))

    return x(x, x, x), generate


@intrinsic
def widen(context, x):
    """In float64."""
    lanes = Lanes(x.width, 64)

    def generate(context, builder, signature, given):
        return given[0] if x.bits == 64 else builder.fpext(given[0], lanes.llvm)

    return lanes(x), generate


@intrinsic
def fma(context, x, y, z):
    """x * y + z."""

    def generate(context, builder, signature, given):
        kind = ir.FunctionType(x.llvm, [x.llvm] * 3)
        name = f"llvm.fmuladd.v{x.width}f{x.bits}"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)

    return x(x, x, x), generate


@intrinsic
def where_positive(context, x, y):
    """x where y > 0, else 0."""

    def generate(context, builder, signature, given):
        nothing = ir.Constant(x.llvm, None)
        return builder.select(builder.fcmp_ordered(">", given[1], nothing), given[0], nothing)

    return x(x, x), generate
