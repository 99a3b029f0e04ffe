"""Neural architecture search with graph embeddings (NGE)."""

# `search` is both a subpackage and a function. Importing the subpackage first lets the function keep the
# name here, while `from nge_search.gradient.bilevel import ...` works as always.
import nge_search.search  # noqa: F401
from nge_search.api import derive, evaluate, search
from nge_search.architecture.genotype import Cell, Genotype, load_genotype
from nge_search.engine.interrupt import Interrupted
from nge_search.errors import RunFailure, UserError
from nge_search.settings.schema import EvalConfig, SearchConfig

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "EvalConfig",
    "Genotype",
    "Interrupted",
    "RunFailure",
    "SearchConfig",
    "UserError",
    "derive",
    "evaluate",
    "load_genotype",
    "search",
]
