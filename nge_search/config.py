"""The former name of `nge_search.settings.load`; it goes away with the next version."""

import warnings

from nge_search.settings import load

warnings.warn("nge_search.config is now nge_search.settings.load", DeprecationWarning, stacklevel=2)


def __getattr__(name: str) -> object:
    return getattr(load, name)
