"""The report's numbers and line charts."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from nge_search.report.parts.charts import Reference, Series, line_chart, runs_of_finite, ticks
from nge_search.report.parts.numbers import duration, percent, plain, scaled, share

NAN = math.nan


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 24, [0, 5, 10, 15, 20]),
        (-1.3, 2.2, [-1, 0, 1, 2]),
        (2.7e-4, 3.3e-4, [2.8e-4, 3e-4, 3.2e-4]),
        (0, 3.3e8, [0, 1e8, 2e8, 3e8]),
        (7, 7, [7]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_never_leave_the_range_and_stay_few() -> None:
    for power in range(-12, 13):
        for low, high in ((0.0, 1.7), (1.01, 1.02), (-3.0, -1.0), (99.0, 100.3)):
            low, high = low * 10.0**power, high * 10.0**power
            values = ticks(low, high)
            assert 2 <= len(values) <= 7, (low, high, values)
            assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (plain(0.025), "0.025"),
        (plain(3e-4), "3e-4"),
        (plain(2.8e-4), "2.8e-4"),
        (plain(1487.23), "1487"),
        (plain(100.0), "100"),
        (plain(-0.5), "-0.5"),
        (plain(NAN), "–"),
        (scaled(528_140_000), "528.1 M"),
        (scaled(9999.0), "9999"),
        (scaled(12_400), "12.4 k"),
        (scaled(-3.2e9, "B"), "-3.2 GB"),
        (percent(97.238), "97.24 %"),
        (share(0.431), "43 %"),
        (duration(12.34), "12.3 s"),
        (duration(320), "5 min 20 s"),
        (duration(11_520), "3 h 12 min"),
        (duration(187_200), "2 d 4 h"),
        (duration(NAN), "–"),
    ],
)
def test_numbers_as_written(text: str, expected: str) -> None:
    assert text.replace("\u00a0", " ") == expected


def drawn(*series: Series, **options) -> ElementTree.Element:
    return ElementTree.fromstring(line_chart("Loss", series, **options))


def polylines(figure: ElementTree.Element) -> list[list[tuple[float, ...]]]:
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in figure.iter("polyline")
    ]


def test_points_are_in_proportion() -> None:
    (points,) = polylines(drawn(Series("train", [(0, 1.0), (1, 3.0), (2, 2.0), (4, 1.5)])))
    xs, ys = zip(*points)
    assert [(x - xs[0]) / (xs[-1] - xs[0]) for x in xs] == pytest.approx([0, 0.25, 0.5, 1], abs=1e-3)
    assert [(ys[0] - y) / (ys[0] - ys[1]) for y in ys] == pytest.approx([0, 1, 0.5, 0.25], abs=2e-3)


def test_y_labels_stand_at_their_values() -> None:
    figure = drawn(Series("a", [(0, 10.0), (1, 20.0)]))
    (points,) = polylines(figure)
    labels = {
        text.text: float(text.get("y")) - 4 for text in figure.iter("text") if text.get("text-anchor") == "end"
    }
    assert labels["10"] == pytest.approx(points[0][1], abs=0.11)
    assert labels["20"] == pytest.approx(points[1][1], abs=0.11)


def test_missing_values_leave_gaps_and_lone_points_are_dots() -> None:
    figure = drawn(Series("a", [(0, 1.0), (1, 2.0), (2, NAN), (3, 2.0), (4, NAN), (5, 1.0), (6, 2.0)]))
    assert [len(line) for line in polylines(figure)] == [2, 2]
    assert len(list(figure.iter("circle"))) == 1
    assert runs_of_finite([(0, NAN), (1, NAN)]) == []


def test_one_epoch_is_a_dot_in_the_middle() -> None:
    figure = drawn(Series("a", [(0, 2.3)]))
    (dot,) = figure.iter("circle")
    axis = next(line for line in figure.iter("line") if line.get("class") == "axis")
    assert float(dot.get("cx")) == pytest.approx((float(axis.get("x1")) + float(axis.get("x2"))) / 2)
    assert "nan" not in ElementTree.tostring(figure, "unicode")


def test_nothing_to_show_is_no_chart() -> None:
    assert line_chart("Loss", []) == ""
    assert line_chart("Loss", [Series("a", [(0, NAN)])]) == ""


def test_tooltips_hold_every_series_of_an_epoch() -> None:
    figure = drawn(Series("train", [(0, 1.25), (1, 0.5)]), Series("test", [(1, 0.75)]))
    tips = [title.text for title in figure.iter("title")]
    assert tips == ["epoch 0\ntrain: 1.25\ntest: –", "epoch 1\ntrain: 0.5\ntest: 0.75"]


def test_many_epochs_keep_the_line_whole_and_the_tooltips_few() -> None:
    figure = drawn(Series("a", [(epoch, math.sin(epoch / 50)) for epoch in range(1500)]))
    assert len(polylines(figure)[0]) == 1500
    assert 100 <= len(list(figure.iter("title"))) <= 120


def test_from_zero_and_reference_widen_the_axis() -> None:
    series = Series("a", [(0, 100.0), (1, 101.0)])
    assert "0" in [text.text for text in drawn(series, from_zero=True).iter("text")][:3]
    figure = drawn(series, reference=Reference(200.0, "limit & more"))
    assert "limit & more" in [text.text for text in figure.iter("text")]
    (points,) = polylines(figure)
    line = next(line for line in figure.iter("line") if line.get("class") == "reference")
    assert 0 < float(line.get("y1")) < min(y for _, y in points)


@pytest.mark.parametrize(
    "values", [[1.0, 1.0 + 2e-16], [0.0, 0.0], [-1e199, 1e199], [5e-190, 1e-189], [1e15, 1e15 + 1], [-3.0, -3.0]]
)
def test_extreme_ranges_still_give_finite_coordinates(values: list[float]) -> None:
    (points,) = polylines(drawn(Series("a", list(enumerate(values)))))
    assert all(0 <= x <= 460 and 0 <= y <= 240 for x, y in points)


def test_names_are_escaped() -> None:
    figure = line_chart("<b>", [Series("<i>", [(0, 1.0)]), Series("a&b", [(0, 1.0)])], unit="<u>")
    assert "<b>" not in figure
    assert "<i>" not in figure
    assert "<u>" not in figure
    assert "a&amp;b" in figure
