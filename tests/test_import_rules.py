"""How the package is built: which room imports which, no circles, and nothing too long to read at once."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nge_search.kinds import KINDS

#: The rooms that runs are carried out in stand side by side; each is found by its kind's entry.
METHODS = tuple(dict.fromkeys(kind.run.split(".")[1] for kind in KINDS))

#: From the ground up: a room imports itself and what stands before it. What stands later is reached through a
#: registry's "module:name" (`nge_search.registry.resolve`), imported when it is used.
ORDER: tuple[str | tuple[str, ...], ...] = (
    "errors",
    "registry",
    "operation_registry",
    "files",
    "json_reader",
    "yaml_reader",
    "array_reader",
    "tensor_reader",
    "console",
    "keyed_random",
    "counting",
    "own_operations",
    "kinds",
    "settings",
    "recipes",
    "architecture",
    "spaces",
    "native",
    "tables",
    "graph_nn",
    "graph_attention",
    "embedding",
    "operations",
    "metrics",
    "engine",
    "data",
    "supernet",
    "networks",
    METHODS,
    "deploy",
    "report",
    "bench",
    "doctor",
    "api",
    "commands",
    "cli",
    "__init__",
)

#: Imports that break the order, each with its reason: (importing module, imported module) -> why.
EXCEPTIONS: dict[tuple[str, str], str] = {}

#: Former names, for one version: they import what took their place, wherever that stands.
FORMER = ("benchmarks", "config", "schema")

#: Rooms that are read before torch is there (`nge --help`).
TORCH_FREE = (
    "errors",
    "registry",
    "operation_registry",
    "files",
    "json_reader",
    "yaml_reader",
    "console",
    "kinds",
    "settings",
)
HEAVY = ("torch", "torchvision", "numpy", "numba", "timm", "matplotlib", "PIL")

LONGEST_FILE, LONGEST_FUNCTION = 500, 60
#: Longer functions, each with its reason: "file:function" -> why.
LONG_FUNCTIONS: dict[str, str] = {}


#: How a registry names what stands later.
_PLACE = re.compile(r"(nge_search(?:\.\w+)+):(\w+)")


@dataclass(frozen=True)
class Import:
    """One import of our own: from which module, of which, in which line, and whether it happens on importing."""

    source: str
    target: str
    line: int
    at_once: bool

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: imports {self.target}"


def room(module: str) -> str:
    """`nge_search.data.loader` -> data; the package itself is its own last room."""
    return module.split(".")[1] if "." in module else "__init__"


def place_of(name: str) -> int:
    return next(i for i, rooms in enumerate(ORDER) if name in ((rooms,) if isinstance(rooms, str) else rooms))


def _names(node: ast.stmt, module: str, package: bool) -> Iterator[tuple[str, str]]:
    """(module, name in it or "") of an import statement; relative ones by the importing module."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = module.split(".")[: len(module.split(".")) - node.level + package]
        whole = ".".join([*parents, *([node.module] if node.module else [])]) if node.level else node.module or ""
        yield from ((whole, alias.name) for alias in node.names)


def _statements(tree: ast.AST, at_once: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every statement, and whether it is carried out when the module is imported (and not for types alone)."""
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        lazy = lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        if isinstance(node, ast.stmt):
            yield node, at_once
        yield from _statements(node, at_once and not lazy)


def imports_of(trees: Mapping[str, ast.Module], packages: frozenset[str] = frozenset()) -> list[Import]:
    """Imports among modules that are given by name; a name that is itself a module counts as that module."""
    found = []
    for module, tree in trees.items():
        for node, at_once in _statements(tree):
            for target, name in _names(node, module, module in packages):
                inner = f"{target}.{name}"
                if target.split(".")[0] == "nge_search":
                    found.append(Import(module, inner if inner in trees else target, node.lineno, at_once))
    return list(dict.fromkeys(found))


def wrong_way(imports: list[Import]) -> list[str]:
    """The imports of a room that stands later, or beside the importing one."""
    wrong = []
    for one in imports:
        here, there = room(one.source), room(one.target)
        known = (one.source, one.target) in EXCEPTIONS
        if here != there and not known and place_of(there) >= place_of(here):
            wrong.append(str(one))
    return wrong


def circle(imports: list[Import]) -> list[str] | None:
    """The modules of a circle of imports, or None if there is none."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        if one.at_once:
            graph.setdefault(one.source, set()).add(one.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def long_functions(name: str, tree: ast.Module) -> list[str]:
    """Functions of more lines than are read at once, docstring included, that have no stated reason."""
    return [
        f"{name}:{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
        and f"{name}:{node.name}" not in LONG_FUNCTIONS
    ]


def defined(tree: ast.Module) -> set[str]:
    """The names that a module defines or imports at its top."""
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)}
    return names


@pytest.fixture(scope="module")
def files(checkout: Path) -> dict[str, str]:
    """The text of every module of the package and of its tests, by path."""
    paths = [path for top in ("nge_search", "tests") for path in sorted((checkout / top).rglob("*.py"))]
    return {path.relative_to(checkout).as_posix(): path.read_text("utf-8") for path in paths}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.fixture(scope="module")
def trees(files: dict[str, str]) -> dict[str, ast.Module]:
    """The package's modules, parsed, by dotted name; former names are left out."""
    ours = {module_of(path): text for path, text in files.items() if path.startswith("nge_search/")}
    return {name: ast.parse(text) for name, text in ours.items() if room(name) not in FORMER}


