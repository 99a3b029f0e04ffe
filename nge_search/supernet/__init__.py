"""The weight-sharing supernet."""

from nge_search.supernet.reference import Supernet

__all__ = ["Supernet"]
