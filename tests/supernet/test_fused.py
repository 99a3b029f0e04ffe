"""The fast supernet against the textbook form: outputs, every gradient, statistics, checkpoints."""

from __future__ import annotations

import copy
import dataclasses
import gc
import statistics
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.errors import UserError
from nge_search.settings.names import SEARCH_OPERATIONS
from nge_search.spaces import NasBench201Space
from nge_search.supernet import DenseSupernet, Supernet, fuse
from nge_search.supernet import state_dict as exchange

CLASSES = 5
DENSE = NasBench201Space().cell_space
SPACES = {"darts": CellSpace(), "nasbench201": DENSE}
#: With fewer nodes, for what is computed often.
SMALL = {"darts": CellSpace(2), "nasbench201": DENSE}


def run(
    network: nn.Module,
    images: Tensor,
    matrices: list[Tensor],
    training: bool = True,
    reverse: bool = False,
    learns: bool = True,
) -> dict[str, Tensor]:
    """Logits, gradients of P (if it learns) and of every parameter, and the buffers after the pass.

    `reverse`: batch backwards.
    """
    network.train(training)
    leaves = [p_EO.clone().requires_grad_() for p_EO in matrices if learns]
    given = leaves or matrices
    logits = network(images.flip(0), *given).flip(0) if reverse else network(images, *given)
    labels = torch.arange(len(images)) % CLASSES
    loss = functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, [*leaves, *network.parameters()], materialize_grads=True)
    named = dict(zip((name for name, _ in network.named_parameters()), gradients[len(leaves) :]))
    state = exchange.supernet_state(network)
    buffers = {f"buffer {name}": state[name].clone() for name in state if "running" in name or "num_" in name}
    return {
        "logits": logits.detach(),
        **{f"P {kind}": gradient for kind, gradient in enumerate(gradients[: len(leaves)])},
        **exchange.by_reference_names(network, named),
        **buffers,
    }


def build(space=None, channels=4, cells=3, dtype=torch.float64, partial=1) -> tuple[nn.Module, nn.Module]:
    """A textbook supernet with random statistics, and a fast one with the same weights."""
    space = space or CellSpace()
    form = DenseSupernet if space is DENSE else Supernet
    reference = form(space, channels, cells, CLASSES, partial=partial).to(dtype, memory_format=torch.channels_last)
    for name, buffer in reference.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + ("var" in name) / 2)
    return reference, fuse(copy.deepcopy(reference))


def inputs(space: CellSpace, batch: int, size: int, dtype=torch.float64) -> tuple[Tensor, list[Tensor]]:
    images = torch.randn(batch, 3, size, size, dtype=dtype).to(memory_format=torch.channels_last)
    return images, [torch.randn(space.shape, dtype=dtype).softmax(dim=1) for _ in space.kinds]


def require_equal(
    found: dict[str, Tensor], target: dict[str, Tensor], tolerance: float, own: dict[str, Tensor] | None = None
) -> None:
    """Relative to each tensor's norm; running means, which may be zero by symmetry, absolutely.

    own: what the textbook gives in another order of summation; 30 times the difference to it is allowed, too.
    """
    assert found.keys() == target.keys()
    for name, value in target.items():
        if not value.is_floating_point():
            assert torch.equal(found[name], value), name
            continue
        scale = max(float(value.norm()), float(value.numel() ** 0.5) if "running_mean" in name else 1e-12)
        noise = 0.0 if own is None else 30 * float((own[name] - value).norm())
        assert float((found[name] - value).norm()) <= max(tolerance * scale, noise), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("space", "channels", "cells", "batch", "size"),
    [
        ("darts", 4, 3, 3, 9),
        ("darts", 16, 2, 2, 8),
        ("darts", 4, 4, 5, 7),
        ("nasbench201", 4, 3, 3, 9),
        ("nasbench201", 16, 3, 2, 8),
        ("nasbench201", 3, 6, 5, 7),
    ],
)
def test_equals_the_textbook(space, channels, cells, batch, size, training):
    torch.manual_seed(0)
    reference, fused = build(SPACES[space], channels, cells)
    images, matrices = inputs(reference.space, batch, size)
    require_equal(run(fused, images, matrices, training), run(reference, images, matrices, training), 1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("space", "channels", "cells", "batch", "size", "parts"),
    [
        ("darts", 8, 4, 3, 9, 2),
        ("darts", 16, 2, 2, 6, 4),
        ("nasbench201", 8, 3, 3, 9, 2),
        ("nasbench201", 16, 3, 2, 6, 4),
    ],
)
def test_equals_the_textbook_with_partial_channels(space, channels, cells, batch, size, parts, training):
    """With weights whose rows are not of sum one, as those of edges that are normalised."""
    torch.manual_seed(0)
    reference, fused = build(SPACES[space], channels, cells, partial=parts)
    images, matrices = inputs(reference.space, batch, size)
    matrices = [p_EO * torch.rand(len(p_EO), 1, dtype=p_EO.dtype) for p_EO in matrices]
    require_equal(run(fused, images, matrices, training), run(reference, images, matrices, training), 1e-10)


