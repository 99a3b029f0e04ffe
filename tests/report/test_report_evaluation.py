"""The report on the last test of a retraining: what it shows of evaluation.json, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search import kinds
from nge_search.report import html, write_report
from nge_search.report.parts.run import Run

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&\ud800"
SECTIONS = {"confusion", "worst"}


def png(side: int = 32, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def with_part(image: str, kind: bytes, content: bytes) -> str:
    """A PNG with one part more, behind its header."""
    data = base64.b64decode(image)
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    part = len(content).to_bytes(4, "big") + kind + content + checksum
    return base64.b64encode(data[:33] + part + data[33:]).decode()


def evaluation(classes: list[str], images: int = 100, seed: int = 0) -> dict:
    """What a training writes after a test with `images` images of each class."""
    rng = np.random.default_rng(seed)
    count = len(classes)
    odds = rng.dirichlet(np.full(count, 0.1), count) * 0.15 + np.eye(count) * 0.85
    counts = np.stack([rng.multinomial(images, row) for row in odds])
    wrong = counts * (1 - np.eye(count, dtype=int))
    most = [divmod(int(place), count) for place in np.argsort(-wrong, axis=None, kind="stable")[:50]]
    return {
        "epoch": 14,
        "images": count * images,
        "classes": classes,
        "per_class": [[images, int(right)] for right in counts.diagonal()],
        "confusion": counts.tolist() if count <= 100 else None,
        "confused": [[true, guess, int(wrong[true, guess])] for true, guess in most if wrong[true, guess]],
        "worst": [
            {
                "name": f"test image {4711 + i}",
                "label": i % count,
                "predicted": (i + 1) % count,
                "loss": 9.31 - i / 10,
                "png": png(seed=i),
            }
            for i in range(24)
        ],
    }


def save(folder: Path, document: object) -> dict:
    (folder / "evaluation.json").write_text(json.dumps(document))
    return document


def test_matrix_shows_every_count_and_the_accuracies(runs, report) -> None:
    folder = runs.eval(epochs=15)
    found = save(folder, evaluation(CIFAR10))
    page = report(folder)
    assert page.anchors == ["cells", "curves", "confusion", "worst", "genotype", "config", "environment"]
    (matrix,) = page.find("table", within="confusion", class_="p confusion")
    cells = [cell for cell in page.find("td", within="confusion") if "style" in cell["attributes"]]
    assert [int(cell["text"]) for cell in cells] == [count for row in found["confusion"] for count in row]
    for index, cell in enumerate(cells):
        true, guess = divmod(index, 10)
        share = found["confusion"][true][guess] / 100
        assert cell["attributes"]["style"] == f"--p:{math.sqrt(share):.3f}"
        classes = (cell["attributes"].get("class") or "").split()
        assert ("right" in classes, "none" in classes) == (true == guess, share == 0)
        assert ("strong" in classes) == (math.sqrt(share) > 0.7)
    tip = cells[3 * 10 + 5]["attributes"]["title"].replace("\u00a0", " ")
    count = found["confusion"][3][5]
    assert tip == f"cat taken for dog: {count} of 100 ({count}.00 %)"
    assert [head["text"] for head in page.find("th", within="confusion", scope="row")] == CIFAR10
    ends = [cell["text"] for cell in page.find("td", within="confusion", class_="end")]
    assert ends == [f"{right}.00\u00a0%" for _, right in found["per_class"]]
    right = sum(right for _, right in found["per_class"])
    assert f"end of epoch 15. {right} of 1000 images" in page.text("p", within="confusion")
    assert matrix["text"].startswith("true ↓ predicted →")


def test_many_letters_in_the_heads_stand_upright(runs, report) -> None:
    folder = runs.eval(epochs=2)
    save(folder, evaluation([f"{name} {i}" for i in range(3) for name in CIFAR10]))
    page = report(folder)
    assert page.find("table", within="confusion", class_="p confusion upright")
    assert len([cell for cell in page.find("td", within="confusion") if "style" in cell["attributes"]]) == 900
    assert page.find("div", within="confusion", class_="scroll")


@pytest.mark.parametrize("classes", [31, 1000])
def test_many_classes_have_tables_and_no_matrix(runs, report, classes: int) -> None:
    folder = runs.eval(epochs=2)
    found = save(folder, evaluation([f"n{i:05}" for i in range(classes)], images=50))
    assert (found["confusion"] is None) == (classes > 100)
    page = report(folder)
    assert not page.find("table", within="confusion", class_="p confusion upright")
    assert f"drawn for up to 30 classes; here are {classes}" in page.text("p", within="confusion")
    rows = [cell["text"].replace("\u00a0", " ") for cell in page.find("td", within="confusion")]
    expected = [
        (f"n{true:05}", f"n{guess:05}", str(count), f"{2 * count}.00 %")
        for true, guess, count in found["confused"][:15]
    ]
    lowest = sorted(range(classes), key=lambda i: found["per_class"][i][1])[:10]
    for i in lowest:
        right = found["per_class"][i][1]
        expected.append((f"n{i:05}", str(right), "50", f"{2 * right}.00 %"))
    assert rows == [cell for row in expected for cell in row]
    assert "left out" not in page.text("header")
    assert (folder / "report.html").stat().st_size < 300_000


def test_a_class_without_test_images_has_no_accuracy(runs, report) -> None:
    folder = runs.eval(epochs=2)
    save(folder, evaluation(CIFAR10[:3]) | {"per_class": [[0, 0], [4, 4], [5, 4]], "confused": [[2, 1, 1]]})
    page = report(folder)
    rows = [cell["text"] for cell in page.find("td", within="confusion") if "style" not in cell["attributes"]]
    assert rows[3:] == [
        *("bird", "automobile", "1", "20.00\u00a0%"),
        *("bird", "4", "5", "80.00\u00a0%"),
        *("automobile", "4", "4", "100.00\u00a0%"),
    ]
    found = evaluation(CIFAR10[:2]) | {"confusion": [[0, 0], [1, 4]]}
    save(folder, found)
    ends = report(folder).find("td", within="confusion", class_="end")
    assert [cell["text"] for cell in ends] == ["–", "80.00\u00a0%"]


def test_worst_images_with_their_classes_and_losses(runs, report) -> None:
    folder = runs.eval(epochs=2)
    found = evaluation(CIFAR10)
    found["worst"][5]["loss"] = None
    save(folder, found)
    page = report(folder)
    pictures = [image["attributes"] for image in page.find("img", within="worst")]
    assert [picture["src"] for picture in pictures] == [
        f"data:image/png;base64,{entry['png']}" for entry in found["worst"]
    ]
    assert pictures[3]["title"] == "test image 4714"
    assert pictures[3]["alt"] == "test image 4714: cat, predicted as deer"
    captions = [caption["text"] for caption in page.find("figcaption", within="worst")]
    assert captions[0] == "true airplanepredicted automobileloss 9.31"
    assert captions[5].endswith("loss –")
    assert "image-rendering:pixelated" in page.text("style")


def test_no_sections_and_no_note_without_the_file(runs, report) -> None:
    page = report(runs.eval(epochs=2))
    assert not SECTIONS & set(page.anchors)
    assert "left out" not in page.text("header")


def test_hostile_names_stay_text(runs, report) -> None:
    folder = runs.eval(epochs=2)
    found = evaluation([HOSTILE[:-1], "</table>" + HOSTILE, "\u202egpj.exe", " "])
    for entry in found["worst"]:
        entry["name"] = HOSTILE * 100
    save(folder, found)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    page = report(folder)
    heads = [head["text"] for head in page.find("th", within="confusion", scope="row")]
    assert heads[0] == HOSTILE[:-1]
    assert heads[1].endswith("...")
    assert heads[2:] == ["\\u202egpj.exe", "class 3"]
    assert len(page.find("script")) == 1
    assert len(page.find("img")) == 24
    assert all(len(image["attributes"]["title"]) <= 300 for image in page.find("img"))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            '{"classes": ["a", "b"], "per_',
            "null",
            "[]",
            "{}",
            '{"classes": []}',
            '{"classes": [1]}',
            "NaN",
        ),
        *('{"classes": {"a": 1}}', '{"classes": ["a"], "epoch": ' + "9" * 5000 + "}", "[" * 100_000, "\x00\x01"),
    ],
    ids=range(13),
)
def test_a_file_that_cannot_be_read_costs_its_sections_and_is_told(runs, report, text: str) -> None:
    folder = runs.eval(epochs=2)
    (folder / "evaluation.json").write_text(text)
    page = report(folder)
    assert page.anchors == ["cells", "curves", "genotype", "config", "environment"]
    assert "evaluation.json" in page.text("header")
    assert "left out" in page.text("header")


@pytest.mark.parametrize("value", [3, "x", [3], [[]], [["a", "b"]], [[-1, 0]], {"a": []}, True, 10**400, math.nan])
@pytest.mark.parametrize("key", ["per_class", "confusion", "confused", "worst"])
def test_a_part_of_the_wrong_form_costs_only_itself(runs, report, key: str, value: object) -> None:
    folder = runs.eval(epochs=2)
    save(folder, evaluation(CIFAR10) | {key: value})
    page = report(folder)
    assert key in page.text("header")
    assert "left out" in page.text("header")
    assert ("confusion" in page.anchors, "worst" in page.anchors) == (True, key != "worst")
    titles = page.text("figcaption", within="confusion")
    assert ("Most frequent mistakes" in titles) == (key != "confused")
    assert ("Lowest accuracy" in titles) == (key != "per_class")
    assert bool(page.find("table", within="confusion", class_="p confusion")) == (key != "confusion")


@pytest.mark.parametrize("value", [None, "x", [], True, math.nan, -math.inf, 10**400])
def test_an_epoch_that_is_no_number_is_not_named(runs, report, value: object) -> None:
    folder = runs.eval(epochs=2)
    save(folder, evaluation(CIFAR10) | {"epoch": value})
    assert "end of epoch" not in report(folder).text("p", within="confusion")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("per_class", [[5, 6]] * 10), ("per_class", [[True, True]] * 10), ("per_class", [[10**13, 0]] * 10)),
        *(("per_class", [[5.0, 4.0]] * 10), ("per_class", [[5, 4]] * 9), ("confusion", [[1] * 9] * 10)),
        *(("confusion", [[1] * 10] * 9), ("confused", [[0, 10, 1]]), ("confused", [[0, 1]])),
    ],
)
def test_counts_that_cannot_be_are_left_out(runs, report, key: str, value: object) -> None:
    folder = runs.eval(epochs=2)
    save(folder, evaluation(CIFAR10) | {key: value})
    assert f"evaluation.json: {key} is not of the expected form" in report(folder).text("header")


def altered(text: str, position: int, value: bytes) -> str:
    data = bytearray(base64.b64decode(text))
    data[position : position + len(value)] = value
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"png": None},
        {"png": ""},
        {"png": "%%%"},
        {"png": png() + '" onerror="alert(1)'},
        {"png": "é" + png()},
        {"png": png()[:-1]},
        {"png": base64.b64encode(b"<svg onload='alert(1)'/>").decode()},
        {"png": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()},
        {"png": altered(png(), 16, b"\x7f\xff\xff\xff")},
        {"png": altered(png(), 20, b"\x00\x00\x00\x00")},
        {"png": png(256) + "A" * 400_000},
        {"png": with_part(png(), b"zTXt", b"a\0\0" + zlib.compress(bytes(100)))},
        {"png": with_part(png(), b"acTL", bytes(8))},
        {"png": with_part(png(), b"iCCP", b"a\0\0" + zlib.compress(bytes(100)))},
        {"png": with_part(png(), b"IHDR", b"\x7f\xff\xff\xff" * 2 + bytes(5))},
        {"label": 10},
        {"label": -1},
        {"label": True},
        {"predicted": "cat"},
        {"predicted": 1e300},
    ],
)
def test_an_image_that_is_no_small_png_or_has_no_classes_is_left_out(runs, report, change: dict) -> None:
    folder = runs.eval(epochs=2)
    found = evaluation(CIFAR10)
    found["worst"][0] |= change
    save(folder, found)
    page = report(folder)
    assert len(page.find("img")) == 23
    assert "1 entry of worst cannot be shown and is left out" in page.text("header")
    assert "onerror" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("change", [{"name": 3}, {"name": None}, {"loss": "high"}, {"loss": 10**400}, {"loss": []}])
def test_an_image_without_name_or_loss_is_shown(runs, report, change: dict) -> None:
    folder = runs.eval(epochs=2)
    found = evaluation(CIFAR10)
    found["worst"][0] |= change
    save(folder, found)
    assert len(report(folder).find("img")) == 24


def test_headline_says_which_epoch_and_what_the_best_one_was(runs, report) -> None:
    folder = runs.eval(epochs=3)
    rows = runs.rows(folder)
    summary = {"kind": "eval", "top1_error": 3.4, "top5_error": 0.1, "seeds": 1}
    summary |= {"best_top1_error": 3.21, "best_epoch": 588, "ema_top1_error": 3.05, "unreadable_images": 7}
    runs.write_summary(folder, **summary)
    figures = report(folder).text("dl")
    assert "Top-1 error, test3.40 %last epoch, 1 seed; best 3.21 % after 588 epochs" in figures
    assert "Top-1 error, averaged weights3.05 %" in figures
    assert "Unreadable images7" in figures
    runs.write_summary(folder, **summary | {"seeds": 5, "best_top1_error": 3.4, "unreadable_images": 0})
    figures = report(folder).text("dl")
    assert "last epoch, 5 seedsTop" in figures
    assert "Unreadable" not in figures
    (folder / "summary.json").unlink()
    rows[0]["test_top1"], rows[-1]["ema_top1"], rows[-1]["unreadable_images"] = 99.5, 98.25, 3
    runs.write_rows(folder, rows)
    figures = report(folder).text("dl")
    assert "last epoch; best 0.50 % after 1 epoch" in figures
    assert "Top-1 error, averaged weights1.75 %" in figures
    assert "Unreadable images3" in figures


@pytest.mark.parametrize("value", ["x", None, [], [1, 2], math.nan, 10**400, True])
def test_summary_values_of_the_wrong_type_never_stop_the_report(runs, report, value: object) -> None:
    folder = runs.eval(epochs=2)
    keys = ("best_top1_error", "best_epoch", "ema_top1_error", "seeds", "unreadable_images")
    runs.write_summary(folder, kind="eval", top1_error=3.4, **dict.fromkeys(keys, value))
    assert "Top-1 error, test3.40 %last epoch" in report(folder).text("dl")


def test_averaged_weights_and_unreadable_images_join_the_curves(runs, report) -> None:
    folder = runs.eval(epochs=4)
    averaged = {"ema_loss": 0.1, "ema_top1": 97.5, "ema_top5": 99.9}
    runs.rewrite(folder, lambda row: row.update(averaged, unreadable_images=0))
    page = report(folder)
    assert "other" not in page.anchors
    assert len(page.find("polyline", within="curves")) == 3 + 5 + 1 + 1 + 2
    assert page.text("figcaption", within="curves").count("averaged weights") == 3
    runs.rewrite(folder, lambda row: row.update(unreadable_images=row["epoch"]))
    assert "Unreadable images" in report(folder).text("figcaption", within="curves")


def test_a_run_that_was_stopped_says_so(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    summary = {"kind": "eval", "epochs": 2, "stopped": "stopped after epoch 2 of 5 <b>"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    found = html._progress(Run(tmp_path), kinds.find("eval"))
    assert "Finished: 2 epochs; stopped after epoch 2 of 5 &lt;b&gt;." in found
