"""The gradient of the validation loss through one unrolled weight step (DARTS, Eq. 7-8).

With w' = w - rate * d(w), where d is SGD's direction on the training loss (momentum and weight decay
included), the total derivative of L_valid(w'(P), P) with respect to P is

    dL_valid(w', P)/dP - rate * d2 L_train(w, P)/(dP dw) v,    v = dL_valid(w', P)/dw',

and the product with v is a central difference: [dL_train(w + e v)/dP - dL_train(w - e v)/dP] / 2e,
e = 0.01 / ||v||.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Gradients = list[Tensor]
GradientOf = Callable[[Sequence[Tensor]], Gradients]


def sgd_directions(optimiser: torch.optim.SGD, gradients: dict[Tensor, Tensor]) -> Gradients:
    """What SGD's next step would subtract, per unit of learning rate: momentum * buffer + gradient + decay * w."""
    directions = []
    for group in optimiser.param_groups:
        for weight in group["params"]:
            direction = gradients[weight] + group["weight_decay"] * weight
            buffer = optimiser.state[weight].get("momentum_buffer") if weight in optimiser.state else None
            if buffer is not None:
                direction = direction + group["momentum"] * buffer
            directions.append(direction)
    return directions


@torch.no_grad()
def unrolled_gradient(
    weights: Sequence[Tensor],
    probabilities: Sequence[Tensor],
    train_gradient: GradientOf,
    valid_gradient: GradientOf,
    directions: Callable[[Gradients], Gradients],
    rate: float,
    radius: float = 0.01,
) -> Gradients:
    """The total derivative above, with respect to each of `probabilities`.

    Args:
        weights: w; changed during the call and restored bit for bit.
        probabilities: the P matrices, leaves that require a gradient.
        train_gradient, valid_gradient: gradients of the two losses at the current values of `weights`, with
            respect to the tensors handed in.
        directions: from the gradient of the training loss with respect to `weights` to SGD's direction d.
        rate: the learning rate of the unrolled step.
        radius: ||e v||, 0.01 in DARTS.

    Returns:
        One tensor per entry of `probabilities`.
    """
    saved = [weight.clone() for weight in weights]
    steps = directions(train_gradient(weights))
    torch._foreach_add_(list(weights), steps, alpha=-rate)
    both = valid_gradient([*probabilities, *weights])
    direct, vectors = both[: len(probabilities)], both[len(probabilities) :]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(vectors)))
    epsilon = radius / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    torch._foreach_copy_(list(weights), saved)
    scaled = torch._foreach_mul(vectors, epsilon)
    torch._foreach_add_(list(weights), scaled)
    above = train_gradient(probabilities)
    torch._foreach_copy_(list(weights), saved)
    torch._foreach_sub_(list(weights), scaled)
    below = train_gradient(probabilities)
    torch._foreach_copy_(list(weights), saved)
    return [g - rate * (a - b) / (2 * epsilon) for g, a, b in zip(direct, above, below)]
