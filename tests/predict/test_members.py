"""Networks side by side against the same networks one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nge_search.predict.members import Members


class Small(nn.Module):
    """A frozen factor, a trained layer, and a fixed offset."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = nn.Parameter(torch.randn(2), requires_grad=False)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("offset", torch.randn(2))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        y = self.dropout(self.layer(x)) * self.factor
        return [y, y + self.offset]


@pytest.mark.parametrize("count", [1, 3])
def test_members_are_networks(count: int) -> None:
    members = Members(Small, count, 5)
    torch.manual_seed(5)
    networks = [Small().eval() for _ in range(count)]
    x = torch.randn(4, 3)
    found = members(x)
    expected = [torch.stack(outputs) for outputs in zip(*(network(x) for network in networks))]
    torch.testing.assert_close(found, expected)
    assert {name: tensor.shape[0] for name, tensor in members.parameters.items()} == dict.fromkeys(
        ("layer.weight", "layer.bias", "factor"), count
    )
    found[1].square().sum().backward()
    sum(network(x)[1].square().sum() for network in networks).backward()
    for name in ("weight", "bias"):
        gradient = torch.stack([getattr(network.layer, name).grad for network in networks])
        torch.testing.assert_close(members.parameters[f"layer.{name}"].grad, gradient)
    assert len(members.trained()) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_dropout_is_for_training_and_each_members_own(count: int) -> None:
    members = Members(Small, count, 0)
    x = torch.ones(500, 3)
    assert (members(x)[0] != 0).all()
    dropped = members(x, train=True)[0] == 0
    assert 0.4 < dropped.float().mean() < 0.6
    if count == 2:
        assert (dropped[0] != dropped[1]).any()
