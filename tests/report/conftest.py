"""Plausible fake run folders and random genotypes that the report's tests read and draw; a strict HTML parser."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nge_search.architecture.genotype import Cell, Genotype
from nge_search.report import write_report
from nge_search.settings.names import OPERATIONS, SEARCH_OPERATIONS

EDGES = [[source, target] for target in range(2, 6) for source in range(target)]
CONFIG = """run:
  name: {name}
data:
  name: {data}
  batch_size: 64
search:
  epochs: {epochs}
train:
  epochs: {epochs}
"""
ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.7.1", "numpy": "2.1.0"},
    "device": "NVIDIA H100 80GB HBM3",
    "git_commit": "b104e07",
    "seed": 0,
}


VOID = {"meta", "link", "input", "br", "img"}
LOADING = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
PICTURE = re.compile(r"data:image/png;base64,(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def derive(matrix: np.ndarray) -> list[list]:
    """The two best edges of each node, each with its best operation."""
    genes = []
    for target in range(2, 6):
        mine = [edge for edge, (_, end) in enumerate(EDGES) if end == target]
        best = sorted(mine, key=lambda edge: -matrix[edge].max())[:2]
        genes += [[SEARCH_OPERATIONS[int(matrix[edge].argmax())], EDGES[edge][0]] for edge in sorted(best)]
    return genes


def genotype_document(normal: np.ndarray, reduce: np.ndarray, epoch: int) -> dict:
    return {
        "format": "nge-genotype/1",
        "space": "darts",
        "normal": derive(normal),
        "normal_concat": [2, 3, 4, 5],
        "reduce": derive(reduce),
        "reduce_concat": [2, 3, 4, 5],
        "provenance": {"epoch": epoch, "seed": 0},
    }


def search_rows(epochs: int, seed: int = 0) -> list[dict]:
    """Rows of a search whose reduction cell drifts to skips and pools, as real ones like to."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(2, 14, 7))
    direction[1, :, :3] += 0.9
    logits = np.zeros((2, 14, 7))
    rows = []
    for epoch in range(epochs):
        logits += 2.6 / max(epochs, 8) * (direction + rng.normal(scale=0.7, size=logits.shape))
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        entropy = -(p * np.log(p)).sum(-1).mean(-1)
        progress = epoch / max(epochs - 1, 1)
        genotype = genotype_document(p[0], p[1], epoch)
        row = {
            "epoch": epoch,
            "step": 196 * (epoch + 1),
            "seconds": 131.7 * (epoch + 1),
            "train_loss": 0.35 + 1.7 * math.exp(-3.1 * progress) + 0.02 * rng.normal(),
            "train_top1": 88 - 52 * math.exp(-3.4 * progress) + 0.5 * rng.normal(),
            "architecture_loss": 0.5 + 1.6 * math.exp(-2.9 * progress) + 0.03 * rng.normal(),
            "architecture_top1": 84 - 50 * math.exp(-3.1 * progress) + 0.6 * rng.normal(),
            "valid_loss": 0.48 + 1.6 * math.exp(-2.8 * progress) + 0.03 * rng.normal(),
            "valid_top1": 85 - 51 * math.exp(-3.0 * progress) + 0.6 * rng.normal(),
            "learning_rate": 0.001 + 0.0245 * (1 + math.cos(math.pi * progress)) / 2,
            "embedding_learning_rate": 3e-4,
            "images_per_second": 1490 + 14 * rng.normal(),
            "peak_memory_mb": 9371.0 + (epoch > 2) * 220,
            "p_normal": p[0].tolist(),
            "p_reduce": p[1].tolist(),
            "operations": list(SEARCH_OPERATIONS),
            "edges": EDGES,
            "dead_units": 0.015 + 0.05 * progress,
            "norms": {
                "embedding.gcn": 3.1 + progress,
                "embedding.mlp": 7.7 + 2 * progress,
                "supernet": 61 - progress,
            },
            "expected_macs": 3.1e8 - 9e7 * progress,
            "genotype": genotype,
        }
        for index, kind in enumerate(("normal", "reduce")):
            row[f"entropy_{kind}"] = float(entropy[index])
            row[f"parameter_free_{kind}"] = float(p[index, :, :3].sum(-1).mean())
            names = [name for name, _ in genotype[kind]]
            row[f"parameter_free_derived_{kind}"] = sum(n in SEARCH_OPERATIONS[:3] for n in names) / 8
        rows.append(row)
    return rows


