"""What an exported folder says of its network, for settings that follow from its weights; read without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import GENOTYPE
from nge_search.settings.names import EXPORTED

#: The file of an export that says what it is.
MODEL_FILE = "config.json"

_LARGEST = 1 << 12


def settings_of_export(given: Mapping[str, Any], kinds: Collection[str], sizes: Collection[str]) -> dict[str, Any]:
    """The settings that make the network of an exported classifier, by their keys; empty for any other weights.

    Nothing is looked at where all of them are given, as in the file of a run, which may outlive the export.

    Args:
        given: settings by their keys, `network.weights` perhaps among them.
        kinds: of `EXPORTED`, the kinds of networks that it may be of.
        sizes: names of settings of the section `network` that its sizes are.

    Raises:
        UserError: a config.json that is damaged, or of another kind of network.
    """
    weights, follow = given.get("network.weights", ""), {"genotype", *sizes}
    if len(kinds) > 1:
        follow.add("kind")
    if not weights or all(f"network.{name}" in given for name in follow):
        return {}
    folder = user_path(weights)
    path = folder / MODEL_FILE
    if not path.is_file():
        return {}
    document = Reader(str(path), read_json(path))
    architecture = document.document.get("architecture")
    kind = next((kind for kind, name in EXPORTED.items() if name == architecture), None)
    if kind is None:
        return {}
    if kind not in kinds:
        raise UserError(
            f"network.weights={weights}: exported from network.kind={kind}, but needed are weights of "
            f"{' or '.join(kinds)}"
        )
    own = document.section("model_args")
    found: dict[str, Any] = {name: own.integer(name, 1, _LARGEST) for name in sizes if name in own.document}
    if "kind" in follow:
        found["kind"] = kind
    if (folder / GENOTYPE).is_file():
        found["genotype"] = str(folder)
    return {f"network.{name}": value for name, value in found.items()}
