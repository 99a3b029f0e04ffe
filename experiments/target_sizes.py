"""Do searches come to a wanted size, and what does it cost? Five targets by five seeds on scikit-learn's digits.

    python experiments/target_sizes.py              some 20 minutes of one core
    python experiments/target_sizes.py --show       the table and the file from finished trials alone

A target is so much of the way from the mult-adds of the smallest to those of the largest network of derived cells.
Each search for one is paired with one of the same seed without a target, whose P also gives the likeliest cells of
that size: so far goes the choice of cells alone, and beyond it goes what leads P there. All cells are trained for
the same short time. Trials that have finished are kept in target_sizes_rows.jsonl below experiments/results,
searches and trainings below runs/target_sizes; what was stopped goes on. Writes target_sizes.json beside the rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kept_rows import Row, keep_rows, numbers, read_rows
from torch import Tensor

import nge_search
from nge_search.architecture.load import Architecture, load_architecture
from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.gradient.sized_cells import node_options, size_range
from nge_search.gradient.target import SizeTarget
from nge_search.networks.operation_sizes import OperationSizes
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.settings.strategies import QueriesConfig
from nge_search.spaces import DartsSpace
from nge_search.training.evaluator import open_trainings

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "target_sizes"
RESULTS = ROOT / "experiments" / "results"
#: Percent of the way from the smallest to the largest network.
SHARES = (10, 30, 50, 70, 90)
SEEDS = range(5)
IMAGES = ("data.name=digits",)
QUIET = ("threads=1", "run.progress=none", "run.tensorboard=false", "device=cpu")
SEARCH = (
    *("supernet.channels=4", "supernet.cells=3", "search.batch_size=32", "search.evaluate_every=0"),
    *("search.epochs=7", "search.warmup_epochs=3", "search.selection=argmax"),
)
#: The network of the wanted sizes, in which all cells are trained, too: channels and cells, on grey images of 8
#: pixels of ten classes.
CHANNELS, CELLS, SIDE, CLASSES, GREY = 8, 5, 8, 10, 1
TRAINING = ("steps=80", "batch_size=32")
#: What the searches are accepted by: of each target's seeds so many within the first share, all within the second.
WITHIN, ACCEPTED = (0.05, 0.1), 4
_CELLS = ("aimed", "chosen", "free")


@dataclass(frozen=True)
class Trial:
    """A target, in percent of the way, and the seed."""

    share: int
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shares", type=numbers, default=list(SHARES), help="targets, in percent, such as 10,50")
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS), help="such as 0-4")
    parser.add_argument("--show", action="store_true", help="only the table and the file from finished trials")
    options = parser.parse_args()
    rows = RESULTS / "target_sizes_rows.jsonl"
    if not options.show:
        torch.set_num_threads(1)
        done = read_rows(rows, Trial)
        trials = [Trial(share, seed) for seed in options.seeds for share in options.shares]
        for row in keep_rows(rows, _perform([trial for trial in trials if trial not in done])):
            print(_line(row), flush=True)
    results = report(list(read_rows(rows, Trial).values()))
    write_json(RESULTS / "target_sizes.json", {**results_header("python experiments/target_sizes.py"), **results})


def _perform(trials: Sequence[Trial]) -> Iterator[Row]:
    for trial in trials:
        cpu = time.process_time()
        found = carry_out(trial)
        seconds = round(time.process_time() - cpu, 1)
        yield {"trial": dataclasses.asdict(trial), **found, "cpu_seconds": seconds}


def carry_out(trial: Trial) -> dict[str, Any]:
    """The row of a trial.

    "aimed" is what a search for the size derives; from P of a search without a target "chosen" are the likeliest
    cells of the size, and "free" those of P alone.
    """
    wanted = target_of(trial.share)
    sizes = (("channels", CHANNELS), ("cells", CELLS), ("classes", CLASSES), ("image_size", SIDE))
    aim = (f"search.target_macs={wanted}", *(f"search.target_{name}={value}" for name, value in sizes))
    folders = RUNS / f"free-{trial.seed}", RUNS / f"{trial.share}-{trial.seed}"
    for folder, more in zip(folders, ((), aim)):
        nge_search.search(None, *_words(trial, folder), *SEARCH, *more)
    target = SizeTarget(load_config(SearchConfig, None, [*SEARCH, *aim]).search, DartsSpace(), GREY, CLASSES)
    free, aimed = map(_rows, folders)
    strengths = mean_strengths(free)
    chosen = target.derive(strengths)
    last = aimed[-1]
    trained = _Trainings(trial)
    return {
        "wanted": wanted,
        "aimed": {
            "off": _off(last["target_size"], wanted),
            "off_of_p": _off(last["target_size_of_p"], wanted),
            "changed": last["target_changed"],
            "loss": round(last["target_loss"], 3),
            "multiplier": round(last["target_multiplier"], 3),
            **trained.figures(load_architecture(str(folders[1]))),
        },
        "chosen": {
            "off": _off(target.size(chosen), wanted),
            "changed": target.figures(strengths, chosen)["target_changed"],
            **trained.figures(chosen),
        },
        "free": {
            "off": _off(target.size(target.space.derive(strengths)), wanted),
            **trained.figures(target.space.derive(strengths)),
        },
    }


def target_of(share: int) -> int:
    """Mult-adds at so many percent of the way from the smallest to the largest network."""
    space = DartsSpace()
    sizes = OperationSizes(space, "cifar", "macs", (CHANNELS, CELLS, CLASSES), SIDE, GREY)
    matrices = [matrix_EO.numpy() for matrix_EO in sizes.matrices]
    low, high = size_range(node_options(matrices, matrices, space))
    return round(sizes.rest + low + share / 100 * (high - low))


def _words(trial: Trial, folder: Path) -> tuple[str, ...]:
    return (*QUIET, *IMAGES, f"seed={trial.seed}", f"run.dir={folder}")


def _rows(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def mean_strengths(rows: Sequence[Row]) -> list[Tensor]:
    """What a search derives its cells from: the mean of P over the epochs in which it learned, [E, O] each."""
    first = load_config(SearchConfig, None, list(SEARCH)).search.first_of_p
    return [
        torch.tensor([row[f"p_{kind}"] for row in rows[first:]], dtype=torch.float64).mean(dim=0)
        for kind in ("normal", "reduce")
    ]


def _off(size: float, wanted: float) -> float:
    return round(size / wanted - 1, 4)


class _Trainings:
    """Short trainings of cells of the wanted size's network, from one seed."""

    def __init__(self, trial: Trial):
        own = (*TRAINING, f"channels={CHANNELS}", f"cells={CELLS}", "kind=training", "space=darts")
        words = (*_words(trial, RUNS / f"trainings-{trial.seed}"), *(f"evaluator.{word}" for word in own))
        config = load_config(QueriesConfig, None, list(words))
        Path(config.run.dir).mkdir(parents=True, exist_ok=True)
        self._space = DartsSpace()
        self._asked = open_trainings(
            config, config.evaluator, self._space, torch.device("cpu"), lambda text: print(text, flush=True)
        )

    def figures(self, architecture: Architecture) -> dict[str, Any]:
        """Of the cells' training: validation accuracy in percent, loss, and the network's mult-adds."""
        found = self._asked.figures(self._space.code_of(architecture))
        return {name: found.get(name) for name in ("valid_top1", "valid_loss", "macs")}


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """By target what was found, and whether the searches came to the sizes; printed, too."""
    results: dict[str, Any] = {}
    for share in sorted({row["trial"]["share"] for row in rows}):
        own = sorted((row for row in rows if row["trial"]["share"] == share), key=lambda row: row["trial"]["seed"])
        results[str(share)] = found = summarise(own)
        print(f"{share} %: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    return {"targets": results, "accepted": bool(results) and all(own["accepted"] for own in results.values())}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Of a target's trials."""

    def off(of: str, key: str = "off") -> list[float]:
        return [abs(row[of][key]) for row in rows]

    def paired(other: str) -> dict[str, Any]:
        gains = [row["aimed"]["valid_top1"] - row[other]["valid_top1"] for row in rows]
        error = round(statistics.stdev(gains) / len(gains) ** 0.5, 3) if len(gains) > 1 else None
        return {"mean": round(statistics.mean(gains), 3), "standard_error": error}

    near = [sum(one <= within for one in off("aimed")) for within in WITHIN]
    return {
        "wanted": rows[0]["wanted"],
        "seeds": len(rows),
        "off": max(off("aimed")),
        "off_of_p": {"median": statistics.median(off("aimed", "off_of_p")), "most": max(off("aimed", "off_of_p"))},
        "off_without": statistics.median(off("free")),
        "changed": statistics.mean(row["aimed"]["changed"] for row in rows),
        "changed_without": statistics.mean(row["chosen"]["changed"] for row in rows),
        "top1": {of: round(statistics.mean(row[of]["valid_top1"] for row in rows), 3) for of in _CELLS},
        "gain_on_chosen": paired("chosen"),
        "gain_on_free": paired("free"),
        "accepted": near[0] * 5 >= ACCEPTED * len(rows) and near[1] == len(rows),
    }


def _line(row: Row) -> str:
    trial, aimed = row["trial"], row["aimed"]
    top1 = ", ".join(f"{of} {row[of]['valid_top1']:.2f} %" for of in _CELLS)
    return (
        f"{trial['share']} %, seed {trial['seed']}: off {aimed['off']:+.3f}, of P alone {aimed['off_of_p']:+.3f}, "
        f"{aimed['changed']} changed; {top1}; {row['cpu_seconds']} s"
    )


if __name__ == "__main__":
    main()
