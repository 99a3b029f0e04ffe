"""The sound inputs of `hostile_inputs.py`, and how each of them is mutated."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import io
import itertools
import json
import random
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nge_search.architecture.load import load_genotype
from nge_search.settings.classification import EvalConfig
from nge_search.settings.load import to_yaml
from nge_search.settings.search import SearchConfig
from nge_search.spaces import NasBench101Space, NasBench201Space
from nge_search.spaces.nasbench101 import digest
from nge_search.tables.table import build_table
from nge_search.tables.tfrecord import masked_crc32c

_COMMON = ("threads=1", "run.progress=none", "run.tensorboard=false", "data.limit=64", "device=cpu")
#: The words of a retraining, and of a search, of a second.
EVAL = (
    *("eval", *_COMMON, "network.channels=2", "network.cells=2", "train.batch_size=16", "train.epochs=2"),
    *("network.genotype=darts_v2", "run.dir=run"),
)
SEARCH = (
    *("search", *_COMMON, "supernet.channels=2", "supernet.cells=2", "search.batch_size=16", "search.epochs=1"),
    *("supernet.kernel=reference", "search.selection=argmax", "run.dir=run"),
)

Mutation = Callable[[Path, random.Random], list[str] | None]

_ODD_NUMBERS = (
    "0",
    "-1",
    "1e308",
    "1e-320",
    "NaN",
    "Infinity",
    "-0.0",
    "9" * 30,
    "9" * 5000,
    "0x10",
    "1:30",
    "1e9999",
)
_ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "\u202e",
    "../../x",
    "~",
    "!!int ''",
    "!!bool maybe",
    "*a",
    "&a [*a]",
)
_NESTS = ("[" * 50_000, '{"a":' * 5_000, "[" * 300 + "]" * 300, "{a: " * 300)


@dataclass(frozen=True)
class Sound:
    """A folder with sound files, the words of the command that reads them, and what mutates a copy of it."""

    name: str
    folder: Path
    words: tuple[str, ...]
    mutation: Mutation

    def mutate(self, folder: Path, draw: random.Random) -> list[str]:
        """Mutate a copy of the folder; the words to run there."""
        return self.mutation(folder, draw) or list(self.words)


# -- mutations of bytes, texts, and nested values


def bytes_mutated(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1) if draw.random() < 0.6 else min(draw.randrange(256), len(data))
        end = min(len(data), at + draw.choice((1, 2, 4, 8, 64, 1024)))
        how = draw.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del data[at : end if draw.random() < 0.7 else len(data)]
        elif how == 2:
            data[at:at] = draw.randbytes(end - at)
        elif how == 3:
            data[at:at] = data[at:end] * draw.choice((1, 2, 50))
        elif how == 4:
            data[at:end] = bytes(end - at)
        else:
            data[at : at + 8] = struct.pack("<Q", draw.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)))
    return bytes(data)


def text_mutated(text: str, draw: random.Random) -> str:
    tokens = re.findall(r"\w+|\s+|.", text, re.DOTALL)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if not tokens:
            break
        at, other = draw.randrange(len(tokens)), draw.randrange(len(tokens))
        numbers = [place for place, token in enumerate(tokens) if token.isdigit()] or [at]
        how = draw.randrange(7)
        if how == 0:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif how == 1:
            del tokens[at : at + draw.choice((1, 2, 10))]
        elif how == 2:
            tokens[at:at] = tokens[at : at + draw.choice((1, 5, 40))] * draw.choice((1, 3))
        elif how == 3:
            tokens[draw.choice(numbers)] = draw.choice(_ODD_NUMBERS)
        elif how == 4:
            tokens[at] = draw.choice(_ODD_TEXTS)
        elif how == 5:
            tokens.insert(at, draw.choice(_NESTS))
        else:
            tokens[at] = tokens[at] * draw.choice((2, 1000))
    return "".join(tokens)


def odd_value(draw: random.Random) -> Any:
    choices: list[Any] = [None, True, "", [], {}, -1, 0, 10**12, 10**30, 1e308, -1e-300, float("nan"), float("inf")]
    choices += ["x" * 100_000, "\ud800", "\x1b[2J", [[]] * 1000, {"a": {"a": {}}}, [0] * 5000, "../../x", 2**63]
    deep: Any = 0
    for _ in range(200):
        deep = [deep]
    return draw.choice([*choices, deep])


def value_mutated(document: Any, draw: random.Random, odd: Callable[[random.Random], Any] = odd_value) -> Any:
    """`document` after some of its parts, at any depth, were removed, mistyped, doubled or swapped."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = list(_places(document, draw))
        if not places:
            return odd(draw)
        parent, key = draw.choice(places)
        how = draw.randrange(5)
        if how == 0:
            del parent[key]
        elif how == 1 and type(parent[key]) in (int, float):
            parent[key] = parent[key] * draw.choice((-1, 0, 1000, 10**9)) + draw.choice((0, 1, 0.5))
        elif how == 2 and isinstance(parent, list):
            parent[key:key] = [parent[key]] * draw.choice((1, 2, 100))
        elif how == 3:
            other, place = draw.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                parent[key] = copy.deepcopy(other[place])
        else:
            parent[key] = odd(draw)
    return document


