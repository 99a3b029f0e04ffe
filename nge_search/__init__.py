"""Neural architecture search with graph embeddings (NGE)."""

from nge_search.api import (
    derive,
    design_bench,
    design_draw,
    design_train,
    evaluate,
    predict_bench,
    predict_score,
    predict_train,
    retrieve_bench,
    retrieve_build,
    retrieve_query,
    retrieve_train,
    run,
    search,
    test,
)
from nge_search.architecture.genotype import Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.engine.given import Images
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.watched_run import Run
from nge_search.errors import RunFailure, UserError
from nge_search.operation_registry import register_operation
from nge_search.settings.classification import EvalConfig
from nge_search.settings.search import SearchConfig

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "EvalConfig",
    "Genotype",
    "Images",
    "Interrupted",
    "Run",
    "RunFailure",
    "SearchConfig",
    "UserError",
    "derive",
    "design_bench",
    "design_draw",
    "design_train",
    "evaluate",
    "load_genotype",
    "predict_bench",
    "predict_score",
    "predict_train",
    "register_operation",
    "retrieve_bench",
    "retrieve_build",
    "retrieve_query",
    "retrieve_train",
    "run",
    "search",
    "test",
]