@pytest.mark.parametrize(
    ("space", "operations", "named"),
    [
        ("darts", ("skip_connect", "sep_conv_3x3", "skip_connect"), "two of 'skip_connect'"),
        ("darts", ("dil_conv_3x3", "max_pool_3x3", "dil_conv_3x3"), "two of 'dil_conv_3x3'"),
        ("nasbench201", (*DENSE.operations, "nor_conv_3x3"), "two of 'nor_conv_3x3'"),
        (
            "nasbench201",
            ("none", "skip_connect", "nor_conv_3x3", "avg_pool_3x3"),
            "cannot do without 'nor_conv_1x1'",
        ),
    ],
)
def test_operations_that_would_be_left_out_are_refused(space, operations, named):
    form, graph = (Supernet, SPACES["darts"]) if space == "darts" else (DenseSupernet, DENSE)
    textbook = form(dataclasses.replace(graph, operations=operations), 2, 3, CLASSES)
    with pytest.raises(UserError, match=f"{named}; set supernet.kernel=reference"):
        fuse(textbook)


def test_an_operation_that_a_benchmark_does_not_have_is_refused(monkeypatch):
    monkeypatch.setattr("nge_search.supernet.nasbench201.build_operation", lambda *_, **__: nn.Identity())
    dense = DenseSupernet(dataclasses.replace(DENSE, operations=(*DENSE.operations, "my_conv")), 2, 3, CLASSES)
    with pytest.raises(UserError, match=r"does not compute 'my_conv'; set supernet\.kernel=reference"):
        fuse(dense)


#: Four operations that have no fast form, in between of some that have: a published one, and three of a user's.
MIXED = (
    "ghost_conv",
    "skip_connect",
    "max_pool_3x3",
    "conv_7x1_1x7",
    "sep_conv_3x3",
    "drift",
    "dil_conv_3x3",
    "blur",
)


@pytest.mark.parametrize(
    ("names", "training", "parts", "cells", "size"),
    [
        (MIXED, True, 1, 4, 9),
        (MIXED, False, 1, 3, 8),
        (MIXED, True, 2, 3, 9),
        (("ghost_conv", "drift"), True, 1, 3, 8),
        (("drift", "skip_connect"), True, 1, 3, 9),
    ],
)
def test_operations_without_a_fast_form_equal_the_textbook(own_operations, names, training, parts, cells, size):
    """In one mixed cell with those that have one: logits, all gradients, and the state that operations keep."""
    torch.manual_seed(0)
    reference, fused = build(CellSpace(2, names), 8, cells, partial=parts)
    images, matrices = inputs(reference.space, 3, size)
    for _ in range(2):  # state goes on from the first step to the second
        found = run(fused, images, matrices, training)
        target = run(reference, images, matrices, training)
        require_equal(found, target, 1e-10)
    state, textbook = exchange.supernet_state(fused), reference.state_dict()
    assert list(state) == list(textbook)
    drifted = [name for name in textbook if name.endswith(("level", "calls"))]
    for name in drifted:
        torch.testing.assert_close(state[name], textbook[name], rtol=1e-10, atol=1e-12)
        assert not training or float(state[name]) != 0
    assert drifted


