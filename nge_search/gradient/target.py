"""Cells of a wanted size: the size of the derived network, at the sizes at which it will be retrained.

Two things bring it there. In the architecture loss the expected size has a multiplier, which after every epoch
rises by how much what P derives is too large, relative to what is wanted, and falls where it is too small
(dual ascent, as for a constrained optimisation). And what is derived are the likeliest cells of about the wanted
size (`sized_cells`), which are those of P alone once P itself has come there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.load import Architecture
from nge_search.gradient.sized_cells import likeliest, node_options, size_range
from nge_search.json_reader import Reader
from nge_search.networks.families import FAMILIES
from nge_search.networks.operation_sizes import OperationSizes
from nge_search.networks.sizes import SIZES, out_of_range
from nge_search.settings.amounts import write_amount
from nge_search.settings.search import SearchSection
from nge_search.spaces import EdgeSpace
from nge_search.spaces.darts import DartsSpace

#: Within this share of the target a size is as wanted.
TOLERANCE = 0.02
#: What the multiplier rises by, in an epoch after which P derives twice the wanted size.
_RATE = 1.0
_MOST = 1000.0


class SizeTarget:
    """What a search with search.target_macs or search.target_params aims at, and how far it is.

    Attributes:
        of: "macs" or "params".
        wanted: the target.
        multiplier: of the expected size, relative to that of uniform P, in the architecture loss; negative where
            cells are too small.

    Raises:
        UserError: no cells of the space have such a size.
    """

    def __init__(self, section: SearchSection, space: EdgeSpace):
        target = section.target
        assert target is not None
        assert isinstance(space, DartsSpace)
        self.space, (self.of, self.wanted), self.multiplier = space, target, 0.0
        family = FAMILIES[section.target_network]
        counts = (
            section.target_channels or family.channels,
            section.target_cells or family.cells,
            section.target_classes or family.classes,
        )
        side = section.target_image_size or family.image_size
        self.sizes = OperationSizes(space, section.target_network, self.of, counts, side)
        self.network = (
            f"{family.title} network, C={counts[0]}, {counts[1]} {'cell' if counts[1] == 1 else 'cells'}, "
            f"{counts[2]} classes, {side}x{side}"
        )
        self._matrices = [matrix_EO.numpy() for matrix_EO in self.sizes.matrices]
        low, high = size_range(node_options(self._matrices, self._matrices, space))
        low, high = low + self.sizes.rest, high + self.sizes.rest
        if not low * (1 - TOLERANCE) <= self.wanted <= high * (1 + TOLERANCE):
            which = f"the space's cells in the {self.network}"
            raise out_of_range(section.key(f"target_{self.of}"), self.wanted, self.of, low, high, which)

    def gradients(self) -> list[Tensor]:
        """What the multiplier multiplies in the gradient with respect to each P, [E, O]."""
        return self.sizes.expected_gradients()

    def derive(self, strengths: Sequence[Tensor], provenance: dict[str, Any] | None = None) -> Architecture:
        """The likeliest cells of the wanted size; those that P alone stands for, if they are of it.

        Args:
            strengths: P of each kind of cell, [E, O], on the host.
        """
        derived = self.space.derive(strengths, provenance)
        if abs(self.size(derived) - self.wanted) <= TOLERANCE * self.wanted:
            return derived
        scores = [x_EO.double().clamp(min=1e-30).log().numpy() for x_EO in strengths]
        options = node_options(scores, self._matrices, self.space)
        code = likeliest(options, self.wanted - self.sizes.rest, TOLERANCE * self.wanted)
        return self.space.architecture(code, provenance)

    def size(self, architecture: Architecture) -> int:
        """Of the architecture's network."""
        return self.sizes.size(self.space.code_of(architecture))

    def end_epoch(self, strengths: Sequence[Tensor]) -> None:
        """Move the multiplier by how far P alone is from the target."""
        off = self.size(self.space.derive([x_EO.double().cpu() for x_EO in strengths])) / self.wanted - 1
        self.multiplier = min(max(self.multiplier + _RATE * min(off, 1.0), -_MOST), _MOST)

    @torch.no_grad()
    def figures(self, strengths: Sequence[Tensor], derived: Architecture) -> dict[str, Any]:
        """For a row of metrics.jsonl: the size of what is derived, and of what P alone derives."""
        of_p = self.space.derive(strengths)
        return {
            "target_size": self.size(derived),
            "target_size_of_p": self.size(of_p),
            "target_multiplier": self.multiplier,
        }

    def summary(self, row: dict[str, Any]) -> dict[str, Any]:
        """For summary.json, of the last row."""
        keys = ("size", "size_of_p", "multiplier")
        found = {key: float(row[f"target_{key}"]) for key in keys}
        return {"of": self.of, "wanted": self.wanted, "network": self.network, **found}

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Any, source: str) -> None:
        """Raises UserError, naming `source`, for what `state_dict` never gave."""
        reader = Reader(source, state if isinstance(state, dict) else {})
        self.multiplier = reader.number("multiplier", -_MOST - 1, _MOST)


def target_lines(summary: dict[str, Any]) -> list[str]:
    """What is printed of a finished search of a size."""
    found = summary.get("target")
    if not isinstance(found, dict):
        return []
    size, of_p, wanted = (float(found[key]) for key in ("size", "size_of_p", "wanted"))
    off = 100 * (size / wanted - 1) if wanted > 0 else math.nan
    alone = "" if of_p == size else f"; the cells of P alone: {write_amount(of_p)}"
    return [
        f"{found['network']}: {write_amount(size)} {SIZES[found['of']]}, "
        f"{off:+.1f} % of the wanted {write_amount(wanted)}{alone}"
    ]
