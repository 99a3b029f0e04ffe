"""From a YAML file and `key=value` words to a checked configuration, with one-line errors and `--help`.

The schema of a kind of run is the class that its entry in `nge_search.kinds` names; how a value is read is in
`nge_search.settings.values`; merging is OmegaConf's.
"""

from __future__ import annotations

import dataclasses
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nge_search import kinds, operation_registry
from nge_search.errors import UserError, from_os_error, nearest, plain, shorten
from nge_search.files import read_text, user_path
from nge_search.kinds import Kind
from nge_search.registry import resolve
from nge_search.settings.base import THE_DEFAULT, Section
from nge_search.settings.run import RunningConfig
from nge_search.settings.shipped import find_config
from nge_search.settings.values import read_path, read_value, read_word
from nge_search.yaml_reader import LARGEST_BYTES, Written, parse_written

Config = TypeVar("Config", bound=RunningConfig)

#: Of a file's name, in bytes, on the usual file systems.
_LONGEST_NAME = 255

#: Of a key, more than any key has.
_MOST_PARTS = 8

#: How many settings a message names that are not as they were.
_DIFFERENCES = 3

#: What is in the folder of a run, also where its mark was lost on the way, or in that of an export.
_OF_FOLDERS = (kinds.MARK, kinds.ENVIRONMENT, kinds.SUMMARY, kinds.METRICS, ".nge-export")


def load_config(
    schema: type[Config], path: str | Path | None = None, overrides: Sequence[str | Mapping[str, Any]] = ()
) -> Config:
    """Defaults, then the YAML file, then the overrides (`key=value` words, or nested mappings).

    What follows from a file's settings (`implied`) goes before the file; from overrides, behind it.

    Args:
        path: of the file, or the name of one that ships (`find_config`).

    Raises:
        UserError: an unreadable file, an unknown key, a value of the wrong type or out of its limits,
            or settings that do not go together.
    """
    settings = {setting.key: setting for setting in _settings(schema)}
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        own = kinds.find(schema.kind)
        path = user_path(path) if own is None else find_config(path, own.command)
        layers.append((str(path), _read_yaml(path)))
    layers.extend(("", _layer(item, schema, settings)) for item in overrides)
    merged = OmegaConf.structured(schema)
    if path is not None and _is_of_run(Path(path)):
        for key, setting in settings.items():
            if setting.unset != setting.default:
                OmegaConf.update(merged, key, setting.unset)
    given: dict[str, Any] = {}
    typed: set[str] = set()
    for source, layer in layers:
        try:
            for key, value in _checked(layer, schema):
                given[key] = settings[key].read(value)
                OmegaConf.update(merged, key, given[key])
                if not source:
                    typed.add(key)
        except UserError as error:
            raise UserError(f"{source}: {error}" if source else str(error)) from None
        except OmegaConfBaseException as error:
            raise UserError(f"{source or layer}: {str(error).splitlines()[0]}") from None
    late = schema.implied({key: value for key, value in given.items() if key in typed})
    for key, value in schema.implied(given).items():
        if key not in (typed if key in late else given):
            OmegaConf.update(merged, key, value)
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(config, schema)
    if not config.run.name:
        config.run.name = Path(path).stem if path is not None else "default"
    if not config.run.dir:
        _require_folder_name(config.run.name)
        config.run.dir = _default_folder(schema.kind, config.run.name)
    return config


def _is_of_run(path: Path) -> bool:
    """Whether a file holds the settings that a run had: it may be from before some of them were there."""
    return path.name == kinds.CONFIG and any(
        (path.parent / name).exists() for name in (kinds.METRICS, "checkpoints")
    )


def _default_folder(kind: str, name: str) -> str:
    """runs/<kind>/<name>; where there is none, but one of the kind's former name, that one."""
    folder = Path("runs") / kind / name
    known = kinds.find(kind)
    before = [] if known is None or folder.exists() else [Path("runs") / old / name for old in known.formerly]
    return str(next((path for path in before if path.is_dir()), folder))


def _require_folder_name(name: str) -> None:
    """Refuse a run's name that, as the name of its folder, would lead elsewhere or be mistaken for another one."""
    why = None
    if "/" in name or name in (".", ".."):
        why = "it names a folder below runs/, so it holds no '/' and is not '..'; set run.dir= for another place"
    elif name.startswith("~"):
        why = "a folder of that name is easily taken for a home folder; choose another"
    elif name != name.strip():
        why = "it begins or ends with a blank, which nobody sees in a folder's name"
    elif not name.isprintable():
        why = "control characters are not allowed"
    elif len(name.encode("utf-8")) > _LONGEST_NAME:
        why = f"longer than {_LONGEST_NAME} bytes, which the name of a folder may have"
    if why:
        raise UserError(f"run.name={shorten(name)}: {why}")


def schema_of(kind: Kind) -> type[RunningConfig]:
    """The class of a kind's configurations."""
    return resolve(kind.settings)


