"""The second-order gradient against exact differentiation through the unrolled weight step."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nge_search.gradient.hypergradient import sgd_directions, unrolled_gradient

RATE, MOMENTUM, DECAY = 0.1, 0.9, 3e-2


def make_problem(seed: int):
    """A smooth mixture of two layers, weights, P, and losses on two sets of data, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = [draw(4, 6).requires_grad_(), draw(4, 6).requires_grad_(), draw(6, 3).requires_grad_()]
    p = [torch.softmax(draw(1, 2), dim=1).requires_grad_() for _ in range(2)]
    sets = {name: (draw(20, 4), torch.randint(3, (20,), generator=generator)) for name in ("train", "valid")}

    def loss(name, weights, p):
        x, labels = sets[name]
        (first,), (second,) = p
        hidden = first[0] * torch.tanh(x @ weights[0]) + first[1] * functional.softplus(x @ weights[1])
        return functional.cross_entropy(second[0] * (hidden @ weights[2]) + second[1] * hidden[:, :3], labels)

    return weights, p, loss


def exact(weights, p, loss, buffers):
    """d/dP of L_valid(w - rate * d(w, P), P) by autograd through the step itself."""
    gradients = torch.autograd.grad(loss("train", weights, p), weights, create_graph=True)
    stepped = [w - RATE * (g + DECAY * w + MOMENTUM * b) for w, g, b in zip(weights, gradients, buffers)]
    return torch.autograd.grad(loss("valid", stepped, p), p)


def approximate(weights, p, loss, optimiser, radius):
    def gradient_of(name):
        def gradient(inputs):
            with torch.enable_grad():
                return list(torch.autograd.grad(loss(name, weights, p), list(inputs)))

        return gradient

    def directions(gradients):
        return sgd_directions(optimiser, dict(zip(weights, gradients)))

    return unrolled_gradient(weights, p, gradient_of("train"), gradient_of("valid"), directions, RATE, radius)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_equals_autograd_through_the_step(seed, steps_before):
    weights, p, loss = make_problem(seed)
    optimiser = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for _ in range(steps_before):
        optimiser.zero_grad()
        loss("train", weights, p).backward()
        optimiser.step()
    buffers = [optimiser.state[w]["momentum_buffer"] if steps_before else torch.zeros_like(w) for w in weights]
    before = [w.clone() for w in weights]
    expected = exact(weights, p, loss, buffers)
    first_order = torch.autograd.grad(loss("valid", weights, p), p)
    for radius, tolerance in ((1e-2, 1e-4), (1e-4, 1e-7)):
        found = approximate(weights, p, loss, optimiser, radius)
        for value, target, naive in zip(found, expected, first_order):
            torch.testing.assert_close(value, target, rtol=tolerance, atol=tolerance * target.abs().max().item())
            assert (naive - target).norm() > 1e-2 * target.norm()  # the correction is not a trifle
    assert all(torch.equal(w, b) for w, b in zip(weights, before))


def test_the_unrolled_step_is_sgd_s():
    weights, p, loss = make_problem(5)
    optimiser = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for _ in range(3):
        optimiser.zero_grad()
        loss("train", weights, p).backward()
        gradients = {w: w.grad.clone() for w in weights}
        with torch.no_grad():
            expected = [w - RATE * d for w, d in zip(weights, sgd_directions(optimiser, gradients))]
        optimiser.step()
        for weight, target in zip(weights, expected):
            torch.testing.assert_close(weight.detach(), target, rtol=0, atol=1e-15)
