"""Cells of a wanted size: the size of the derived network, at the sizes at which it will be retrained.

Two things bring it there. In the architecture loss the expected size has a multiplier (`multiplier`), which moves P
to cells of that size. And what is derived are the likeliest cells of about the wanted size (`sized_cells`), which
are those of P alone once P itself has come there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nge_search.architecture.load import Architecture
from nge_search.gradient.sized_cells import likeliest, node_options, size_range
from nge_search.networks.families import FAMILIES
from nge_search.networks.operation_sizes import OperationSizes
from nge_search.networks.sizes import SIZES, network_size, out_of_range
from nge_search.settings.amounts import write_amount
from nge_search.settings.search import SearchSection
from nge_search.spaces import Code, EdgeSpace
from nge_search.spaces.darts import DartsSpace

#: Within this share of the target a size is as wanted.
TOLERANCE = 0.02
#: By so much a target may lie outside of what there is: its ends are printed with four digits.
_ROUNDING = 1e-3
#: Probabilities below are taken as this.
_LEAST = 1e-30


class SizeTarget:
    """What a search with search.target_macs or search.target_params aims at, and how far it is.

    Args:
        image_channels, classes: of the searched images. They, too, decide how large the network is; only ImageNet's
            network has its published number of classes unless search.target_classes says otherwise.

    Attributes:
        of: "macs" or "params".
        wanted: the target.
        network: in words, the one that has this size.
        settings: of that network: kind, channels, cells, classes, image_size.

    Raises:
        UserError: no cells of the space have such a size, or there is no such network.
    """

    def __init__(self, section: SearchSection, space: EdgeSpace, image_channels: int = 3, classes: int = 10):
        target = section.target
        assert target is not None
        assert isinstance(space, DartsSpace)
        self.space, (self.of, self.wanted), self.image_channels = space, target, image_channels
        kind = section.target_network
        family = FAMILIES[kind]
        counts = (
            section.target_channels or family.channels,
            section.target_cells or family.cells,
            section.target_classes or (classes if kind == "cifar" else family.classes),
        )
        if counts[0] < family.least_channels:
            why = f"the {family.title} network has at least {family.least_channels}"
            raise section.refuse("target_channels", why)
        side = section.target_image_size or family.image_size
        names = ("channels", "cells", "classes", "image_size")
        self._kind, self._counts = kind, counts
        self.settings: dict[str, Any] = {"kind": kind, **dict(zip(names, (*counts, side)))}
        self.sizes = OperationSizes(space, kind, self.of, counts, side, image_channels)
        self.network = (
            f"{family.title} network, C={counts[0]}, {counts[1]} {'cell' if counts[1] == 1 else 'cells'}, "
            f"{counts[2]} classes, {side}x{side}"
        )
        self._matrices = [matrix_EO.numpy() for matrix_EO in self.sizes.matrices]
        low, high = size_range(node_options(self._matrices, self._matrices, space))
        low, high = low + self.sizes.rest, high + self.sizes.rest
        if not low * (1 - _ROUNDING) <= self.wanted <= high * (1 + _ROUNDING):
            which = (
                f"the space's cells in the {self.network} (search.target_network, target_channels, target_cells, "
                "target_classes and target_image_size say which),"
            )
            raise out_of_range(section.key(f"target_{self.of}"), self.wanted, self.of, low, high, which)

    def derive(self, strengths: Sequence[Tensor], provenance: Mapping[str, Any] | None = None) -> Architecture:
        """The likeliest cells of the wanted size; those that P alone stands for, if they are of it.

        Args:
            strengths: P of each kind of cell, [E, O], on the host.
        """
        aim = {f"target_{self.of}": self.wanted, "target_network": self.network}
        known = {**(provenance or {}), **aim}
        derived = self.space.derive(strengths, known)
        if abs(self.size(derived) - self.wanted) <= TOLERANCE * self.wanted:
            return derived
        scores = [scores_EO.numpy() for scores_EO in _logarithms(strengths)]
        options = node_options(scores, self._matrices, self.space)
        code = likeliest(options, self.wanted - self.sizes.rest, TOLERANCE * self.wanted)
        return self.space.architecture(code, known)

    def size(self, architecture: Architecture) -> int:
        """Of the architecture's network."""
        return self.sizes.size(self.space.code_of(architecture))

    @torch.no_grad()
    def figures(self, strengths: Sequence[Tensor], derived: Architecture) -> dict[str, Any]:
        """For a row of metrics.jsonl, how what is derived differs from what P alone derives.

        Both sizes, how many of the operations differ in name or place, and the price: by how much the logarithms of
        the kept probabilities add up to less.
        """
        code, alone = (self.space.code_of(own) for own in (derived, self.space.derive(strengths)))
        kept = [_genes(self.space, own) for own in (code, alone)]
        scores = _logarithms(strengths)
        own, best = (math.fsum(float(scores[kind][edge, at]) for kind, edge, at in genes) for genes in kept)
        return {
            "target_size": self.sizes.size(code),
            "target_size_of_p": self.sizes.size(alone),
            "target_changed": len(kept[0] - kept[1]),
            "target_loss": best - own,
        }

    def summary(
        self, row: Mapping[str, Any], derived: Architecture, image_size: int, classes: int
    ) -> dict[str, Any]:
        """For summary.json, of the last row and what it derived.

        Args:
            image_size, classes: of the searched images; where the network of the wanted size is for others,
                "on_images" is its size on these.
        """
        keys = ("size", "size_of_p", "multiplier", "changed", "loss")
        found = {key: float(row[f"target_{key}"]) for key in keys}
        told = {"of": self.of, "wanted": self.wanted, "network": self.network, **self.settings, **found}
        if (image_size, classes) != (self.settings["image_size"], self.settings["classes"]):
            told["on_images"] = self._size_on(derived, image_size, classes)
        return told

    def _size_on(self, architecture: Architecture, image_size: int, classes: int) -> int:
        """Of the architecture's network for other images."""
        channels, cells, _ = self._counts
        with torch.device("meta"):
            network = FAMILIES[self._kind].build(architecture.graphs, channels, cells, classes, self.image_channels)
            return network_size(network, self.of, image_size, self.image_channels)


def target_lines(summary: Mapping[str, Any]) -> list[str]:
    """What is printed of a finished search of a size."""
    found = summary.get("target")
    if not isinstance(found, dict):
        return []
    size, of_p, wanted = (float(found[key]) for key in ("size", "size_of_p", "wanted"))
    off = 100 * (size / wanted - 1) if wanted > 0 else math.nan
    alone = "" if of_p == size else f"; the cells of P alone: {write_amount(of_p)}"
    lines = [
        f"{found['network']}: {write_amount(size)} {SIZES[found['of']]}, "
        f"{off:+.1f} % of the wanted {write_amount(wanted)}{alone}"
    ]
    if "on_images" in found:
        own = write_amount(float(found["on_images"]))
        lines.append(f"on the searched images that network has {own} {SIZES[found['of']]}")
    return lines


def _logarithms(strengths: Sequence[Tensor]) -> list[Tensor]:
    return [x_EO.double().clamp(min=_LEAST).log() for x_EO in strengths]


def _genes(space: DartsSpace, code: Code) -> set[tuple[int, int, int]]:
    """Of an architecture's kept edges the kind of cell, the position in P, and the operation's."""
    found, position = set(), 0
    for kind in range(len(space.cell_space.kinds)):
        for node in space.cell_space.inner:
            incoming = space.cell_space.incoming(node)
            *sources, first, second = code[position : position + 4]
            found |= {(kind, incoming[source], own) for source, own in zip(sources, (first, second))}
            position += 4
    return found