@pytest.fixture(scope="module")
def imports(files: dict[str, str], trees: dict[str, ast.Module]) -> list[Import]:
    packages = frozenset(module_of(path) for path in files if path.endswith("/__init__.py"))
    found = imports_of(trees, packages)
    assert len(found) > len(trees)
    return found


def test_every_room_has_its_place(trees: dict[str, ast.Module]) -> None:
    listed = [name for rooms in ORDER for name in (rooms if isinstance(rooms, tuple) else (rooms,))]
    assert len(set(listed)) == len(listed)
    assert {room(module) for module in trees} == set(listed)


def test_no_room_imports_a_later_one(imports: list[Import]) -> None:
    """Neither at the top of a module nor when a function is called; nor does a method import another method."""
    wrong = wrong_way(imports)
    assert not wrong, "\n".join(wrong)
    pairs = {(one.source, one.target) for one in imports}
    assert EXCEPTIONS.keys() <= pairs, "exceptions that are no longer needed"
    assert all(EXCEPTIONS.values())


def test_no_circle(imports: list[Import]) -> None:
    assert circle(imports) is None


def test_settings_need_no_torch(trees: dict[str, ast.Module]) -> None:
    heavy = [
        f"{module}, line {node.lineno}: imports {target}"
        for module, tree in trees.items()
        if room(module) in TORCH_FREE
        for node, _ in _statements(tree)
        for target, _ in _names(node, module, False)
        if target.split(".")[0] in HEAVY
    ]
    assert not heavy


def test_what_registries_name_is_there(trees: dict[str, ast.Module]) -> None:
    places = {
        match.groups()
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (match := _PLACE.fullmatch(node.value))
    }
    assert len(places) >= 3 * len(KINDS)
    assert not {
        (module, name) for module, name in places if module not in trees or name not in defined(trees[module])
    }


def test_the_map_lists_all_rooms_in_their_order(checkout: Path) -> None:
    text = (checkout / "CONTRIBUTING.md").read_text("utf-8")
    places = [place_of(name) for name in re.findall(r"^\| `(\w+)(?:/|\.py)` \|", text, re.MULTILINE)]
    assert places == sorted(places)
    rooms = [rooms for rooms in ORDER[:-1] for _ in (rooms if isinstance(rooms, tuple) else (rooms,))]
    assert places == [ORDER.index(place) for place in rooms]
    assert all(f"`{name}" in text for name in FORMER)


def test_every_room_says_what_it_is(files: dict[str, str], trees: dict[str, ast.Module]) -> None:
    folders = {path.rpartition("/")[0] for path in files if path.startswith("nge_search/")}
    assert not {folder for folder in folders if f"{folder}/__init__.py" not in files}
    assert not [module for module, tree in trees.items() if not ast.get_docstring(tree)]


def test_nothing_is_too_long_to_read(files: dict[str, str]) -> None:
    lengths = {path: text.count("\n") for path, text in files.items()}
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert not [line for path, text in files.items() for line in long_functions(path, ast.parse(text))]
    names = {f"{path}:{name}" for path, text in files.items() for name in re.findall(r"def (\w+)\(", text)}
    assert LONG_FUNCTIONS.keys() <= names, "functions that are no longer there"
    assert all(LONG_FUNCTIONS.values())


def test_the_rules_find_what_they_forbid() -> None:
    def parse(**sources: str) -> list[Import]:
        trees = {f"nge_search.{name.replace('__', '.')}": ast.parse(source) for name, source in sources.items()}
        return imports_of(trees)

    up = parse(engine__loop="def step():\n    from nge_search.data import Loader", data="")
    assert wrong_way(up) == ["nge_search.engine.loop, line 2: imports nge_search.data"]
    assert wrong_way(parse(engine__loop="from ..data.loader import Loader")) == [
        "nge_search.engine.loop, line 1: imports nge_search.data.loader"
    ]
    assert wrong_way(parse(errors="import nge_search")) == ["nge_search.errors, line 1: imports nge_search"]
    assert not wrong_way(parse(data__loader="from nge_search import engine", engine=""))
    beside = f"if TYPE_CHECKING:\n    import nge_search.{METHODS[1]}.run"
    assert len(wrong_way(parse(**{f"{METHODS[0]}__run": beside}))) == 1

    first = "class A:\n    from nge_search.b import c"
    assert circle(parse(a=first, b="import nge_search.a")) is not None
    assert circle(parse(a=first, b="def f():\n    import nge_search.a")) is None
    assert circle(parse(a=first, b="if TYPE_CHECKING:\n    import nge_search.a")) is None
    assert circle(parse(a=first, b="try:\n    import nge_search.a\nfinally:\n    pass")) is not None

    lines = "\n".join(f"    x = {i}" for i in range(LONGEST_FUNCTION - 1))
    assert not long_functions("m.py", ast.parse(f"def f():\n{lines}"))
    assert long_functions("m.py", ast.parse(f"def f():\n{lines}\n    x = 0")) == [
        f"m.py:f has {LONGEST_FUNCTION + 1} lines"
    ]
    assert defined(ast.parse("import a.b\nfrom c import d as e\nf, g = 1, 2\nh: int = 3\ndef i(): j = 1")) == set(
        "aefghi"
    )
