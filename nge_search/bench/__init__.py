"""`nge bench`: what this machine does per second, each figure beside a baseline of the same run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from nge_search.errors import UserError, nearest

BENCHES = {
    "input": "training images per second, against torchvision's; what a step waits for them",
    "retrain": "training a derived network against DARTS' way: images per second, memory, differences",
    "step": "a search's step: how much of its time each part takes",
    "supernet": "the fast supernet against its textbook form: time, memory, differences",
}


def main(words: Sequence[str], parser_class: type[argparse.ArgumentParser]) -> None:
    """`nge bench NAME ...`"""
    if not words or words[0] in ("-h", "--help"):
        print("usage: nge bench NAME ...\n")
        print("\n".join(f"  {name:10}{meaning}" for name, meaning in BENCHES.items()))
        return
    if words[0] not in BENCHES:
        raise UserError(
            f"unknown benchmark '{words[0]}'{nearest(words[0], BENCHES)}; there is {', '.join(BENCHES)}"
        )
    importlib.import_module(f"nge_search.bench.{words[0]}").main(words[1:], parser_class)
