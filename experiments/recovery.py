"""Can each embedding find a known best cell? The supernet is replaced by a loss that is linear in P.

    python experiments/recovery.py            10 seeds, about three minutes on one CPU core

Prints how many of 14 arbitrary operation choices are P's largest after 600 architecture steps at the paper's
settings, without and with the entropy bonus, and writes experiments/results/recovery.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn import functional

from nge_search.architecture.cell_space import CellSpace
from nge_search.engine.distributed import World
from nge_search.engine.environment import results_header
from nge_search.files import write_json
from nge_search.gradient.architecture import ArchitectureOptimiser
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.search import SearchConfig, SearchSection

SPACE = CellSpace()
STEPS = 600
KINDS = ("nge", "direct", "plain", "rnn")


def recovered(kind: str, seed: int, entropy_weight: float = 0.0, sign: float = 1.0) -> int:
    """How many of 14 arbitrary choices are found; `sign=-1` flips P's gradient, so that nothing should be."""
    torch.manual_seed(seed)
    config = SearchConfig(
        embedding=EmbeddingSection(kind=kind), search=SearchSection(entropy_weight=entropy_weight)
    )
    free = [torch.zeros(SPACE.shape)] * 2
    architecture = ArchitectureOptimiser(config, SPACE, World(torch.device("cpu")), free)
    best = torch.randint(len(SPACE.operations), (len(SPACE.edges),))
    cost_EO = -functional.one_hot(best, len(SPACE.operations)).float() / len(SPACE.edges)
    for step in range(STEPS):
        architecture.anneal(step / STEPS)
        architecture.step(lambda leaves: [sign * cost_EO for _ in leaves])
    p_normal_EO, _ = architecture.probabilities()
    return int((p_normal_EO.argmax(dim=1) == best).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for weight in (0.0, 1.0):
        for kind in KINDS:
            found = [recovered(kind, seed, weight) for seed in range(options.seeds)]
            results[f"{kind}, entropy_weight={weight:g}"] = found
            print(f"{kind:6} search.entropy_weight={weight:g}: {found} of 14", flush=True)
    write_json(
        Path(__file__).parent / "results" / "recovery.json",
        {
            **results_header(f"python experiments/recovery.py --seeds {options.seeds}"),
            "choices": len(SPACE.edges),
            "found": results,
        },
    )


if __name__ == "__main__":
    main()