def test_modules_without_a_fast_form_compute_alone_where_operations_are_drawn(own_operations):
    """With their state, and none of those that are not drawn; copies of the network have their own."""
    torch.manual_seed(0)
    reference, fused = build(CellSpace(2, MIXED), 4, 3)
    fused, kept = copy.deepcopy(fused), fused
    before = {name: value.clone() for name, value in exchange.supernet_state(kept).items()}
    images, _ = inputs(reference.space, 3, 8)
    drawn = torch.full((len(reference.space.edges),), MIXED.index("drift"))
    matrices = [functional.one_hot(drawn, len(MIXED)).double() for _ in range(2)]
    for _ in range(2):
        target = run(reference, images, matrices, learns=False)
        require_equal(run(fused, images, matrices, learns=False), target, 1e-10)
    state = exchange.supernet_state(fused)
    calls = [name for name in state if name.endswith("calls")]
    assert {int(state[name]) for name in calls} == {2}
    assert all(torch.equal(value, before[name]) for name, value in exchange.supernet_state(kept).items())


def test_modules_without_a_fast_form_under_bfloat16_and_without_gradients(own_operations):
    """Under autocast as near to float64 as the textbook; where nothing is differentiated, nothing is kept."""
    torch.manual_seed(0)
    reference, _ = build(CellSpace(2, MIXED), 8, 2)
    images, matrices = inputs(reference.space, 4, 8)
    target = copy.deepcopy(reference).train()(images, *matrices).detach()
    single = reference.float().train()
    images, matrices = images.float(), [p_EO.float() for p_EO in matrices]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found, theirs = (network.train()(images, *matrices) for network in (fuse(copy.deepcopy(single)), single))
    assert not found.requires_grad
    errors = [float((y.double() - target).norm() / target.norm()) for y in (found, theirs)]
    assert errors[0] <= max(1e-2, 4 * errors[1])


def test_a_larger_depthwise_convolution_is_computed(torch_kernels):  # those of a CPU would take long to compile
    torch.manual_seed(0)
    reference, fused = build(CellSpace(operations=("sep_conv_7x7", "skip_connect", "max_pool_3x3")))
    images, matrices = inputs(reference.space, 3, 9)
    require_equal(run(fused, images, matrices), run(reference, images, matrices), 1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["textbook", "fused"])
@pytest.mark.parametrize("space", SPACES)
def test_operations_that_are_not_drawn_are_not_missed(space, form, training):
    """Against all operations, under a P of zeros and ones that learns: statistics of the others alone differ."""
    torch.manual_seed(0)
    graph = SPACES[space]
    reference, fused = build(graph, 4, 6)
    images, _ = inputs(graph, 5, 9)
    edges, operations = graph.shape
    codes = [torch.randint(operations, (edges,)) for _ in graph.kinds]
    matrices = [functional.one_hot(code, operations).double() for code in codes]
    state = exchange.supernet_state(reference)
    before = {f"buffer {name}": value.clone() for name, value in state.items()}
    target = run(copy.deepcopy(reference), images, matrices, training)
    others = 0
    for cell, module in reference.named_modules():
        for edge, candidates in enumerate(getattr(module, "edges", ())):
            drawn = int(codes[getattr(module, "reduction", False)][edge])
            for place in set(range(operations)) - {drawn}:
                for name, _ in candidates[place].named_buffers():
                    buffer = f"buffer {cell}.edges.{edge}.{place}.{name}"
                    target[buffer] = before[buffer]
                    others += 1
    target = {name: value for name, value in target.items() if not name.startswith("P ")}
    found = run(reference if form == "textbook" else fused, images, matrices, training, learns=False)
    require_equal(found, target, 1e-10)
    assert others > 100


@settings(max_examples=16, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_shapes_and_spaces(data):
    """Odd and even sizes, any operations, any number of nodes, both kinds of cell.

    Where a map has fewer positions than channels, variances near zero amplify rounding in either form.
    """
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 99)))
    operations: list[str] = draw(st.lists(st.sampled_from(SEARCH_OPERATIONS), min_size=2, max_size=7, unique=True))
    space = CellSpace(draw(st.integers(2, 3)), tuple(operations))
    reference, fused = build(space, draw(st.sampled_from([4, 12])), draw(st.integers(1, 4)))
    images, matrices = inputs(space, draw(st.sampled_from([2, 3, 7, 64])), draw(st.integers(5, 12)))
    own = run(copy.deepcopy(reference), images, matrices, reverse=True)
    require_equal(run(fused, images, matrices), run(reference, images, matrices), 1e-10, own)


@pytest.mark.parametrize("space", SPACES)
def test_statistics_after_several_steps(space):
    torch.manual_seed(0)
    reference, fused = build(SPACES[space])
    for _ in range(3):
        images, matrices = inputs(reference.space, 4, 8)
        found, target = run(fused, images, matrices), run(reference, images, matrices)
    require_equal(found, target, 1e-10)


