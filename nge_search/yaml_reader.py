"""YAML that a stranger may have written: size, depth and the values that aliases unfold to are limited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from nge_search.errors import UserError

LARGEST_BYTES = 1 << 17
_DEEPEST = 32
_MOST_VALUES = 20_000
_TEXT_TAG = "tag:yaml.org,2002:str"

_Read = TypeVar("_Read")


@dataclass(frozen=True, repr=False)
class Written:
    """A scalar as it was written, quotes and escapes undone, before anybody reads a number or a date into it."""

    text: str

    def __repr__(self) -> str:
        return self.text


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text, of YAML's safe types; `source` names it in messages.

    Raises:
        UserError: it is no YAML, nested too deeply, unfolds to too many values, names a key twice, or has a value
            that its own tag does not allow.
    """
    return _within_limits(lambda: _Limited(text).get_single_data(), source)


def parse_written(text: str, source: str) -> Any:
    """A YAML text as dictionaries, lists, and a `Written` for each scalar; None where it is empty.

    Raises:
        UserError: as `parse_yaml`; a key that is no scalar, or a tag (`!!int`) other than that of text.
    """

    def read() -> Any:
        loader = _Limited(text)
        node = loader.get_single_node()
        return None if node is None else _written(node, loader)

    return _within_limits(read, source)


def _within_limits(read: Callable[[], _Read], source: str) -> _Read:
    try:
        return read()
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # YAML's constructors stumble over what a tag or a pattern promised: !!int '', !!bool maybe, month 13
        raise UserError(f"{source}: a value that is not what it claims to be ({error})") from None


def _written(node: yaml.Node, loader: yaml.SafeLoader) -> Any:
    _refuse_tag(node, loader)
    if isinstance(node, yaml.ScalarNode):
        return Written(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_written(value, loader) for value in node.value]
    loader.flatten_mapping(node)  # <<: *other
    found = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused("a key that is not a name", key.start_mark)
        _refuse_tag(key, loader)
        found[key.value] = _written(value, loader)
    return found


def _refuse_tag(node: yaml.Node, loader: yaml.SafeLoader) -> None:
    """A tag asks for a reading of its own; the setting's type alone decides."""
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    value = node.value if isinstance(node, yaml.ScalarNode) else None
    if node.tag not in (_TEXT_TAG, loader.resolve(type(node), value, (is_plain, not is_plain))):
        raise _Refused(f"the tag '{node.tag}' is not supported; leave it out, or quote the value", node.start_mark)


class _Refused(yaml.constructor.ConstructorError):
    """YAML that is well-formed and yet not taken."""

    def __init__(self, why: str, mark: Any):
        super().__init__(None, None, why, mark)


class _Limited(yaml.SafeLoader):
    """A safe loader that counts what it composes; an alias counts as all that it stands for."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._depth = 0
        self._deepest = 0
        self._values = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of a node: its values, and how deep it is

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        before, deepest = self._values, self._deepest
        self._values, self._depth = before + 1, self._depth + 1
        self._deepest = self._depth
        self._require_shallow()
        node = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._sizes:
                raise _Refused("a value that contains itself", node.start_mark)
            values, depth = self._sizes[id(node)]
            self._values, self._deepest = before + values, self._depth + depth
            self._require_shallow()
        if self._values > _MOST_VALUES:
            raise _Refused("too many values", node.start_mark)
        self._sizes[id(node)] = self._values - before, self._deepest - self._depth
        self._depth, self._deepest = self._depth - 1, max(deepest, self._deepest)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise _Refused(f"key '{key.value}' is given twice", key.start_mark)
                seen.add(key.value)
        return node

    def _require_shallow(self) -> None:
        if self._deepest > _DEEPEST:
            raise RecursionError
