"""Networks from files: their weights as they are, buffers that no file holds as the network makes them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from nge_search.deploy.building import with_weights
from nge_search.deploy.export import build_network
from nge_search.errors import UserError


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]), persistent=False)

    def forward(self, x_BC: Tensor) -> Tensor:
        return self.scale * self.linear(x_BC)


def test_a_buffer_that_is_not_saved(monkeypatch):
    """Computed anew, without a trace in the random state; weights of float64 stay so."""
    own, x_BC = Scaled().double(), torch.randn(3, 2, dtype=torch.float64)
    before = torch.get_rng_state()
    found = with_weights(Scaled, own.state_dict(), "here")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found(x_BC), own(x_BC))
    assert not found.training
    monkeypatch.setattr(timm, "create_model", lambda name, **sizes: Scaled())
    assert torch.equal(build_network("any", {}, own.state_dict(), "here")(x_BC), own(x_BC))


def test_weights_that_do_not_fit_take_no_memory():
    built: list[torch.device] = []

    def build() -> Scaled:
        built.append(torch.empty(0).device)
        return Scaled()

    with pytest.raises(UserError, match=r"here: tensor 'linear.weight' is torch.float32 \(3, 2\)"):
        with_weights(build, {**Scaled().state_dict(), "linear.weight": torch.zeros(3, 2)}, "here")
    assert built == [torch.device("meta")]
