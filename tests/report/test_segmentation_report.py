"""The report of a segmentation: what it shows of the run, of segmentation.json and of the masks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from nge_search.report import write_report
from nge_search.training.segmentation_results import describe_segmentation

CLASSES = ["background", "boat", "chair", "train"]
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&\ud800"
PARTS = ("image", "truth", "prediction")


def save(folder: Path, document: object) -> None:
    (folder / "segmentation.json").write_text(json.dumps(document))


@pytest.fixture
def folder(segmentation_run: Path) -> Path:
    return segmentation_run


def bars(page) -> list[str]:
    return [cell["attributes"]["style"] for cell in page.find("td", within="iou", class_="bar")]


def lines(page) -> list[list[str]]:
    """The points of every line of the charts."""
    return [line["attributes"]["points"].split() for line in page.find("polyline", within="curves")]


def unfinish(folder: Path) -> None:
    (folder / "summary.json").unlink()


def test_headline_of_a_finished_run(folder, runs, report, metrics) -> None:
    page = report(folder)
    figures = page.text("dl")
    for expected in (
        "mIoU, test71.25 %last epoch, 1 seed; best 72.50 % after 3 epochsPixel",
        "Pixel accuracy, test93.50 %",
        "Parameters10.31 M4.124 M in the backbone (40 %)Mult",
        "Mult-adds6.54 Gat 513 × 513 pixelsTraining",
        "Training time2 h 3 minNVIDIA H100 80GB HBM3",
        "Images per second83.4",
    ):
        assert expected in figures
    assert "Semantic segmentation" in page.text("header")
    assert "Finished: 4 epochs." in page.text("header")
    assert "left out" not in page.text("header")
    summary = json.loads((folder / "summary.json").read_text())
    runs.write_summary(folder, **summary | {"best_miou": 71.25, "seeds": 3})
    assert "last epoch, 3 seedsPixel" in report(folder).text("dl")
    runs.write_rows(folder, [*metrics(3), {"epoch": 3}])  # the summary's figures are the last epoch's even so
    assert "mIoU, test71.25 %last epoch, 3 seedsPixel" in report(folder).text("dl")


def test_sections_in_order_and_a_curve_for_every_figure(folder, report) -> None:
    page = report(folder)
    assert page.anchors == ["cells", "curves", "iou", "pictures", "genotype", "config", "environment"]
    assert len(page.find("rect", within="cells", class_="pill")) == 16
    titles = [caption["text"] for caption in page.find("figcaption", within="curves")]
    assert titles == [
        "Losstrainingtest",
        "Mean intersection over union %",
        "Pixel accuracy %trainingtest",
        "Learning ratesbackboneheads",
        "Throughput images/s",
        "Peak memory MB",
    ]
    assert len(lines(page)) == 2 + 1 + 2 + 2 + 1 + 1
    for tip in (
        ("training: 1.3", "test: 1.4"),
        ("test: 72",),
        ("training: 82", "test: 77"),
        ("backbone: 0.005", "heads: 0.05"),
    ):
        assert page.tip("epoch 3", *(f"\n{line}" for line in tip)).split("\n") == ["epoch 3", *tip]
    assert "crop: 513" in page.text("pre", within="config")


def test_norms_and_figures_unknown_here_are_charted_too(folder, runs, report) -> None:
    runs.rewrite(folder, lambda row: row.update(norms={"heads": 3.0}, gradient_noise=row["epoch"] + 0.5))
    page = report(folder)
    assert page.anchors[3:6] == ["pictures", "norms", "other"]
    assert [caption["text"] for caption in page.find("figcaption", within="other")] == ["gradient noise"]


def test_table_of_the_classes(folder, report, table) -> None:
    page = report(folder)
    # The second text of a row is the bar's. Recall: 600 of 800, 60 of 100, 50 of 100.
    assert table(page) == [
        ["background", "", "72.29 %", "800", "75.00 %", "boat, 18.75 %"],
        ["boat", "", "20.00 %", "100", "60.00 %", "background, 30.00 %"],
        ["chair", "", "31.25 %", "100", "50.00 %", "boat, 50.00 %"],
        ["train", "", "–", "0", "–", "–"],
        ["mean", "", "41.18 %", "", "61.67 %", ""],
    ]
    assert bars(page) == ["--p:0.723", "--p:0.200", "--p:0.312", "--p:0.000", "--p:0.412"]
    swatches = [swatch["attributes"]["style"] for swatch in page.find("i", within="iou", class_="swatch")]
    assert swatches == [f"background:#{colour}" for colour in ("000000", "000080", "c00000", "80c000")]
    reading = page.text("p", within="iou")
    assert "Test at the end of epoch 4. 71.00 % of 1000 pixels of 12 images classified correctly." in reading
    assert "has since" not in reading
    assert "calc(100%*var(--p))" in page.text("style")


def test_a_missing_figure_may_be_written_as_nan(folder, report, findings, table) -> None:
    save(folder, findings() | {"iou": [*findings()["iou"][:3], math.nan]})
    page = report(folder)
    assert [row[2] for row in table(page)][3:] == ["–", "41.18 %"]
    assert "left out" not in page.text("header")


def test_a_class_that_is_only_predicted_counts_in_the_mean_of_iou_alone(folder, report, findings, table) -> None:
    confusion = [[90, 10], [0, 0]]
    given = {"classes": CLASSES[:2], "colours": [[0, 0, 0], [0, 0, 128]], "iou": [0.9, 0.0], "confusion": confusion}
    save(folder, findings() | given)
    assert table(report(folder)) == [
        ["background", "", "90.00 %", "100", "90.00 %", "boat, 10.00 %"],
        ["boat", "", "0.00 %", "0", "–", "–"],
        ["mean", "", "45.00 %", "", "90.00 %", ""],
    ]


def test_no_class_has_a_figure(folder, report, findings, table) -> None:
    given = {"classes": ["a"], "colours": [[1, 2, 3]], "iou": [None], "confusion": [[0]]}
    save(folder, findings() | given)
    page = report(folder)
    assert table(page) == [["a", "", "–", "0", "–", "–"], ["mean", "", "–", "", "–", ""]]
    assert "classified correctly" not in page.text("p", within="iou")


def test_pictures_in_rows_of_three(folder, report, findings) -> None:
    page = report(folder)
    document = findings()
    images = [image["attributes"] for image in page.find("img", within="pictures")]
    assert [image["src"] for image in images] == [
        f"data:image/png;base64,{entry[part]}" for entry in document["pictures"] for part in PARTS
    ]
    assert [image["alt"] for image in images[3:6]] == [
        f"2007_000001: {part}" for part in ("image", "true classes", "predicted classes")
    ]
    captions = [caption["text"] for caption in page.find("figcaption", within="pictures")]
    assert captions == ["2007_000000", "2007_000001", "2007_000002"]


def masks(**changes: object) -> dict:
    """dataset.json, as a training writes it."""
    sets = {
        "train": {"images": 10582, "counted": 512, "pixels": [60, 30, 0, 5], "ignored": 5},
        "test": {"images": 9, "counted": 9, "pixels": [8, 0, 1, 1], "ignored": 0},
    }
    return {"name": "voc", "classes": CLASSES, "masks": sets | changes}


def test_shares_of_the_classes_in_the_masks(folder, report) -> None:
    (folder / "dataset.json").write_text(json.dumps(masks()))
    page = report(folder)
    assert page.anchors == ["cells", "curves", "iou", "pictures", "masks", "genotype", "config", "environment"]
    cells = [cell["text"].replace("\u00a0", " ") for cell in page.find("td", within="masks")]
    assert [cells[at : at + 3] for at in range(0, len(cells), 3)] == [
        ["background", "60.00 %", "80.00 %"],
        ["boat", "30.00 %", "–"],
        ["chair", "–", "10.00 %"],
        ["train", "5.00 %", "10.00 %"],
        ["ignored", "5.00 %", "–"],
    ]
    assert "512 of 10582 training; 9 of 9 validation" in page.text("p", within="masks")
    assert "left out" not in page.text("header")


@pytest.mark.parametrize(
    "document",
    [
        masks() | {"masks": value} for value in (None, [], "x", {}, {"train": {}}, {"train": None, "test": 3})
    ]
    + [masks() | {"classes": value} for value in (None, [], CLASSES[:2])]
    + [
        masks(test={"images": 9, "counted": 9, "pixels": [8, 0, 1, 1], "ignored": 0} | {key: value})
        for key in ("images", "counted", "pixels", "ignored")
        for value in (None, -1, 0.5, "9", [1], 10**400, True)
    ],
)  # fmt: skip
def test_shares_of_another_form_are_left_out(folder, report, document: dict) -> None:
    (folder / "dataset.json").write_text(json.dumps(document))
    page = report(folder)
    assert "masks" not in page.anchors
    assert "dataset.json: masks is not of the expected form and is left out." in page.text("header")


def test_runs_from_before_and_classifiers_have_no_shares(folder, runs, report) -> None:
    (folder / "dataset.json").write_text(json.dumps({"name": "voc", "classes": CLASSES}))
    assert "masks" not in report(folder).anchors
    assert "left out" not in report(folder).text("header")


def test_figures_over_no_pixel(folder, runs, report, findings, metrics, table) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    absent = dict.fromkeys(("miou", "pixel_accuracy", "best_miou", "best_epoch"))
    runs.write_summary(folder, **summary | absent)
    rows = [{key: value for key, value in row.items() if not key.startswith("test_")} for row in metrics(4)]
    runs.write_rows(folder, rows)
    nothing = {"miou": None, "pixel_accuracy": None, "iou": [None] * 4, "confusion": [[0] * 4] * 4}
    save(folder, findings() | nothing)
    page = report(folder)
    assert "mIoU, test–last epoch, 1 seedPixel accuracy, test–Parameters" in page.text("dl")
    assert table(page)[-1] == ["mean", "", "–", "", "–", ""]
    assert "left out" not in page.text("header")
    assert "nan" not in page.text("table", within="iou").lower()


@pytest.mark.parametrize("count", [0, 30])
def test_none_and_too_many_pictures(folder, report, count: int, findings) -> None:
    document = findings()
    save(folder, document | {"pictures": (document["pictures"] * 10)[:count]})
    page = report(folder)
    assert len(page.find("img")) == 3 * min(count, 24)
    assert ("pictures" in page.anchors) == (count > 0)
    assert "left out" not in page.text("header")


def test_unfinished_run_takes_its_figures_from_the_rows(folder, runs, report) -> None:
    unfinish(folder)
    page = report(folder)
    figures = page.text("dl")
    assert "mIoU, test71.00 %last epoch; best 72.00 % after 3 epochsPixel accuracy, test78.00 %" in figures
    assert "Parameters–Mult-adds–Training time4 min 2 sImages per second83.25" in figures
    assert "Unfinished: still running, or stopped, after epoch 4 (4 of 46 epochs recorded)" in page.text("header")
    assert "Semantic segmentation" in page.text("header")
    assert page.anchors == ["cells", "curves", "iou", "pictures", "genotype", "config", "environment"]
    (folder / "config.yaml").unlink()  # the rows alone tell what kind of run it is
    assert "mIoU, test71.00 %" in report(folder).text("dl")


def test_tests_that_are_some_epochs_old(folder, runs, report, findings, metrics) -> None:
    unfinish(folder)
    rows = metrics(4)
    for row in rows[2:]:
        for key in ("test_loss", "test_pixel_accuracy", "test_miou"):
            del row[key]
    runs.write_rows(folder, rows)
    save(folder, findings() | {"epoch": 1})
    page = report(folder)
    assert "mIoU, test70.00 %test at the end of epoch 2Pixel accuracy, test76.00 %" in page.text("dl")
    reading = page.text("p", within="iou")
    assert "Test at the end of epoch 2. The run has since reached epoch 4." in reading


def test_lines_pass_over_epochs_without_a_test_and_break_where_a_figure_is_lost(
    folder, runs, report, metrics
) -> None:
    rows = metrics(4)
    for key in ("test_loss", "test_pixel_accuracy", "test_miou"):
        del rows[1][key]
    runs.write_rows(folder, rows)
    page = report(folder)
    assert [len(line) for line in lines(page)] == [4, 3, 3, 4, 3, 4, 4, 4, 4]
    assert not page.find("circle", within="curves")
    runs.write_rows(folder, [*rows[:3], rows[3] | {"train_loss": math.nan}])
    assert [len(line) for line in lines(report(folder))] == [3, 3, 3, 4, 3, 4, 4, 4, 4]
    runs.write_rows(folder, [rows[0], rows[1], rows[2] | {"test_loss": math.nan}, rows[3]])
    assert [len(line) for line in lines(report(folder))] == [4, 3, 4, 3, 4, 4, 4, 4]  # two tests' losses are dots


def test_before_the_first_test(folder, runs, report, metrics) -> None:
    unfinish(folder)
    (folder / "segmentation.json").unlink()
    row = {key: value for key, value in metrics(1)[0].items() if not key.startswith("test_")}
    runs.write_rows(folder, [row])
    page = report(folder)
    assert "mIoU, test–last epochPixel accuracy, test–Parameters–" in page.text("dl")
    assert page.anchors == ["cells", "curves", "genotype", "config", "environment"]
    (folder / "config.yaml").unlink()
    assert "Semantic segmentation" in report(folder).text("header")


def test_before_the_first_epoch(folder, report) -> None:
    unfinish(folder)
    (folder / "segmentation.json").unlink()
    (folder / "metrics.jsonl").unlink()
    page = report(folder)
    assert "before the end of its first epoch" in page.text("header")
    assert "Semantic segmentation" in page.text("header")
    assert page.anchors == ["cells", "genotype", "config", "environment"]


def test_no_sections_and_no_note_without_the_file(folder, report) -> None:
    (folder / "segmentation.json").unlink()
    page = report(folder)
    assert page.anchors == ["cells", "curves", "genotype", "config", "environment"]
    assert "left out" not in page.text("header")
    assert "mIoU, test71.25 %" in page.text("dl")


def test_a_retraining_is_not_taken_for_a_segmentation(runs, report) -> None:
    page = report(runs.eval(epochs=3, finished=False))
    assert "Retraining" in page.text("header")
    assert "Top-1 error" in page.text("dl")


def test_hostile_names_stay_text(folder, report, findings, table) -> None:
    document = findings() | {"classes": [HOSTILE[:-1], "</table>" + HOSTILE, "\u202egpj.exe", " "]}
    for entry in document["pictures"]:
        entry["name"] = HOSTILE * 100
    save(folder, document)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    page = report(folder)
    rows = table(page)
    assert rows[0][0] == HOSTILE[:-1]
    assert rows[1][0].endswith("...")
    assert [row[0] for row in rows[2:]] == ["\\u202egpj.exe", "class 3", "mean"]
    assert rows[1][5] == f"{HOSTILE[:-1]}, 30.00 %"
    assert len(page.find("script")) == 1
    assert len(page.find("img")) == 9
    assert all(len(caption["text"]) <= 300 for caption in page.find("figcaption", within="pictures"))


def test_without_counts_and_iou_there_is_no_table(folder, report, findings) -> None:
    save(folder, findings() | {"iou": None, "confusion": None})
    assert report(folder).anchors[1:3] == ["curves", "pictures"]


def test_a_network_without_parameters_has_no_share(folder, runs, report) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    runs.write_summary(folder, **summary | {"params": 0})
    assert "Parameters04.124 M in the backboneMult" in report(folder).text("dl")


def test_what_a_training_writes_is_shown_whole(folder, report, findings, table) -> None:
    class Dataset:
        test = range(12)
        classes = tuple(CLASSES)

    shown = findings()["pictures"]
    save(folder, describe_segmentation(3, Dataset(), torch.tensor(findings()["confusion"]), shown))
    page = report(folder)
    assert "left out" not in page.text("header")
    assert table(page)[-1] == ["mean", "", "41.18 %", "", "61.67 %", ""]
    swatches = [swatch["attributes"]["style"] for swatch in page.find("i", within="iou", class_="swatch")]
    assert swatches == [f"background:#{colour}" for colour in ("000000", "800000", "008000", "808000")]
