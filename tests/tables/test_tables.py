"""Tables: readers on files written here in the official formats, the compact form, look-up, bad input."""

from __future__ import annotations

import base64
import csv
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nge_search.architecture.genotype import PUBLISHED
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.spaces import DartsSpace, NasBench101Space, NasBench201Space
from nge_search.spaces.nasbench101 import digest as hash_of
from nge_search.spaces.nasbench101 import parameters
from nge_search.tables import Table, open_table
from nge_search.tables.tfrecord import masked_crc32c, read_message

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def needs(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} of ../shared/data")
    return path


# -- the formats, written from their descriptions


def crc32c(content: bytes) -> int:
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


def model_metrics(final: tuple[float, ...], params: int) -> bytes:
    """Three evaluations: initial, half-way (half of everything), final; each epoch, time, train, valid, test."""
    evaluations = [(0.0,) * 4, tuple(value / 2 for value in final), final]
    content = b"".join(
        field(1, b"".join([field(1, 54.0 * place), *(field(2 + i, value) for i, value in enumerate(values))]))
        for place, values in enumerate(evaluations)
    )
    return content + field(2, params) + field(3, final[0] + 1.0)


CELLS = {
    "010001000": ["input", "conv3x3-bn-relu", "output"],
    "0110000100010000": ["input", "maxpool3x3", "conv1x1-bn-relu", "output"],
}
TRAININGS = {  # by cell: (seconds, train, valid, test) of each training
    "010001000": [(1000.0, 1.0, 0.90, 0.89), (1002.0, 1.0, 0.92, 0.91)],
    "0110000100010000": [(500.0, 0.9, 0.80, 0.79)],
}


def write_tfrecord(path: Path, epochs: tuple[int, ...] = (108,), digest: str | None = None) -> Path:
    space, content = NasBench101Space(), b""
    for rows, names in CELLS.items():
        graph = space.parse_graph(rows, names)
        for budget in epochs:
            for training in TRAININGS[rows]:
                metrics = base64.b64encode(model_metrics(training, parameters(graph))).decode()
                name = digest or hash_of(graph).hex()
                content += record(json.dumps([name, budget, rows, ",".join(names), metrics]).encode())
    path.write_bytes(content)
    return path


ARCHES = (
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
)


def archive(number: Callable[[float], Any] = float) -> dict[str, Any]:
    """Two cells, trained with two seeds over 200 epochs and one over 12, in the layout of the official file."""

    def trial(base: float, epochs: int, parts: tuple[str, ...]) -> dict[str, Any]:
        """With `ori-test` of CIFAR-10 half-way through 200 epochs, too, which is five points lower."""
        last = epochs - 1
        accuracies = {f"{part}@{last}": number(base + i) for i, part in enumerate(parts)}
        if parts == ("ori-test",) and epochs == 200:
            accuracies["ori-test@99"] = number(base - 5)
        return {
            "eval_acc1es": accuracies | {"ori-test@0": number(1.0)} if "ori-test" in parts else accuracies,
            "eval_names": list(parts),
            "train_times": {epoch: number(2.0) for epoch in range(epochs)},
            "epochs": epochs,
            "params": number(0.5),
            "flop": number(10.0),
            "latency": [],
            "net_state_dict": None,
        }

    def results(base: float, epochs: int, seeds: tuple[int, ...]) -> dict[str, Any]:
        parts = {"cifar10-valid": ("x-valid", "ori-test"), "cifar10": ("ori-test",)}
        parts |= dict.fromkeys(("cifar100", "ImageNet16-120"), ("x-valid", "x-test", "ori-test"))
        return {
            "all_results": {
                (dataset, seed): trial(base + 10 * place + (seed - 777) / 10, epochs, names)
                for place, (dataset, names) in enumerate(parts.items())
                for seed in seeds
            },
            "dataset_seed": {dataset: list(seeds) for dataset in parts},
            "arch_str": "",
        }

    infos = {
        index: {"less": results(20.0 + index, 12, (777,)), "full": results(40.0 + index, 200, (777, 888))}
        for index in range(2)
    }
    return {
        "meta_archs": list(ARCHES),
        "arch2infos": infos,
        "evaluated_indexes": {0, 1},
        "total_archs": 2,
    }


