"""What an exported folder says of its network, for settings that follow from its weights; read without torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nge_search.errors import UserError
from nge_search.files import user_path
from nge_search.json_reader import Reader, read_json
from nge_search.kinds import GENOTYPE
from nge_search.settings.names import EXPORTED

#: The file of an export that says what it is.
MODEL_FILE = "config.json"

_LARGEST = 1 << 12


def settings_of_export(weights: str, kinds: Collection[str], sizes: Collection[str]) -> dict[str, Any]:
    """The settings that make the network of an exported classifier, by their keys; empty for any other weights.

    Args:
        weights: the setting `network.weights`.
        kinds: of `EXPORTED`, the kinds of networks that it may be of.
        sizes: names of settings of the section `network` that its sizes are.

    Raises:
        UserError: a config.json that is damaged, or of another kind of network.
    """
    folder = user_path(weights)
    path = folder / MODEL_FILE
    if not weights or not path.is_file():
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
    given = document.section("model_args")
    found: dict[str, Any] = {name: given.integer(name, 1, _LARGEST) for name in sizes if name in given.document}
    if len(kinds) > 1:
        found["kind"] = kind
    if (folder / GENOTYPE).is_file():
        found["genotype"] = str(folder)
    return {f"network.{name}": value for name, value in found.items()}