def median_errors(space: str, draws: int, lower) -> dict[str, tuple[float, float]]:
    """Per tensor, errors of fast and textbook form against the float64 textbook, relative to its norm.

    Medians of draws: where rounding moves a number across a kink of a ReLU, or another pixel wins, one draw's
    gradients jump, in either form. lower: runs a network on inputs in low precision.
    """
    errors: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(draws):
        torch.manual_seed(seed)
        reference, _ = build(SMALL[space], channels=16, cells=3)
        images, matrices = inputs(reference.space, 4, 8)
        target = run(copy.deepcopy(reference), images, matrices)
        single = reference.float()
        rounded = images.float(), [p_EO.float() for p_EO in matrices]
        found, own = lower(fuse(copy.deepcopy(single)), *rounded), lower(single, *rounded)
        for name, value in target.items():
            if value.is_floating_point():
                scale = max(float(value.norm()), float(value.numel() ** 0.5) if "running_mean" in name else 1e-12)
                pair = tuple(float((other[name].double() - value).norm()) / scale for other in (found, own))
                errors.setdefault(name, []).append(pair)
    return {name: tuple(map(statistics.median, zip(*pairs))) for name, pairs in errors.items()}


@pytest.mark.parametrize("space", SPACES)
def test_single_precision_is_as_exact_as_the_textbook(space):
    for name, (ours, theirs) in median_errors(space, 7, run).items():
        assert ours <= max(1e-6, 4 * theirs), name


@pytest.mark.parametrize("space", SPACES)
def test_bfloat16_is_as_exact_as_the_textbook(space):
    """Under autocast, with the textbook form's own error under autocast as the measure."""

    def lower(network, images, matrices):
        with torch.autocast("cpu", torch.bfloat16):
            return run(network, images, matrices)

    for name, (ours, theirs) in median_errors(space, 5, lower).items():
        assert ours <= max(1e-3, 4 * theirs), name


@pytest.mark.parametrize("space", SPACES)
def test_frozen_weights_get_no_gradient_and_p_the_same(space):
    torch.manual_seed(0)
    reference, fused = build(SPACES[space])
    images, matrices = inputs(reference.space, 3, 8)
    target = run(copy.deepcopy(fused), images, matrices)
    for weight in fused.parameters():
        weight.requires_grad_(False)
    fused.train()
    leaves = [p_EO.clone().requires_grad_() for p_EO in matrices]
    loss = functional.cross_entropy(fused(images, *leaves), torch.arange(3) % CLASSES)
    for kind, found in enumerate(torch.autograd.grad(loss, leaves)):
        torch.testing.assert_close(found, target[f"P {kind}"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("space", SPACES)
def test_names_convert_in_both_directions(space):
    torch.manual_seed(0)
    reference, fused = build(SPACES[space])
    state = exchange.supernet_state(fused)
    assert list(state) == list(reference.state_dict())
    assert all(torch.equal(state[name], value) for name, value in reference.state_dict().items())
    _, other = build(SPACES[space])
    exchange.load_supernet(other, reference.state_dict(), "there")
    back = exchange.supernet_state(other)
    assert all(torch.equal(back[name], value) for name, value in reference.state_dict().items())


@pytest.mark.parametrize("space", SPACES)
def test_memory_of_maps_is_the_networks_own_and_goes_with_it(space, monkeypatch):
    monkeypatch.setattr("nge_search.supernet.kernels.memory._POOLED", 0)
    reference, fused = build(SPACES[space])
    twin, given = copy.deepcopy(fused), inputs(reference.space, 2, 8)
    run(fused, *given)
    kept = [weakref.ref(block) for blocks in fused.backends._memory._idle.values() for block in blocks]
    assert kept
    assert not twin.backends._memory._idle
    del fused
    gc.collect()
    assert [block() for block in kept] == [None] * len(kept)


def test_a_wrong_sign_would_be_seen():
    """The comparison is not blind: scaling one weight of the fast form by 1 + 1e-6 fails it."""
    torch.manual_seed(0)
    reference, fused = build()
    with torch.no_grad():
        fused.cells[0].dil_conv_3x3_last_depthwise[0] *= 1 + 1e-6
    images, matrices = inputs(reference.space, 3, 8)
    with pytest.raises(AssertionError):
        require_equal(run(fused, images, matrices), run(reference, images, matrices), 1e-10)
