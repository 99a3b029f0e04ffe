"""Several networks of one form, trained side by side as one batched tensor.

Legend: E members.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._pytree import tree_map

from nge_search.errors import UserError, shorten


class Members:
    """Networks that differ in their random start (and in dropout), and learn from the same batches.

    Args:
        build: makes one network, its initial values from torch's global generator.
        count: E.
        seed: of the initial values.

    Attributes:
        parameters: by name, [E, ...].
    """

    def __init__(self, build: Callable[[], nn.Module], count: int, seed: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [build() for _ in range(count)]
        self.count = count
        self.parameters, self._buffers = stack_module_state(networks)
        self._form = copy.deepcopy(networks[0]).to("meta")
        fixed = {name for name, parameter in networks[0].named_parameters() if not parameter.requires_grad}
        for name in fixed:
            self.parameters[name] = self.parameters[name].detach()

    def trained(self) -> list[Tensor]:
        """The parameters that learn."""
        return [parameter for parameter in self.parameters.values() if parameter.requires_grad]

    def __call__(self, *inputs: Any, train: bool = False) -> Any:
        """What every member makes of the same inputs, [E, ...]; with dropout if they `train`."""
        self._form.train(train)

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
            return functional_call(self._form, (parameters, buffers), inputs)

        if self.count == 1:  # the same, without what `vmap` costs
            parts = (
                {name: tensor[0] for name, tensor in part.items()} for part in (self.parameters, self._buffers)
            )
            return tree_map(lambda tensor: tensor.unsqueeze(0), one(*parts))
        return vmap(one, randomness="different")(self.parameters, self._buffers)

    def load(self, parameters: Mapping[str, Tensor]) -> None:
        """Take over parameters of members of this form.

        Raises:
            UserError: other names, shapes or types; names the parameter.
        """
        if set(parameters) != set(self.parameters):
            other = min(set(parameters) ^ set(self.parameters))
            raise UserError(f"the parameters of a predictor are not those of this one: {shorten(other)}")
        for name, own in self.parameters.items():
            given = parameters[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise UserError(
                    f"the parameter {name} of a predictor is {tuple(given.shape)} of {given.dtype}, not "
                    f"{tuple(own.shape)} of {own.dtype}"
                )
            if not given.isfinite().all():
                raise UserError(f"the parameter {name} of a predictor is not finite")
            own.data.copy_(given)

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers of all members, [E, ...] each."""
        return {name: tensor.detach() for name, tensor in {**self.parameters, **self._buffers}.items()}
