"""How far do two searches drift apart that differ in rounding only? The supernet's two forms, and a yardstick.

    python experiments/drift.py            five short searches on digits, some five minutes on two CPU cores

Searches of 50 steps on scikit-learn's digits, from the same seed: the textbook form, the same with each batch
reversed (the same sums in another order), the fast form, and both forms in float64. Prints the largest difference
of any probability, and writes experiments/results/drift.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from torch import Tensor

from nge_search.data import Batch
from nge_search.engine.environment import results_header
from nge_search.engine.session import open_session
from nge_search.files import write_json
from nge_search.gradient.run import build_task
from nge_search.settings.load import load_config
from nge_search.settings.search import SearchConfig

CONFIG = Path(__file__).parents[1] / "configs" / "search" / "digits.yaml"


def reversed_batch(batch: Batch) -> Batch:
    return batch._make(x.flip(0) if isinstance(x, Tensor) else x for x in batch)


def probabilities(kernel: str, precision: str, steps: int, reverse: bool = False) -> list[Tensor]:
    """Both P in float64 after so many steps, in turn an epoch of weights and one of the architecture, cut short."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"supernet.kernel={kernel}", f"precision={precision}", f"run.dir={folder}/run", "device=cpu"]
        words += ["search.mixture=weighted", "embedding.edges=printed"]
        config = load_config(SearchConfig, CONFIG, words)
        with open_session(config) as session:
            task = build_task(session)
            phases = [phase for phase in task.phases if phase.trains]
            for turn in range(2 * steps // 10):  # five steps of one phase, then five of the other
                phase = phases[turn % len(phases)]
                phase.start(turn // 2 % task.epochs)
                for _, batches in zip(range(5), phase.batches(turn // 2, 0)):
                    phase.step(*(reversed_batch(batch) if reverse else batch for batch in batches))
            return [p_EO.detach().double().clone() for p_EO in task.architecture.probabilities()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50, help="steps of both kinds together (50)")
    options = parser.parse_args()
    target = probabilities("reference", "fp32", options.steps)
    pairs = {
        "textbook, each batch reversed, fp32": (probabilities("reference", "fp32", options.steps, True), target),
        "fused, fp32": (probabilities("fused", "fp32", options.steps), target),
        "fused, fp64": tuple(probabilities(kernel, "fp64", options.steps) for kernel in ("fused", "reference")),
    }
    found = {}
    for name, (ours, theirs) in pairs.items():
        found[name] = max(float((a - b).abs().max()) for a, b in zip(ours, theirs))
        print(f"{name}: largest difference of P to the textbook form {found[name]:.1e}", flush=True)
    moved = max(float((p_EO - 1 / p_EO.shape[1]).abs().max()) for p_EO in target)
    print(f"P moved by up to {moved:.2f} from uniform")
    write_json(
        Path(__file__).parent / "results" / "drift.json",
        {
            **results_header(f"python experiments/drift.py --steps {options.steps}"),
            "largest_difference_of_p": found,
            "largest_distance_of_p_from_uniform": moved,
        },
    )


if __name__ == "__main__":
    main()
