"""Cells as other programs write them: DARTS' printed text, the same as bare JSON, and NNI's exported dictionary.

DARTS, PC-DARTS and P-DARTS print `Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), ...)`, the
pairs of inner node 2 first. NNI's DARTS space has an operation in `normal/op_2_0` and the node that it reads in
`normal/input_2_0`, as a number or a list of one, for every inner node and each of its two operations.

Nothing in a text is carried out: it is cut into the few marks that such texts consist of before Python's parser
sees it, and of calls only that of `Genotype` around it and `range` of plain numbers have a meaning.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Mapping
from typing import Any

from nge_search.architecture.genotype import (
    EDGES_PER_NODE,
    FORMAT,
    LARGEST_FILE,
    MAXIMUM_NODES,
    SPACE,
    Genotype,
)
from nge_search.errors import UserError, nearest, shorten
from nge_search.json_reader import parse_json
from nge_search.settings.names import INPUT_NODES

#: What a text in DARTS' notation begins with on a command line; no path does.
NOTATION = r"(?:\w+\s*=\s*)?Genotype\s*\(\s*\w+\s*="

_CALL = re.compile(r"\bGenotype\s*\(")
_KINDS = ("normal", "reduce")
_KEYS = tuple(f"{kind}{end}" for kind in _KINDS for end in ("", "_concat"))
_NAMES = ("Genotype", "range", *_KEYS)
#: All that such a text consists of; numbers are of nodes, and have few digits.
_MARK = re.compile(
    r"""\s+|\#[^\n]*|'[^'\\\n]*'|"[^"\\\n]*"|(?P<name>[A-Za-z_]\w*)|[0-9]{1,9}(?![0-9])"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])|[:,=]""",
    re.ASCII,
)
_LONGEST = 1 << 16
_DEEPEST = 8

#: The number of inner nodes in NNI's DARTS space, all of which form the output.
_NNI_NODES = 4
_NNI_KEY = re.compile(r"(normal|reduce)/(op|input)_([0-9]{1,3})_([0-9]{1,3})", re.ASCII)
_NNI_ANY = re.compile(r"(normal|reduce)/")


def is_printed(text: str) -> bool:
    """Whether a text holds a genotype as DARTS prints it, whatever stands around it, and is no JSON as a whole.

    Lines of logs may begin as JSON does, with a time in brackets or an object a line.
    """
    if _CALL.search(text) is None:
        return False
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(UserError):
            parse_json(text, "")
            return False
    return True


def printed_genotype(text: str, source: str) -> Genotype:
    """The genotype that a text holds as DARTS prints it; a log, or a file of several, must hold one alone.

    Raises:
        UserError: none, several different ones, or a malformed one; names `source`.
    """
    _require_size(text, source)
    found: dict[Genotype, None] = {}
    start = _CALL.search(text)
    while start is not None:
        end = _end_of(text, start.start(), source)
        body = _parsed(text[start.start() : end], source)
        found[_called(body, source)] = None
        start = _CALL.search(text, end)
    if len(found) > 1:
        raise UserError(f"{source} holds {len(found)} different genotypes; keep one (of a log: the last)")
    if not found:
        raise UserError(f"{source} holds no Genotype(...)")
    return next(iter(found))


def read_document(text: str, source: str) -> Any:
    """The value of a text in JSON; or of a dictionary as Python prints it, whose names are in single quotes.

    Raises:
        UserError: neither; names `source`.
    """
    _require_size(text, source)
    if "'" not in text or '"' in text:
        return parse_json(text, source)
    start = len(text) - len(text.lstrip())
    end = _end_of(text, start, source)
    if text[end:].strip():
        raise UserError(f"{source}: more than a dictionary, {shorten(text[end:].strip())} stands behind it")
    return _value(_parsed(text[start:end], source), source)


def translated(document: Any, source: str) -> Any:
    """A decoded object as this package writes genotypes, if it is NNI's dictionary or bare JSON; else itself.

    Raises:
        UserError: NNI's dictionary of no complete pair of cells of DARTS' space; names `source`.
    """
    if isinstance(document, list) and len(document) == 1:  # NNI exports the best few, of which there is one
        (document,) = document
    if not isinstance(document, Mapping):
        return document
    keys = {key for key in document if isinstance(key, str)}
    if any(map(_NNI_ANY.match, keys)):
        return _own(_of_nni(document, source), "exported by NNI")
    if not {"format", "space"} & keys and set(_KEYS) & keys:
        return _own(document, "in DARTS' notation")
    return document


