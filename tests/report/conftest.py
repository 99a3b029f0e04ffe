"""Plausible fake run folders and random genotypes that the report's tests read and draw; a strict HTML parser."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

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
