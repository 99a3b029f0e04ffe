"""The weight-sharing supernets, each in its textbook and in its fast form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nge_search.architecture.cell_space import CellSpace
from nge_search.settings import names
from nge_search.settings.search import SupernetSection
from nge_search.spaces import DartsSpace, EdgeSpace, NasBench201Space
from nge_search.supernet.fused import FusedSupernet
from nge_search.supernet.nasbench201 import DenseSupernet
from nge_search.supernet.nasbench201_fused import FusedDenseSupernet
from nge_search.supernet.reference import Supernet

__all__ = [
    "SUPERNETS",
    "DenseSupernet",
    "FusedDenseSupernet",
    "FusedSupernet",
    "Supernet",
    "build_space",
    "build_supernet",
    "fuse",
]

Textbook = Supernet | DenseSupernet
Fused = FusedSupernet | FusedDenseSupernet


class Forms(NamedTuple):
    """Of the supernet of a space.

    Attributes:
        space: from the settings to the space.
        textbook: takes the space's cells, channels, cells, classes, channels of images, and what is its `own`.
        fused: takes the textbook form.
        own: settings of the section that the textbook form takes besides.
    """

    space: Callable[[SupernetSection], EdgeSpace]
    textbook: type[Textbook]
    fused: Callable[..., Fused]
    own: tuple[str, ...] = ()


def _darts(settings: SupernetSection) -> EdgeSpace:
    return DartsSpace(CellSpace(settings.nodes, tuple(settings.operations)))


SUPERNETS = {
    "darts": Forms(_darts, Supernet, FusedSupernet, ("stem_multiplier", "partial")),
    "nasbench201": Forms(lambda settings: NasBench201Space(), DenseSupernet, FusedDenseSupernet, ("partial",)),
}
names.require_names(SUPERNETS, names.SUPERNET_SPACES)


def build_space(settings: SupernetSection) -> EdgeSpace:
    """The space whose cells the supernet holds."""
    return SUPERNETS[settings.space].space(settings)


def build_supernet(settings: SupernetSection, space: CellSpace, classes: int, image_channels: int) -> Textbook:
    """The textbook form for cells of `space`."""
    forms = SUPERNETS[settings.space]
    own = {name: getattr(settings, name) for name in forms.own}
    return forms.textbook(space, settings.channels, settings.cells, classes, image_channels, **own)


def fuse(supernet: Textbook) -> Fused:
    """The fast form, with the weights of a textbook one."""
    return next(forms.fused for forms in SUPERNETS.values() if isinstance(supernet, forms.textbook))(supernet)