def _own(cells: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The object that a genotype's file holds; tuples and ranges become lists."""
    document: dict[str, Any] = {"format": FORMAT, "space": SPACE}
    for key, value in cells.items():
        if isinstance(value, range):
            value = value[: MAXIMUM_NODES + 1]  # a longer one has a number that is no node's
        if isinstance(value, (list, tuple, range)):
            value = [list(item) if isinstance(item, tuple) else item for item in value]
        document[key] = value
    return document | {"provenance": {"source": f"a genotype {origin}"}}


def _of_nni(document: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """The four parts of a genotype; keys of other choices, such as `width`, are left out."""
    _require_nni_keys(document, source)
    parts: dict[str, Any] = {}
    for kind in _KINDS:
        genes = []
        for node in range(INPUT_NODES, INPUT_NODES + _NNI_NODES):
            for place in range(EDGES_PER_NODE):
                keys = f"{kind}/op_{node}_{place}", f"{kind}/input_{node}_{place}"
                missing = next((key for key in keys if key not in document), None)
                if missing is not None:
                    raise UserError(f"{source}: key '{missing}' of NNI's dictionary is missing")
                operation, read = (document[key] for key in keys)
                genes.append([operation, read[0] if isinstance(read, list) and len(read) == 1 else read])
        parts[kind] = genes
        parts[f"{kind}_concat"] = range(INPUT_NODES, INPUT_NODES + _NNI_NODES)
    return parts


def _require_nni_keys(document: Mapping[Any, Any], source: str) -> None:
    """Refuse keys of a cell that are misspelt, or of a cell that is not of NNI's DARTS space."""
    last = INPUT_NODES + _NNI_NODES - 1
    for key in document:
        if not isinstance(key, str) or not _NNI_ANY.match(key):
            continue
        found = _NNI_KEY.fullmatch(key)
        if found is None:
            raise UserError(
                f"{source}: unknown key {shorten(key)} of NNI's dictionary; those of a cell are as "
                "'normal/op_2_0' and 'normal/input_2_0'"
            )
        if not INPUT_NODES <= int(found[3]) <= last or int(found[4]) >= EDGES_PER_NODE:
            raise UserError(
                f"{source}: key '{key}' is not of NNI's DARTS space, whose inner nodes are {INPUT_NODES} to {last} "
                f"with {EDGES_PER_NODE} operations each; write the cells as JSON with normal_concat and "
                "reduce_concat, which say what forms the output"
            )


def _require_size(text: str, source: str) -> None:
    if len(text) > LARGEST_FILE:
        raise UserError(f"{source}: larger than {LARGEST_FILE} bytes; a genotype is a small text")


def _end_of(text: str, start: int, source: str) -> int:
    """Where the bracket closes that opens first behind `start`; raises UserError for all that is no such text."""
    position, depth = start, 0
    while position - start <= _LONGEST:
        mark = _MARK.match(text, position)
        if mark is None:
            rest = text[position : position + 20]
            why = f"{shorten(rest)} has no meaning there"
            if not rest.strip() or (rest[0] in "'\"" and rest[0] not in text[position + 1 :]):
                why = f"it ends too early, before or in {shorten(text[-20:])}: it was cut off"
            raise UserError(f"{source} is no genotype as DARTS or NNI writes it: {why}")
        if mark["name"] and mark["name"] not in _NAMES:
            hint = nearest(mark["name"], _NAMES)
            raise UserError(f"{source}: {shorten(mark['name'])} is not allowed; {', '.join(_NAMES)} are{hint}")
        depth += bool(mark["open"]) - bool(mark["close"])
        if depth > _DEEPEST:
            raise UserError(f"{source}: nested too deeply for a genotype")
        position = mark.end()
        if mark["close"] and depth <= 0:
            return position
    raise UserError(f"{source}: a genotype of more than {_LONGEST} characters")


def _parsed(text: str, source: str) -> ast.expr:
    """Python's parse of what `_end_of` has looked through."""
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:  # of brackets; of characters that Python does not read
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"{source} is no genotype as DARTS or NNI writes it: {why}") from None


def _called(node: ast.expr, source: str) -> Genotype:
    """The genotype of `Genotype(name=value, ...)`."""
    if not isinstance(node, ast.Call) or node.args or not node.keywords:
        raise UserError(f"{source}: Genotype(...) takes {', '.join(f'{key}=' for key in _KEYS)}")
    given = {str(item.arg): _value(item.value, source) for item in node.keywords}
    if len(given) < len(node.keywords):
        raise UserError(f"{source}: a part of Genotype(...) is given twice")
    return Genotype.from_dict(_own(given, "in DARTS' notation"), source)


def _value(node: ast.expr, source: str) -> Any:
    """A literal, or `range` of numbers, also as a value of a dictionary."""
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key, source) for key in node.keys]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise UserError(f"{source}: keys of a dictionary must be different names")
        return {key: _value(value, source) for key, value in zip(keys, node.values)}
    try:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            return range(*(ast.literal_eval(number) for number in node.args))
        return ast.literal_eval(node)
    except (TypeError, ValueError):
        raise UserError(
            f"{source}: a value is no literal: lists, pairs, names, numbers and range(2, 6) are allowed"
        ) from None
