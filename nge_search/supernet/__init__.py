"""The weight-sharing supernets, each in its textbook and in its fast form."""

from __future__ import annotations

from nge_search.architecture.cell_space import CellSpace
from nge_search.settings.search import SupernetSection
from nge_search.spaces import DartsSpace, EdgeSpace, NasBench201Space
from nge_search.supernet.fused import FusedSupernet
from nge_search.supernet.nasbench201 import DenseSupernet
from nge_search.supernet.nasbench201_fused import FusedDenseSupernet
from nge_search.supernet.reference import Supernet

__all__ = [
    "DenseSupernet",
    "FusedDenseSupernet",
    "FusedSupernet",
    "Supernet",
    "build_space",
    "build_supernet",
    "fuse",
]


def build_space(settings: SupernetSection) -> EdgeSpace:
    """The space whose cells the supernet holds."""
    if settings.space == "nasbench201":
        return NasBench201Space()
    return DartsSpace(CellSpace(settings.nodes, tuple(settings.operations)))


def build_supernet(
    settings: SupernetSection, space: CellSpace, classes: int, image_channels: int
) -> Supernet | DenseSupernet:
    """The textbook form for cells of `space`."""
    sizes = settings.channels, settings.cells, classes, image_channels
    if settings.space == "nasbench201":
        return DenseSupernet(space, *sizes)
    return Supernet(space, *sizes, settings.stem_multiplier)


def fuse(supernet: Supernet | DenseSupernet) -> FusedSupernet | FusedDenseSupernet:
    """The fast form, with the weights of a textbook one."""
    return FusedDenseSupernet(supernet) if isinstance(supernet, DenseSupernet) else FusedSupernet(supernet)
