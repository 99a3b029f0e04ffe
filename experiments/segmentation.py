"""mIoU of DeepLabv3 on generated scenes and on a small copy of PASCAL VOC, against taking all for background.

    python experiments/segmentation.py                       scenes, one seed
    python experiments/segmentation.py --voc VOC2012         and the recipe voc_mini, on images in VOC's layout

Writes experiments/results/segmentation_cpu.json. About 4 minutes a run on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import nge_search
from nge_search.engine.environment import results_header
from nge_search.files import write_json

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voc", metavar="FOLDER", help="images and masks in VOC's layout")
    parser.add_argument("--seeds", type=int, default=3, help="of the recipe voc_mini (3)")
    options = parser.parse_args()
    results = {"scenes": measured([train("scenes", 0)])}
    if options.voc:
        voc = [train("voc_mini", seed, f"data.root={options.voc}") for seed in range(options.seeds)]
        results["voc_mini"] = measured(voc)
    for name, found in results.items():
        print(f"{name}: mIoU {found['mean']:.2f} %, of background alone {found['background_alone']:.2f} %")
    header = results_header("python experiments/segmentation.py", *sys.argv[1:])
    write_json(ROOT / "experiments" / "results" / "segmentation_cpu.json", {**header, "results": results})


def train(recipe: str, seed: int, *settings: str) -> Path:
    """One training, in a run folder of its own that a repeated call reuses."""
    run = ROOT / "runs" / "segmentation" / f"experiment-{recipe}-seed{seed}"
    config = ROOT / "configs" / "eval" / f"{recipe}.yaml"
    nge_search.evaluate(config, f"seed={seed}", f"run.dir={run}", *settings)
    return run


def measured(runs: list[Path]) -> dict:
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    found = [json.loads((run / "segmentation.json").read_text()) for run in runs]
    pixels = [sum(row) for row in found[0]["confusion"]]
    present = sum(count > 0 for count in pixels)
    return {
        "miou": [summary["miou"] for summary in summaries],
        "mean": statistics.mean(summary["miou"] for summary in summaries),
        "background_alone": 100 * pixels[0] / sum(pixels) / present,
        "pixel_accuracy": [summary["pixel_accuracy"] for summary in summaries],
        "iou": [dict(zip(one["classes"], one["iou"])) for one in found],
        "params": summaries[0]["params"],
        "macs": summaries[0]["macs"],
        "seconds": [summary["seconds"] for summary in summaries],
    }


if __name__ == "__main__":
    main()
