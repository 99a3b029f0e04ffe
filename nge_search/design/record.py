"""What was drawn, as a JSON object: the cells, how each grew, and what taught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nge_search.design.generator import Distinct, Generator, Step
from nge_search.design.growth import Rules
from nge_search.json_reader import read_json
from nge_search.spaces import Code


def document(
    rules: Rules,
    generator: Generator,
    found: Distinct,
    teaching: Rules,
    good: Sequence[Code],
    bad: Sequence[Code],
) -> dict[str, Any]:
    """Drawn cells with the steps by which they grew.

    Args:
        rules: of the drawn cells.
        generator: that drew them.
        found: the cells, and the numbers of their draws.
        teaching: rules of the cells that taught, which `good` and `bad` are.
    """
    cells = []
    for code, number in zip(found.codes, found.numbers):
        _, steps = generator.record(number)
        cells.append({"draw": number, **_cell(rules, code, steps)})
    texts = {"good": list(map(teaching.space.text, good)), "bad": list(map(teaching.space.text, bad))}
    return {"space": rules.space.name, "draws": found.draws, "cells": cells, "teachers": texts}


def read_document(path: Path) -> dict[str, Any]:
    """What `document` has made; raises UserError for a file that is no JSON object."""
    return read_json(path)
