"""The front of a report: the cells of a search, error against size."""

from __future__ import annotations

from nge_search.report.parts.pareto import pareto_section

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
    assert table.startswith("2 of 3 cells, hypervolume 0.25")
    assert table.index("light") < table.index("&lt;b&gt;heavy")
    assert "beaten" not in table
    assert body.count("<svg") == 2


def test_damaged_and_failed_trainings_are_left_out():
    broken = [
        {"architecture": "a", "valid_top1": "high", "params": 3},
        {"architecture": "b", "valid_top1": 1.0, "params": -3},
        {"architecture": "c", "params": 3},
        {"architecture": "d", "valid_top1": float("nan"), "params": 3},
        {"valid_top1": 3.0, "macs": None},
        {},
    ]
    assert not pareto_section(broken).body
    assert not pareto_section(TRAINED[:2]).body
    assert pareto_section([*broken, *TRAINED]).body == pareto_section(TRAINED).body
