"""Malformed genotypes, read by `nge show` and by `nge eval`."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nge_search.architecture.load import load_genotype

GOOD = load_genotype("darts_v2").to_dict()
TEXT = json.dumps(GOOD)
FIRST_PAIR = '["sep_conv_3x3", 0]'


def with_value(key: str, value: Any) -> str:
    return json.dumps({**GOOD, key: value})


def without(key: str) -> str:
    return json.dumps({name: value for name, value in GOOD.items() if name != key})


def with_pair(position: int, operation: Any, source: Any) -> str:
    pairs = copy.deepcopy(GOOD["normal"])
    pairs[position] = [operation, source]
    return with_value("normal", pairs)


def with_source(literal: str) -> str:
    """JSON whose first input node is written as `literal`."""
    return TEXT.replace(FIRST_PAIR, f'["sep_conv_3x3", {literal}]', 1)


#: A file's content, and what the message must hold besides the file's name.
GENOTYPES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "other version": (with_value("format", "nge-genotype/2"), ("'nge-genotype/2'", "reads 'nge-genotype/1'")),
    "version is a number": (with_value("format", 1), ("format 1", "'nge-genotype/1'")),
    "no version": (without("format"), ("'format' is missing",)),
    "other space": (with_value("space", "nas-bench-201"), ("'nas-bench-201'", "'darts'")),
    "unknown key": (with_value("nromal", []), ("'nromal'", "did you mean 'normal'")),
    "unknown operation": (with_pair(0, "sep_conv3x3", 0), ("normal pair 0", "'sep_conv3x3'", "'sep_conv_3x3'")),
    "operation is a list": (with_pair(0, [["x"]], 0), ("normal pair 0", "unknown operation")),
    "operation is null": (with_pair(0, None, 0), ("normal pair 0", "unknown operation")),
    "edge to itself": (with_pair(0, "skip_connect", 2), ("normal pair 0", "node 2 cannot read node 2")),
    "forward edge": (with_pair(0, "skip_connect", 5), ("normal pair 0", "node 2 cannot read node 5")),
    "negative node": (with_pair(7, "skip_connect", -1), ("normal pair 7", "-1 is not a node")),
    "node is a boolean": (with_pair(1, "skip_connect", True), ("normal pair 1", "true is not a node")),
    "node is a fraction": (with_pair(1, "skip_connect", 1.0), ("normal pair 1", "1.0 is not a node")),
    "node is text": (with_pair(1, "skip_connect", "1"), ("normal pair 1", "'1' is not a node")),
    "node is not a number": (with_source("NaN"), ("normal pair 0", "nan is not a node")),
    "node is infinite": (with_source("1e999"), ("normal pair 0", "inf is not a node")),
    "node of 4,000 digits": (with_source("9" * 4000), ("normal pair 0", "999")),
    "node of 5,000 digits": (with_source("9" * 5000), ("not valid JSON",)),
    "a pair too few": (with_value("normal", GOOD["normal"][:-1]), ("normal has 7 pairs", "exactly 2")),
    "no pairs": (with_value("normal", []), ("normal has 0 pairs",)),
    "pairs are null": (with_value("reduce", None), ("reduce must be a list of [operation, input node] pairs",)),
    "a pair of three": (with_value("normal", [["skip_connect", 0, 1]] * 8), ("normal must be a list of",)),
    "100 nodes": (with_value("normal", [["skip_connect", 0]] * 200), ("100 inner nodes", "at most 64")),
    "no reduction cell": (without("reduce"), ("'reduce' is missing",)),
    "no output": (with_value("normal_concat", []), ("normal_concat is empty",)),
    "output is an input": (with_value("normal_concat", [0, 2]), ("normal_concat: 0", "2 to 5")),
    "output that is not there": (with_value("normal_concat", [6]), ("normal_concat: 6", "2 to 5")),
    "output twice": (with_value("reduce_concat", [2, 2]), ("reduce_concat names a node twice",)),
    "output is text": (with_value("reduce_concat", "2345"), ("reduce_concat must be a list",)),
    "output is a boolean": (with_value("normal_concat", [True]), ("normal_concat: true",)),
    "provenance is a number": (with_value("provenance", 3), ("provenance must be a JSON object",)),
    "key twice": (TEXT[:-1] + ', "space": "darts"}', ("'space' is given twice",)),
    "key twice among 50,000": (
        "{" + "".join(f'"{key}": 1, ' for key in range(50_000)) + '"49999": 2}',
        ("'49999' is given twice",),
    ),
    "python, no whole genotype": ("Genotype(normal=[('skip_connect', 0)])", ("key 'normal_concat' is missing",)),
    "python, something else": ("Network(normal=[('skip_connect', 0)])", ("'Network' is not allowed",)),
    "truncated": (TEXT[:200], ("not valid JSON",)),
    "something after the end": (TEXT + "x", ("not valid JSON", "extra data")),
    "empty file": ("", ("not valid JSON",)),
    "a list": ("[1, 2]", ("JSON object, not list",)),
    "null": ("null", ("JSON object",)),
    "not UTF-8": (b"\xff\xfe\x00\x80", ("not a text file",)),
    "half a surrogate pair": (TEXT.replace('"space"', r'"\ud800"'), ("unknown key",)),
    "2 MiB": (" " * (2 << 20) + TEXT, ("bytes, more than",)),
    "100,000 brackets": ("[" * 100_000 + "]" * 100_000, ("nested too deeply",)),
    "100,000 open brackets": ("[" * 100_000, ("nested too deeply",)),
    "key of 900,000 letters": (TEXT[:-1] + f', "{"x" * 900_000}": 1}}', ("unknown key 'xxx",)),
}


@pytest.fixture(params=["show", "eval"])
def read_by(request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    """The words after `nge` that make a command read a genotype."""
    return lambda name: ["show", name] if request.param == "show" else ["eval", f"network.genotype={name}"]


@pytest.mark.parametrize("name", GENOTYPES)
def test_malformed(name: str, read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    content, says = GENOTYPES[name]
    Path("my.json").write_bytes(content.encode() if isinstance(content, str) else content)
    refuse(*read_by("my.json"), says=("my.json", *says), creates="nothing")


def test_misspelt_published_name(read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    refuse(*read_by("dart_v2"), says=("'dart_v2'", "darts_v1, darts_v2", "did you mean 'darts_v2'"))


def test_missing_file(read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    refuse(*read_by("my.json"), says=("'my.json'", "neither a file, a run folder"), creates="nothing")


def test_folder_without_genotype(read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    Path("run").mkdir()
    refuse(*read_by("run"), says=("'run'", "genotype.json"), creates="nothing")


def test_named_pipe(read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    Path("run").mkdir()
    os.mkfifo("run/genotype.json")
    refuse(*read_by("run"), says=("run/genotype.json", "named pipe"), creates="nothing")


def test_run_that_has_not_finished(
    unfinished: Path, read_by: Callable[[str], list[str]], refuse: Callable[..., str]
) -> None:
    refuse(*read_by("unfinished"), says=("'unfinished'", "genotype.json"), creates="nothing")


def test_zero_byte_in_the_name(read_by: Callable[[str], list[str]], refuse: Callable[..., str]) -> None:
    refuse(*read_by("a\0b"), says=("a",), creates="nothing")


def test_any_depth(capfd: pytest.CaptureFixture[str], refuse: Callable[..., str]) -> None:
    """Somewhere below the depth that JSON's decoder refuses lies one at which printing the value fails."""
    outcomes = set()
    for depth in range(700, 1000):
        Path("my.json").write_text(with_value("normal_concat", [2]).replace("[2]", "[" * depth + "]" * depth))
        line = refuse("show", "my.json", says=("my.json",))
        outcomes.add(re.sub(r"\[+\.*\]*", "[]", line))
    assert any("not an inner node" in line for line in outcomes)
