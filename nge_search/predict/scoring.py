"""`nge predict score`: what a saved predictor expects of architectures, or of a search's genotypes epoch by epoch.

Legend: N architectures, L levels of quantiles.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.architecture.load import is_notation, load_architecture, read_architecture
from nge_search.engine.run_reader import RunReader
from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.kinds import GENOTYPE, METRICS
from nge_search.predict.evaluation import LEVELS
from nge_search.predict.saved import SavedPredictor
from nge_search.spaces import Code, Space
from nge_search.tables.labels import read_architectures

#: Of a row: the median and the ends of the 50 % and 90 % intervals, in the order of `LEVELS`.
_QUANTILES = ("low_90", "low_50", "predicted", "high_50", "high_90")
#: Figures of a search's epoch that are shown beside the prediction.
_BESIDE = ("valid_top1", "entropy_normal", "entropy_cell")


@dataclass(frozen=True)
class Scored:
    """An architecture with what is expected of it.

    Attributes:
        code: of the architecture.
        text: its notation.
        score: the higher, the better.
        quantiles: accuracies in percent at `LEVELS`; None of a predictor that does not say how sure it is.
        epoch: of the search that it was the genotype of, counted from 1.
        beside: figures of that epoch.
    """

    code: Code
    text: str
    score: float
    quantiles: tuple[float, ...] | None = None
    epoch: int | None = None
    beside: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        epoch = {} if self.epoch is None else {"epoch": self.epoch}
        expected = {} if self.quantiles is None else dict(zip(_QUANTILES, self.quantiles))
        return {**epoch, "architecture": self.text, "score": self.score, **expected, **dict(self.beside)}

    def words(self) -> str:
        """What is expected, in words."""
        if self.quantiles is None:
            return f"score {self.score:.4f}"
        low_90, low, predicted, high, high_90 = self.quantiles
        return f"{predicted:.2f} % (50 %: {low:.2f} to {high:.2f}, 90 %: {low_90:.2f} to {high_90:.2f})"


def score(saved: SavedPredictor, architectures: str | Path) -> list[Scored]:
    """Score whatever names architectures of the predictor's space, in the order given.

    Args:
        architectures: a CSV with the column `architecture`; the run folder of a search (the genotype of every epoch
            where its epochs have one, else what it found); or anything else that names one architecture.

    Raises:
        UserError: none of these, or architectures of another space.
    """
    text = str(architectures)
    path = None if is_notation(text) else user_path(text)
    if path is not None and path.is_dir():
        epochs = _epochs(saved.space, path)
        if epochs:
            return _with_epochs(saved, epochs)
    if path is not None and path.suffix == ".csv":
        _, codes = read_architectures(path, saved.space.name)
        return _scored(saved, [_of_space(saved.space, code) for code in codes])
    return _scored(saved, [saved.space.code_of(load_architecture(architectures))])


def _of_space(space: Space, code: Code) -> Code:
    """The code where the predictor's space is smaller than the one that goes by its name."""
    known = type(space)()
    return code if known.length == space.length else space.code(known.graphs(code))


def _epochs(space: Space, run: Path) -> list[dict[str, Any]]:
    """The rows of a search that have a genotype."""
    if not (run / METRICS).exists():
        return []
    rows = [row for row in RunReader(run).rows if "genotype" in row]
    if not rows and not (run / GENOTYPE).exists():
        raise UserError(f"'{run}' is no search: its epochs have no genotype, and it has no {GENOTYPE}")
    return rows


def _with_epochs(saved: SavedPredictor, rows: Sequence[dict[str, Any]]) -> list[Scored]:
    codes = [
        saved.space.code_of(read_architecture(row["genotype"], f"epoch {row['epoch']:g} of {METRICS}"))
        for row in rows
    ]
    found = []
    for row, one in zip(rows, _scored(saved, codes)):
        beside = tuple((name, float(row[name])) for name in _BESIDE if isinstance(row.get(name), float))
        found.append(Scored(one.code, one.text, one.score, one.quantiles, int(row["epoch"]), beside))
    return found


def _scored(saved: SavedPredictor, codes: Sequence[Code]) -> list[Scored]:
    cells: list[dict[str, Graph]] = [saved.space.graphs(code) for code in codes]
    score_N, quantile_NL = saved.predictor.forecast(cells, LEVELS)
    texts = [saved.space.text(code) for code in codes]
    if not score_N.isfinite().all():
        raise UserError(f"the predictor {saved.model} gives scores that are not finite; train it anew")
    if quantile_NL is None:
        return [Scored(code, text, own) for code, text, own in zip(codes, texts, score_N.tolist())]
    rows = zip(codes, texts, score_N.tolist(), quantile_NL.clamp(0, 100).tolist())
    return [Scored(code, text, own, tuple(quantiles)) for code, text, own, quantiles in rows]


def best(scored: Sequence[Scored], count: int) -> list[Scored]:
    """Those of highest score, in falling order; of equals the first."""
    return sorted(scored, key=lambda one: -one.score)[:count]


def to_csv(scored: Sequence[Scored]) -> str:
    """A row for each, in their order; figures that one lacks are empty."""
    rows = [one.to_dict() for one in scored]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
