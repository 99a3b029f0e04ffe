"""The report of a segmentation whose segmentation.json is damaged or hostile: a part costs only itself."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import pytest

PARTS = ("image", "truth", "prediction")


@pytest.fixture
def folder(segmentation_run: Path) -> Path:
    return segmentation_run


def save(folder: Path, document: object) -> None:
    (folder / "segmentation.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", '{"classes": ["a", "b"], "iou', "null", "[]", "{}", "NaN", "[" * 100_000, "\x00\x01"),
        *('{"classes": []}', '{"classes": [1]}', '{"classes": {"a": 1}}', '{"classes": "ab"}'),
        '{"classes": ["a"], "epoch": ' + "9" * 5000 + "}",
        json.dumps({"classes": ["a"] * 256, "iou": [0.5] * 256}),
    ],
    ids=range(15),
)
def test_a_file_that_cannot_be_read_costs_its_sections_and_is_told(folder, report, text: str) -> None:
    (folder / "segmentation.json").write_text(text)
    page = report(folder)
    assert page.anchors == ["cells", "curves", "genotype", "config", "environment"]
    assert "segmentation.json" in page.text("header")
    assert "left out" in page.text("header")


@pytest.mark.parametrize("value", [3, "x", [3], [[]], [["a", "b"]], [[-1, 0]], {"a": []}, True, 10**400, math.nan])
@pytest.mark.parametrize("key", ["colours", "iou", "confusion", "pictures"])
def test_a_part_of_the_wrong_form_costs_only_itself(
    folder, report, key: str, value: object, findings, table
) -> None:
    save(folder, findings() | {key: value})
    page = report(folder)
    assert f"segmentation.json: {'1 entry of ' * (key == 'pictures')}{key}" in page.text("header")
    assert "left out" in page.text("header")
    assert ("iou" in page.anchors, "pictures" in page.anchors) == (True, key != "pictures")
    assert bool(page.find("i", within="iou", class_="swatch")) == (key != "colours")
    boat, mean = table(page)[1], table(page)[-1]
    assert (boat[2], mean[2]) == (("–", "–") if key == "iou" else ("20.00 %", "41.18 %"))
    known = ["100", "60.00 %", "background, 30.00 %"]
    assert boat[3:] == (["–", "–", "–"] if key == "confusion" else known)
    assert mean[4] == ("–" if key == "confusion" else "61.67 %")


@pytest.mark.parametrize("key", ["colours", "iou", "confusion", "pictures"])
def test_a_missing_part_is_told(folder, report, key: str, findings) -> None:
    document = findings()
    del document[key]
    save(folder, document)
    assert key in report(folder).text("header")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("iou", [0.5] * 3), ("iou", [0.5, 0.5, 0.5, 1.01]), ("iou", [0.5, 0.5, 0.5, -0.01])),
        *(("iou", [0.5, 0.5, 0.5, "1"]), ("iou", [0.5, 0.5, 0.5, True]), ("iou", [0.5, 0.5, 0.5, 10**400])),
        *(("iou", [0.5, 0.5, 0.5, math.inf]), ("iou", [0.5, 0.5, 0.5, [1]]), ("iou", [0.5] * 5)),
        *(("colours", [[0, 0, 256]] * 4), ("colours", [[0, 0, -1]] * 4), ("colours", [[0, 0]] * 4)),
        *(("colours", [[0, 0, 0]] * 3), ("colours", [[0, 0, 0.5]] * 4), ("colours", [[0, 0, True]] * 4)),
        *(("colours", ["red"] * 4), ("colours", ["#fff;background:url(x)"] * 4), ("confusion", [[1] * 3] * 4)),
        *(("confusion", [[1] * 4] * 3), ("confusion", [[-1] * 4] * 4), ("confusion", [[0.5] * 4] * 4)),
        *(("confusion", [[10**13] * 4] * 4), ("confusion", [[True] * 4] * 4), ("confusion", [[1] * 4] * 3 + ["x"])),
    ],
)
def test_values_that_cannot_be_are_left_out(folder, report, key: str, value: object, findings) -> None:
    save(folder, findings() | {key: value})
    page = report(folder)
    assert f"segmentation.json: {key} is not of the expected form" in page.text("header")
    assert "iou" in page.anchors


@pytest.mark.parametrize("value", [None, "x", [], True, math.nan, -math.inf, 10**400])
def test_epoch_and_images_that_are_no_numbers_are_not_named(folder, report, value: object, findings) -> None:
    save(folder, findings() | {"epoch": value, "images": value})
    reading = report(folder).text("p", within="iou")
    assert reading.startswith("71.00 % of 1000 pixels classified correctly.")


def altered(text: str, position: int, value: bytes) -> str:
    data = bytearray(base64.b64decode(text))
    data[position : position + len(value)] = value
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "%%%", 3, []),
        *(lambda png: png + '" onerror="alert(1)', lambda png: "é" + png, lambda png: png[:-1]),
        base64.b64encode(b"<svg onload='alert(1)'/>").decode(),
        base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
        lambda png: altered(png, 16, b"\x7f\xff\xff\xff"),
        lambda png: altered(png, 20, b"\x00\x00\x00\x00"),
        lambda png: png + "A" * 600_000,
    ],
    ids=range(13),
)
@pytest.mark.parametrize("part", PARTS)
def test_a_picture_with_a_part_that_is_no_small_png_is_left_out(
    folder, report, part: str, value: object, findings
) -> None:
    """`value` is what is there instead, or makes it of the PNG that was."""
    document = findings()
    picture = document["pictures"][0]
    picture[part] = value(picture[part]) if callable(value) else value
    save(folder, document)
    page = report(folder)
    captions = [caption["text"] for caption in page.find("figcaption", within="pictures")]
    assert captions == ["2007_000001", "2007_000002"]
    assert len(page.find("img")) == 6
    assert "1 entry of pictures cannot be shown and is left out" in page.text("header")
    assert "onerror" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("name", [3, None, [], {}, ""])
def test_a_picture_without_a_name_is_shown(folder, report, name: object, findings) -> None:
    document = findings()
    document["pictures"][0]["name"] = name
    save(folder, document)
    captions = [caption["text"] for caption in report(folder).find("figcaption", within="pictures")]
    assert captions == ["test image", "2007_000001", "2007_000002"]


@pytest.mark.parametrize("value", ["x", None, [], [1, 2], {"a": 1}, math.nan, 10**400, True])
def test_values_of_the_wrong_type_never_stop_the_report(folder, runs, report, value: object, metrics) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    keys = ("pixel_accuracy", "seeds", "best_miou", "best_epoch", "params", "macs", "backbone_params", "genotype")
    runs.write_summary(folder, **summary | dict.fromkeys(keys, value))
    (folder / "config.yaml").write_text(json.dumps({"data": {"crop": value}, "train": value}))
    figures = report(folder).text("dl")
    # The rows say what the summary does not.
    assert "mIoU, test71.25 %last epoch; best 72.00 % after 3 epochsPixel accuracy, test78.00 %" in figures
    assert "Parameters–Mult-adds–Training" in figures
    rows = metrics(4)
    runs.write_rows(folder, [rows[0], rows[1] | dict.fromkeys([key for key in rows[0] if key != "epoch"], value)])
    assert report(folder).anchors[-1] == "environment"
