"""YAML that a stranger may have written: size, depth and the values that aliases unfold to are limited."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from nge_search.errors import UserError
from nge_search.files import read_text

LARGEST_BYTES = 1 << 17
_DEEPEST = 32
_MOST_VALUES = 20_000


def read_yaml(path: Path, limit: int = LARGEST_BYTES) -> Any:
    """The value of a YAML file of at most `limit` bytes; UserError, naming it, as `parse_yaml`."""
    return parse_yaml(read_text(path, limit), str(path))


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text, of YAML's safe types; `source` names it in messages.

    Raises:
        UserError: it is no YAML, nested too deeply, unfolds to too many values, names a key twice, or has a value
            that its own tag does not allow.
    """
    try:
        return _Limited(text).get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise UserError(f"{source}: nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # YAML's constructors stumble over what a tag or a pattern promised: !!int '', !!bool maybe, month 13
        raise UserError(f"{source}: a value that is not what it claims to be ({error})") from None


class _Limited(yaml.SafeLoader):
    """A safe loader that counts what it composes; an alias counts as all that it stands for."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._values
        self._values, self._depth = before + 1, self._depth + 1
        if self._depth > _DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            if id(node) not in self._sizes:
                raise yaml.constructor.ConstructorError(None, None, "a value that contains itself", node.start_mark)
            self._values = before + self._sizes[id(node)]
        if self._values > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "too many values", node.start_mark)
        self._sizes[id(node)] = self._values - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(names)) < len(names):
            double = next(name for name, count in Counter(names).items() if count > 1)
            raise yaml.constructor.ConstructorError(None, None, f"key '{double}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)
