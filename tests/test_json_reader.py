"""The reader of JSON: its limits, and files of lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.json_reader import LONGEST_LINE, Reader, count_values, parse_json, read_json, read_json_lines


@pytest.mark.parametrize(
    "document", [{}, [], 1, "a,b[{", {"a": [1, 2, {"b": None}], "c": {}}, [[[]], [[], []]], [1, "x", True]]
)
def test_values_are_never_counted_too_low(document: object) -> None:
    def count(value: object) -> int:
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(count, parts))

    text = json.dumps(document)
    assert count_values(text) == count_values(text.encode()) >= count(document)


def test_limits() -> None:
    assert parse_json("[1,[2]]", "x", most=4) == [1, [2]]
    for text, words in (
        ("[1,[2]]", "more than the 3 values"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "key 'a' is given twice"),
        ("", "not valid JSON"),
    ):
        with pytest.raises(UserError, match=words):
            parse_json(text, "x", most=3 if "values" in words else 1_000_000)


def test_a_key_given_twice_among_very_many_is_found_at_once() -> None:
    keys = [f'"k{number}": 0' for number in range(50_000)]
    with pytest.raises(UserError, match="'k49999' is given twice"):
        parse_json(f"{{{', '.join([*keys, keys[-1]])}}}", "x")


def test_lines_that_are_no_json_are_told_from_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\xfe\n[' + b"[" * 5000 + b'\n{"a": 2}\r\n{"a"')
    values = [value for _, value in read_json_lines(path)]
    assert values == [{"a": 1}, None, None, {"a": 2}, None]
    assert b"".join(line for line, _ in read_json_lines(path)) == path.read_bytes()


def test_lines_and_files_without_end_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * LONGEST_LINE)
    rows = read_json_lines(path)
    assert next(rows)[1] == {"a": 1}
    with pytest.raises(UserError, match="line 2 has more than"):
        next(rows)
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # takes no room
    for read in (read_json, lambda path: next(read_json_lines(path))):
        with pytest.raises(UserError, match="has 1099511627776 bytes"):
            read(path)


def test_values_of_any_kind_must_be_there() -> None:
    reader = Reader("x", {"a": None, "b": {"c": "d"}, "e": {"f": 1}})
    assert reader.any("a") is None
    assert reader.texts("b") == {"c": "d"}
    for take, words in (
        (lambda: reader.any("z"), "'z' is missing"),
        (lambda: reader.texts("e"), "object of texts"),
    ):
        with pytest.raises(UserError, match=words):
            take()


@pytest.mark.parametrize("given", ["9" * 400, "-" + "9" * 400, "1e400", "NaN", "true", '"1"', "null"])
def test_what_is_no_finite_number_is_refused(given: str) -> None:
    reader = Reader("here", parse_json(f'{{"one": {given}, "many": [1, {given}]}}', "here"))
    with pytest.raises(UserError, match=r"^here .*'one'"):
        reader.number("one", -1, 10**500)
    with pytest.raises(UserError, match=r"^here .*'many'"):
        reader.numbers("many", 2)
    assert Reader("here", {"many": [1, 2.5, 10**300]}).numbers("many", 3) == [1, 2.5, 10**300]
