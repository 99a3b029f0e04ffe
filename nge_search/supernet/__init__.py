"""The weight-sharing supernet, in its textbook and in its fast form."""

from nge_search.supernet.fused import FusedSupernet
from nge_search.supernet.reference import Supernet

__all__ = ["FusedSupernet", "Supernet"]
