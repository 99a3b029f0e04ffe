"""From a YAML file and `key=value` words to a checked configuration, with one-line errors and `--help`.

The schema is `nge_search.schema`; merging and conversion are OmegaConf's.
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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nge_search.errors import UserError, nearest, plain, shorten
from nge_search.schema import SEARCH_TASKS, TASKS, EvalConfig, RunningConfig, SearchConfig, Section
from nge_search.schema_benchmark import BenchmarkConfig
from nge_search.schema_segmentation import SegmentationConfig

Config = TypeVar("Config", bound=RunningConfig)

_MAXIMUM_BYTES = 1 << 20
_DEEPEST = 32
_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def load_config(
    schema: type[Config], path: str | Path | None = None, overrides: Sequence[str | Mapping[str, Any]] = ()
) -> Config:
    """Defaults, then the YAML file, then the overrides (`key=value` words, or nested mappings).

    Raises:
        UserError: an unreadable file, an unknown key, a value of the wrong type or out of its limits,
            or settings that do not go together.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _read_yaml(Path(path))))
    layers.extend(("", _parse_word(item) if isinstance(item, str) else item) for item in overrides)
    settings = {setting.key: setting for setting in _settings(schema)}
    merged = OmegaConf.structured(schema)
    for source, layer in layers:
        try:
            for key, value in _flatten(layer, schema):
                _check_value(value, settings[key])
                OmegaConf.update(merged, key, value)
        except UserError as error:
            raise UserError(f"{source}: {error}" if source else str(error)) from None
        except OmegaConfBaseException as error:
            raise UserError(f"{source or layer}: {str(error).splitlines()[0]}") from None
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None
    assert isinstance(config, schema)
    if not config.run.name:
        config.run.name = Path(path).stem if path is not None else "default"
    if not config.run.dir:
        config.run.dir = str(Path("runs") / schema.kind / config.run.name)
    return config


def training_schema(
    path: str | Path | None = None, overrides: Sequence[str | Mapping[str, Any]] = ()
) -> type[EvalConfig] | type[SegmentationConfig]:
    """The schema of `train_eval.py`'s settings: by the `task` that the file, or after it an override, names."""
    return SegmentationConfig if _task(path, overrides, TASKS) == "segmentation" else EvalConfig


def search_schema(
    path: str | Path | None = None, overrides: Sequence[str | Mapping[str, Any]] = ()
) -> type[SearchConfig] | type[BenchmarkConfig]:
    """The schema of `train_search.py`'s settings, told as by `training_schema`."""
    return BenchmarkConfig if _task(path, overrides, SEARCH_TASKS) == "benchmark" else SearchConfig


def _task(path: str | Path | None, overrides: Sequence[str | Mapping[str, Any]], tasks: Sequence[str]) -> str:
    """The task that is named last; the first of `tasks` where none is."""
    layers = [] if path is None else [_read_yaml(Path(path))]
    layers += [_parse_word(item) if isinstance(item, str) else dict(item) for item in overrides]
    task = next((layer["task"] for layer in reversed(layers) if "task" in layer), tasks[0])
    if task not in tasks:
        hint = nearest(str(task), tasks)
        raise UserError(f"task={plain(str(task))}: allowed are {', '.join(tasks)}{hint}")
    return str(task)


