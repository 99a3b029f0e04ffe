"""The commands as Python functions: `nge_search.search(...)`, `.evaluate(...)` and `.derive(...)`.

torch is imported when a function is called, so that `import nge_search` stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nge_search.architecture.genotype import Genotype, is_tabulated
from nge_search.errors import UserError, plain
from nge_search.files import user_path
from nge_search.json_reader import read_json_lines
from nge_search.settings.load import load_config, search_schema, to_dict, training_schema
from nge_search.settings.schema import EvalConfig, RunningConfig, SearchConfig
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.settings.strategies import BenchmarkConfig

Config = TypeVar("Config", bound=RunningConfig)


def _resolve(choose: Callable[..., type[Config]], config: Any, overrides: Sequence[str], *schemas: Any) -> Config:
    """A checked configuration from what users hold: nothing, a file, a mapping, or one of `schemas`.

    `choose` tells the schema from settings.
    """
    if isinstance(config, schemas):
        return load_config(type(config), None, [to_dict(config), *overrides])
    if isinstance(config, Mapping):
        return load_config(choose(None, [config, *overrides]), None, [config, *overrides])
    if config is None or isinstance(config, (str, Path)):
        return load_config(choose(config, overrides), config, overrides)
    names = " or a ".join(schema.__name__ for schema in schemas)
    raise UserError(f"a configuration is a file, a mapping or a {names}, not {type(config).__name__}")


def search(
    config: SearchConfig | BenchmarkConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Search for a cell, as `train_search.py` does; with `task` set to "benchmark", in a table of accuracies.

    Args:
        config: a YAML file, a (nested) mapping of settings, or a configuration; None: the defaults.
        overrides: `key=value` words, as on the command line.

    Returns:
        The content of summary.json.

    Raises:
        UserError: settings, data or a run folder that cannot be used; the message is one line.
    """
    resolved = _resolve(search_schema, config, overrides, SearchConfig, BenchmarkConfig)
    if isinstance(resolved, BenchmarkConfig):
        from nge_search.strategies.run import run_benchmark

        return run_benchmark(resolved)
    from nge_search.gradient.run import run_search

    return run_search(resolved)


def evaluate(
    config: EvalConfig | SegmentationConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Train a derived network and report its test error, as `train_eval.py` does; arguments as for `search`.

    With `task` set to "segmentation" it is DeepLabv3's backbone, and the report is of mIoU.
    """
    resolved = _resolve(training_schema, config, overrides, EvalConfig, SegmentationConfig)
    if isinstance(resolved, SegmentationConfig):
        from nge_search.training.segmentation_run import run_segmentation

        return run_segmentation(resolved)
    from nge_search.training.run import run_eval

    return run_eval(resolved)


def derive(run: str | Path, epoch: int | None = None) -> Genotype | dict[str, Any]:
    """The genotype that a search's operation probabilities stand for, finished or not.

    Of a search in another space than DARTS' it is the JSON object of the architecture.

    Args:
        run: the folder of a search.
        epoch: after which epoch, counted from 1; None: the last recorded.

    Raises:
        UserError: not the folder of a search, or no such epoch.
    """
    path = user_path(run) / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"'{run}' holds no metrics.jsonl; give the run folder of a search")
    found: dict[str, Any] = {}
    first, last = math.inf, 0
    for _, row in read_json_lines(path):  # what is no JSON is a last line that a crash cut short
        number = row.get("epoch") if isinstance(row, dict) else None
        if type(number) is int and number >= 0:
            number += 1  # the file counts from 0
            first, last = min(first, number), max(last, number)
            if number == (last if epoch is None else epoch):
                found = row
    if not last:
        raise UserError(f"{path} records no finished epoch yet")
    if not found:
        recorded = f"{first} to {last}, counted from 1"
        raise UserError(f"{path} records epochs {recorded}, not {plain(str(epoch))}")
    if "architecture" in found:
        raise UserError(f"'{run}' is a search in a table; its architecture is in genotype.json, once it has ended")
    if "genotype" not in found:
        raise UserError(f"'{run}' is not the run folder of a search: its epochs have no genotype")
    genotype = found["genotype"]
    if is_tabulated(genotype):
        return genotype
    return Genotype.from_dict(genotype, f"{path}, epoch {found['epoch'] + 1}")
