"""Test error on digits of DARTS_V2 and of a searched cell, each retrained with several seeds.

    python experiments/digits.py                        darts_v2 and runs/search/digits (after `make demo`)
    python experiments/digits.py darts_v1 cell.json     any genotypes

Writes experiments/results/digits.json. About a minute a seed on one CPU core.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
from pathlib import Path

import nge_search
from nge_search.engine.environment import results_header
from nge_search.files import write_json

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genotypes", nargs="*", default=["darts_v2", "runs/search/digits"])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results = {}
    for reference in options.genotypes:
        runs = [retrain(reference, seed) for seed in range(options.seeds)]
        errors = [run["top1_error"] for run in runs]
        results[reference] = {
            "top1_error": errors,
            "mean": statistics.mean(errors),
            "spread": max(errors) - min(errors),
            "params": runs[0]["params"],
            "macs": runs[0]["macs"],
            "seconds": [run["seconds"] for run in runs],
            "genotype": runs[0]["genotype"],
        }
        print(
            f"{reference}: test error {statistics.mean(errors):.2f} % over {len(errors)} seeds {errors}", flush=True
        )
    write_json(
        ROOT / "experiments" / "results" / "digits.json",
        {
            **results_header("python experiments/digits.py", *sys.argv[1:]),
            "results": results,
        },
    )


def retrain(reference: str, seed: int) -> dict:
    """One retraining, in a run folder of its own that a repeated call reuses."""
    cells = hashlib.sha256(nge_search.load_genotype(reference).to_json().encode()).hexdigest()[:8]
    key = f"{Path(reference).stem}-{cells}-seed{seed}"
    return nge_search.evaluate(
        ROOT / "configs" / "eval" / "digits.yaml",
        f"network.genotype={reference}",
        f"seed={seed}",
        f"run.dir=runs/eval/experiment-digits/{key}",
        "run.progress=none",
    )


if __name__ == "__main__":
    main()