def kind_for(
    command: str, path: str | Path | None = None, overrides: Sequence[str | Mapping[str, Any]] = ()
) -> Kind:
    """The kind of run that a command starts: by the `task` that the file, or after it an override, names last.

    Raises:
        UserError: a file that cannot be read, or a task that the command does not have.
    """
    choices = kinds.of_command(command)
    tasks = [kind.task for kind in choices]
    layers: list[Mapping[str, Any]] = [] if path is None else [_read_yaml(find_config(path, command))]
    for item in overrides:
        if isinstance(item, Mapping):
            layers.append(item)
        elif str(item).startswith("task="):
            layers.append({"task": read_word(*_split(item), (str,))})
    named = [layer["task"] for layer in layers if "task" in layer]
    if not named:
        return choices[0]
    given = read_value("task", named[-1], (str,))
    task = kinds.current_task(given)
    if task not in tasks:
        raise UserError(f"task={plain(given)}: allowed are {', '.join(tasks)}{nearest(given, tasks)}")
    return choices[tasks.index(task)]


def import_named_plugins(
    path: str | Path | None = None,
    overrides: Sequence[str | Mapping[str, Any]] = (),
    command: str = "search",
) -> None:
    """Import the plugins that a user's own config file, or after it an override, names last.

    Configurations that are read from run folders go by this function.

    Args:
        path: as of `load_config`.
        command: which takes the file, as `search` or `predict train`.

    Raises:
        UserError: a plugin that cannot be imported, a file that is no config of the command, or one that lies in
            the folder of a run or an export.
    """
    named, source = None, None
    if path is not None:
        source = find_config(path, command)
        named = _read_yaml(source).get("plugins")
    for item in overrides:
        given = None
        if isinstance(item, Mapping):
            given = item.get("plugins")
        elif str(item).startswith("plugins="):
            given = read_word(*_split(item), (list,))
        if given is not None:
            named, source = given, None
    modules = [] if named is None else read_value("plugins", named, (list,))
    if modules and source is not None and not operation_registry.files_are_trusted():
        _require_own_config(source, modules, schema_of(kind_for(command, source, overrides)))
    operation_registry.import_plugins(modules)


def _require_own_config(source: Path, modules: Sequence[str], schema: type[RunningConfig]) -> None:
    """Refuse a file that is no config, or, links followed, lies in the folder of a run or an export."""
    try:
        for _ in _checked(_read_yaml(source), schema):
            pass
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    real = source.resolve()
    theirs = (*_OF_FOLDERS, *(["checkpoints"] if real.name == kinds.CONFIG else []))
    if any((real.parent / name).exists() for name in theirs):
        raise UserError(
            f"{source} is the file of a run or an export, whose plugins are not imported; if you trust them, add "
            f"plugins=[{plain(','.join(modules))}] to the command, or --trust-code"
        )


def to_dict(config: RunningConfig) -> dict[str, Any]:
    """Plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def to_yaml(config: RunningConfig) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def inputs(config: RunningConfig) -> Iterator[tuple[str, str]]:
    """Key and value of every setting that names something to read, if it is given."""
    values = dict(flatten(to_dict(config)))
    for setting in _settings(type(config)):
        if setting.item.metadata["path"] and setting.key != "run.dir" and values[setting.key]:
            yield setting.key, values[setting.key]


def differences(old: Mapping[str, Any], config: RunningConfig) -> str:
    """`key was X, now Y` for up to three settings that a resumed run may not change; empty if there is none."""
    found = []
    old_values = dict(flatten(old))
    new_values = dict(flatten(to_dict(config)))
    for setting in _settings(type(config)):
        before, now = old_values.get(setting.key, setting.unset), new_values[setting.key]
        if setting.key == "task":
            before = kinds.current_task(before)
        if before == now or setting.item.metadata["free_on_resume"] or _grows(setting, before, now):
            continue
        only = ", and may only grow" if setting.item.metadata["may_grow"] else ""
        found.append(f"{setting.key} was {shorten(before)}, now {shorten(now)}{only}")
    more = f"; and {len(found) - _DIFFERENCES} more" if len(found) > _DIFFERENCES else ""
    return "; ".join(found[:_DIFFERENCES]) + more


def grown(old: Mapping[str, Any], config: RunningConfig) -> dict[str, tuple[Any, Any]]:
    """By key what was and what is, of settings that may grow and have since a run of the settings `old`."""
    old_values, new_values = dict(flatten(old)), dict(flatten(to_dict(config)))
    pairs = {
        setting: (old_values.get(setting.key, setting.default), new_values[setting.key])
        for setting in _settings(type(config))
    }
    return {setting.key: pair for setting, pair in pairs.items() if _grows(setting, *pair)}


def _grows(setting: _Setting, before: Any, now: Any) -> bool:
    return bool(setting.item.metadata["may_grow"]) and type(before) is int and now > before


def help_text(schema: type[RunningConfig]) -> str:
    """Every key with its default, its allowed values and its meaning."""
    lines = []
    section = ""
    for setting in _settings(schema):
        if setting.key.rpartition(".")[0] != section:
            section = setting.key.rpartition(".")[0]
            lines.append("")
        lines.append(f"  {setting.key}={_shown(setting.default)}")
        meaning, choices = setting.item.metadata["meaning"], setting.item.metadata["choices"]
        if choices and list not in setting.types:
            meaning += f" ({' | '.join(choices)})"
        lines.extend(textwrap.wrap(meaning, 92, initial_indent="      ", subsequent_indent="      "))
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A default as a user would type it."""
    if isinstance(value, list):
        return "[" + ",".join(value) + "]"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a config file; their scalars as they are written."""
    try:
        text = read_text(path, LARGEST_BYTES)
    except UserError as error:
        raise UserError(f"config file {error}") from None
    except OSError as error:
        raise from_os_error(error) or UserError(f"config file '{path}': {error.strerror}") from None
    content = parse_written(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is a list of 'section: keys', not {shorten(content)}")
    return content


def _split(word: str) -> tuple[str, str]:
    """The key, and everything behind the first `=`."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UserError(f"'{plain(word)}' is not a setting; write key=value, for example search.epochs=25")
    return key, text


