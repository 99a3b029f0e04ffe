"""Genotypes of DARTS' space after cells of NAS-Bench-101: what is drawn, and what it may be worth.

    python experiments/design.py transfer tables/ecnas
    python experiments/design.py transfer tables/ecnas --train data.name=cifar10 data.root=data

Link models learn from the 30 best and worst cells of the table and draw 100 different genotypes, in which chains of
NAS-Bench-101's operations stand for DARTS' (Section 4.3 of NAL's paper). The predictor that ships with the package
scores them, 100 random ones, and the published ones of the space. The three with the best scores and the first
three random ones are written to runs/design_transfer/, with the lines that train them: 16x16 pixels, 5 cells, one
seed. --train runs these lines with its words behind them; trainings that have finished are kept. Six trainings of
small networks rank nothing: their errors are reported for what they are.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import design_published as paper
import numpy as np
from design_tables import markdown

import nge_search
from nge_search.architecture.genotype import PUBLISHED
from nge_search.design.darts import REPLACEMENTS, DartsRules
from nge_search.design.nasbench101 import LABELS
from nge_search.design.protocol import DesignSettings, Oracles, build_generator
from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_json
from nge_search.predict.shipped import expected, shipped
from nge_search.spaces import Code, DartsSpace

RUNS = Path("runs") / "design_transfer"
COUNT, TRAINED = 100, 3
#: Of a training; the published ones (`configs/eval/cifar10_darts.yaml`) take GPU-days.
TRAINING = (
    *("data.image_size=16", "network.cells=5", "network.channels=16", "train.epochs=15", "train.batch_size=64"),
    *("data.limit=10000", "seed=0"),
)
_C3, _C1, _ = LABELS[1:-1]
#: The paper's chains are in a supplement that is not to be had: separable convolutions count twice, as DARTS builds
#: them, and skips are 1x1 convolutions.
OTHER_CHAINS = {
    **REPLACEMENTS,
    "sep_conv_3x3": (_C3, _C1) * 2,
    "sep_conv_5x5": (_C3, _C3, _C1) * 2,
    "skip_connect": (_C1,),
}


def transfer(oracles: Oracles, seed: int, words: Sequence[str] | None, out: Path) -> None:
    """Draw, score, write and print genotypes; train some of them if there are words for it.

    Raises:
        UserError: cells that are not of NAS-Bench-101, or words that train nothing.
    """
    space, own = DartsSpace(), drawn(oracles, seed)
    found = {name: _judged(space, codes) for name, codes in own.items()}
    lines = [_line(name, scores) for name, scores in found.items()]
    print(f"Test errors in percent that the predictor expects (Kendall tau {shipped().tau[0]:.2f}):\n")
    print(markdown(["genotypes", "number", "mean", "deviation", "best", "worst", "unlike the trained"], lines))
    published = _published()
    print(f"\nPublished:\n\n{markdown(['genotype', 'expected', 'unlike the trained'], published)}\n")
    error, parameters = paper.TABLES_2_3["CIFAR-10"]
    print(f"The paper trains one drawn genotype as DARTS' authors do: {error} %, {parameters} M parameters.\n")
    for name in ("link models", "random"):
        print(f"{name}: {_operations(space, own[name])}")
    chosen = _write(space, own, found)
    print("\n" + "\n".join(_command(path) for path in chosen))
    header = results_header(f"python experiments/design.py transfer TABLE --first-seed {seed}")
    trained = {} if words is None else {path.stem: _train(path, words) for path in chosen}
    for name, summary in trained.items():
        print(f"{name}: test error {summary['top1_error']:.2f} %, {summary['params'] / 1e6:.3f}M parameters")
    document = {
        "seed": seed,
        "expected_errors": {name: scores[0].round(3).tolist() for name, scores in found.items()},
        "published": published,
        "training": [*TRAINING, *(words or ())],
        "trained": trained,
    }
    write_json(out / "design_darts_transfer.json", {**header, **document})


def drawn(oracles: Oracles, seed: int) -> dict[str, list[Code]]:
    """Different genotypes by what draws them."""
    if oracles.rules.labels != LABELS:
        raise UserError(f"genotypes are drawn after cells of nasbench101, not of {oracles.rules.space.name}")
    rows = {
        "link models": (DesignSettings(), REPLACEMENTS),
        "link models, other chains": (DesignSettings(), OTHER_CHAINS),
        "link frequencies": (DesignSettings("frequencies"), REPLACEMENTS),
    }
    found = {}
    for name, (settings, chains) in rows.items():
        into = DartsRules(None, chains)
        generator = build_generator(oracles.rules, oracles.good, oracles.bad, settings, seed, into)
        found[name] = generator.distinct(COUNT).codes
    space, random = DartsSpace(), np.random.default_rng(seed)
    return {**found, "random": [space.random(random) for _ in range(COUNT)]}


def _judged(space: DartsSpace, codes: Sequence[Code]) -> tuple[np.ndarray, int]:
    """Expected errors in percent, [N], and how many genotypes the predictor has not seen the like of."""
    found = [expectation for code in codes if (expectation := expected(space.genotype(code)))]
    return np.array([one.error for one in found]), sum(one.unlike for one in found)


def _line(name: str, scores: tuple[np.ndarray, int]) -> list[str]:
    error_N, unlike = scores
    figures = error_N.mean(), error_N.std(ddof=1), error_N.min(), error_N.max()
    return [name, str(len(error_N)), *(f"{value:.3f}" for value in figures), str(unlike)]


def _published() -> list[list[str]]:
    """A line for each published genotype of the space."""
    known = {name: expected(genotype) for name, genotype in PUBLISHED.items()}
    return [[name, f"{one.error:.3f}", "yes" if one.unlike else "no"] for name, one in known.items() if one]


def _operations(space: DartsSpace, codes: Sequence[Code]) -> str:
    """Shares of operations, the most frequent first."""
    genotypes = [space.genotype(code) for code in codes]
    names = [name for own in genotypes for _, cell in own.cells() for name, _ in cell.genes]
    return ", ".join(f"{name} {count / len(names):.0%}" for name, count in Counter(names).most_common())


def _write(space: DartsSpace, own: dict[str, list[Code]], found: dict[str, tuple[np.ndarray, int]]) -> list[Path]:
    """The genotypes to train, in files."""
    best = [own["link models"][row] for row in np.argsort(found["link models"][0], kind="stable")[:TRAINED]]
    paths: list[Path] = []
    RUNS.mkdir(parents=True, exist_ok=True)
    for name, codes in (("drawn", best), ("random", own["random"][:TRAINED])):
        for number, code in enumerate(codes, 1):
            paths.append(RUNS / f"{name}_{number}.json")
            write_json(paths[-1], space.to_dict(code, {"source": f"experiments/design.py transfer, {name}"}))
    return paths


def _command(path: Path) -> str:
    words = ("python", "train_eval.py", "data.name=cifar10", f"network.genotype={path}", f"run.name={path.stem}")
    return shlex.join([*words, *TRAINING])


def _train(path: Path, words: Sequence[str]) -> dict[str, Any]:
    """One training, in a run folder that a repeated call reuses."""
    own = (f"network.genotype={path}", f"run.dir={RUNS / 'eval' / path.stem}")
    summary = nge_search.evaluate(None, "data.name=cifar10", *TRAINING, *own, *words)
    return {name: summary[name] for name in ("top1_error", "params", "seconds")}
