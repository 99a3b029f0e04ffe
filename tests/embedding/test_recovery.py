"""Does the search really find? The supernet is replaced by a loss that is linear in P.

With a linear loss and no entropy bonus, an embedding with shared layers settles on wrong operations before all
edges have told theirs apart (the gradient vanishes where P saturates), as README says; with the bonus all recover.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "experiments" / "recovery.py"
_SPEC = importlib.util.spec_from_file_location("recovery", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
recovered = _MODULE.recovered

SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["nge", "plain", "rnn", "direct"])
def test_all_choices_are_recovered_with_an_entropy_bonus(kind, seed):
    assert recovered(kind, seed, entropy_weight=1.0) == 14


@pytest.mark.parametrize("seed", SEEDS)
def test_free_parameters_recover_all_choices_without_it(seed):
    assert recovered("direct", seed) == 14


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["nge", "plain"])
def test_shared_layers_recover_most_choices_without_it(kind, seed):
    assert recovered(kind, seed) >= 8


@pytest.mark.parametrize("kind", ["nge", "plain", "rnn", "direct"])
def test_the_wrong_sign_finds_nothing(kind):
    assert recovered(kind, 0, entropy_weight=1.0, sign=-1.0) <= 2
