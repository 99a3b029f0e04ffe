"""The kinds of networks that cells are stacked into, by name, and the sizes that papers give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nge_search.architecture.genotype import SPACE, Genotype
from nge_search.architecture.graph import Graph
from nge_search.architecture.load import Architecture
from nge_search.errors import UserError, plain
from nge_search.networks import nasbench101, nasbench201
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.classifier import Classifier
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.networks.nasbench101 import NasBench101Network
from nge_search.networks.nasbench201 import NasBench201Network
from nge_search.settings import names
from nge_search.settings.names import require_names

#: What trains as a classifier: from images and drop-path's factors to logits and auxiliary logits.
Trainable = Classifier | NasBench101Network | NasBench201Network


@dataclass(frozen=True)
class Family:
    """A kind of network: the space of its cells, its class, its title, and the size of the published ones."""

    space: str
    network: type[Trainable]
    title: str
    channels: int
    cells: int
    classes: int
    image_size: int

    def build(
        self,
        cells_of: Genotype | Mapping[str, Graph],
        channels: int,
        cells: int,
        classes: int,
        image_channels: int = 3,
        auxiliary: bool = False,
        stem_multiplier: int | None = None,
    ) -> Trainable:
        """The untrained network of a genotype, or of a space's graphs.

        `auxiliary` is for networks that have such a head, `stem_multiplier` for those whose stem has a width of its
        own.
        """
        if self.space != SPACE:
            assert not isinstance(cells_of, Genotype)
            return self.network(cells_of["cell"], channels, cells, classes, image_channels)  # type: ignore[arg-type]
        genotype = cells_of if isinstance(cells_of, Genotype) else Genotype.from_graphs(cells_of)
        more: dict[str, Any] = {} if stem_multiplier is None else {"stem_multiplier": stem_multiplier}
        return self.network(genotype, channels, cells, classes, image_channels, auxiliary, **more)  # type: ignore


FAMILIES = {
    "cifar": Family(SPACE, CifarNetwork, "CIFAR", channels=36, cells=20, classes=10, image_size=32),
    "imagenet": Family(SPACE, ImageNetNetwork, "ImageNet", channels=48, cells=14, classes=1000, image_size=224),
    "nasbench101": Family(
        "nasbench101", NasBench101Network, "NAS-Bench-101", nasbench101.CHANNELS, nasbench101.CELLS, 10, 32
    ),
    "nasbench201": Family(
        "nasbench201", NasBench201Network, "NAS-Bench-201", nasbench201.CHANNELS, nasbench201.CELLS, 10, 32
    ),
}
require_names(FAMILIES, names.NETWORKS)


def require_fits(architecture: Architecture, kind: str, key: str) -> None:
    """Raise UserError, naming the setting `key`, unless networks of `kind` are of the architecture's space."""
    if FAMILIES[kind].space != architecture.space:
        fitting = [name for name, family in FAMILIES.items() if family.space == architecture.space]
        raise UserError(
            f"{key}={kind} takes cells of {FAMILIES[kind].space}, but {plain(architecture.text)} is one of "
            f"{architecture.space}; set {key}={' or '.join(fitting)}"
        )
