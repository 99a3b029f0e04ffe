"""Zero-cost metrics of the architectures of a space, measured on small untrained networks and kept on disk.

`zero_cost_features` gives a row for each architecture, `zero_cost_operations` one for each operation of its graphs.
What the metrics are, and which of them say the same, is told in `zero_cost_metrics`.

A network's weights are drawn from the seed in the order of its operations. Isomorphic architectures therefore
differ, as two trainings would, and so do operations of one type in symmetric positions, which is what TA-GATES
breaks symmetries by.

Legend: N architectures, M metrics of a network, S saliencies of an operation, R operations of a graph, B images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from nge_search.architecture.graph import Graph
from nge_search.data.sources import Dataset
from nge_search.errors import UserError, shorten
from nge_search.keyed_random import Stream, global_generators_kept, permutation
from nge_search.networks.classifier import Classifier
from nge_search.networks.enas_macro import EnasMacroNetwork
from nge_search.networks.nasbench101 import NasBench101Network
from nge_search.networks.nasbench201 import NasBench201Network
from nge_search.predict.zero_cost_cache import Measurement, ZeroCostCache
from nge_search.predict.zero_cost_metrics import METRICS, SALIENCIES, measure_network, weights_of
from nge_search.spaces.base import Code, Space
from nge_search.spaces.enas_macro import KIND as NETWORK

_IMAGE_CHANNELS = 3
#: Goes up when a metric changes, so that no cache hands out former values.
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Examples:
    """A batch that networks are measured on.

    Attributes:
        images_BCHW: floating, normalised.
        label_B: classes, int64.

    Raises:
        UserError: fewer than two images, other shapes, values that are not finite, or negative labels.
    """

    images_BCHW: Tensor
    label_B: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images_BCHW, self.label_B
        if images.ndim != 4 or len(images) < 2 or not images.is_floating_point() or not images.isfinite().all():
            raise UserError(
                f"metrics are measured on at least two images [B, C, H, W] of finite numbers, not on "
                f"{tuple(images.shape)} of {images.dtype}"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or bool((labels < 0).any()):
            raise UserError(f"{len(images)} images need as many classes, counted from 0; got {shorten(labels)}")

    @staticmethod
    def of_dataset(dataset: Dataset, count: int, seed: int = 0) -> Examples:
        """Training images of a data set, drawn by a seed, as evaluation sees them."""
        if count > len(dataset.train):
            raise UserError(f"{dataset.name} has {len(dataset.train)} training images, fewer than {count}")
        positions_B = permutation(len(dataset.train), seed=seed, epoch=0, stream=Stream.SHUFFLE)[:count]
        mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.std))
        images_BCHW = (dataset.train.read(positions_B).float() / 255 - mean_C11) / std_C11
        return Examples(images_BCHW, dataset.train.labels_N[positions_B])

    @staticmethod
    def noise(count: int, side: int, classes: int, seed: int) -> Examples:
        """Images of standard normal numbers, with random classes."""
        generator = torch.Generator().manual_seed(seed)
        images_BCHW = torch.randn(count, _IMAGE_CHANNELS, side, side, generator=generator, dtype=torch.float32)
        return Examples(images_BCHW, torch.randint(classes, (count,), generator=generator))

    @cached_property
    def digest(self) -> str:
        """Of the numbers and labels: 16 hexadecimal digits."""
        found = hashlib.sha256(repr((self.images_BCHW.dtype, tuple(self.images_BCHW.shape))).encode())
        for values in (self.images_BCHW, self.label_B):
            found.update(values.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class ZeroCostSettings:
    """The networks that are measured, and on what; the defaults are the reduced setting, for many architectures.

    Attributes:
        channels: C of the first cell.
        cells: a multiple of three, so that all kinds of cells are there.
        classes: number of classes.
        batch, side: number of noise images, and their side in pixels; not used where there are `examples`.
        seed: of weights and noise.
        examples: images; None: noise.

    Raises:
        UserError: values outside these limits, or a label of the examples that is no class.
    """

    channels: int = 8
    cells: int = 3
    classes: int = 10
    batch: int = 16
    side: int = 16
    seed: int = 0
    examples: Examples | None = None

    def __post_init__(self) -> None:
        limits = {
            "channels": (8, 1024),  # NAS-Bench-101 divides them among up to five vertices
            "cells": (3, 60),
            "classes": (2, 10_000),
            "batch": (2, 4096),
            "side": (4, 1024),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UserError(f"{name} must be an integer from {low} to {high}, not {shorten(value)}")
        if self.cells % 3:
            raise UserError(f"cells must be a multiple of three, not {self.cells}")
        if self.examples is not None and int(self.examples.label_B.max()) >= self.classes:
            raise UserError(f"the examples have class {int(self.examples.label_B.max())}; classes={self.classes}")

    @cached_property
    def inputs(self) -> Examples:
        """The examples, or noise."""
        if self.examples is not None:
            return self.examples
        return Examples.noise(self.batch, self.side, self.classes, self.seed)

    def to_dict(self) -> dict[str, int | str]:
        """What the values depend on, for people and for `digest`."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "examples"}
        if self.examples is not None:
            del named["batch"], named["side"]
            named["examples"] = self.examples.digest
        return {"version": _VERSION, **named}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, the same for settings that measure the same."""
        return hashlib.sha256(repr(sorted(self.to_dict().items())).encode()).hexdigest()[:16]


def zero_cost_features(
    space: Space,
    codes: Sequence[Code],
    settings: ZeroCostSettings = ZeroCostSettings(),
    cache: Path | None = None,
) -> np.ndarray:
    """The metrics of architectures: float64 [N, M], in the order of `METRICS`; all finite.

    Args:
        cache: a folder, made where there is none, in which values are kept and found again; None: none.

    Raises:
        UserError: a space whose networks are not known here, or a cache that cannot be one.
    """
    measured = measure_all(space, codes, settings, cache)
    return np.array([one.network_M for one in measured], dtype=np.float64).reshape(-1, len(METRICS))


def zero_cost_operations(
    space: Space,
    codes: Sequence[Code],
    settings: ZeroCostSettings = ZeroCostSettings(),
    cache: Path | None = None,
) -> list[dict[str, np.ndarray]]:
    """The saliencies of operations: for each architecture and kind of cell float64 [R, S], as `SALIENCIES`.

    Rows are those of the graph's edges, or of its nodes where operations are on nodes; operations without weights
    have zeros. A row is the sum over the layers of the operation and over all cells of the kind; what stands before
    the operations (projections of NAS-Bench-101 and ENAS, DARTS' preprocessing) belongs to none. Otherwise as
    `zero_cost_features`.
    """
    return [one.operations for one in measure_all(space, codes, settings, cache)]


def measure_all(
    space: Space, codes: Sequence[Code], settings: ZeroCostSettings, cache: Path | None = None
) -> list[Measurement]:
    """What is known or measured of each code, with a progress bar on terminals; each is kept at once."""
    graphs = {code: space.graphs(code) for code in dict.fromkeys(codes)}
    keys = {code: architecture_digest(space, own) for code, own in graphs.items()}
    rows = {keys[code]: _row_counts(space, own) for code, own in graphs.items()}
    store = None if cache is None else ZeroCostCache(cache, settings.digest, settings.to_dict())
    known = {} if store is None else store.load(rows)
    bar = tqdm(
        total=len(rows),
        initial=len(known),
        desc="zero-cost",
        unit="architecture",
        leave=False,
        dynamic_ncols=True,
        disable=None,  # but on terminals
    )
    with bar:
        for code, key in keys.items():
            if key not in known:
                known[key] = measure(space, code, settings)
                if store is not None:
                    store.append(key, known[key])
                bar.update()
    return [known[keys[code]] for code in codes]


def measure(space: Space, code: Code, settings: ZeroCostSettings) -> Measurement:
    """Measure one architecture; the global random numbers go on as if nothing had been drawn."""
    inputs, graphs = settings.inputs, space.graphs(code)
    with global_generators_kept(torch.device("cpu")):
        torch.manual_seed(settings.seed)
        network = space.network(
            code,
            channels=settings.channels,
            cells=settings.cells,
            classes=settings.classes,
            image_channels=inputs.images_BCHW.shape[1],
        )
    metrics = measure_network(network, inputs.images_BCHW.to(torch.get_default_dtype()), inputs.label_B)
    row_M = metrics.row()
    if not np.isfinite(row_M).all():
        raise UserError(
            f"{METRICS[int(np.isfinite(row_M).argmin())]} of {space.text(code)} is not finite; normalise the images"
        )
    operations = {kind: np.zeros((count, len(SALIENCIES))) for kind, count in _row_counts(space, graphs).items()}
    for kind, row, layers in operation_layers(network):
        for layer in layers:
            operations[kind][row] += metrics.layer_S[layer]
    return Measurement(row_M, operations)


def architecture_digest(space: Space, graphs: Mapping[str, Graph]) -> str:
    """The name of an architecture as it is numbered: 32 hexadecimal digits. Isomorphic ones differ."""
    written = [
        (kind, graph.nodes, graph.edges, graph.inputs, graph.outputs) for kind, graph in sorted(graphs.items())
    ]
    return hashlib.blake2b(repr((space.name, written)).encode(), digest_size=16).hexdigest()


def operation_layers(network: nn.Module) -> Iterator[tuple[str, int, list[str]]]:
    """For each operation of each cell its kind of cell, its row, and the names of its layers that have weights."""
    layers = weights_of(network)
    names = {module: name for name, module in network.named_modules() if name in layers}
    for kind, first, operations in _cells(network):
        for row, operation in enumerate(operations, start=first):
            yield kind, row, [names[module] for module in operation.modules() if module in names]


def _cells(network: nn.Module) -> Iterator[tuple[str, int, Iterable[nn.Module]]]:
    """Each cell's kind, the row of its first operation, and its operations in the order of edges or nodes."""
    if isinstance(network, NasBench101Network):
        yield from (("cell", 1, cell.operations) for cell in network.cells)  # row 0 is the input's
    elif isinstance(network, NasBench201Network):
        yield from (("cell", 0, cell.operations) for cell in network.cells)
    elif isinstance(network, Classifier):
        yield from (("reduce" if cell.reduction else "normal", 0, cell.operations) for cell in network.cells)
    elif isinstance(network, EnasMacroNetwork):
        for position, layer in enumerate(network.layers):
            yield NETWORK, network.order[position % len(network.order)], [layer.operation]
    else:
        raise UserError(f"no zero-cost metrics for networks of class {type(network).__name__}")


def _row_counts(space: Space, graphs: Mapping[str, Graph]) -> dict[str, int]:
    """R of each kind of cell."""
    on_nodes = space.cell_space.operations_on == "vertices"
    return {kind: len(graph.nodes if on_nodes else graph.edges) for kind, graph in graphs.items()}
