"""The front of a report: the cells of a search, error against size."""

from __future__ import annotations

from html import escape

import numpy as np

from nge_search.report.pages import queries
from nge_search.report.parts.pareto import pareto_section
from nge_search.report.parts.selection import selection_sections
from nge_search.spaces import DartsSpace

TRAINED = [
    {"architecture": "light", "valid_top1": 50.0, "params": 1000, "macs": 5e6},
    {"architecture": "beaten", "valid_top1": 40.0, "params": 1500, "macs": 6e6},
    {"architecture": "<b>heavy</b>", "valid_top1": 90.0, "params": 2000, "macs": 9e6},
    {"architecture": "light", "valid_top1": 50.0, "params": 1000, "macs": 5e6},
]


def test_the_front_is_shown_with_its_hypervolume():
    """Squares of 1/2 x 1/2 and, behind it, none: the heaviest ends at the edge."""
    body = pareto_section(TRAINED).body
    table = body.rpartition("The front: ")[2]  # of parameters
    assert table.startswith("2 of 3 cells, hypervolume 0.25 below 100 % and 2000")
    assert table.index("light") < table.index("&lt;b&gt;heavy")
    assert "beaten" not in table
    assert body.count("<svg") == 2


def test_damaged_and_failed_trainings_are_left_out():
    broken = [
        {"architecture": "a", "valid_top1": "high", "params": 3},
        {"architecture": "b", "valid_top1": 1.0, "params": -3},
        {"architecture": "c", "params": 3},
        {"architecture": "d", "valid_top1": float("nan"), "params": 3},
        {"architecture": "e", "valid_top1": 100.5, "params": 3},
        {"architecture": "f", "valid_top1": -0.5, "params": 3},
        {"valid_top1": 3.0, "macs": None},
        {},
    ]
    assert not pareto_section(broken).body
    assert not pareto_section(TRAINED[:2]).body
    assert pareto_section([*broken, *TRAINED]).body == pareto_section(TRAINED).body


def test_cells_whose_texts_begin_alike_are_told_apart():
    """Those of DARTS' space differ behind the first hundred characters, and are shown whole."""
    space = DartsSpace()
    texts = [space.text(code) for code in space.neighbours(space.random(np.random.default_rng(0)))[:40]]
    trained = [{"architecture": text, "valid_top1": 10.0 + at, "macs": 1.0 + at} for at, text in enumerate(texts)]
    body = pareto_section(trained).body
    assert "The front: 40 of 40 cells" in body
    assert all(escape(text) in body for text in texts)


def test_the_front_is_always_drawn():
    """Of 5,000 points 2,000 are."""
    inner = [{"architecture": str(at), "valid_top1": 1.0, "macs": 100.0 + at} for at in range(5000)]
    front = [{"architecture": f"front {at}", "valid_top1": 50.0 + at, "macs": 1.0 + at} for at in range(3)]
    body = pareto_section([*inner[:1001], *front, *inner[1001:]]).body
    assert all(f"<title>{1 + at}: {50 - at}</title>" in body for at in range(3))
    assert 1000 < body.count("<circle") <= 2000


class FakeRun:
    """What sections ask of a run."""

    def __init__(self, settings, rows=(), summary=None):
        self.settings, self.rows, self.summary = settings, rows, summary

    def setting(self, key):
        return self.settings.get(key)


def test_the_cell_that_was_found_is_beside_the_baselines():
    found, *others = TRAINED[2], *TRAINED[:2]
    run = FakeRun({}, summary={"baselines": {"found": found, "random": others, "throughout": []}})
    assert "2 of 3 cells" in selection_sections(run)[-1].body


def test_queries_of_a_table_have_a_front():
    """Where its signal is an accuracy."""
    rows = [
        {"architecture": own["architecture"], "signal": own["valid_top1"], "macs": own["macs"]} for own in TRAINED
    ]
    for signal, drawn in (("cifar10_valid_12", True), ("cifar10_seconds_12", False), ("params", False)):
        run = FakeRun({"benchmark.signal": signal, "evaluator.kind": "table"}, rows)
        assert bool(pareto_section(queries._judged(run)).body) == drawn
    assert queries._judged(FakeRun({"evaluator.kind": "training"}, TRAINED)) == TRAINED
