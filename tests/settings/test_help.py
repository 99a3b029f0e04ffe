"""What `--help` says: the meaning of every setting, and of every flag, is a sentence that stands alone."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator

import pytest

from nge_search import cli
from nge_search.bench import BENCHES
from nge_search.commands.parser import Parser
from nge_search.kinds import KINDS, Kind
from nge_search.settings.base import Section
from nge_search.settings.load import schema_of

#: Words that begin no sentence that stands alone: they continue one that is not there.
_CONTINUING = {"of", "and", "its", "or", "also", "which", "that", "who", "whose", "whom", "where", "when", "so"}


def fault(meaning: str | None) -> str | None:
    """What keeps a text from standing alone; None if nothing does. A default in brackets at its end is no part."""
    words = re.findall(r"[A-Za-z][\w'.=/-]*", re.sub(r"\s*\([^()]*\)\.?$", "", meaning or ""))
    if len(words) < 4:
        return f"{len(words)} words"
    return f"begins with {words[0]}" if words[0].lower() in _CONTINUING else None


def meanings(section: Section, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Dotted key and meaning of every setting of a configuration."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if isinstance(value, Section):
            yield from meanings(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item.metadata.get("meaning")


class _Asked(Exception):
    """A command has listed its flags."""


def flags(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[argparse.Action]:
    """The flags and arguments of a command, taken from its parser when it would parse."""
    found: list[argparse.Action] = []

    def list_flags(parser: Parser, *_: object) -> None:
        found.extend(parser._actions)
        raise _Asked

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(Parser, name, list_flags)
    with pytest.raises(_Asked):
        cli.main(words)
    return [action for action in found if action.help != argparse.SUPPRESS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Number of epochs of the search.", None),
        ("number of images per step (32)", None),
        ("Largest.", "1 words"),
        ("images per step (the default)", "3 words"),
        ("Of the Gumbel-softmax of this search.", "begins with Of"),
        ("And for the heads of it.", "begins with And"),
        ("Its learning rate at the end.", "begins with Its"),
        ("which are drawn from P alone", "begins with which"),
        (None, "0 words"),
    ],
)
def test_a_text_that_cannot_stand_alone_is_told(text: str | None, expected: str | None) -> None:
    assert fault(text) == expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_meaning_of_every_setting_stands_alone(kind: Kind) -> None:
    found = dict(meanings(schema_of(kind)()))
    assert {"seed", "threads", "run.dir"} <= found.keys()
    assert not {key: (text, why) for key, text in found.items() if (why := fault(text))}
    assert not {key: text for key, text in found.items() if not re.fullmatch(r"[A-Z].*\.", text)}


@pytest.mark.parametrize(
    "words",
    [name.split() for name in cli.COMMANDS if name != "bench"] + [["bench", name] for name in BENCHES],
    ids=" ".join,
)
def test_the_meaning_of_every_flag_stands_alone(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"/".join(action.option_strings) or action.dest: action.help for action in flags(words, monkeypatch)}
    assert len(found) >= 2
    assert not {flag: (text, why) for flag, text in found.items() if (why := fault(text))}


def test_commands_and_benches_say_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    for words, table in (
        (["--help"], {name: help for name, (_, help) in cli.COMMANDS.items()}),
        (["bench"], BENCHES),
    ):
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        for name, meaning in table.items():
            assert re.search(rf"^  {name} +{re.escape(meaning)}$", printed, re.MULTILINE)
            assert fault(meaning) is None
