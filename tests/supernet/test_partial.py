"""Partial channels against loops over channels, and against all channels; what they cost; who refuses them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.cli import main
from nge_search.counting import count_parameters
from nge_search.gradient.cost import ExpectedCost
from nge_search.spaces import NasBench201Space
from nge_search.supernet import DenseSupernet, Supernet
from nge_search.supernet.reference import MixedCell, MixedOperation, PartialOperation, mixed_operation, shuffle

SPACE, DENSE = CellSpace(), NasBench201Space().cell_space


def by_hand(edge: PartialOperation, x, w_O, stride: int):
    """An edge of a cell channel by channel: which input channel goes where, and through what."""
    parts, channels = edge.parts, x.shape[1]
    width = channels // parts
    mixed = sum(w * operation(x[:, :width]) for w, operation in zip(w_O, edge))
    columns = []
    for out in range(channels):  # of K parts in turn: out = position * K + part
        position, part = divmod(out, parts)
        if part == 0:
            columns.append(mixed[:, position])
            continue
        image = x[:, part * width + position]
        if stride == 2:
            rows, sides = -(-image.shape[1] // 2), -(-image.shape[2] // 2)
            windows = [
                [image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax(dim=(1, 2)) for j in range(sides)]
                for i in range(rows)
            ]
            image = torch.stack([torch.stack(row, dim=1) for row in windows], dim=1)
        columns.append(sum(w_O) * image)
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize(("parts", "size"), [(2, (6, 6)), (4, (5, 7))])
def test_an_edge_equals_the_loop(reduction, parts, size):
    torch.manual_seed(0)
    space = CellSpace(2, SPACE.operations[:5])
    cell = MixedCell(space, 8, 8, 8, reduction, reduction_before=False, partial=parts).double()
    stride = 2 if reduction else 1
    x = torch.randn(3, cell.channels, *size, dtype=torch.float64)
    w_O = torch.rand(5, dtype=torch.float64)  # of an edge that weighs other than 1, too
    torch.testing.assert_close(cell.edges[0](x, w_O), by_hand(cell.edges[0], x, w_O, stride), rtol=0, atol=1e-12)
    assert all(module.num_features == cell.channels // parts for module in cell.edges[0].modules() if norm(module))


def norm(module) -> bool:
    return isinstance(module, torch.nn.BatchNorm2d)


def test_channels_are_shuffled_in_turn_and_none_is_lost():
    x = torch.arange(12.0)[None, :, None, None]
    assert shuffle(x, 4).flatten().tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


def test_with_one_part_it_is_the_plain_mixed_operation():
    torch.manual_seed(0)
    operations = [torch.nn.Identity(), torch.nn.AvgPool2d(3, 1, 1)]
    x, w_O = torch.randn(2, 4, 5, 5), torch.rand(2)
    assert type(mixed_operation(operations, 1)) is MixedOperation
    torch.testing.assert_close(PartialOperation(operations, 1, False)(x, w_O), MixedOperation(operations)(x, w_O))


@pytest.mark.parametrize(("form", "space"), [(Supernet, SPACE), (DenseSupernet, DENSE)])
def test_every_weight_and_p_receive_a_gradient_and_names_stay(form, space):
    torch.manual_seed(0)
    whole, partial = form(space, 8, 3, 5), form(space, 8, 3, 5, partial=4)
    assert list(whole.state_dict()) == list(partial.state_dict())
    assert count_parameters(partial) < 0.5 * count_parameters(whole)
    matrices = [torch.full(space.shape, 1 / space.shape[1], requires_grad=True) for _ in space.kinds]
    functional.cross_entropy(partial(torch.randn(6, 3, 9, 9), *matrices), torch.arange(6) % 5).backward()
    for name, parameter in partial.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    for p_EO in matrices:
        assert (p_EO.grad.abs().sum(dim=1) > 0).all()
    costs = [ExpectedCost(supernet, 8).expected(*matrices) for supernet in (whole, partial)]
    assert costs[1] < 0.2 * costs[0]


def test_what_goes_by_teaches_p_nothing():
    """A row's part of the gradient that all operations share is what a softmax does not see: without the by-pass it
    is the same but for that."""
    torch.manual_seed(0)
    edge = DenseSupernet(DENSE, 8, 3, 5, partial=4).double().stages[0][0].edges[0]
    x, target = (torch.randn(4, 8, 5, 5, dtype=torch.float64) for _ in range(2))
    logits_O = torch.randn(5, dtype=torch.float64, requires_grad=True)
    loss = (edge(x, torch.softmax(logits_O, dim=0)) * target).sum()
    (found_O,) = torch.autograd.grad(loss, logits_O)
    p_O = torch.softmax(logits_O, dim=0)
    mixed = sum(p * operation(x[:, :2]) for p, operation in zip(p_O, edge))
    (expected_O,) = torch.autograd.grad((mixed * target[:, ::4]).sum(), logits_O)
    torch.testing.assert_close(found_O, expected_O, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("supernet.partial=3", "divide supernet.channels=16 into parts of at least two"),
        ("supernet.partial=16", "divide supernet.channels=16 into parts of at least two"),
        ("supernet.partial=0", "supernet.partial=0: must be at least 1"),
    ],
)
def test_bad_settings(word, message, capsys):
    assert main(["search", word]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