def pairs(tmp_path: Path) -> Path:
    genotype = json.loads(DartsSpace().text(DartsSpace().code(PUBLISHED["darts_v1"].graphs())))
    nested = {kind: [genotype[kind][at : at + 2] for at in range(0, 8, 2)] for kind in ("normal", "reduce")} | {
        "concat": [2, 3, 4, 5]
    }
    other = json.loads(DartsSpace().text(DartsSpace().code(PUBLISHED["darts_v2"].graphs())))
    entries = [
        {"id": 0, "genotype": nested, "test_acc": 97.0, "zero_cost": {"snip": 2.0}},
        {"id": 1, "genotype": genotype, "test_acc": 97.4, "zero_cost": {"snip": 4.0}},
        {"id": 2, "genotype": other, "test_acc": 96.0, "../mult-adds / M": 573.0},
    ]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(entries))
    return path


# -- readers


def test_checksums_against_a_bitwise_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for content in (b"", b"123456789", bytes(range(256)) * 3):
        assert masked_crc32c(np.frombuffer(content, np.uint8)) == struct.unpack("<I", masked(content))[0]


def test_messages_field_by_field() -> None:
    content = field(1, 300) + field(2, 0.25) + field(3, b"ab") + field(17, 2**60) + varint(4 << 3 | 5) + b"wxyz"
    assert list(read_message(content)) == [(1, 300), (2, 0.25), (3, b"ab"), (17, 2**60), (4, b"wxyz")]
    for cut in (field(2, 0.25)[:-1], field(3, b"ab")[:-1], b"\x80", b"\xff" * 11, varint(1 << 3 | 3)):
        with pytest.raises(ValueError, match=r"within|kind|bits"):
            list(read_message(cut))


def test_official_records_of_nasbench101(tmp_path: Path) -> None:
    table = open_table(write_tfrecord(tmp_path / "nasbench_full.tfrecord", epochs=(4, 108)))
    assert len(table) == 2
    row = table.find(table.space.parse("010001000 input,conv3x3-bn-relu,output"))
    np.testing.assert_allclose(table.repeats("cifar10_valid_108")[row], [90, 92])
    np.testing.assert_allclose(table.repeats("cifar10_valid_108_halfway")[row], [45, 46])
    figures = table.figures(row)
    assert figures["cifar10_test_108"] == pytest.approx(90)
    assert figures["cifar10_test_4"] == pytest.approx(90)
    assert figures["cifar10_seconds_108"] == 1001
    assert figures["cifar10_seconds_108_halfway"] == 500.5
    assert figures["params"] == parameters(table.space.graphs(table.code(row))["cell"])
    single = table.find(table.space.parse("0110000100010000 input,maxpool3x3,conv1x1-bn-relu,output"))
    assert np.isnan(table.repeats("cifar10_valid_108")[single, 1])
    assert table.figures(single)["cifar10_valid_108"] == pytest.approx(80)


@pytest.mark.parametrize("number", [float, np.float64], ids=["python", "numpy"])
def test_official_archive_of_nasbench201(tmp_path: Path, number: Callable[[float], Any]) -> None:
    path = tmp_path / "NAS-Bench-201-v1_1.pth"
    torch.save(archive(number), path)
    table = open_table(path)
    figures = table.figures(table.find(table.space.parse(ARCHES[1])))
    assert figures["cifar10_valid_12"] == 21
    assert figures["cifar10_valid_200"] == pytest.approx(41 + 11.1 / 2)
    np.testing.assert_allclose(table.repeats("cifar10_test_200")[table.find((0,) * 6)], [51, 62.1])
    np.testing.assert_allclose(table.repeats("cifar10_test_200_halfway")[table.find((0,) * 6)], [46, 57.1])
    assert "cifar10_valid_200_halfway" not in table.columns
    assert "cifar10_test_12_halfway" not in table.columns
    assert figures["cifar100_test_200"] == pytest.approx(41 + 20 + 1 + 11.1 / 2)
    assert figures["imagenet16_valid_12"] == 21 + 30
    assert figures["cifar10_seconds_200"] == 400
    assert figures["cifar100_seconds_12"] == 24
    assert figures["params"] == 500_000