def _places(document: Any, draw: random.Random, depth: int = 0) -> Any:
    """(container, key) of some parts: all of the upper levels, a few of the lower ones."""
    if isinstance(document, dict):
        keys = list(document)
    elif isinstance(document, list):
        keys = list(range(len(document)))
    else:
        return
    if len(keys) > 12 and depth:
        keys = draw.sample(keys, 12)
    for key in keys:
        yield document, key
        if depth < 6:
            yield from _places(document[key], draw, depth + 1)


def json_file_mutated(path: Path, draw: random.Random) -> None:
    text = path.read_text(encoding="utf-8")
    if draw.random() < 0.6:
        document = value_mutated(json.loads(text), draw)
        path.write_text(json.dumps(document), encoding="utf-8", errors="surrogatepass")
    else:
        text_file_mutated(path, draw)


def text_file_mutated(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.3:
        path.write_bytes(bytes_mutated(path.read_bytes(), draw))
    else:
        text = text_mutated(path.read_text(encoding="utf-8", errors="replace"), draw)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")


def bytes_file_mutated(path: Path, draw: random.Random) -> None:
    path.write_bytes(bytes_mutated(path.read_bytes(), draw))


# -- sound inputs, kind by kind


def make_sound_inputs(root: Path, run: Callable[[list[str]], int]) -> dict[str, list[Sound]]:
    """Sound inputs by kind, below `root`; `run` is the command `nge`."""
    root.mkdir()
    trained, searched, model = root / "trained", root / "searched", root / "model"
    runs = [[*EVAL[:-1], f"run.dir={trained}"], [*SEARCH[:-1], f"run.dir={searched}"]]
    for words in (*runs, ["export", str(trained), "--out", str(model / "model")]):
        if run(words) != 0:
            raise RuntimeError(f"nge {' '.join(words)} has failed")
    images = _write_images(root / "images")
    return {
        "yaml": _yaml(root / "yaml"),
        "words": _words(root / "words"),
        "genotypes": _genotypes(root / "genotypes"),
        "checkpoints": [_checkpoints("eval", root, trained, EVAL), _checkpoints("search", root, searched, SEARCH)],
        "tables": _tables(root / "tables"),
        "exports": [_export(root / "exports", model / "model", images / "image.png")],
        "images": _images(root, model / "model", images),
        "reports": [_report(root, "eval", trained), _report(root, "search", searched)],
    }


def _yaml(folder: Path) -> list[Sound]:
    folder.mkdir()
    sounds = []
    for command, config in (("search", SearchConfig()), ("eval", EvalConfig())):
        place = folder / command
        place.mkdir()
        (place / "c.yaml").write_text(to_yaml(config))
        words = (command, "--config", "c.yaml", "--print-config")
        sounds.append(Sound(command, place, words, lambda f, draw: text_file_mutated(f / "c.yaml", draw)))
    return sounds


def _words(folder: Path) -> list[Sound]:
    folder.mkdir()

    def mutated(command: str, words: tuple[str, ...]) -> Mutation:
        def mutate(folder: Path, draw: random.Random) -> list[str]:
            given = draw.sample(words, 3)
            at = draw.randrange(3)
            given[at] = text_mutated(given[at], draw).replace("\x00", "")
            # A system hands over what can be written in its encoding.
            return [command, *(word.encode("utf-8", "replace").decode() for word in given), "--print-config"]

        return mutate

    return [
        Sound(words[0], folder, (*words, "--print-config"), mutated(words[0], words[1:]))
        for words in (EVAL, SEARCH)
    ]


def _genotypes(folder: Path) -> list[Sound]:
    folder.mkdir()
    (folder / "g.json").write_text(load_genotype("darts_v2").to_json())
    words = ("show", "g.json", "--cells", "2", "--channels", "2", "--image-size", "8")
    return [Sound("genotype", folder, words, lambda f, draw: json_file_mutated(f / "g.json", draw))]


def odd_part(draw: random.Random) -> Any:
    """An odd value, or an odd tensor."""
    tensors: list[Callable[[], Any]] = [
        lambda: torch.zeros(()),
        lambda: torch.zeros(3, dtype=torch.int64),
        lambda: torch.full((2, 2), float("nan")),
        lambda: torch.zeros(1).expand(1 << 40),
        lambda: torch.empty(0),
        lambda: torch.zeros(5, dtype=torch.complex64),
        lambda: torch.eye(3).to_sparse(),
        lambda: (0, (1, 2), None),
    ]
    return draw.choice(tensors)() if draw.random() < 0.5 else odd_value(draw)


def _checkpoints(name: str, root: Path, run: Path, words: tuple[str, ...]) -> Sound:
    folder = root / f"checkpoints-{name}"
    shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("summary.json", "*.svg", "*.png"))
    for older in sorted((folder / "run" / "checkpoints").iterdir())[:-1]:
        older.unlink()

    def mutate(folder: Path, draw: random.Random) -> None:
        (path,) = (folder / "run" / "checkpoints").iterdir()
        if draw.random() < 0.75:
            state = torch.load(path, weights_only=True)
            places = draw.choice((state, state, state["task"], state["position"], state["random"]))
            value_mutated(places, draw, odd_part)
            buffer = io.BytesIO()
            torch.save(state, buffer)
            content = buffer.getvalue()
        else:
            content = bytes_mutated(path.read_bytes(), draw)
        path.unlink()
        digest = hashlib.sha256(content).hexdigest()[:16]
        path.with_name(re.sub(r"[0-9a-f]{16}(?=\.pt$)", digest, path.name)).write_bytes(content)

    return Sound(name, folder, words, mutate)


