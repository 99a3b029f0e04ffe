"""Where P leaves one operation for each edge, the others need not be computed.

That is so where operations are drawn and the weights alone learn: neither the network's output nor any gradient
knows what a zero weighs. Only running statistics do: those of an operation that is not computed stand still.
"""

from __future__ import annotations

from torch import Tensor


def sampled_operation(p_O: Tensor) -> int | None:
    """The operation that an edge's probabilities leave, if they are zeros and a one; None where that is not known.

    It is known of constants on a CPU. Reading others would make a GPU wait, and a step that is recorded there
    would repeat one choice for ever.
    """
    if p_O.device.type != "cpu" or p_O.requires_grad:
        return None
    values = p_O.tolist()
    return values.index(1.0) if values.count(0.0) == len(values) - 1 and 1.0 in values else None
