"""The candidate operations by name: those of the package, and those that users register in modules of their own.

Such a module is a plugin. It is imported when the user's own command, config file or Python program names it, never
because a run folder, an export or a genotype does: what these name, and nobody has imported, is refused in one line
that says which plugin has it. `nge COMMAND --trust-code` imports it all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakSet

from nge_search.errors import UserError, nearest, plain, shorten

#: From channels, stride (1 or 2) and whether normalisations are affine to a module (see `register_operation`).
Build = Callable[[int, int, bool], Any]


@dataclass(frozen=True, eq=False)  # a plugin's `build` may be an object that has no hash
class Operation:
    """A candidate operation.

    Attributes:
        build: "module:function" of the package's own, which take rates besides (`operations.build_operation`).
        parameter_free: whether it has no weights at stride 1: those a collapsed search fills its cells with.
        plugin: the module that registered it; empty for the package's own.
    """

    build: str | Build
    parameter_free: bool = False
    plugin: str = ""


_OPERATIONS = {
    "skip_connect": Operation("nge_search.operations:skip", parameter_free=True),
    "max_pool_3x3": Operation("nge_search.operations:max_pool", parameter_free=True),
    "avg_pool_3x3": Operation("nge_search.operations:avg_pool", parameter_free=True),
    "sep_conv_3x3": Operation("nge_search.operations:sep_conv_3x3"),
    "sep_conv_5x5": Operation("nge_search.operations:sep_conv_5x5"),
    "dil_conv_3x3": Operation("nge_search.operations:dil_conv_3x3"),
    "dil_conv_5x5": Operation("nge_search.operations:dil_conv_5x5"),
    "sep_conv_7x7": Operation("nge_search.operations:sep_conv_7x7"),
    "conv_7x1_1x7": Operation("nge_search.operations:conv_7x1_1x7"),
}
#: The package's own, in the order in which they were added.
BUILT_IN = tuple(_OPERATIONS)
#: Names that mean something else in a space or a drawing.
_RESERVED = ("none", "input", "output", "sum", "concat")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_LONGEST_MODULE = 200

#: The plugin of what a program or notebook registers itself.
PROGRAM = "__main__"

#: What is said where operations are named and none fits.
OF_YOURS = "operations of your own are known once plugins=[MODULE] names their module"

#: Modules that were imported as plugins, and registered operations or imported others that did.
_plugins: WeakSet[ModuleType] = WeakSet()
#: Whether a plugin is being imported, and whether those that files name may be.
_importing = False
_trusts_files = False


def names() -> tuple[str, ...]:
    """Of all operations, the package's own first."""
    return tuple(_OPERATIONS)


def find(name: str) -> Operation:
    """The operation of a name; KeyError where there is none."""
    return _OPERATIONS[name]


def is_parameter_free(name: str) -> bool:
    """Whether it is an operation without weights, at stride 1."""
    return name in _OPERATIONS and _OPERATIONS[name].parameter_free


def plugins_of(operations: Iterable[str]) -> dict[str, str]:
    """The plugin of each operation that is not the package's own, by name."""
    found = {name: _OPERATIONS[name].plugin for name in sorted(set(operations)) if name in _OPERATIONS}
    return {name: plugin for name, plugin in found.items() if plugin}


