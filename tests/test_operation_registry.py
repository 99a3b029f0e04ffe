"""Plugins that import others, or fail half-way: whose an operation is, and what stays of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.operation_registry import import_plugins, names, plugins_of

BEGIN = "from nge_search import register_operation\n"
INNER = "register_operation('inner_op', print)\n"
OUTER = "import inner\nregister_operation('outer_op', print)\n"


@pytest.fixture(autouse=True)
def modules(no_plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder; afterwards Python has forgotten the modules that a test wrote into it."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(**modules: str) -> None:
    for name, text in modules.items():
        Path(f"{name}.py").write_text(BEGIN + text)


def owners() -> dict[str, str]:
    return plugins_of(names())


def test_an_operation_is_of_the_module_that_registers_it() -> None:
    """Not of one that imports it, nor of one whose function is called."""
    tools = "def add(name):\n    register_operation(name, print)\n"
    write(inner=INNER, outer=OUTER, tools=tools, user="import tools\ntools.add('user_op')\n")
    import_plugins(["outer", "inner", "user"])
    assert owners() == {"inner_op": "inner", "outer_op": "outer", "user_op": "user"}
    with pytest.raises(UserError, match=r"plugins=\[tools\]: .*tools\.py. registers no operation"):
        import_plugins(["tools"])


def test_a_module_may_gather_others() -> None:
    write(inner=INNER, gathers="import inner\n")
    for _ in range(2):
        import_plugins(["gathers"])
    assert owners() == {"inner_op": "inner"}


def test_a_package_is_the_plugin_of_its_parts() -> None:
    Path("lab").mkdir()
    Path("lab/ops.py").write_text(BEGIN + INNER)
    Path("lab/__init__.py").write_text("from lab import ops\n")
    for name in ("lab", "lab", "lab.ops"):
        import_plugins([name])
    assert owners() == {"inner_op": "lab.ops"}


def test_what_fails_takes_its_own_operations_with_it_alone() -> None:
    """And once it is mended it is imported, in the same process."""
    write(inner=INNER, outer=f"{OUTER}1 / 0\n")
    with pytest.raises(UserError, match=r"plugins=\[outer\]: importing it fails: ZeroDivisionError"):
        import_plugins(["outer"])
    assert owners() == {"inner_op": "inner"}
    import_plugins(["inner"])
    write(outer=OUTER)
    import_plugins(["outer"])
    assert owners() == {"inner_op": "inner", "outer_op": "outer"}


def test_what_registers_nothing_may_be_mended() -> None:
    write(outer="")
    with pytest.raises(UserError, match="registers no operation"):
        import_plugins(["outer"])
    write(outer=INNER)
    import_plugins(["outer"])
    assert owners() == {"inner_op": "outer"}
