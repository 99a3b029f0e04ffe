"""The kinds of networks that a genotype is stacked into, by name, and the sizes that papers give them."""

from __future__ import annotations

from dataclasses import dataclass

from nge_search.genotype import Genotype
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.classifier import Classifier
from nge_search.networks.imagenet import ImageNetNetwork


@dataclass(frozen=True)
class Family:
    """A kind of network: its class, its title, and the size of the published ones."""

    network: type[Classifier]
    title: str
    channels: int
    cells: int
    classes: int
    image_size: int

    def build(
        self,
        genotype: Genotype,
        channels: int,
        cells: int,
        classes: int,
        image_channels: int = 3,
        auxiliary: bool = False,
        stem_multiplier: int | None = None,
    ) -> Classifier:
        """The untrained network. `stem_multiplier` is for those whose stem has a width of its own."""
        more = {} if stem_multiplier is None else {"stem_multiplier": stem_multiplier}
        return self.network(genotype, channels, cells, classes, image_channels, auxiliary, **more)  # type: ignore


FAMILIES = {
    "cifar": Family(CifarNetwork, "CIFAR", channels=36, cells=20, classes=10, image_size=32),
    "imagenet": Family(ImageNetNetwork, "ImageNet", channels=48, cells=14, classes=1000, image_size=224),
}
