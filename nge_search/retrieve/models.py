"""Encoders by name, as settings offer them: untrained controls, the published networks, and ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from nge_search.errors import UserError
from nge_search.retrieve.choosing import Candidate
from nge_search.retrieve.embedders import (
    DiscriminantEmbedder,
    NetworkEmbedder,
    NetworkSettings,
    UntrainedEmbedder,
)
from nge_search.retrieve.fingerprints import CONTROLS, FingerprintSettings
from nge_search.retrieve.motifs import MotifSettings
from nge_search.retrieve.own import OwnEmbedder, OwnSettings
from nge_search.retrieve.smoothing import Smoothing
from nge_search.retrieve.training import ViewTraining
from nge_search.settings.names import RETRIEVERS, UNTRAINED_RETRIEVERS, require_names

#: Called after each epoch of a network with the stage, the epoch and its mean loss.
Tell = Callable[[str, int, float], None]

require_names(CONTROLS, UNTRAINED_RETRIEVERS)

#: Encoders that are networks, as published; `views` is ours.
NETWORKS: dict[str, NetworkSettings] = {
    "nar": NetworkSettings(motifs=MotifSettings()),
    "gcn": NetworkSettings(),
    "gat": NetworkSettings(kind="attention"),
    "views": NetworkSettings(width=128, dropout=0.0, attributes=True, on_families=None, on_views=ViewTraining()),
}


@dataclass(frozen=True)
class Ours:
    """One of our encoders, and how what it embeds is smoothed."""

    settings: OwnSettings
    smoothing: Smoothing = Smoothing()


_SMOOTHING = Smoothing(neighbours=8, kept=0.5)

OURS: dict[str, Ours] = {
    "own": Ours(OwnSettings(), _SMOOTHING),
    "own_plain": Ours(OwnSettings()),
    "own_code": Ours(OwnSettings(((FingerprintSettings(rounds=1, labels="names", idf=0.5), 1.0),), features=1024)),
    "own_families": Ours(OwnSettings(alike="families"), _SMOOTHING),
    "own_views": Ours(OwnSettings(alike="views"), _SMOOTHING),
}

require_names((*CONTROLS, "lda", *NETWORKS, *OURS), RETRIEVERS)

#: Those that learn from the names of families.
FROM_FAMILIES = ("lda", "nar", "gcn", "gat", "own_families")

#: Options of networks by the part of `NetworkSettings` that they change, and their names there.
_PARTS: dict[str, dict[str, str]] = {
    "": {"width": "width", "layers": "layers", "heads": "heads", "dropout": "dropout"},
    "motifs": {
        "split": "split",
        "steps": "steps",
        "labels": "labels",
        "motif_size": "size",
        "motif_count": "count",
    },
    "on_motifs": {
        "motif_epochs": "epochs",
        "motif_batch_size": "batch_size",
        "motif_learning_rate": "learning_rate",
    },
    "on_families": {
        **{name: name for name in ("epochs", "batch_size", "learning_rate", "temperature", "contrast", "classify")}
    },
    "on_views": {name: name for name in ("epochs", "batch_size", "learning_rate", "temperature")},
}


def candidate(
    name: str, options: Mapping[str, Any], device: torch.device | str = "cpu", tell: Tell | None = None
) -> Candidate:
    """What makes the encoder of a name, and how it is smoothed; `options` as for `configured`."""
    if name in NETWORKS:
        settings = configured(name, options)
        return Candidate(lambda: NetworkEmbedder(settings, device, tell), families=name in FROM_FAMILIES)
    if name in CONTROLS:
        return Candidate(lambda: UntrainedEmbedder(CONTROLS[name]), families=False)
    if name == "lda":
        return Candidate(DiscriminantEmbedder)
    own = OURS[name]
    return Candidate(lambda: OwnEmbedder(own.settings, device), own.smoothing, name in FROM_FAMILIES)


def configured(name: str, options: Mapping[str, Any]) -> NetworkSettings:
    """The settings of a network, changed by those of some options (`EncoderSection.given`) that it has."""
    settings = NETWORKS[name]
    for part, known in _parts(name).items():
        if given := {known[option]: options[option] for option in known if option in options}:
            own = {part: replace(getattr(settings, part), **given)} if part else given
            settings = replace(settings, **own)
    return settings


def _parts(name: str) -> dict[str, dict[str, str]]:
    """The parts of `_PARTS` that a network has."""
    settings = NETWORKS[name]
    found = {part: known for part, known in _PARTS.items() if not part or getattr(settings, part) is not None}
    if settings.motifs is None:
        found.pop("on_motifs", None)
    return found


def require_taken(options: Mapping[str, Any], models: Collection[str]) -> None:
    """Raise UserError for an option that none of the models has."""
    networks = [name for name in models if name in NETWORKS]
    known = {option for name in networks for part in _parts(name).values() for option in part}
    for option in options:
        if option not in known:
            raise UserError(
                f"encoder.{option}: {', '.join(models)} {'has' if len(models) == 1 else 'have'} no such option; "
                f"leave it out (networks are {', '.join(NETWORKS)})"
            )