def _layer(item: str | Mapping[str, Any], schema: type, settings: Mapping[str, _Setting]) -> Mapping[str, Any]:
    """A `key=value` word as a nested mapping; mappings as they are."""
    if isinstance(item, Mapping):
        return item
    if not isinstance(item, str):
        raise UserError(f"{shorten(item)} is not a setting; write key=value, or give a mapping")
    key, text = _split(item)
    if key in settings:
        value = read_word(key, text, settings[key].types)
    else:
        value = read_word(key, text, None) if key in _sections(schema) else Written(text)
    for part in reversed(key.split(".", _MOST_PARTS)):
        value = {part: value}
    return value


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One leaf of the schema: its dotted key, what `option` recorded, and the Python types it takes."""

    key: str
    item: dataclasses.Field
    types: tuple[type, ...]

    @property
    def default(self) -> Any:
        factory = self.item.default_factory
        return self.item.default if factory is dataclasses.MISSING else factory()

    @property
    def unset(self) -> Any:
        """What runs had from before the setting was there."""
        unset = self.item.metadata["unset"]
        return self.default if unset is THE_DEFAULT else unset

    def read(self, value: Any) -> Any:
        """What was written, or a Python object, as a value of the setting; UserError if it is none."""
        if self.key == "task":
            return kinds.current_task(read_value(self.key, value, self.types))
        if self.item.metadata["may_grow"] and isinstance(value, Written) and value.text.strip().startswith("+"):
            raise UserError(f"{self.key}={shorten(value.text)}: give the number of all, not of those to be added")
        if self.item.metadata["path"]:
            return read_path(self.key, value, self.default)
        return read_value(self.key, value, self.types)


def _sections(schema: type) -> dict[str, type]:
    hints = typing.get_type_hints(schema)
    names = [item.name for item in dataclasses.fields(schema)]
    return {
        name: hints[name] for name in names if isinstance(hints[name], type) and issubclass(hints[name], Section)
    }


def _settings(schema: type, prefix: str = "") -> Iterator[_Setting]:
    """Every setting of the schema, in its order."""
    sections, hints = _sections(schema), typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        if item.name in sections:
            yield from _settings(sections[item.name], f"{prefix}{item.name}.")
        else:
            hint = hints[item.name]
            union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            accepted = typing.get_args(hint) if union else (typing.get_origin(hint) or hint,)
            yield _Setting(prefix + item.name, item, accepted)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _checked(tree: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; refuses keys that the schema does not have."""
    sections = _sections(schema)
    names = [item.name for item in dataclasses.fields(schema)]
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in names:
            if isinstance(value, Mapping):
                key = next((inner for inner, _ in flatten(value, f"{key}.")), key)
            if "." in str(name):
                raise UserError(f"key '{plain(key)}': in a file, write each part of it as a section of its own")
            raise UserError(f"unknown key '{plain(key)}'{_suggest(key, schema, prefix)}; --help lists all keys")
        if name in sections:
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{key}={shorten(value)}: '{key}' is a section; set one of its keys, as {key}.KEY=value"
                )
            yield from _checked(value, sections[name], f"{key}.")
        elif isinstance(value, Mapping):
            raise UserError(f"{key}={shorten(value)}: takes one value, not a section")
        else:
            yield key, value


def _suggest(key: str, schema: type, prefix: str) -> str:
    """The nearest valid key: by its last part within the section, else by the whole."""
    keys = [setting.key for setting in _settings(schema, prefix)] + [prefix + name for name in _sections(schema)]
    same_name = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"; did you mean '{same_name[0]}'?" if same_name else nearest(key, keys)
