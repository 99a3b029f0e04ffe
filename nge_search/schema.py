"""The former place of all settings' classes, now in `nge_search.settings`; it goes away with the next version."""

import warnings

from nge_search.settings import base, classification, data, embedding, optimisation, run, search

warnings.warn("nge_search.schema is now nge_search.settings", DeprecationWarning, stacklevel=2)

_FORMER = {"RunConfig": run.RunSection, "DataConfig": data.DataSection, "SupernetConfig": search.SupernetSection}
_FORMER |= {"EmbeddingConfig": embedding.EmbeddingSection, "NetworkConfig": classification.NetworkSection}
_HOMES = (base, data, embedding, optimisation, run, search, classification)


def __getattr__(name: str) -> object:
    if name in _FORMER:
        return _FORMER[name]
    for home in _HOMES:
        if hasattr(home, name):
            return getattr(home, name)
    raise AttributeError(f"nge_search.settings has no {name}")
