"""A distribution over architectures that learns: an embedding's P, or free parameters, moved by Adam.

Legend: N architectures, L decisions of a code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.embedding import build_embedding
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser
from nge_search.errors import RunFailure
from nge_search.json_reader import Reader
from nge_search.settings.strategies import PolicySection, StrategySection
from nge_search.spaces import Code, Space

#: The least probability whose logarithm is taken: an option below it is not pushed down any further.
_LEAST = 1e-30


class Policy:
    """P over a space's decisions, as in gradient search, and the steps that move its parameters.

    Methods raise RunFailure once P is no longer finite.

    Args:
        space: of the architectures.
        config: what gives P, Adam's rate, betas and weight decay.
        seed: of the initial parameters; torch's global generator is left as it was.
    """

    def __init__(self, space: Space, config: PolicySection, seed: int):
        self.space = space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = build_embedding(config, space.cell_space)
        nodes = self.embedding.node_vectors()
        own = {id(x) for x in nodes}
        decay, self.rate = config.weight_decay, config.rate
        groups = [
            {"params": [p for p in self.embedding.parameters() if id(p) not in own], "weight_decay": decay},
            {"params": nodes, "weight_decay": decay if config.weight_decay_on_x else 0.0},
        ]
        self.optimiser = torch.optim.Adam(
            [group for group in groups if group["params"]],
            lr=self.rate,
            betas=(config.beta1, config.beta2),
            fused=True,
        )
        self._matrices: list[np.ndarray] | None = None

    def matrices(self) -> list[np.ndarray]:
        """The present probabilities, one matrix for each of the graph's tables."""
        if self._matrices is None:
            with torch.no_grad():
                found = self.embedding()
            self._check_finite(*found)
            self._matrices = [p_EO.double().numpy() for p_EO in found]
        return self._matrices

    def log_probability(self, codes: Sequence[Code]) -> Tensor:
        """Of each architecture: [N], differentiable."""
        matrices = [p_EO.clamp_min(_LEAST) for p_EO in self.embedding()]
        log_N = self.space.log_probability(torch.tensor(codes), matrices)
        self._check_finite(log_N)
        return log_N

    def _check_finite(self, *values: Tensor) -> None:
        if not all(bool(x.isfinite().all()) for x in values):
            raise RunFailure(
                f"the policy's probabilities are no longer finite; lower embedding.learning_rate={self.rate:g}"
            )

    def gradients(self, codes: Sequence[Code], weights_N: np.ndarray) -> list[Tensor]:
        """Of sum_i w_i log P(a_i) with respect to the embedding's parameters.

        With w_i = R(a_i) - b for architectures drawn from P this is REINFORCE's estimate (Williams, 1992) of the
        gradient of the expected reward, for any b that does not depend on a_i. Where the space does not allow all
        codes, log P lacks what normalises it, and the estimate is unbiased for b equal to the expected reward only.
        """
        log_N = self.log_probability(codes)
        total = (log_N * torch.as_tensor(weights_N, dtype=log_N.dtype)).sum()
        return list(torch.autograd.grad(total, list(self.embedding.parameters()), materialize_grads=True))

    def ascend(self, codes: Sequence[Code], weights_N: np.ndarray, steps: int = 1) -> None:
        """Steps of Adam up these gradients."""
        for _ in range(steps):
            for parameter, gradient in zip(self.embedding.parameters(), self.gradients(codes, weights_N)):
                parameter.grad = gradient.neg_()
            self.optimiser.step()
        self._matrices = None

    def state_dict(self) -> dict[str, Any]:
        """The embedding's and Adam's: a copy."""
        return copy.deepcopy({"embedding": self.embedding.state_dict(), "optimiser": self.optimiser.state_dict()})

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        """Raises UserError, naming `source`, for what does not fit the embedding."""
        state = copy.deepcopy(state)
        load_module(self.embedding, state.get("embedding", {}), source)
        load_optimiser(self.optimiser, state.get("optimiser"), source)
        self._matrices = None


class Learner:
    """A policy that takes up every architecture seen, weighted by its rank.

    Args:
        settings: its `temperature`, `contrast`, `steps` and `explore`.

    Attributes:
        codes: the architectures, as they came.
        values: one for each.
    """

    def __init__(self, space: Space, settings: StrategySection, policy: PolicySection, seed: int):
        self.settings = settings
        self.policy = Policy(space, policy, seed)
        self.codes: list[Code] = []
        self.values: list[float] = []

    def learn(self, code: Code, value: float) -> None:
        self.codes.append(code)
        self.values.append(value)
        if len(self.codes) > 1:
            weights_N = rank_weights(self.values, self.settings.temperature, self.settings.contrast)
            self.policy.ascend(self.codes, weights_N, self.settings.steps)

    def sample(self, random: np.random.Generator) -> Code:
        """An architecture drawn from (1 - explore) P + explore / options."""
        explore, space = self.settings.explore, self.policy.space
        mixed = [
            (1 - explore) * p_EO + explore * u_EO for p_EO, u_EO in zip(self.policy.matrices(), space.uniform())
        ]
        return space.sample(mixed, random)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": [list(code) for code in self.codes],
            "learned_values": list(self.values),
            "policy": self.policy.state_dict(),
        }

    def load(self, reader: Reader, codes: list[Code]) -> None:
        """Go on from a `state_dict` whose architectures were read already; raises UserError as `Policy` does."""
        values = reader.numbers("learned_values", len(codes))
        self.policy.load_state_dict(reader.section("policy").document, reader.source)
        self.codes, self.values = codes, list(values)


def rank_weights(rewards: Sequence[float], temperature: float, contrast: float) -> np.ndarray:
    """Weights [N] by rank: exp(-rank / temperature), summing to one, less `contrast` shared by all alike.

    The best has rank 0; equals all have the mean of their ranks. Invariant to any increasing change of the rewards.
    """
    reward_N = np.asarray(rewards, dtype=np.float64)
    sorted_N = np.sort(reward_N)
    above_N = len(reward_N) - np.searchsorted(sorted_N, reward_N, side="right")
    level_N = np.searchsorted(sorted_N, reward_N, side="right") - np.searchsorted(sorted_N, reward_N, side="left")
    weight_N = np.exp(-(above_N + (level_N - 1) / 2) / temperature)
    return weight_N / weight_N.sum() - contrast / len(reward_N)
