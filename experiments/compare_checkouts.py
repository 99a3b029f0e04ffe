"""Is one checkout of this repository as fast as another? Three benchmarks of both in turn, and the ratio of speeds.

    python experiments/compare_checkouts.py BEFORE AFTER          seven rounds, some ten minutes on two CPU cores

BEFORE and AFTER are folders of checkouts; this interpreter runs the `nge bench supernet`, `retrain` and `step` of
each, and of what they print takes the package's own times, not those of their baselines. Rounds alternate which of
both comes first, so that a change of the machine's speed meets both. A ratio above 1 says that AFTER is faster. The
interval is where 95 % of bootstrap resamples of the rounds have their median.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: By benchmark, its words: small enough for a round of all three, with both checkouts, to take 60 to 90 seconds.
BENCHES = {
    "supernet": ["--form", "fused", "--batch", "32", "--channels", "16", "--cells", "5", "--steps", "4"],
    "retrain": ["--json", "--batch", "32", "--channels", "16", "--cells", "8", "--steps", "5", "--workers", "0"],
    "step": [
        "--json",
        "--steps",
        "9",
        "supernet.channels=8",
        "supernet.cells=5",
        "search.batch_size=32",
        "search.mixture=weighted",
    ],
}
_RESAMPLES = 10_000


def own_seconds(bench: str, document: dict[str, Any]) -> dict[str, float]:
    """The package's own seconds a step, by kind of step, from what `nge bench` printed as JSON."""
    if bench == "supernet":
        return {f"supernet, {kind}": document[kind]["seconds"] for kind in ("weight", "drawn", "architecture")}
    if bench == "retrain":
        return {"retrain": document["forms"]["fast"]["seconds"]}
    return {f"step, {phase}": parts["step_seconds"] for phase, parts in document["phases"].items()}


def measure(checkout: Path, bench: str) -> dict[str, float]:
    """Run a benchmark of a checkout; what it prints on standard error is shown.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "nge_search.cli", "bench", bench, *BENCHES[bench]]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    ended = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=3600
    )
    return own_seconds(bench, json.loads(ended.stdout))


def ratio(before_R: list[float], after_R: list[float]) -> tuple[float, float, float]:
    """Median over R rounds of seconds before to seconds after, and its 95 % interval.

    Rounds are pairs: the interval is of the median logarithm of resampled rounds' ratios.
    """
    logs_R = np.log(before_R) - np.log(after_R)
    sampled_BR = np.random.default_rng(0).choice(logs_R, (_RESAMPLES, len(logs_R)))
    low, high = np.quantile(np.median(sampled_BR, axis=1), [0.025, 0.975])
    return float(np.exp(np.median(logs_R))), float(np.exp(low)), float(np.exp(high))


def table(before: dict[str, list[float]], after: dict[str, list[float]]) -> list[str]:
    """A line for each kind of step: median seconds of both, their ratio, its interval."""
    lines = [f"{'step':24}{'before':>9}{'after':>9}{'ratio':>7}  95 % interval"]
    for name, before_R in before.items():
        middle, low, high = ratio(before_R, after[name])
        seconds = "".join(f"{np.median(values):>7.3f} s" for values in (before_R, after[name]))
        lines.append(f"{name:24}{seconds}{middle:>7.3f}  {low:.3f} to {high:.3f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder of a checkout")
    parser.add_argument("after", type=Path, help="folder of another one")
    parser.add_argument("--rounds", type=int, default=7, help="how often both are measured (7)")
    parser.add_argument("--benches", nargs="+", choices=tuple(BENCHES), default=list(BENCHES), help="which (all)")
    options = parser.parse_args()
    checkouts = [options.before.resolve(), options.after.resolve()]
    for checkout in checkouts:
        if not (checkout / "nge_search" / "cli.py").is_file():
            parser.error(f"'{checkout}' is no checkout: it holds no nge_search/cli.py")
    if options.rounds < 1:
        parser.error(f"--rounds={options.rounds}: at least 1")
    found: tuple[dict[str, list[float]], ...] = ({}, {})
    for number in range(options.rounds):
        for bench in options.benches:
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                for name, seconds in measure(checkouts[which], bench).items():
                    found[which].setdefault(name, []).append(seconds)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print("\n".join([f"{options.rounds} rounds", *table(*found)]))


if __name__ == "__main__":
    main()