def test_an_archive_with_numbers_of_numpy_1(tmp_path: Path) -> None:
    """NumPy 2 writes another module's name than NumPy 1 did."""
    path = tmp_path / "old.pth"
    torch.save(archive(np.float64), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path.write_bytes(content.replace(b"numpy._core.multiarray", name).replace(b"numpy.core.multiarray", name))
        table = open_table(path)
        assert table.figures(table.find(table.space.parse(ARCHES[1])))["params"] == 500_000


def test_an_archive_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"meta_archs": [], "arch2infos": Path("x")}, path)
    with pytest.raises(
        UserError, match=r"not NAS-Bench-201's archive.*Unsupported global: GLOBAL pathlib"
    ) as caught:
        open_table(path)
    assert "weights_only" not in str(caught.value)  # no advice to load it unsafely


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_archives_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "whole.pth"
    torch.save(archive(), path, _use_new_zipfile_serialization=zipped)
    whole, cut = path.read_bytes(), tmp_path / "cut.pth"
    for size in (0, 1, len(whole) // 4, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a whole one"):
            open_table(cut)
    document = archive()
    document["arch2infos"][0]["full"]["all_results"]["cifar10", 777]["epochs"] = "x"
    torch.save(document, cut)
    with pytest.raises(UserError, match="not laid out as"):
        open_table(cut)


def test_csv_of_nasbench201(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(
        f"index,arch,cifar10_val_200ep,cifar10_test_200ep,params_m\n0,{ARCHES[0]},80.5,81,0.5\n1,{ARCHES[1]},10,,0.07\n"
    )
    table = open_table(path)
    assert table.figures(table.find(table.space.parse(ARCHES[0])))["cifar10_valid_200"] == 80.5
    assert np.isnan(table.column("cifar10_test_200")[table.find((0,) * 6)])
    text = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace(b"index,", b"").replace(b"\n0,", b"\n").replace(b"\n1,", b"\n"))
    assert _same(open_table(path), table)  # as spreadsheets write it


def test_csvs_of_nasbench101(tmp_path: Path) -> None:
    path = tmp_path / "ec.csv"
    head = "hash,adj_rowmajor,ops,total_time_s,val_acc_ep4\n"
    path.write_text(
        head + ",010001000,input|maxpool3x3|output,100,0.5\n,010001000,input|maxpool3x3|output,110,0.6\n"
    )
    table = open_table(path)
    assert table.figures(0)["cifar10_valid_4"] == pytest.approx(55)
    assert table.figures(0)["cifar10_seconds_4"] == 105
    path.write_text(head + "0123,010001000,input|maxpool3x3|output,100,0.5\n")
    with pytest.raises(UserError, match="line 2: its hash is"):
        open_table(path)


def test_pairs_of_darts(tmp_path: Path) -> None:
    table = open_table(pairs(tmp_path))
    figures = table.figures(table.find(table.space.code(PUBLISHED["darts_v1"].graphs())))
    assert len(table) == 2
    assert figures["test_acc"] == pytest.approx(97.2)
    assert figures["zero_cost_snip"] == 3
    other = table.figures(table.find(table.space.code(PUBLISHED["darts_v2"].graphs())))
    assert "zero_cost_snip" not in other
    assert other["_mult_adds_M"] == 573  # a name that a file can have


# -- the compact form


def _same(first: Table, second: Table) -> bool:
    return (
        list(first.columns) == list(second.columns)
        and np.array_equal(first.codes_NL, second.codes_NL)
        and all(np.array_equal(first.columns[name], second.columns[name], equal_nan=True) for name in first.columns)
    )


def test_a_saved_table_is_the_same_and_mapped(tmp_path: Path) -> None:
    for number, path in enumerate((write_tfrecord(tmp_path / "a.tfrecord"), pairs(tmp_path))):
        table = open_table(path)
        opened = open_table(table.save(tmp_path / f"table{number}"))
        assert _same(table, opened)
        assert opened.space.length == table.space.length
        assert isinstance(opened.columns[next(iter(opened.columns))], np.memmap)
        for row in range(len(table)):
            assert opened.find(table.code(row)) == row


def test_look_up_finds_isomorphic_cells_and_refuses_others(tmp_path: Path) -> None:
    table = open_table(write_tfrecord(tmp_path / "a.tfrecord"))
    with_dead_end = "0110000100000000 input,conv3x3-bn-relu,maxpool3x3,output"  # vertex 2 leads nowhere
    row = table.find(table.space.parse("010001000 input,conv3x3-bn-relu,output"))
    assert table.find(table.space.parse(with_dead_end)) == row
    with pytest.raises(UserError, match="does not hold"):
        table.find(table.space.parse("0100 input,output"))
    with pytest.raises(UserError, match="did you mean 'cifar10_valid_108'"):
        table.column("cifar10_val_108")


# -- bad input, and the command


def test_damaged_records_are_named(tmp_path: Path) -> None:
    path = write_tfrecord(tmp_path / "a.tfrecord")
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:5], whole[:40] + b"\x00" + whole[41:], b"\xff" * 50):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a whole file of TensorFlow records"):
            open_table(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="holds no cell of NAS-Bench-101"):
        open_table(path)
    path.write_bytes(record(b'["other"]'))
    with pytest.raises(UserError, match="record 0: not one of NAS-Bench-101"):
        open_table(path)
    write_tfrecord(path, digest="00" * 16)
    with pytest.raises(UserError, match="hash is not its cell's"):
        open_table(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    texts = {
        "a.csv": ("x,y\n1,2\n", "none of the files"),
        "b.csv": ("arch,params_m\n|none~0|,1\n", "line 2"),
        "c.csv": (f"arch,params_m\n{ARCHES[1]},1\n{ARCHES[1]},2\n", "twice"),
        "d.csv": ("arch,params_m\n", "holds no cell"),
        "l.csv": (f"params_m,x\n1,{ARCHES[1]}\n", "line 2: no column 'arch'"),
        "m.csv": (f"arch,params_m\n{ARCHES[1]},{'1' * 140_000}\n", "after line 1: field larger"),
        "n.csv": ("adj_rowmajor,val_acc_ep4\n010001000,1\n", "line 2: no column 'ops'"),
        "e.csv": (f"arch,params_m\n{ARCHES[1]},many\n", "line 2: could not convert"),
        "f.json": ("{}", "not a list"),
        "g.json": ('[{"genotype": {}}]', "entry 0"),
        "h.json": ("[", "not valid JSON"),
        "r.json": ('[{"adjacency": [[0]], "ops": ["input"]}]', "entry 0: not a cell of NAS-Bench-101"),
        "s.csv": ("ws_accuracy,structure_json\n0.7,[[1]]\n", "line 2: .*a list of 6 layers"),
        "i.txt": ("", "none of the files"),
        "j.pth": ("no archive", "not NAS-Bench-201's archive"),
    }
    for name, (text, why) in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=why):
            open_table(tmp_path / name)
    for name, head in (("o.csv", "arch,params_m"), ("p.csv", "adj_rowmajor,ops,val_acc_ep4")):
        (tmp_path / name).write_bytes(f"{head}\n".encode() + b"\xff\xfe,1,2\n")
        with pytest.raises(UserError, match=r"after line [01]: 'utf-8' codec"):
            open_table(tmp_path / name)
    genotype = json.loads(DartsSpace().text(DartsSpace().code(PUBLISHED["darts_v1"].graphs())))
    for figures, why in (
        ({"keys": 1.0}, "figures named 'keys', which a table uses itself"),
        ({"huge": 10**400}, "entry 0"),
        ({"test acc": 1.0, "test-acc": 2.0}, "'test-acc' and 'test acc' would be one column, test_acc"),
    ):
        (tmp_path / "q.json").write_text(json.dumps([{"genotype": genotype, **figures}]))
        with pytest.raises(UserError, match=why):
            open_table(tmp_path / "q.json")
    torch.save({"meta_archs": ["x"], "arch2infos": {0: {}}}, tmp_path / "k.pth")
    with pytest.raises(UserError, match="not laid out as"):
        open_table(tmp_path / "k.pth")
    with pytest.raises(UserError, match="does not exist"):
        open_table(tmp_path / "none.csv")


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = open_table(pairs(tmp_path)).save(tmp_path / "table")
    header = (folder / "table.json").read_text()
    with pytest.raises(UserError, match="not empty"):
        open_table(folder).save(folder)
    (folder / "table.json").write_text(header.replace('"architectures": 2', '"architectures": 3'))
    with pytest.raises(UserError, match="damaged"):
        open_table(folder)
    (folder / "table.json").write_text(header.replace("nge-table/1", "nge-table/9"))
    with pytest.raises(UserError, match="not a table's header"):
        open_table(folder)
    (folder / "table.json").write_text(header)
    for name in ("keys", "codes", "test_acc"):
        part = np.load(folder / f"{name}.npy")
        for other in (np.zeros(2, "float32" if name != "test_acc" else "U3"), np.zeros((2, 3, 1))):
            np.save(folder / f"{name}.npy", other)
            with pytest.raises(UserError, match="damaged"):
                open_table(folder)
        np.save(folder / f"{name}.npy", part)
    (folder / "test_acc.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        open_table(folder)
    (folder / "table.json").unlink()
    with pytest.raises(UserError, match="nge table FILE --out FOLDER"):
        open_table(folder)


def test_the_command_converts_describes_and_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = write_tfrecord(tmp_path / "a.tfrecord"), tmp_path / "table"
    assert main(["table", str(path), "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 architectures of nasbench101" in out
    assert "cifar10_test_108: 79 to 91, 3 values, up to 2 each" in out
    assert main(["table", str(folder), "--find", "010001000 input,conv3x3-bn-relu,output"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["cifar10_test_108"] == pytest.approx(90)
    document = tmp_path / "cell.json"
    document.write_text(
        json.dumps(NasBench101Space().to_dict(NasBench101Space().parse("010001000 input,conv3x3-bn-relu,output")))
    )
    for words in ([str(document)], [str(document), "--out", str(tmp_path / "again")]):
        assert main(["table", str(folder), "--find", *words]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["figures"]["cifar10_test_108"] == pytest.approx(90)
        assert ("wrote" in captured.err) == (len(words) > 1)
    assert main(["table", str(folder), "--find", str(tmp_path / "none.json")]) == 2
    assert "none.json' does not exist" in capsys.readouterr().err
    assert main(["table", str(folder), "--find", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_published_cell_has_its_published_hash_and_parameters() -> None:
    """Of one record of NAS-Bench-101's file."""
    rows = "0100110001000000010010000010000001000000010000000"
    inner = ["conv3x3-bn-relu", "maxpool3x3", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv1x1-bn-relu"]
    graph = NasBench101Space().parse_graph(rows, ["input", *inner, "output"])
    assert hash_of(graph).hex() == "00005c142e6f48ac74fdcf73e3439874"
    assert parameters(graph) == 8_555_530


# -- published data, where it is at hand


def test_every_published_hash_and_parameter_count() -> None:
    """550 hashes, 30 + 2,805 parameter counts, and the enumeration of all cells of up to five vertices."""
    table = open_table(needs("nasbench101/nb101_labelled_all.csv"))  # compares hashes
    assert len(table) == 341
    for entry in json.loads(needs("nasbench101/nb101_30_full_metrics.json").read_text()):
        rows = "".join(str(value) for row in entry["adjacency"] for value in row)
        graph = NasBench101Space().parse_graph(rows, entry["ops"]).pruned()
        assert hash_of(graph).hex() == entry["hash"]
        assert parameters(graph) == entry["trainable_parameters"]
    cells = needs("ec_nas/ec_nas_4epoch.csv")
    space = NasBench101Space(5)
    with open(cells, newline="") as file:
        for row in csv.DictReader(file):
            graph = space.parse_graph(row["adj_rowmajor"], row["ops"].split("|")).pruned()
            assert parameters(graph) == int(row["trainable_params"])
    table = open_table(cells)
    assert len(table) == 2532
    random = np.random.default_rng(0)
    for _ in range(300):  # complete: any cell of the space can be looked up
        table.find(table.space.random(random))


def test_the_published_table_of_nasbench201() -> None:
    table = open_table(needs("nasbench201/nasbench201.csv"))
    assert len(table) == NasBench201Space.size
    assert table.column("cifar10_test_200").max() == pytest.approx(94.3733, abs=1e-3)
    assert (table.column("cifar10_test_200") == 10).sum() == 341
