"""The configs that ship: `configs/` of a checkout, or its copy in an installed package; found by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nge_search.errors import UserError, nearest, plain
from nge_search.files import read_text, user_path
from nge_search.yaml_reader import LARGEST_BYTES

_PACKAGE = Path(__file__).parents[1]
#: Where they are: setup.py copies those of a checkout into the package; a checkout has them beside it.
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
_EXPECTED = "Expected:"


@dataclass(frozen=True)
class ShippedConfig:
    """A config that ships.

    Attributes:
        group: the first word of the command that takes it, which is the name of its folder.
        meaning: the first sentence of its comment.
        expected: time and memory that it is expected to take, as its comment has it.
    """

    group: str
    name: str
    path: Path
    meaning: str
    expected: str


def find_config(given: str | Path, command: str) -> Path:
    """The file that `--config` names: one at that path, else one that ships, by its name, such as `digits`.

    Args:
        command: the command that takes it, such as `search` or `predict train`.

    Raises:
        UserError: what looks like a name is none, or there is no such file, but a config that ships has its name.
            Any other path that leads nowhere comes back, for its reader to say so.
    """
    path, name = user_path(given), str(given)
    if path.is_file() or not name:
        return path
    group = command.split()[0]
    if "/" in name or "." in name:
        ships = not path.exists() and path.suffix == ".yaml" and _ships(path.stem, group)
        if ships:
            raise UserError(
                f"config '{plain(name)}' does not exist; the name '{path.stem}' alone is the one that ships"
            )
        return path
    known = {config.name: config.path for config in shipped_configs() if config.group == group}
    if name in known:
        return known[name]
    if path.exists() or not known:
        return path
    raise UserError(
        f"config '{plain(name)}' is no file, and none of that name ships for `nge {command}`"
        f"{nearest(name, known)}; `nge configs` lists them"
    )


def _ships(name: str, group: str) -> bool:
    """Whether a config of that name ships for a group of commands."""
    with contextlib.suppress(UserError):
        return any(config.name == name for config in shipped_configs(group))
    return False


def shipped_configs(group: str | None = None) -> list[ShippedConfig]:
    """All configs that ship, or those of a group, sorted by group and name.

    Raises:
        UserError: there is no such group, or the installation lacks them.
    """
    root = next((place for place in _PLACES if (place / "search" / "digits.yaml").is_file()), None)
    if root is None:
        raise UserError("this installation holds no configs; install the package again, or work in a checkout")
    groups = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    if group is not None and group not in groups:
        raise UserError(f"'{plain(group)}': configs are for {', '.join(groups)}{nearest(group, groups)}")
    chosen = groups if group is None else [group]
    return [_described(path) for own in chosen for path in sorted((root / own).glob("*.yaml"))]


def _described(path: Path) -> ShippedConfig:
    lines = []
    for line in read_text(path, LARGEST_BYTES).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    expected = [line.removeprefix(_EXPECTED).strip() for line in lines if line.startswith(_EXPECTED)]
    text = " ".join(line for line in lines if not line.startswith(_EXPECTED))
    meaning = text.partition(". ")[0].partition(": ")[0].rstrip(".:")
    return ShippedConfig(path.parent.name, path.stem, path, meaning, " ".join(expected))


def config_lines(configs: Sequence[ShippedConfig]) -> list[str]:
    """A line for each: how it is named, what it is, and what it is expected to take."""
    lines: list[str] = []
    for group in dict.fromkeys(config.group for config in configs):
        own = [config for config in configs if config.group == group]
        width = max(len(config.name) for config in own)
        lines.append(f"nge {group} ... --config NAME")
        for config in own:
            lines.append(f"  {config.name:{width}}  {config.meaning}")
            lines.append(f"  {'':{width}}  {config.expected}")
    return lines
