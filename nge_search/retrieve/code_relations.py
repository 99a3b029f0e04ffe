"""Which models of transformers take over code of others: what their `modular_*.py` files import, not run."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from nge_search.errors import UserError


def code_relations(models: Path | None = None) -> list[tuple[str, str]]:
    """(model, model that it takes classes from), as names of folders, sorted; none of a model to itself.

    Args:
        models: the folder of transformers' models; None: of the package that is installed.

    Raises:
        UserError: transformers is not installed.
    """
    found = set()
    for path in sorted((models or _installed()).glob("*/modular_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        found |= {(path.parent.name, name) for name in _taken_from(ast.walk(tree)) if name != path.parent.name}
    return sorted(found)


def _taken_from(nodes: Iterable[ast.AST]) -> Iterable[str]:
    """The folders of models that classes are imported from: `from ..llama.modeling_llama import LlamaMLP`."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if node.level == 0 and parts[:2] == ["transformers", "models"]:
                parts = parts[2:]
            elif node.level != 2:
                continue
            if len(parts) > 1 and any(alias.name[0].isupper() and not alias.name.isupper() for alias in node.names):
                yield parts[0]


def _installed() -> Path:
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("transformers is not installed; install it: pip install 'nge-search[retrieve]'")
    return Path(next(iter(spec.submodule_search_locations))) / "models"