def _tables(folder: Path) -> list[Sound]:
    codes = [code for code in itertools.product(range(5), repeat=6) if sum(code) < 4]
    space = NasBench201Space()
    build_table(space, ((code, {"a_valid_1": float(sum(code))}) for code in codes), "t", "x").save(
        folder / "folder" / "t"
    )
    for name, content in _table_files().items():
        (folder / name).mkdir()
        (folder / name / f"t.{name}").write_bytes(content)

    def in_folder(folder: Path, draw: random.Random) -> None:
        path = folder / "t" / draw.choice(("table.json", "table.json", "codes.npy", "keys.npy", "a_valid_1.npy"))
        (json_file_mutated if path.suffix == ".json" else bytes_file_mutated)(path, draw)

    def records(folder: Path, draw: random.Random) -> None:
        path = folder / "t.tfrecord"
        content = draw.choice((text_mutated(_RECORD, draw).encode("utf-8", "replace"), _metrics_mutated(draw)))
        path.write_bytes(_as_record(content) if draw.random() < 0.8 else bytes_mutated(path.read_bytes(), draw))

    mutations: dict[str, Mutation] = {
        "csv": lambda f, draw: text_file_mutated(f / "t.csv", draw),
        "json": lambda f, draw: json_file_mutated(f / "t.json", draw),
        "pth": lambda f, draw: _archive_mutated(f / "t.pth", draw),
        "tfrecord": records,
    }
    return [
        Sound("folder", folder / "folder", ("table", "t", "--out", "o"), in_folder),
        *(Sound(name, folder / name, ("table", f"t.{name}"), mutation) for name, mutation in mutations.items()),
    ]


_CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


