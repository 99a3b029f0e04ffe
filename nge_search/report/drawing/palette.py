"""How cells and operations are named and coloured, in drawings and in the report alike.

Hue tells the family (blue: separable, orange: dilated, yellow: pooling, purple: factorised, grey: skip; where there
are plain convolutions they are blue, and separable ones beside them green), lightness the kernel size. No two fills
share a lightness, so a greyscale print keeps them apart; and every drawing writes the name on the colour, so colour
is never the only cue.
"""

from __future__ import annotations

from dataclasses import dataclass

from nge_search import operation_registry
from nge_search.operation_registry import BUILT_IN

INK = "#1d2530"
PAPER = "#ffffff"
CELL_TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
#: Of all spaces, by kind of cell.
KIND_TITLES = {**CELL_TITLES, "cell": "Cell"}


def kind_title(kind: str) -> str:
    """What a kind of cell is headed with."""
    return KIND_TITLES.get(kind, kind.replace("_", " ").capitalize())


STRONG = 0.7  # from this share of a heatmap's scale on, the text on a cell is the light one


@dataclass(frozen=True)
class OperationStyle:
    """`short` is written on the pill, `long` in the legend; `fill` and `ink` are #rrggbb."""

    short: str
    long: str
    fill: str
    ink: str = INK


#: In the order of legends. The keys are those of `genotype.OPERATIONS`.
STYLES: dict[str, OperationStyle] = {
    "skip_connect": OperationStyle("skip", "identity (skip)", "#eef1f4"),
    "max_pool_3x3": OperationStyle("max 3×3", "3×3 max pooling", "#f3b730"),
    "avg_pool_3x3": OperationStyle("avg 3×3", "3×3 average pooling", "#fce18c"),
    "sep_conv_3x3": OperationStyle("sep 3×3", "3×3 separable conv.", "#a9d7f8"),
    "sep_conv_5x5": OperationStyle("sep 5×5", "5×5 separable conv.", "#4fa3e0"),
    "sep_conv_7x7": OperationStyle("sep 7×7", "7×7 separable conv.", "#00549d", PAPER),
    "dil_conv_3x3": OperationStyle("dil 3×3", "3×3 dilated sep. conv.", "#f39676"),
    "dil_conv_5x5": OperationStyle("dil 5×5", "5×5 dilated sep. conv.", "#c34e27", PAPER),
    "conv_7x1_1x7": OperationStyle("7×1, 1×7", "7×1 then 1×7 conv.", "#8a4c8e", PAPER),
}

_CONV1 = OperationStyle("conv 1×1", "1×1 convolution", "#a9d7f8")
_CONV3 = OperationStyle("conv 3×3", "3×3 convolution", "#4fa3e0")

#: Those of NAS-Bench-201, NAS-Bench-101 and ENAS as well, in the order of legends.
ALL_STYLES = {
    **STYLES,
    "none": OperationStyle("none", "nothing", "#ffffff"),
    "nor_conv_1x1": _CONV1,
    "nor_conv_3x3": _CONV3,
    "conv1x1-bn-relu": _CONV1,
    "conv3x3-bn-relu": _CONV3,
    "maxpool3x3": STYLES["max_pool_3x3"],
    "conv_3x3": _CONV3,
    "conv_5x5": OperationStyle("conv 5×5", "5×5 convolution", "#00549d", PAPER),
    "dw_sep_conv_3x3": OperationStyle("sep 3×3", "3×3 separable conv.", "#b5dfae"),
    "dw_sep_conv_5x5": OperationStyle("sep 5×5", "5×5 separable conv.", "#3f7d3a", PAPER),
}
_UNKNOWN_FILLS = ("#c9ced6", "#9aa3af", "#6c7684")
#: Of users' operations, in the order in which they are registered: greens and reds, which no other has beside it.
_OWN_FILLS = (
    *(("#9fd8b4", INK), ("#f2a7c3", INK), ("#5fae7d", INK)),
    *(("#b8527f", PAPER), ("#2f7a50", PAPER), ("#7d2550", PAPER)),
)
#: Letters that a pill, and a column of the legend, have room for.
_SHORT, _LONG = 10, 24


def style_of(operation: str, position: int = 0) -> OperationStyle:
    """The style of `operation`, whatever its name; a grey one, chosen by `position`, for one that is not known."""
    known = ALL_STYLES.get(operation)
    if known is not None:
        return known
    own = [name for name in operation_registry.names() if name not in BUILT_IN]
    fill, ink = _UNKNOWN_FILLS[position % len(_UNKNOWN_FILLS)], INK
    if operation in own:
        fill, ink = _OWN_FILLS[own.index(operation) % len(_OWN_FILLS)]
    text = operation.replace("_", " ")
    return OperationStyle(_fitted(text, _SHORT), _fitted(text, _LONG), fill, ink)


def _fitted(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def outline_colour(fill: str) -> str:
    """A darker tone of `fill`, so that the palest shapes keep an outline on paper."""
    return "#" + "".join(f"{round(int(fill[start : start + 2], 16) * 0.68):02x}" for start in (1, 3, 5))


def lightness(colour: str) -> float:
    """CIE L* (0 black to 100 white) of a #rrggbb colour: what a greyscale print shows of it."""
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * luminance ** (1 / 3) - 16 if luminance > 216 / 24389 else luminance * 24389 / 27
