"""The predictors by name."""

from __future__ import annotations

from nge_search.errors import UserError, nearest
from nge_search.files import user_path
from nge_search.predict.base import Predictor
from nge_search.predict.network_options import NetworkOptions
from nge_search.registry import resolve
from nge_search.settings.names import NETWORK_PREDICTORS as NETWORKS
from nge_search.settings.names import PREDICTORS as _OFFERED
from nge_search.settings.names import require_names
from nge_search.settings.predict import OptionsSection
from nge_search.spaces.base import Space

#: What makes each from its space, as "module:name".
PREDICTORS = {
    "ta_gates": "nge_search.predict.networks:ta_gates",
    "gates": "nge_search.predict.networks:gates",
    "gcn": "nge_search.predict.networks:gcn",
    "lstm": "nge_search.predict.networks:lstm",
    "mlp": "nge_search.predict.networks:mlp",
    "xgboost": "nge_search.predict.boosting:BoostedTrees",
    "nasbowl": "nge_search.predict.nasbowl:Nasbowl",
    "analytic_gp": "nge_search.predict.own:analytic_gp",
    "flow": "nge_search.predict.own:flow",
    "ensemble": "nge_search.predict.own:ensemble",
}
require_names(PREDICTORS, _OFFERED)


def open_predictor(name: str, space: Space, options: NetworkOptions | None = None) -> Predictor:
    """An untrained predictor.

    Args:
        options: of those of `NETWORKS`; None: as published.

    Raises:
        UserError: an unknown name, a space for which it has no settings, or options that it does not have.
    """
    if name not in PREDICTORS:
        raise UserError(f"no predictor '{name}'{nearest(name, PREDICTORS)}; there are {', '.join(PREDICTORS)}")
    build = resolve(PREDICTORS[name])
    if options is None:
        return build(space)
    if name not in NETWORKS:
        raise UserError(f"{name} has no options of networks; those that have are {', '.join(NETWORKS)}")
    return build(space, options)


def configured(name: str, space: Space, section: OptionsSection) -> Predictor:
    """As `open_predictor`, with the options that settings give where the predictor is a network."""
    return open_predictor(name, space, network_options(section) if name in NETWORKS else None)


def network_options(section: OptionsSection) -> NetworkOptions:
    """The options that settings give."""
    return NetworkOptions(**section.given(), cache=user_path(section.cache) if section.cache else None)