def _table_files() -> dict[str, bytes]:
    text = io.StringIO()
    csv.writer(text).writerows([("arch", "params_m", "cifar10_val_12ep"), (_CELL, 0.5, 90.0)])
    genotype = load_genotype("darts_v2").to_dict()
    entry = {"genotype": {key: genotype[key] for key in ("normal", "reduce")}, "test": {"acc": 97.0}}
    entry["genotype"] |= {"concat": [2, 3, 4, 5]}
    buffer = io.BytesIO()
    torch.save(_archive(), buffer)
    return {
        "csv": text.getvalue().encode(),
        "json": json.dumps([entry]).encode(),
        "pth": buffer.getvalue(),
        "tfrecord": _as_record(_RECORD.encode()),
    }


def _archive() -> dict[str, Any]:
    trial = {
        "eval_acc1es": {"x-valid@11": 90.0, "ori-test@11": 89.0},
        "train_times": dict.fromkeys(range(12), 2.0),
        "epochs": 12,
        "params": 0.5,
    }
    results = {"all_results": {("cifar10-valid", 777): trial}}
    return {"meta_archs": [_CELL], "arch2infos": {0: {"less": results, "full": {"all_results": {}}}}}


def _archive_mutated(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.5:
        torch.save(value_mutated(_archive(), draw, odd_part), path)
    else:
        bytes_file_mutated(path, draw)


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    return bytes([number << 3, value])


def _metrics() -> bytes:
    evaluation = _field(1, 4.0) + b"".join(_field(number, 0.5) for number in (2, 3, 4, 5))
    return _field(1, evaluation) * 3 + _field(2, 100)


def _record_of(metrics: bytes) -> str:
    names = ["input", "conv3x3-bn-relu", "output"]
    name = digest(NasBench101Space().parse_graph("010001000", names)).hex()
    return json.dumps([name, 108, "010001000", ",".join(names), base64.b64encode(metrics).decode()])


_RECORD = _record_of(_metrics())


def _metrics_mutated(draw: random.Random) -> bytes:
    return _record_of(bytes_mutated(_metrics(), draw)).encode()


def _as_record(content: bytes) -> bytes:
    def checksum(part: bytes) -> bytes:
        return struct.pack("<I", masked_crc32c(np.frombuffer(part, np.uint8)))

    length = struct.pack("<Q", len(content))
    return length + checksum(length) + content + checksum(content)


def _export(folder: Path, model: Path, image: Path) -> Sound:
    shutil.copytree(model, folder / "model")
    shutil.copy(image, folder / "image.png")

    def mutate(folder: Path, draw: random.Random) -> None:
        if draw.random() < 0.75:
            json_file_mutated(folder / "model" / "config.json", draw)
        else:
            bytes_file_mutated(folder / "model" / "model.safetensors", draw)

    return Sound("export", folder, ("classify", "model", "image.png"), mutate)


_FORMATS = {"png": "RGB", "jpg": "RGB", "gif": "P", "bmp": "L", "tiff": "RGBA", "webp": "RGB", "ppm": "RGB"}


def _write_images(folder: Path) -> Path:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for suffix, mode in _FORMATS.items():
        Image.fromarray(pixels).convert(mode).save(folder / f"image.{suffix}")
    return folder


def _images(root: Path, model: Path, images: Path) -> list[Sound]:
    sounds = []
    for suffix in _FORMATS:
        name = f"image.{suffix}"
        place = root / f"image-{suffix}"
        place.mkdir()
        shutil.copy(images / name, place / name)
        words = ("classify", str(model), name)
        sounds.append(Sound(suffix, place, words, lambda f, draw, name=name: bytes_file_mutated(f / name, draw)))
    return sounds


_REPORTED = ("config.yaml", "metrics.jsonl", "summary.json", "genotype.json", "environment.json", "evaluation.json")


def _report(root: Path, name: str, run: Path) -> Sound:
    folder = root / f"report-{name}"
    shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("checkpoints", "*.svg", "*.png"))

    def mutate(folder: Path, draw: random.Random) -> None:
        path = folder / "run" / draw.choice([name for name in _REPORTED if (folder / "run" / name).exists()])
        if path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            at = draw.randrange(len(lines))
            row = json.dumps(value_mutated(json.loads(lines[at]), draw))
            lines[at] = row if draw.random() < 0.6 else text_mutated(lines[at], draw)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")
        else:
            (json_file_mutated if path.suffix == ".json" else text_file_mutated)(path, draw)

    return Sound(name, folder, ("report", "run"), mutate)
