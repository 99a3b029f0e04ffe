"""Sets of architectures: what strategies, tables of accuracies and encoders need to know of them."""

from __future__ import annotations

from nge_search.architecture.load import SPACES as _KNOWN
from nge_search.registry import resolve
from nge_search.spaces.base import Code, EdgeSpace, Space
from nge_search.spaces.darts import DartsSpace
from nge_search.spaces.enas_macro import EnasMacroSpace
from nge_search.spaces.evaluation import Evaluation, Evaluator, Queries
from nge_search.spaces.nasbench101 import NasBench101Space
from nge_search.spaces.nasbench201 import NasBench201Space

__all__ = [
    "SPACES",
    "Code",
    "DartsSpace",
    "EdgeSpace",
    "EnasMacroSpace",
    "Evaluation",
    "Evaluator",
    "NasBench101Space",
    "NasBench201Space",
    "Queries",
    "Space",
]

SPACES: dict[str, type[Space]] = {name: resolve(known.place) for name, known in _KNOWN.items()}
