"""The cache of zero-cost metrics: what it keeps, damaged and hostile lines, two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from nge_search.errors import UserError
from nge_search.predict.zero_cost_cache import Measurement, ZeroCostCache
from nge_search.predict.zero_cost_metrics import METRICS, SALIENCIES

SETTING, MEANING = "0123456789abcdef", {"channels": 8}
ROWS = {"cell": 2}


def name(number: int) -> str:
    return f"{number:032x}"


def measurement(number: int) -> Measurement:
    random = np.random.default_rng(number)
    scale = 10.0 ** random.integers(-200, 200, len(METRICS))
    return Measurement(
        random.normal(size=len(METRICS)) * scale, {"cell": random.normal(size=(2, len(SALIENCIES))) / 3}
    )


def require_same(found: Measurement, expected: Measurement) -> None:
    np.testing.assert_array_equal(found.network_M, expected.network_M)
    assert found.operations.keys() == expected.operations.keys()
    for kind, rows in expected.operations.items():
        np.testing.assert_array_equal(found.operations[kind], rows)


def wanted(*numbers: int) -> dict[str, dict[str, int]]:
    return {name(number): ROWS for number in numbers}


def test_what_was_kept_is_found_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ZeroCostCache(tmp_path / "new" / "cache", SETTING, MEANING)
    assert cache.load(wanted(1)) == {}
    for number in (1, 2, 3):
        cache.append(name(number), measurement(number))
    found = ZeroCostCache(tmp_path / "new" / "cache", SETTING, MEANING).load(wanted(1, 3, 4))
    assert found.keys() == {name(1), name(3)}
    require_same(found[name(1)], measurement(1))
    require_same(found[name(3)], measurement(3))
    assert json.loads(cache.path.with_suffix(".json").read_text()) == MEANING
    assert capsys.readouterr() == ("", "")


def test_cells_without_operations(tmp_path: Path) -> None:
    cache = ZeroCostCache(tmp_path, SETTING, MEANING)
    cache.append(name(1), Measurement(np.zeros(len(METRICS)), {"cell": np.zeros((0, len(SALIENCIES)))}))
    assert cache.load({name(1): {"cell": 0}})[name(1)].operations["cell"].shape == (0, len(SALIENCIES))


def test_damaged_and_hostile_lines_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = ZeroCostCache(tmp_path, SETTING, MEANING)
    cache.append(name(1), measurement(1))
    good = cache.path.read_text().strip()
    document = json.loads(good)
    changed = [
        {**document, "network": [*document["network"][:-1], 1.0]},  # another number than was summed
        {**document, "network": document["network"][:-1]},
        {**document, "network": [1, *document["network"][1:]]},
        {**document, "operations": {}},
        {**document, "operations": {"cell": document["operations"]["cell"][:1]}},
        {**document, "operations": {"cell": 5}},
        {**document, "operations": {"cell": [[0.0], [0.0]]}},
        {**document, "architecture": [1]},
        {**document, "more": 1},
        {"architecture": name(1)},
    ]
    lines = [json.dumps(line) for line in changed]
    lines += [
        good.replace(str(document["network"][0]), value, 1) for value in ("NaN", "1e999", "1" * 400, "-Infinity")
    ]
    lines += ["null", "[1]", "[" * 50_000, "x" * 200_000, good[:50], good[:-1] + ',"check":"0"}', "\x00\xff"]
    # 200,000 letters are read, and left out, in pieces of 65,536.
    cache.path.write_bytes("\n".join([*lines, "", good, good]).encode("latin-1") + b"\n")
    found = cache.load(wanted(1))
    require_same(found[name(1)], measurement(1))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{cache.path}: {len(lines) + 3} damaged lines are left out\n"


def test_lines_of_another_setting_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache, other = (ZeroCostCache(tmp_path, setting, MEANING) for setting in (SETTING, "f" * 16))
    cache.append(name(1), measurement(1))
    assert other.load(wanted(1)) == {}
    other.path.write_bytes(cache.path.read_bytes())
    assert other.load(wanted(1)) == {}
    assert "1 damaged line is left out" in capsys.readouterr().err


def test_after_a_line_that_was_cut_short_the_next_one_is_whole(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    cache = ZeroCostCache(tmp_path, SETTING, MEANING)
    cache.append(name(1), measurement(1))
    with largest_file(cache.path.stat().st_size + 100), pytest.raises(OSError, match="large") as caught:
        cache.append(name(2), measurement(2))
    assert caught.value.filename == str(cache.path)
    cache.append(name(3), measurement(3))
    found = cache.load(wanted(1, 2, 3))
    assert found.keys() == {name(1), name(3)}
    require_same(found[name(3)], measurement(3))
    assert "1 damaged line is left out" in capsys.readouterr().err


def _add(folder: Path, numbers: range) -> None:
    cache = ZeroCostCache(folder, SETTING, MEANING)
    for number in numbers:
        cache.append(name(number), measurement(number))


def test_two_processes_add_to_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = (range(60), range(40, 100))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add, args=(tmp_path, part)) for part in numbers]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = ZeroCostCache(tmp_path, SETTING, MEANING).load(wanted(*range(100)))
    assert len(found) == 100
    for number in range(100):
        require_same(found[name(number)], measurement(number))
    assert capsys.readouterr().err == ""


def test_what_cannot_be_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is no folder"):
            ZeroCostCache(place, SETTING, MEANING)
    path = ZeroCostCache(tmp_path, SETTING, MEANING).path
    path.symlink_to(tmp_path / "file")
    with pytest.raises(UserError, match="is a link"):
        ZeroCostCache(tmp_path, SETTING, MEANING)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a named pipe"):
        ZeroCostCache(tmp_path, SETTING, MEANING)