def register_operation(name: str, build: Build, *, parameter_free: bool = False) -> None:
    """Add an operation, which searches, genotypes and networks may name from here on.

    Args:
        name: lower-case letters, digits and underscores, at most 40.
        build: `build(channels, stride, affine)` gives a new `torch.nn.Module` each time. From images [B, channels,
            H, W] it computes [B, channels, ceil(H / stride), ceil(W / stride)], for strides 1 and 2, of the input's
            type and finite where that is, and leaves its input as it is. `affine` is False in a supernet, whose
            batch normalisations have no scale and shift, and True in a derived network. All its parameters learn;
            constants and state are buffers that are saved (no `persistent=False`). It also builds under
            `torch.device("meta")`, where tensors have no values.
        parameter_free: it has no weights at stride 1; reports count it with skips and pools.

    Raises:
        UserError: a name that is malformed or taken, or a `build` that cannot be called.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise UserError(
            f"operation {shorten(name)}: a name has at most 40 lower-case letters, digits and underscores, begins "
            f"with a letter, and is none of {', '.join(_RESERVED)}"
        )
    if not callable(build):
        raise UserError(f"operation '{name}': build must be a function of channels, stride and affine")
    if not isinstance(parameter_free, bool):
        raise UserError(f"operation '{name}': parameter_free={shorten(parameter_free)}: give True or False")
    plugin = _caller(sys._getframe(1))
    known = _OPERATIONS.get(name)
    if known is not None and (known.plugin != plugin or plugin != PROGRAM):  # a notebook's cell may run again
        owner = f"of '{known.plugin}'" if known.plugin else "of the package"
        raise UserError(f"operation '{name}' is registered already, {owner}; choose another name")
    _OPERATIONS[name] = Operation(build, parameter_free, plugin)


def _caller(frame: FrameType) -> str:
    """The module that registers; while plugins are imported it is the innermost of them, and not what it calls."""
    inner: FrameType | None = frame if _importing else None
    while inner is not None and inner.f_code.co_name != "<module>":
        inner = inner.f_back
    return str((inner or frame).f_globals.get("__name__") or PROGRAM)


def trust_files(allowed: bool) -> None:
    """Whether plugins that run folders, exports and genotypes name may be imported; at first they may not."""
    global _trusts_files
    _trusts_files = allowed


def files_are_trusted() -> bool:
    """What `trust_files` was told."""
    return _trusts_files


def require_operation(name: str, plugins: Mapping[str, str]) -> None:
    """Import the plugin that a file names for an operation which is not known, if files are trusted.

    An operation of no plugin is left to whoever checks names.

    Raises:
        UserError: it is of a plugin that may not be, or cannot be, imported.
    """
    if name in _OPERATIONS or name not in plugins:
        return
    plugin = plugins[name]
    if plugin == PROGRAM:
        raise UserError(
            f"operation {shorten(name)} was registered by a program or notebook; register it first, or put it into "
            "a module that plugins=[MODULE] names"
        )
    if not _trusts_files:
        raise UserError(
            f"operation {shorten(name)} is of the plugin {shorten(plugin)}, which is not imported because a file "
            f"names it; if you trust it, add plugins=[{plain(plugin)}] (in Python: import it), or --trust-code"
        )
    import_plugins([plugin])
    if name not in _OPERATIONS:
        raise UserError(f"operation {shorten(name)}: the plugin '{plugin}' does not register it (any more)")


def unknown_operation(name: object) -> str:
    """What is said of a name that no operation has."""
    known, given = names(), shorten(name)
    return f"unknown operation {given}; allowed are {', '.join(known)}{nearest(given, known)}; {OF_YOURS}"


def import_plugins(modules: Iterable[str]) -> None:
    """Import modules that register operations, from the current folder or as they are installed.

    Raises:
        UserError: no name of a module, none that is there, one that fails, or one that registers nothing.
    """
    for module in modules:
        if not isinstance(module, str) or len(module) > _LONGEST_MODULE or not _MODULE.fullmatch(module):
            raise UserError(
                f"plugins=[{plain(str(module))}]: name a Python module, as my_ops for my_ops.py in this folder"
            )
        there, known = module in sys.modules, len(_OPERATIONS)
        imported = _import(module)
        if len(_OPERATIONS) > known or any(_is_of(own, module) for own in _OPERATIONS.values()):
            _plugins.add(imported)
        if imported not in _plugins:
            if not there:
                sys.modules.pop(module, None)  # so that a file that was mended is read anew
            place = getattr(imported, "__file__", None)
            raise UserError(
                f"plugins=[{module}]: {f'{place!r}' if place else 'it'} registers no operation; call "
                "nge_search.register_operation in it, or give your module a name that no other has"
            )


def _is_of(operation: Operation, module: str) -> bool:
    """Whether a plugin has registered an operation, or a module of the package that it is."""
    return f"{operation.plugin}.".startswith(f"{module}.")


def _import(module: str) -> ModuleType:
    """Import one, and where it fails leave nothing that modules registered which failed with it."""
    global _importing
    before, registered, complete = _importing, set(_OPERATIONS), False
    _importing = True
    try:
        with _current_folder():
            imported = importlib.import_module(module)
        complete = True
        return imported
    except UserError as error:
        raise UserError(f"plugins=[{module}]: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"plugins=[{module}]: {_why(module, error)}") from None
    finally:
        _importing = before
        if not complete:  # Python has forgotten the modules that failed, and keeps those that were whole
            lost = [name for name, own in _OPERATIONS.items() if own.plugin not in sys.modules]
            for name in set(lost) - registered:
                del _OPERATIONS[name]


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Within it modules of the current folder are found, behind those that are installed."""
    folder = os.getcwd()
    there = folder in sys.path or "" in sys.path
    importlib.invalidate_caches()
    if not there:
        sys.path.append(folder)
    try:
        yield
    finally:
        if not there and folder in sys.path:
            sys.path.remove(folder)


def _why(module: str, error: BaseException) -> str:
    """What an import failed of."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return f"there is no module '{plain(error.name)}', neither in this folder nor installed"
    place = traceback.extract_tb(error.__traceback__)[-1]
    at = "" if isinstance(error, SyntaxError) else f" ({os.path.basename(place.filename)}, line {place.lineno})"
    return f"importing it fails: {type(error).__name__}: {plain(str(error), 200)}{at}"