def to_dict(config: RunningConfig) -> dict[str, Any]:
    """Plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def to_yaml(config: RunningConfig) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def first_difference(old: Mapping[str, Any], config: RunningConfig) -> str | None:
    """`key was X, now Y` for the first setting that a resumed run may not change; None if there is none."""
    old_values = dict(_flatten_plain(old))
    new_values = dict(_flatten_plain(to_dict(config)))
    for setting in _settings(type(config)):
        before, now = old_values.get(setting.key, setting.default), new_values[setting.key]
        if before != now and not setting.item.metadata["free_on_resume"]:
            return f"{setting.key} was {shorten(before)}, now {shorten(now)}"
    return None


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
    if path.is_dir():
        raise UserError(f"config file '{path}' is a folder; name a YAML file in it")
    if not path.is_file():
        raise UserError(f"config file '{path}' does not exist; see the configs folder for some")
    if path.stat().st_size > _MAXIMUM_BYTES:
        raise UserError(f"{path}: larger than {_MAXIMUM_BYTES} bytes; a config is a small YAML file")
    try:
        _require_shallow(path.read_text(encoding="utf-8"))
        loaded = OmegaConf.load(path)
        content = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else loaded
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a config") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{path}: not a config file ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a config is a list of 'section: keys', not {type(content).__name__}")
    return content


def _require_shallow(text: str) -> None:
    """Raise RecursionError for YAML nested so deeply that reading it would exhaust the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise RecursionError


def _parse_word(word: str) -> dict[str, Any]:
    key, equals, _ = word.partition("=")
    if not equals or not key:
        raise UserError(f"'{plain(word)}' is not a setting; write key=value, for example search.epochs=25")
    try:
        _require_shallow(word.partition("=")[2])
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([word]))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise UserError(
            f"'{plain(word)}': the value cannot be read; quote it if it holds brackets or colons"
        ) from None
    except RecursionError:
        raise UserError(f"{plain(key)}: nested too deeply") from None
    assert isinstance(parsed, dict)
    return parsed


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
            kinds = typing.get_args(hint) if union else (typing.get_origin(hint) or hint,)
            yield _Setting(prefix + item.name, item, kinds)


def _flatten_plain(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten_plain(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _flatten(tree: Mapping[str, Any], schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; refuses keys that the schema does not have."""
    sections = _sections(schema)
    names = [item.name for item in dataclasses.fields(schema)]
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in names:
            if isinstance(value, Mapping):
                key = next((inner for inner, _ in _flatten_plain(value, f"{key}.")), key)
            if "." in str(name):
                raise UserError(f"key '{plain(key)}': in a file, write each part of it as a section of its own")
            raise UserError(f"unknown key '{plain(key)}'{_suggest(key, schema, prefix)}; --help lists all keys")
        if name in sections:
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{key}={shorten(value)}: '{key}' is a section; set one of its keys, as {key}.KEY=value"
                )
            yield from _flatten(value, sections[name], f"{key}.")
        elif isinstance(value, Mapping):
            raise UserError(f"{key}={shorten(value)}: takes one value, not a section")
        else:
            yield key, value


def _suggest(key: str, schema: type, prefix: str) -> str:
    """The nearest valid key: by its last part within the section, else by the whole."""
    keys = [setting.key for setting in _settings(schema, prefix)] + [prefix + name for name in _sections(schema)]
    same_name = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"; did you mean '{same_name[0]}'?" if same_name else nearest(key, keys)


def _check_value(value: Any, setting: _Setting) -> None:
    """Refuse a value that OmegaConf would refuse at length, or convert in a way that hides a mistake."""
    key, allowed, given = setting.key, setting.types, type(value)
    if isinstance(value, str) and "${" in value:
        raise UserError(f"{key}={shorten(value)}: references (${{...}}) are not supported; write the value")
    if isinstance(value, str) and not value.isprintable():
        raise UserError(f"{key}={shorten(value)}: control characters are not allowed")
    if value == "???":
        raise UserError(f"{key}: has no value")
    if list in allowed:
        if given is not list or not all(isinstance(element, str) for element in value):
            raise UserError(f"{key}={shorten(value)}: must be a list of names, as [a,b]")
        return
    number_for_float = given is int and float in allowed
    number_for_text = given in (int, float) and str in allowed
    if given not in allowed and not number_for_float and not number_for_text:
        words = " or ".join(_TYPE_WORDS[kind] for kind in allowed)
        raise UserError(f"{key}={shorten(value)}: must be {words}")
