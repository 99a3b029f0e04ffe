"""What a space of architectures is: codes, a distribution over them, neighbours, names.

Legend: N codes, L decisions of a code, E rows and O options of a matrix of probabilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import FORMAT
from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture
from nge_search.errors import UserError, shorten
from nge_search.registry import resolve

#: An architecture: its decisions as small integers, in an order that the space defines.
Code = tuple[int, ...]

#: Draws after which a distribution is taken to give nothing that is allowed.
_MOST_DRAWS = 10_000


class Space(ABC):
    """A set of architectures.

    Matrices of probabilities are those of `cell_space.tables`. What `draw` gives follows them; `log_probability`
    is the logarithm of its chance, up to a constant of the matrices where some codes are not allowed (`allows`):
    then draws are repeated until one is.

    Attributes:
        name: of the space, as in JSON.
        cell_space: vertices, edges and operations of a cell.
        length: L.
        networks: the class of the networks that are stacked from the space's graphs, as "module:class".
    """

    name: ClassVar[str]
    networks: ClassVar[str]
    cell_space: CellSpace
    length: int

    @abstractmethod
    def draw(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        """A code by the probabilities; it may be one that is not allowed."""

    @abstractmethod
    def log_probability(self, codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        """The logarithm of the chance that `draw` gives each of the codes (int64): [N], differentiable."""

    @abstractmethod
    def neighbours(self, code: Code) -> list[Code]:
        """The allowed codes that differ in one decision."""

    @abstractmethod
    def graphs(self, code: Code) -> dict[str, Graph]:
        """The architecture as graphs, one for each kind of cell."""

    @abstractmethod
    def code(self, graphs: Mapping[str, Graph]) -> Code:
        """The code whose `graphs` these are; raises UserError for those of cells that the space does not have."""

    @abstractmethod
    def text(self, code: Code) -> str:
        """The architecture in the notation in which it was published, on one line."""

    @abstractmethod
    def parse(self, text: str) -> Code:
        """The code of an architecture in that notation; raises UserError for anything else."""

    def network(self, code: Code, **sizes: int) -> nn.Module:
        """The untrained network of an architecture: by default as published, for CIFAR-10.

        Args:
            sizes: of `channels` (of the first cell), `cells`, `classes` and `image_channels` those that differ.

        Returns:
            A module whose `forward` takes images [B, image_channels, H, W] and gives (logits [B, classes], None).
        """
        return resolve(self.networks)(self.graphs(code), **sizes)

    def allows(self, code: Code) -> bool:
        """Whether a code is an architecture of the space."""
        return True

    def key(self, code: Code) -> bytes:
        """What names the architecture: equal for codes that the space counts as one."""
        return bytes(code)

    def sample(self, matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
        """An allowed code by the probabilities: drawn until one is.

        Raises:
            UserError: the probabilities give none.
        """
        for _ in range(_MOST_DRAWS):
            code = self.draw(matrices, random)
            if self.allows(code):
                return code
        raise UserError(f"no architecture of {self.name} in {_MOST_DRAWS} draws; the probabilities rule all out")

    def uniform(self) -> list[np.ndarray]:
        """Matrices under which all options are equally likely."""
        return [np.full(table.shape, 1 / len(table.options)) for table in self.cell_space.tables]

    def random(self, random: np.random.Generator) -> Code:
        """An allowed code, every decision equally likely to go either way."""
        return self.sample(self.uniform(), random)

    def to_dict(self, code: Code, provenance: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object of an architecture."""
        return {
            "format": FORMAT,
            "space": self.name,
            "architecture": self.text(code),
            "provenance": provenance or {},
        }

    def architecture(self, code: Code, provenance: dict[str, Any] | None = None) -> Architecture:
        """The architecture in all its forms."""
        return Architecture(self.name, self.graphs(code), self.to_dict(code, provenance), self.text(code))

    def code_of(self, architecture: Architecture) -> Code:
        """The code of an architecture that was read; raises UserError for one of another space."""
        if architecture.space != self.name:
            raise UserError(f"{architecture.source} holds no architecture of {self.name}")
        return self.code(architecture.graphs)

    def _refuse(self, text: Any, why: str) -> UserError:
        return UserError(f"{shorten(text)} is no architecture of {self.name}: {why}")


class EdgeSpace(Space):
    """A space whose cells a supernet holds: an operation on every edge.

    Attributes:
        kept: how many operations a derived cell has, `none` among them.
    """

    kept: int

    @abstractmethod
    def derive(self, matrices: Sequence[Tensor], provenance: dict[str, Any] | None = None) -> Architecture:
        """The architecture that probabilities stand for, by the space's rule."""

    @abstractmethod
    def edits(self, code: Code, likely: Sequence[Sequence[Sequence[int]]]) -> list[Code]:
        """The architectures one edit away that are made of likely operations.

        Args:
            likely: for each kind of cell and each edge its likely operations, the likeliest first.
        """

    @abstractmethod
    def throughout(self, operation: int) -> Code:
        """The architecture with one operation throughout; where edges are chosen, those from the cell's inputs."""


def likely_operations(matrices: Sequence[Tensor], count: int) -> list[list[list[int]]]:
    """For each kind of cell and each edge the `count` likeliest operations; of equals the first ones."""
    return [p_EO.argsort(dim=1, descending=True, stable=True)[:, :count].tolist() for p_EO in matrices]


def draw_tables(matrices: Sequence[np.ndarray], random: np.random.Generator) -> Code:
    """One option for each row of each matrix, by its probabilities."""
    return tuple(choice for p_EO in matrices for choice in draw_rows(p_EO, random).tolist())


def log_probability_of_tables(codes_NL: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The logarithm of the chance that `draw_tables` gives each of the codes: [N], differentiable."""
    options = max(p_EO.shape[1] for p_EO in matrices)
    logarithms_LO = torch.cat([functional.pad(p_EO.log(), (0, options - p_EO.shape[1])) for p_EO in matrices])
    return logarithms_LO[torch.arange(len(logarithms_LO), device=codes_NL.device), codes_NL].sum(dim=1)


def draw_rows(p_EO: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One option for each row, by its probabilities: int64 [E]."""
    reached_EO = p_EO.cumsum(axis=1)
    levels_E = random.random(len(p_EO)) * reached_EO[:, -1]
    return (reached_EO <= levels_E[:, None]).sum(axis=1)
