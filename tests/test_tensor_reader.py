"""The reader of what `torch.save` wrote: nothing is run, unpacked, or larger than the file."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nge_search.errors import UserError
from nge_search.tensor_reader import check_safetensors, load_saved, own_tensors


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def repacked(content: bytes, change: Callable[[bytes], bytes] = bytes, packing: int = zipfile.ZIP_STORED) -> bytes:
    """The same parts, the pickle changed, packed anew."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", packing) as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, change(part) if name.endswith("data.pkl") else part)
    return buffer.getvalue()


def load(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return own_tensors(load_saved(path, "no file of ours", of_tensors=True), "no file of ours", len(content))


def test_plain_values_and_tensors_come_back_and_outlive_the_file(tmp_path: Path) -> None:
    weights = torch.arange(12.0).reshape(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    value = {"a": weights, "b": [1, 2.5, None, "x", True, (torch.tensor(3), ())], 4: {}}
    found = load(tmp_path / "a.pt", saved(value))
    (tmp_path / "a.pt").write_bytes(b"")
    assert torch.equal(found["a"], weights)
    assert found["a"].stride() == weights.stride()
    assert found["b"][:5] == value["b"][:5]
    assert found["b"][5] == (torch.tensor(3), ())
    assert found[4] == {}


def of_itself(levels: int) -> dict[str, Any]:
    part: Any = ["x"]
    for _ in range(levels):
        part = [part, part]
    return {"a": part}


TEN = saved({"a": torch.zeros(10)})
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        lambda: repacked(saved({"a": torch.zeros(1 << 20)}), packing=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "a tensor beyond the file": (lambda: repacked(TEN, lambda part: part.replace(b"K\n", b"J\0\0\0\x70")), ""),
    "one number many times": (lambda: saved({"a": torch.zeros(1).expand(1 << 40)}), "larger than the file"),
    "one tensor many times": (lambda: saved({"a": [torch.zeros(1000)] * 1000}), "larger than the file"),
    "lists of themselves": (lambda: saved(of_itself(60)), "nested too deeply"),
    "wide lists of themselves": (lambda: saved(of_itself(9) | {"b": [of_itself(9)["a"]] * 50}), "too many values"),
    "sparse": (lambda: saved({"a": torch.eye(3).to_sparse()}), "odd kind"),
    "without content": (lambda: saved({"a": torch.zeros(3, device="meta")}), "odd kind"),
    "another type": (lambda: saved({"a": torch.float32}), "of the type dtype"),
    "an odd key": (lambda: saved({None: 1}), "the key None"),
    "values without end": (
        lambda: repacked(TEN, lambda part: b"\x80\x02(" + b"]" * (3 << 20) + b"l."),
        "no tensor's",
    ),
    "a call": (lambda: repacked(TEN, lambda part: pickle.dumps(os.getcwd, protocol=2)), "getcwd"),
    "no ZIP file": (lambda: pickle.dumps({"a": 1}, protocol=2), "not a ZIP file"),
    "no end": (lambda: TEN[:-40], "it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_harm_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nge_search.tensor_reader._MOST_VALUES", 10_000)
    make, words = REFUSED[name]
    with pytest.raises(UserError, match=rf"no file of ours \(.*{words}"):
        load(tmp_path / "a.pt", make())


def with_header(document: Any, size: int | None = None, content: bytes = bytes(40)) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + content


ENTRY = {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}
WEIGHTS = {
    "empty": (b"", "header"),
    "a header beyond the file": (with_header({"a": ENTRY}, 10**6, b""), "its header has 1000000 bytes"),
    "a header of exabytes": (with_header({}, 10**18), "its header has 1000000000000000000 bytes"),
    "nested": (with_header(b"[" * 100_000), "nested too deeply"),
    "a list": (with_header([]), "it holds"),
    "odd types": (with_header({"a": ENTRY | {"dtype": "F4"}}), "'F4'"),
    "no type": (with_header({"a": 3}), "it holds"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_odd_safetensors_are_refused_before_they_are_loaded(name: str, tmp_path: Path) -> None:
    content, words = WEIGHTS[name]
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=words):
        check_safetensors(tmp_path / "a.safetensors")


def test_sound_safetensors_pass_and_half_precision_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(1)}, path)
    check_safetensors(path)
    assert set(load_file(path)) == {"a", "b", "n"}
    with open(path, "r+b") as file:
        file.truncate(1 << 29)
    with pytest.raises(UserError, match="must be of type F32"):
        check_safetensors(path)
