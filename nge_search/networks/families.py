"""The kinds of networks that cells are stacked into, by name, and the sizes that papers give them.

The class of every kind takes the cells (a genotype in DARTS' space, or graphs), then `channels`, `cells`, `classes`
and `image_channels`, and behind them what is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nge_search.architecture.genotype import SPACE, Cells
from nge_search.architecture.load import Architecture
from nge_search.errors import UserError
from nge_search.networks import enas_macro, nasbench101, nasbench201
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.classifier import Classifier
from nge_search.networks.enas_macro import EnasMacroNetwork
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.networks.nasbench101 import NasBench101Network
from nge_search.networks.nasbench201 import NasBench201Network
from nge_search.networks.own import OwnNetwork
from nge_search.settings import names
from nge_search.spaces.nasbench101 import STACKS
from nge_search.spaces.nasbench201 import STAGES

#: What trains as a classifier: from images and drop-path's factors to logits and auxiliary logits.
Trainable = Classifier | NasBench101Network | NasBench201Network | EnasMacroNetwork | OwnNetwork


@dataclass(frozen=True)
class Family:
    """A kind of network: the space of its cells, its class, its title, and the size of the published ones.

    Attributes:
        own: which of `auxiliary` and `stem_multiplier` the class takes.
        stages: what the number of cells is a multiple of.
        least_channels: fewer leave some layer without any.
    """

    space: str
    network: type[Trainable]
    title: str
    channels: int
    cells: int
    classes: int
    image_size: int
    own: tuple[str, ...] = ()
    stages: int = 1
    least_channels: int = 1

    def build(
        self,
        cells_of: Cells,
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

        Raises:
            UserError: too few channels.
        """
        if channels < self.least_channels:
            raise UserError(f"{channels} channels: the {self.title} network has at least {self.least_channels}")
        given = {"auxiliary": auxiliary, "stem_multiplier": stem_multiplier}
        own = {name: given[name] for name in self.own if given[name] is not None}
        stacked: Callable[..., Trainable] = self.network
        return stacked(cells_of, channels, cells, classes, image_channels, **own)


FAMILIES = {
    "cifar": Family(SPACE, CifarNetwork, "CIFAR", 36, 20, 10, 32, own=("auxiliary", "stem_multiplier")),
    "imagenet": Family(SPACE, ImageNetNetwork, "ImageNet", 48, 14, 1000, 224, own=("auxiliary",), least_channels=2),
    "nasbench101": Family(
        "nasbench101",
        NasBench101Network,
        "NAS-Bench-101",
        nasbench101.CHANNELS,
        nasbench101.CELLS,
        10,
        32,
        stages=STACKS,
    ),
    "nasbench201": Family(
        "nasbench201",
        NasBench201Network,
        "NAS-Bench-201",
        nasbench201.CHANNELS,
        nasbench201.CELLS,
        10,
        32,
        stages=STAGES,
    ),
    "enas_macro": Family(
        "enas_macro", EnasMacroNetwork, "ENAS macro", enas_macro.CHANNELS, enas_macro.REPEATS, 10, 32
    ),
}
names.require_names(FAMILIES, names.NETWORKS)


def require_fits(architecture: Architecture, kind: str, key: str) -> None:
    """Raise UserError, naming the setting `key`, unless networks of `kind` are of the architecture's space."""
    if FAMILIES[kind].space != architecture.space:
        fitting = [name for name, family in FAMILIES.items() if family.space == architecture.space]
        raise UserError(
            f"{key}={kind} takes cells of {FAMILIES[kind].space}, but {architecture.source} is one of "
            f"{architecture.space}; set {key}={' or '.join(fitting)}"
        )