def eval_rows(epochs: int, seed: int = 1) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for epoch in range(epochs):
        progress = epoch / max(epochs - 1, 1)
        rows.append(
            {
                "epoch": epoch,
                "step": 520 * (epoch + 1),
                "seconds": 95.5 * (epoch + 1),
                "train_loss": 0.08 + 1.9 * math.exp(-4 * progress) + 0.02 * rng.normal(),
                "train_top1": 99 - 55 * math.exp(-4.5 * progress) + 0.2 * rng.normal(),
                "test_loss": 0.11 + 1.7 * math.exp(-4 * progress) + 0.02 * rng.normal(),
                "test_top1": 97.3 - 52 * math.exp(-5 * progress) + 0.2 * rng.normal(),
                "test_top5": 99.9 - 20 * math.exp(-8 * progress),
                "learning_rate": 0.025 * (1 + math.cos(math.pi * progress)) / 2,
                "images_per_second": 2210 + 20 * rng.normal(),
                "peak_memory_mb": 14210.0,
                "drop_path": 0.2 * progress,
            }
        )
    return rows


class FakeRuns:
    """Writes run folders below `root`."""

    def __init__(self, root: Path):
        self.root = root

    def search(self, epochs: int = 25, finished: bool = True, data: str = "cifar10", name: str = "demo") -> Path:
        folder = self._folder(name, data, 25)
        rows = search_rows(epochs)
        self.write_rows(folder, rows)
        if finished:
            genotype = rows[-1]["genotype"]
            (folder / "genotype.json").write_text(json.dumps(genotype))
            self.write_summary(
                folder,
                kind="search",
                genotype=genotype,
                valid_top1=rows[-1]["valid_top1"],
                epochs=epochs,
                seconds=rows[-1]["seconds"],
                device="NVIDIA H100 80GB HBM3",
                images_per_second=1487.2,
            )
        return folder

    def eval(self, epochs: int = 600, finished: bool = True) -> Path:
        folder = self._folder("retrain", "cifar10", epochs)
        rows = eval_rows(epochs)
        self.write_rows(folder, rows)
        if finished:
            self.write_summary(
                folder,
                kind="eval",
                top1_error=2.61,
                top5_error=0.07,
                params=3351234,
                macs=531_400_000,
                epochs=epochs,
                seconds=rows[-1]["seconds"],
                device="NVIDIA H100 80GB HBM3",
                images_per_second=2208.9,
                genotype=search_rows(4)[-1]["genotype"],
            )
        return folder

    def _folder(self, name: str, data: str, epochs: int) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(CONFIG.format(name=name, data=data, epochs=epochs))
        (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
        return folder

    @staticmethod
    def write_rows(folder: Path, rows: list[dict]) -> None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    @staticmethod
    def rows(folder: Path) -> list[dict]:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    @classmethod
    def rewrite(cls, folder: Path, change: Callable[[dict], object]) -> None:
        rows = cls.rows(folder)
        for row in rows:
            change(row)
        cls.write_rows(folder, rows)

    @staticmethod
    def write_summary(folder: Path, **values: object) -> None:
        (folder / "summary.json").write_text(json.dumps(values))


@pytest.fixture
def runs(tmp_path: Path) -> FakeRuns:
    return FakeRuns(tmp_path / "runs")


class Page(HTMLParser):
    """Parses strictly: every element is closed by its own end tag. Keeps elements as (tag, attributes, text)."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {[element['tag'] for element in self.open]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice"
        parents = [element["attributes"].get("id") for element in self.open if element["attributes"].get("id")]
        element = {"tag": tag, "attributes": dict(attributes), "text": "", "within": parents}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()["tag"] == tag

    def handle_data(self, text: str) -> None:
        for element in self.open:
            element["text"] += text

    def find(self, tag: str, within: str = "", **attributes: str) -> list[dict]:
        return [
            element
            for element in self.elements
            if element["tag"] == tag
            and (not within or within in element["within"])
            and all(element["attributes"].get(name.rstrip("_")) == value for name, value in attributes.items())
        ]

    def text(self, tag: str = "body", within: str = "") -> str:
        return "\n".join(element["text"] for element in self.find(tag, within)).replace("\u00a0", " ")

    def heat(self, kind: str) -> list[list[float]]:
        """The P that the table of a cell shows."""
        values = [float(cell["attributes"]["data-p"]) for cell in self.find("td", within=f"p-{kind}")]
        return [values[row : row + 7] for row in range(0, len(values), 7)]

    def tip(self, *parts: str) -> str:
        """The one tooltip that holds all `parts`."""
        (tip,) = [title["text"] for title in self.find("title") if all(part in title["text"] for part in parts)]
        return tip

    @property
    def anchors(self) -> list[str]:
        return [element["attributes"]["id"] for element in self.find("section")]


def check_self_contained(text: str, page: Page) -> None:
    for element in page.elements:
        for name, value in element["attributes"].items():
            assert not name.startswith("on"), f"<{element['tag']} {name}>"
            if name in LOADING:
                picture = element["tag"] == "img" and name == "src" and PICTURE.fullmatch(value)
                assert picture or value == "data:," or value.startswith("#"), f"<{element['tag']} {name}={value}>"
            assert "url(" not in (value or "")
    assert not page.find("iframe") + page.find("object") + page.find("base")
    style = page.text("style")
    assert "url(" not in style
    assert "@import" not in style
    for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "eval("):
        assert word not in page.text("script")
    assert "http://" not in text
    assert "https://" not in text
    (policy,) = [element for element in page.find("meta") if "http-equiv" in element["attributes"]]
    assert policy["attributes"]["content"].startswith("default-src 'none'")
    for link in page.find("a"):
        assert link["attributes"]["href"][1:] in page.anchors


def read_report(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    check_self_contained(text, page)
    return page


@pytest.fixture
def parse():
    """Parses HTML, strictly."""
    return Page


@pytest.fixture
def report():
    """Writes the report of a folder, checks that it sends no request, and parses it."""
    return read_report


def random_genotype(nodes: int, seed: int) -> Genotype:
    """Any genotype that validates: repeated sources, nodes outside the output and unread nodes included."""
    draw = random.Random(seed)
    cells = []
    for _ in range(2):
        inner = list(range(2, 2 + nodes))
        genes = tuple((draw.choice(OPERATIONS), draw.randrange(node)) for node in inner for _ in range(2))
        cells.append(Cell(genes, tuple(sorted(draw.sample(inner, draw.randint(1, nodes))))))
    return Genotype(*cells)


@pytest.fixture
def make_random():
    return random_genotype


CLASSES = ["background", "boat", "chair", "train"]
COLOURS = [[0, 0, 0], [0, 0, 128], [192, 0, 0], [128, 192, 0]]
#: By true class and predicted class. No pixel is of a train or was taken for one.
CONFUSION = [[600, 150, 50, 0], [30, 60, 10, 0], [0, 50, 50, 0], [0, 0, 0, 0]]
#: 600 / (800 + 630 - 600), 60 / (100 + 260 - 60), 50 / (100 + 110 - 50)
IOU = [600 / 830, 0.2, 0.3125, None]
SEGMENTATION_CONFIG = """task: segmentation
run:
  name: masks
data:
  name: voc
  crop: 513
train:
  epochs: 46
"""


def _png(palette: bool = False, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 4, (32, 32, 1 if palette else 3), dtype=np.uint8)
    image = Image.frombytes("P" if palette else "RGB", (32, 32), pixels.tobytes())
    if palette:
        image.putpalette([value for colour in COLOURS for value in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _findings() -> dict:
    """What a training writes after a test; three pictures."""
    pictures = [
        {
            "name": f"2007_{i:06}",
            "image": _png(seed=i),
            "truth": _png(True, seed=10 + i),
            "prediction": _png(True, seed=20 + i),
        }
        for i in range(3)
    ]
    return {
        "epoch": 3,
        "images": 12,
        "classes": CLASSES,
        "colours": COLOURS,
        "miou": 0.41,
        "iou": IOU,
        "pixel_accuracy": 0.71,
        "confusion": CONFUSION,
        "pictures": pictures,
    }


@pytest.fixture
def findings() -> Callable[[], dict]:
    """What a training writes after a test, made anew at each call; three pictures."""
    return _findings


def _metrics(epochs: int) -> list[dict]:
    """The rows of a run whose mIoU is 60, 70, 72 and 71 percent at the end of its first epochs."""
    return [
        {
            "epoch": epoch,
            "step": 10 * (epoch + 1),
            "seconds": 60.5 * (epoch + 1),
            "images_per_second": 83.25,
            "peak_memory_mb": 9000.0,
            "train_loss": 1.5 - 0.1 * epoch,
            "train_pixel_accuracy": 80.0 + epoch,
            "test_loss": 1.6 - 0.1 * epoch,
            "test_pixel_accuracy": 75.0 + epoch,
            "test_miou": [60.0, 70.0, 72.0, 71.0][epoch],
            "learning_rate": 0.007 - 0.001 * epoch,
            "head_learning_rate": 0.07 - 0.01 * epoch,
        }
        for epoch in range(epochs)
    ]


@pytest.fixture
def metrics() -> Callable[[int], list[dict]]:
    """The rows of the first epochs of a segmentation; see `_metrics`."""
    return _metrics


@pytest.fixture
def segmentation_run(runs, make_random) -> Path:
    """A finished segmentation of four epochs."""
    folder = runs.root / "masks"
    folder.mkdir(parents=True)
    genotype: Genotype = make_random(4, 0)
    (folder / "config.yaml").write_text(SEGMENTATION_CONFIG)
    (folder / "environment.json").write_text('{"device": "NVIDIA H100 80GB HBM3"}')
    (folder / "genotype.json").write_text(json.dumps(genotype.to_dict()))
    runs.write_rows(folder, _metrics(4))
    runs.write_summary(
        folder,
        kind="segmentation",
        seconds=7384.2,
        device="NVIDIA H100 80GB HBM3",
        images_per_second=83.4,
        epochs=4,
        miou=71.25,
        pixel_accuracy=93.5,
        seeds=1,
        best_miou=72.5,
        best_epoch=3,
        params=10_310_000,
        macs=6_540_000_000,
        backbone_params=4_124_000,
        genotype=genotype.to_dict(),
    )
    (folder / "segmentation.json").write_text(json.dumps(_findings()))
    return folder


def _table(page) -> list[list[str]]:
    """The texts of the table's body and foot, by row."""
    rows: list[list[str]] = []
    for element in page.elements:
        if "iou" in element["within"] and (element["tag"], element["attributes"].get("scope")) == ("th", "row"):
            rows.append([])
        if "iou" in element["within"] and element["tag"] in ("th", "td") and rows:
            rows[-1].append(element["text"].replace("\u00a0", " "))
    return rows


@pytest.fixture
def table() -> Callable[[Page], list[list[str]]]:
    """The texts of the body and foot of the table of classes, by row."""
    return _table
