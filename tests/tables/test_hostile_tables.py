"""Tables that are damaged, or written to harm: one line, and nothing that is far larger than the file."""

from __future__ import annotations

import base64
import errno
import json
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.spaces import NasBench101Space, NasBench201Space
from nge_search.spaces.nasbench101 import digest
from nge_search.tables import Benchmark, Table, open_table
from nge_search.tables.table import build_table
from nge_search.tables.tfrecord import masked_crc32c

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


def small_table(count: int = 4) -> Table:
    return build_table(
        NasBench201Space(), (((0, 0, 0, 0, 0, k), {"a_valid_1": float(k)}) for k in range(count)), "small", "x"
    )


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "very many vertices": (
        {"space": "nasbench101", "vertices": 10_000},
        "'vertices' must be an integer from 2 to 7",
    ),
    "vertices of a float": ({"space": "nasbench101", "vertices": 5.0}, "'vertices'"),
    "another space": ({"space": "nasbench101", "vertices": 5}, "no architectures of nasbench101"),
    "an unknown space": ({"space": ["x"]}, "'space' must be one of"),
    "vertices that do not fit": ({"vertices": 5}, "has 4 vertices"),
    "a column elsewhere": ({"columns": ["../small/a_valid_1"]}, "'columns' must be"),
    "a hidden column": ({"columns": [".a"]}, "'columns' must be"),
    "a column twice": ({"columns": ["a_valid_1"] * 2}, "'columns' must be"),
    "the codes as a column": ({"columns": ["codes"]}, "'columns' must be"),
    "very many columns": ({"columns": [f"a{k}" for k in range(5000)]}, "'columns' must be"),
    "columns that are none": ({"columns": {"a": 1}}, "'columns' must be a list of names"),
    "more architectures": ({"architectures": 10**30}, "'architectures' must be"),
    "truth as a number": ({"architectures": True}, "'architectures' must be"),
    "no source": ({"source": 3}, "'source' must be text"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers(name: str, tmp_path: Path) -> None:
    change, words = HEADERS[name]
    path = small_table().save(tmp_path / "small") / "table.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"the table '.*' is damaged \(.*{words}"):
        open_table(tmp_path / "small")


ARRAYS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "operations that there are not": ("codes", lambda part: part + 200, "decisions that nasbench201 does not have"),
    "keys out of order": ("keys", lambda part: part[::-1], "keys in their order"),
    "codes in one row": ("codes", lambda part: part[:, 0], "holds no architectures"),
    "three dimensions": ("a_valid_1", lambda part: part[:, None, None], "something else"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arrays(name: str, tmp_path: Path) -> None:
    file, change, words = ARRAYS[name]
    path = small_table().save(tmp_path / "small") / f"{file}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(UserError, match=words):
        open_table(tmp_path / "small")


def test_infinite_signals_are_refused(tmp_path: Path) -> None:
    path = small_table().save(tmp_path / "small") / "a_valid_1.npy"
    np.save(path, np.array([1, 2, np.inf, 3]))
    with pytest.raises(UserError, match="infinite"):
        Benchmark(open_table(tmp_path / "small"), "a_valid_1")


@pytest.mark.parametrize("name", ["table.json", "codes.npy", "a_valid_1.npy"])
def test_pipes_and_devices_in_a_table(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_table().save(tmp_path / "small")
    for make, kind in ((os.mkfifo, "a named pipe"), (lambda path: path.symlink_to("/dev/zero"), "a device")):
        (folder / name).unlink()
        make(folder / name)
        assert main(["table", str(folder)]) == 2
        assert kind in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "json", "pth", "tfrecord"])
def test_files_of_other_kinds(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"t.{suffix}")
    with pytest.raises(UserError, match="named pipe"):
        open_table(tmp_path / f"t.{suffix}")


# -- records


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    return (
        bytes([number << 3 | 1]) + struct.pack("<d", value)
        if isinstance(value, float)
        else bytes([number << 3, value])
    )


def evaluation(**parts: int | float | bytes) -> bytes:
    given = {"epochs": 4.0, "seconds": 1.0, "train": 0.9, "valid": 0.8, "test": 0.7} | parts
    return b"".join(field(number, value) for number, value in enumerate(given.values(), start=1))


def record(metrics: bytes, **parts: Any) -> bytes:
    names = "input,conv3x3-bn-relu,output"
    name = digest(NasBench101Space().parse_graph("010001000", names.split(","))).hex()
    given = {"digest": name, "epochs": 108, "rows": "010001000", "operations": names} | parts
    return json.dumps([*given.values(), base64.b64encode(metrics).decode()]).encode()


def framed(content: bytes, length: int | None = None) -> bytes:
    def checksum(part: bytes) -> bytes:
        return struct.pack("<I", masked_crc32c(np.frombuffer(part, np.uint8)))

    head = struct.pack("<Q", len(content) if length is None else length)
    return head + checksum(head) + content + checksum(content)


SOUND = field(1, evaluation()) * 3 + field(2, 100)
RECORDS = {
    "accuracy of bytes": (framed(record(field(1, evaluation(valid=b"abc")) * 3 + field(2, 100))), "field 4"),
    "accuracy of a whole number": (framed(record(field(1, evaluation(test=9)) * 3 + field(2, 100))), "field 5"),
    "seconds of bytes": (framed(record(field(1, evaluation(seconds=b"")) * 3 + field(2, 100))), "field 2"),
    "parameters of a fraction": (framed(record(field(1, evaluation()) * 3 + field(2, 0.5))), "not a whole number"),
    "an evaluation that is a number": (framed(record(field(1, 5) * 3 + field(2, 100))), "record 0"),
    "a number without end": (framed(record(b"\xff" * 50)), "64 bits"),
    "a field beyond the message": (framed(record(b"\x0a\xff\xff\xff\xff\x0f")), "within a field"),
    "epochs without end": (framed(record(SOUND, epochs=10**400)), "epochs"),
    "epochs of infinity": (framed(record(SOUND, epochs=float("inf"))), "inf epochs"),
    "a list for a hash": (framed(record(SOUND, digest=[])), "record 0"),
    "nested": (framed(b"[" * 100_000), "nested too deeply"),
    "a record beyond the file": (framed(b"", 1 << 62), "within a record"),
    "a record of megabytes": (framed(b" " * (2 << 20)), "a record of 2097152 bytes"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_odd_records(name: str, tmp_path: Path) -> None:
    content, words = RECORDS[name]
    (tmp_path / "t.tfrecord").write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_table(tmp_path / "t.tfrecord")


def test_a_sound_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.tfrecord").write_bytes(framed(record(SOUND)))
    assert open_table(tmp_path / "t.tfrecord").column("cifar10_valid_108") == pytest.approx([80])


# -- other files


def pair(**figures: Any) -> dict[str, Any]:
    given = load_genotype("darts_v2").to_dict()
    return {"genotype": {"normal": given["normal"], "reduce": given["reduce"], "concat": [2, 3, 4, 5]}, **figures}


def wide(columns: int, repeats: int) -> list[dict[str, Any]]:
    return [pair(**{f"a{k}": 1.0 for k in range(columns)}) for _ in range(repeats)]


def test_tables_that_would_outgrow_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    for entries, words in ((wide(1500, 1), "1500 kinds of figures"), ([pair(**{"x" * 300: 1})], "file's name")):
        path.write_text(json.dumps(entries))
        with pytest.raises(UserError, match=words):
            open_table(path)
    monkeypatch.setattr("nge_search.tables.table._MOST_FIGURES", 50)
    path.write_text(json.dumps(wide(5, 11)))
    with pytest.raises(UserError, match="of up to 11 trainings"):
        open_table(path)


@pytest.mark.parametrize("figure", [10**400, {"b": {"c": float("inf")}}])
def test_figures_that_are_no_figures(figure: object, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([pair(a=figure)]))
    with pytest.raises(UserError, match=r"infinite|entry 0"):
        open_table(tmp_path / "t.json")


STRUCTURE = "[[1],[4,0],[5,0,0],[0,1,1,1],[2,1,1,1,1],[3,0,0,0,0,1]]"
STRUCTURES = {
    "an operation that there is not": (STRUCTURE.replace("[4,0]", "[6,0]"), "0.7", "line 2: .* not an operation"),
    "a skip of another number": (STRUCTURE.replace("[4,0]", "[4,-1]"), "0.7", "line 2: .* not a skip"),
    "a layer that is text": (STRUCTURE.replace("[4,0]", "'x'"), "0.7", "line 2: .* not valid JSON"),
    "nested": ("[" * 60_000, "0.7", "line 2: .* nested too deeply"),
    "a number of many digits": (STRUCTURE.replace("[4,0]", f"[{'1' * 5000},0]"), "0.7", "line 2"),
    "no accuracy": (STRUCTURE, "", "line 2: could not convert"),
    "infinite": (STRUCTURE, "inf", "that are infinite"),
    "a code": (STRUCTURE, "__import__('os')", "line 2: could not convert"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_odd_structures(name: str, tmp_path: Path) -> None:
    structure, accuracy, words = STRUCTURES[name]
    (tmp_path / "t.csv").write_text(f'structure_json,ws_accuracy\n"{structure}",{accuracy}\n')
    with pytest.raises(UserError, match=words) as caught:
        open_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def metrics(**parts: Any) -> dict[str, Any]:
    known = ("train_accuracy", "validation_accuracy", "test_accuracy", "training_time")
    training = {f"{part}_{name}": 0.5 for part in ("halfway", "final") for name in known}
    names = ["input", "conv3x3-bn-relu", "output"]
    given = {"adjacency": [[0, 1, 0], [0, 0, 1], [0, 0, 0]], "ops": names, "trainable_parameters": 5}
    return {**given, "metrics": {"108": [training]}, **parts}


@pytest.mark.parametrize(
    "parts",
    [
        {"ops": "input,output"},
        {"ops": ["input", ["conv3x3-bn-relu"], "output"]},
        {"ops": None},
        {"adjacency": [[0, 1], [2]]},
        {"adjacency": 7},
        {"hash": "0" * 32},
        {"hash": ["x"]},
        {"trainable_parameters": "many"},
        {"metrics": [1]},
        {"metrics": {"108": 5}},
        {"metrics": {"108": [{"final_test_accuracy": 0.5}]}},
        {"metrics": {"9" * 30: []}},
        {"metrics": {"x": []}},
    ],
)
def test_odd_cells_as_json(parts: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([metrics()]))
    assert open_table(tmp_path / "t.json").column("cifar10_valid_108_halfway").tolist() == [50]
    (tmp_path / "t.json").write_text(json.dumps([metrics(), metrics(**parts)]))
    with pytest.raises(UserError, match=r"t\.json' entry 1: not a cell of NAS-Bench-101"):
        open_table(tmp_path / "t.json")


def test_a_row_without_end(tmp_path: Path) -> None:
    for content in (
        f"arch,params_m\n{CELL},1\n{CELL}" + ",1" * (1 << 20),
        "arch,params_m\n" + '"\n",' * (1 << 19),
    ):
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(UserError, match="a row of more than"):
            open_table(tmp_path / "t.csv")


def archive(**parts: Any) -> dict[str, Any]:
    trial = {"eval_acc1es": {"x-valid@11": 90.0}, "train_times": {0: 2.0}, "epochs": 12, "params": 0.5} | parts
    results = {"all_results": {("cifar10-valid", 777): trial}}
    return {"meta_archs": [CELL], "arch2infos": {0: {"less": results, "full": {"all_results": {}}}}}


@pytest.mark.parametrize(
    "parts",
    [
        {"params": torch.zeros(3)},
        {"params": torch.eye(2).to_sparse()},
        {"epochs": 10**5000},
        {"epochs": float("nan")},
        {"eval_acc1es": None},
        {"train_times": {0: "x"}},
        {"train_times": [1.0]},
    ],
)
def test_archives_with_parts_of_other_types(parts: dict[str, Any], tmp_path: Path) -> None:
    torch.save(archive(**parts), tmp_path / "t.pth")
    with pytest.raises(UserError, match=r"t\.pth"):
        open_table(tmp_path / "t.pth")


# -- a full disk


def test_without_room_nothing_stays_and_the_next_try_succeeds(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    """The header still has room, the arrays have not. Into a new folder, and into an empty one."""
    space = NasBench201Space()
    codes = [(a, b, c, d, 0, 0) for a in range(5) for b in range(5) for c in range(5) for d in range(5)]
    build_table(space, ((code, {"a_valid_1": 1.0}) for code in codes), "t", "x").save(tmp_path / "t")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".table.0123abcd.nge-tmp").mkdir()  # of a process that was killed
    for out in (tmp_path / "empty", tmp_path / "new" / "folder"):
        with largest_file(1024):
            assert main(["table", str(tmp_path / "t"), "--out", str(out)]) == 2
        error = capfd.readouterr().err
        assert f"cannot use '{out}': {os.strerror(errno.EFBIG)}" in error
        assert error.count("\n") == 1
        assert not list(out.glob("*"))
        assert not (tmp_path / "new").exists()
        assert main(["table", str(tmp_path / "t"), "--out", str(out)]) == 0
        assert len(open_table(out)) == 625
        assert not list(out.glob(".*"))
