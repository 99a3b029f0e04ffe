"""Trained embedders in files: read again, they give the same embeddings, bit for bit.

Legend: N graphs that were fitted, W words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nge_search.errors import UserError
from nge_search.retrieve.embedders import Embedder, NetworkEmbedder, NetworkSettings, UntrainedEmbedder
from nge_search.retrieve.encoders import LabelNumbers
from nge_search.retrieve.fingerprints import Bag, Fingerprint, FingerprintSettings
from nge_search.retrieve.motifs import MotifSettings
from nge_search.retrieve.own import OwnEmbedder, OwnSettings
from nge_search.retrieve.saved import read_saved, write_saved
from nge_search.retrieve.training import GraphTraining, MotifTraining, ViewTraining

KIND = "retrieval encoder"

Arrays = dict[str, np.ndarray]


def write_embedder(path: Path, embedder: Embedder, about: Mapping[str, Any] | None = None) -> None:
    """Write an embedder that was fitted: a fingerprint, a network, or ours.

    Args:
        about: what else the file shall say, as JSON, such as versions and the command that made it.

    Raises:
        UserError: an embedder of another kind.
        OSError: it cannot be written.
    """
    arrays, document = _state(embedder)
    write_saved(path, KIND, arrays, {"embedder": document, "about": dict(about or {})})


def read_embedder(path: Path) -> tuple[Embedder, dict[str, Any]]:
    """What `write_embedder` wrote, and what it said about it.

    Raises:
        UserError: no such file, a damaged one, or one of another kind.
    """
    arrays, document = read_saved(path, KIND)
    try:
        return _restored(arrays, document["embedder"]), dict(document["about"])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged ({error})") from None


def _state(embedder: Embedder) -> tuple[Arrays, dict[str, Any]]:
    if isinstance(embedder, UntrainedEmbedder):
        arrays, settings = _fingerprint_state(embedder.fingerprint, "")
        return arrays, {"kind": "untrained", "fingerprint": settings}
    if isinstance(embedder, NetworkEmbedder):
        arrays, settings = _network_state(embedder, "")
        return arrays, {"kind": "network", "network": settings}
    if isinstance(embedder, OwnEmbedder):
        return _own_state(embedder)
    raise UserError(f"embedders of the kind {type(embedder).__name__} are not written to files")


def _restored(arrays: Arrays, document: dict[str, Any]) -> Embedder:
    if document["kind"] == "untrained":
        untrained = UntrainedEmbedder(FingerprintSettings())
        untrained.fingerprint = _fingerprint(arrays, document["fingerprint"], "")
        return untrained
    if document["kind"] == "network":
        return _network(arrays, document["network"], "")
    if document["kind"] == "own":
        return _own(arrays, document)
    raise ValueError(f"unknown kind '{document['kind']}'")


def _fingerprint_state(fingerprint: Fingerprint, prefix: str) -> tuple[Arrays, dict[str, Any]]:
    arrays = {f"{prefix}word": fingerprint.word_W, f"{prefix}idf": fingerprint.idf_W}
    return arrays, {"settings": asdict(fingerprint.settings), "unseen": fingerprint.unseen}


def _fingerprint_settings(document: dict[str, Any]) -> FingerprintSettings:
    return FingerprintSettings(**{**document, "motifs": MotifSettings(**document["motifs"])})


def _fingerprint(arrays: Arrays, document: dict[str, Any], prefix: str) -> Fingerprint:
    found = Fingerprint(_fingerprint_settings(document["settings"]))
    found.word_W, found.idf_W = arrays[f"{prefix}word"].view(np.uint64), arrays[f"{prefix}idf"]
    found.unseen = float(document["unseen"])
    if found.word_W.shape != found.idf_W.shape or found.word_W.ndim != 1:
        raise ValueError("words and their weights differ in number")
    return found


def _network_state(network: NetworkEmbedder, prefix: str) -> tuple[Arrays, dict[str, Any]]:
    parts = {"motif_encoder": network.motif_encoder, "encoder": network.encoder}
    arrays = {
        f"{prefix}{part}.{name}": tensor.detach().cpu().numpy()
        for part, module in parts.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    document = {"settings": asdict(network.settings), "labels": network.labels.names, "seed": network.seed}
    return arrays, document


def _network_settings(document: dict[str, Any]) -> NetworkSettings:
    made = {
        "motifs": MotifSettings,
        "on_motifs": MotifTraining,
        "on_families": GraphTraining,
        "on_views": ViewTraining,
    }
    parts = {key: None if document[key] is None else kind(**document[key]) for key, kind in made.items()}
    return NetworkSettings(**{**document, **parts})


def _network(arrays: Arrays, document: dict[str, Any], prefix: str) -> NetworkEmbedder:
    network = NetworkEmbedder(_network_settings(document["settings"]))
    network.start(LabelNumbers(tuple(map(str, document["labels"]))), int(document["seed"]))
    for part, module in (("motif_encoder", network.motif_encoder), ("encoder", network.encoder)):
        if module is not None:
            start = f"{prefix}{part}."
            own = {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
            module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in own.items()})
    return network


def _own_state(own: OwnEmbedder) -> tuple[Arrays, dict[str, Any]]:
    arrays: Arrays = {"map": own.map_ND}
    fingerprints = []
    for number, (fingerprint, bags) in enumerate(zip(own.fingerprints, own.bags)):
        found, document = _fingerprint_state(fingerprint, f"{number}.")
        arrays |= found
        arrays[f"{number}.size"] = np.array([len(words) for words, _ in bags], np.int32)
        places = [np.searchsorted(fingerprint.word_W, words) for words, _ in bags]
        arrays[f"{number}.place"] = np.concatenate(places).astype(np.int32)
        if fingerprint.settings.weight != "presence":
            arrays[f"{number}.count"] = np.concatenate([counts for _, counts in bags]).astype(np.int32)
        fingerprints.append(document)
    settings = asdict(own.settings)
    document = {"kind": "own", "settings": settings, "fingerprints": fingerprints}
    if own.network is not None:
        found, document["network"] = _network_state(own.network, "network.")
        arrays |= found
    return arrays, document


def _own(arrays: Arrays, document: dict[str, Any]) -> OwnEmbedder:
    given = document["settings"]
    fingerprints = tuple((_fingerprint_settings(own), float(weight)) for own, weight in given["fingerprints"])
    network = None if given["network"] is None else _network_settings(given["network"])
    own = OwnEmbedder(OwnSettings(**{**given, "fingerprints": fingerprints, "network": network}))
    own.fingerprints = [_fingerprint(arrays, part, f"{n}.") for n, part in enumerate(document["fingerprints"])]
    own.bags = [_bags(arrays, fingerprint, f"{n}.") for n, fingerprint in enumerate(own.fingerprints)]
    own.x_NW, own.map_ND = own.vectors(own.bags), arrays["map"]
    if own.map_ND.ndim != 2 or own.x_NW.shape[0] != len(own.map_ND):
        raise ValueError("the map does not fit the graphs")
    if network is not None:
        own.network = _network(arrays, document["network"], "network.")
    return own


def _bags(arrays: Arrays, fingerprint: Fingerprint, prefix: str) -> list[Bag]:
    words = fingerprint.word_W[arrays[f"{prefix}place"]]
    counts = arrays.get(f"{prefix}count", np.ones(len(words), np.int64))
    size_N = arrays[f"{prefix}size"]
    if (size_N < 0).any() or size_N.sum() != len(words) or len(counts) != len(words):
        raise ValueError("its bags of words do not fit together")
    ends = np.cumsum(size_N)[:-1]
    return list(zip(np.split(words, ends), np.split(counts, ends)))
