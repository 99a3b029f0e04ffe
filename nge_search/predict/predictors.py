"""The predictors by name."""

from __future__ import annotations

from nge_search.errors import UserError, nearest
from nge_search.predict.base import Predictor
from nge_search.registry import resolve
from nge_search.settings.names import PREDICTORS as _OFFERED
from nge_search.settings.names import require_names
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


def open_predictor(name: str, space: Space) -> Predictor:
    """An untrained predictor.

    Raises:
        UserError: an unknown name, or a space for which it has no settings.
    """
    if name not in PREDICTORS:
        raise UserError(f"no predictor '{name}'{nearest(name, PREDICTORS)}; there are {', '.join(PREDICTORS)}")
    return resolve(PREDICTORS[name])(space)
