"""YAML from strangers: what unfolds, nests, repeats or misuses YAML's own tags is refused in one line."""

from __future__ import annotations

import pytest

from nge_search.errors import UserError
from nge_search.yaml_reader import Written, parse_written, parse_yaml


def _bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [f"a{i + 1}: &a{i + 1} [" + ",".join([f"*a{i}"] * width) + "]" for i in range(levels)]
    return "\n".join(lines)


def _chain(links: int) -> str:
    """Each of so many values is 20 lists deep and ends in the one before it."""
    lines = ["a0: &a0 " + "[" * 20 + "]" * 20]
    lines += [f"a{i + 1}: &a{i + 1} " + "[" * 20 + f"*a{i}" + "]" * 20 for i in range(links)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_bomb(9, 9), "too many values"),
        ("a: &a [1, *a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("[" * 100, "nested too deeply"),
        ("{a: " * 100, "nested too deeply"),
        (_chain(1), "nested too deeply"),
        (_chain(30), "nested too deeply"),
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


def test_scalars_as_they_are_written() -> None:
    text = "a: 007\nb: [1_0, 'no', \"\\x41\", !!str 3, ! 4]\n1.0: {null: ~, c: 2001-01-01 # day\n}\n"
    text += "d:\ne: two\n  lines\n"
    found = parse_written(text, "")
    assert found == {
        "a": Written("007"),
        "b": [Written("1_0"), Written("no"), Written("A"), Written("3"), Written("4")],
        "1.0": {"null": Written("~"), "c": Written("2001-01-01")},
        "d": Written(""),
        "e": Written("two lines"),
    }
    assert str(found["b"]) == "[1_0, no, A, 3, 4]"
    assert parse_written("x: &x {k: 01}\ny: {<<: *x, l: *x}", "")["y"] == {
        "k": Written("01"),
        "l": {"k": Written("01")},
    }
    assert parse_written("", "") is None


@pytest.mark.parametrize(
    "text", ["a: !!int 0x", "a: !!bool 1", "!!omap [a: 1]", "? !!int x\n: 1", "? {a: 1}\n: 1", "a: !x 1"]
)
def test_neither_tags_nor_odd_keys_are_taken_as_written(text: str) -> None:
    with pytest.raises(UserError, match=r"f\.yaml: not valid YAML \((the tag|a key)"):
        parse_written(text, "f.yaml")
