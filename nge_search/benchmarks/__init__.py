"""The former name of `nge_search.tables`; it goes away with the next version."""

import sys
import warnings

from nge_search import tables
from nge_search.tables import benchmark, csv_rows, darts_pairs, nasbench101, nasbench201, table, tfrecord

warnings.warn("nge_search.benchmarks is now nge_search.tables", DeprecationWarning, stacklevel=2)

_MODULES = {"rows": csv_rows, "records": tfrecord, "darts_pairs": darts_pairs, "nasbench101": nasbench101}
_MODULES |= {"nasbench201": nasbench201, "query": benchmark, "table": table}
sys.modules |= {f"{__name__}.{name}": module for name, module in _MODULES.items()}


def __getattr__(name: str) -> object:
    return getattr(tables, name)
