"""How the text of a setting is read: by the setting's own type, alike from a command line, a file and Python.

- Text is what was typed, character by character: `007`, `1.10`, `12:30:45`, `null` and `yes` are text like any
  other. Quotes around the whole value, as YAML has them, are not part of it, on the command line neither. A path is
  text whose leading `~` or `~name` is the home folder.
- A whole number is decimal digits with an optional sign and no leading zero; single underscores may stand between
  digits (`50_000`). A number may have a fraction and an exponent besides: `3`, `.5`, `1e-3`.
- Yes and no are `true` and `false`, also `yes`, `no`, `on`, `off`; where nothing is allowed, it is `null`, `~` or
  empty.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection
from typing import Any

from nge_search.errors import UserError, shorten
from nge_search.files import user_path
from nge_search.yaml_reader import Written, parse_written

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_WHOLE = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_INTEGER = re.compile(rf"[+-]?{_WHOLE}")
_DECIMAL = re.compile(rf"[+-]?(?:{_WHOLE}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?")
_NOT_FINITE = re.compile(r"[+-]?\.?(?:inf|nan)", re.IGNORECASE)
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("", "~", "null")

#: Of a whole number are read: enough to be beyond every limit, and Python refuses to read thousands.
_MOST_DIGITS = 100

_WORDS = {
    int: "a whole number in plain digits, as 25 or 50_000",
    float: "a number, as 0.1, 1e-3 or 50_000",
    bool: "true or false",
    str: "text; put it in quotes, so that it stays as it is written",
    type(None): "null",
}

#: With these YAML begins something else than plain text.
_INDICATORS = tuple("[]{}!&*|>%@`")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""")


def read_value(key: str, value: Any, accepted: Collection[type]) -> Any:
    """A value of an accepted type: read from text (`Written`, or a str from Python), or an object that is one.

    Raises:
        UserError: `key=value: must be ...`; a number or a date for text, too, since what was typed is lost.
    """
    if list in accepted:
        return _names(key, value)
    text = value.text if isinstance(value, Written) else value
    if isinstance(text, str):
        _refuse_characters(key, text)
        found = next(
            (one for one_type in _READERS if one_type in accepted and (one := _READERS[one_type](text))), None
        )
    elif type(value) is int and float in accepted:
        found = _decimal(str(value)) if abs(value) < 1 << 1024 else (math.inf,)
    else:
        found = (value,) if type(value) in accepted else None
    if found is not None:
        return found[0]
    words = " or ".join(_WORDS[one_type] for one_type in accepted)
    raise UserError(f"{key}={shorten(value)}: must be {words}")


def read_path(key: str, value: Any, default: str) -> str:
    """A path as text, `~` expanded. Only where the default is empty may it be empty."""
    path = read_value(key, os.fspath(value) if isinstance(value, os.PathLike) else value, (str,))
    if path != default and not path.strip():
        raise UserError(f"{key}={shorten(path)}: a path is not blank")
    try:
        return str(user_path(path)) if path.startswith("~") else path
    except UserError as error:
        raise UserError(f"{key}={error}") from None


def read_word(key: str, text: str, accepted: Collection[type] | None) -> Any:
    """What stands behind `key=` on a command line, for `read_value`; `accepted` is None for a section of settings.

    Raises:
        UserError: a list or a section that is no YAML, or text that YAML would take for something else.
    """
    if not text.isprintable():
        raise UserError(f"{key}={shorten(text)}: control and other characters that cannot be shown are not allowed")
    if text.startswith("[") and "]" not in text and list in (accepted or ()):
        raise UserError(f"{key}={shorten(text)}: the list does not end; leave out blanks, or quote the whole word")
    if accepted is None or list in accepted or _QUOTED.fullmatch(text):
        return parse_written(text, f"{key}={shorten(text)}") or Written(text)
    if str in accepted and text.startswith(_INDICATORS):
        raise UserError(
            f"{key}={shorten(text)}: put text that begins with '{text[0]}' in quotes (\"'...'\" in a shell)"
        )
    if text[:1] in ("'", '"') and text[-1] == text[0] and len(text) > 1:
        raise UserError(
            f'{key}={shorten(text)}: quotes within quotes; write those inside as YAML does, doubled or as \\"'
        )
    return Written(text)


def as_word(key: str, text: str) -> str:
    """The command-line word that sets text, quoted where `read_word` asks for it; not yet quoted for a shell."""
    if text.startswith((*_INDICATORS, "'", '"')):
        text = "'" + text.replace("'", "''") + "'"
    return f"{key}={text}"


def decimal(text: str) -> float | None:
    """The number that a text is, or None."""
    found = _READERS[float](text)
    return None if found is None else found[0]


def _refuse_characters(key: str, text: str) -> None:
    if "${" in text:
        raise UserError(f"{key}={shorten(text)}: references (${{...}}) are not supported; write the value")
    if not text.isprintable():
        raise UserError(f"{key}={shorten(text)}: control and other characters that cannot be shown are not allowed")
    if text == "???":
        raise UserError(f"{key}: has no value")


def _names(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, (str, Written)) for name in value):
        raise UserError(f"{key}={shorten(value)}: must be a list of names, as [a,b]")
    return [read_value(key, name, (str,)) for name in value]


def _null(text: str) -> tuple[None] | None:
    return (None,) if text.strip().lower() in _NOTHING else None


def _boolean(text: str) -> tuple[bool] | None:
    found = _BOOLEANS.get(text.strip().lower())
    return None if found is None else (found,)


def _integer(text: str) -> tuple[int] | None:
    text = text.strip()
    return (int(text.replace("_", "")[:_MOST_DIGITS]),) if _INTEGER.fullmatch(text) else None


def _decimal(text: str) -> tuple[float] | None:
    text = text.strip()
    if _NOT_FINITE.fullmatch(text):
        return (float(text.replace(".", "")),)
    return (float(text),) if _DECIMAL.fullmatch(text) else None


#: A one-tuple of the value, or None where the text is none of the type; in the order in which they are tried.
_READERS: dict[type, Callable[[str], tuple[Any] | None]] = {
    type(None): _null,
    bool: _boolean,
    int: _integer,
    float: _decimal,
    str: lambda text: (str(text),),
}
