"""YAML from strangers: what unfolds, nests, repeats or misuses YAML's own tags is refused in one line."""

from __future__ import annotations

import pytest

from nge_search.errors import UserError
from nge_search.yaml_reader import parse_yaml


def _bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [f"a{i + 1}: &a{i + 1} [" + ",".join([f"*a{i}"] * width) + "]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_bomb(9, 9), "too many values"),
        ("a: &a [1, *a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 100, "nested too deeply"),
        ("{a: " * 100, "nested too deeply"),
        ("a: !!bool maybe", "not what it claims"),
        ("a: !!int ''", "not what it claims"),
        ("a: !!timestamp x", "not what it claims"),
        ("a: 2001-13-45", "not what it claims"),
        ("a: " + "9" * 6000, "not what it claims"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("? [a, b]\n: 1", "unhashable|not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_hostile_texts(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_yaml(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")


def test_anchors_of_honest_size_are_read() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", "") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
