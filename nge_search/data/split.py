"""Which images train the weights, which train the architecture, and which are held out or left out.

Legend: N images, C classes; labels_N int64 on the CPU. Every choice by class goes through `choose_per_class`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nge_search.errors import UserError
from nge_search.keyed_random import Stream, permutation
from nge_search.settings.data import DataSection

_FEWEST_PER_CLASS = 2


def split_train_valid(
    labels_N: Tensor, classes: Sequence[str], config: DataSection, seed: int
) -> tuple[Tensor, Tensor]:
    """Divide a training set into the images that train the weights and those that train the architecture.

    `data.split=stratified` takes `data.valid_fraction` of every class (to within one image) for the architecture,
    at random by `seed`; `file_order` takes the last part of the files, as DARTS' train_search.py does.

    Returns:
        (train_index, valid_index): sorted int64, disjoint, together 0 .. N - 1; each holds every class.

    Raises:
        UserError: a class would be missing from one of the two parts.
    """
    sizes_C = class_sizes(labels_N, len(classes))
    for name, size in zip(classes, sizes_C.tolist()):
        if size < _FEWEST_PER_CLASS:
            raise config.refuse(
                "split", f"class '{name}' has {size} training images; a split needs at least {_FEWEST_PER_CLASS}"
            )
    if config.split == "file_order":
        count = len(labels_N)
        train_count = math.floor((1 - config.valid_fraction) * count + 1e-9)
        valid_N = torch.arange(count) >= train_count
        _check_file_order(labels_N, valid_N, classes, config)
    else:
        counts_C = share_per_class(sizes_C, config.valid_fraction)
        valid_N = choose_per_class(labels_N, counts_C, seed=seed, stream=Stream.SPLIT)
    return _positions(~valid_N), _positions(valid_N)


def hold_out(labels_N: Tensor, count_classes: int, fraction: float) -> tuple[Tensor, Tensor]:
    """The same (kept, held_out) sorted positions on every call: `fraction` of every class is held out.

    At least one image of each class is held out, and two are kept; so each class needs three.
    """
    counts_C = share_per_class(class_sizes(labels_N, count_classes), fraction, keep=_FEWEST_PER_CLASS)
    held_out_N = choose_per_class(labels_N, counts_C, seed=0, stream=Stream.HOLD_OUT)
    return _positions(~held_out_N), _positions(held_out_N)


def limited(labels_N: Tensor, count_classes: int, config: DataSection) -> Tensor:
    """Sorted positions of the images that `data.limit` lets in: the same for every seed.

    Raises:
        UserError: the limit leaves fewer than two images per class.
    """
    fewest = _FEWEST_PER_CLASS * count_classes
    if 0 < config.limit < fewest:
        raise config.refuse(
            "limit", f"too few for {count_classes} classes; at least {fewest} ({_FEWEST_PER_CLASS} per class)"
        )
    if config.limit == 0 or config.limit >= len(labels_N):
        return torch.arange(len(labels_N))
    counts_C = equal_per_class(class_sizes(labels_N, count_classes), config.limit)
    return _positions(choose_per_class(labels_N, counts_C, seed=0, stream=Stream.LIMIT))


def few_per_class(labels_N: Tensor, index_M: Tensor, count_classes: int, limit: int) -> Tensor:
    """At most `limit` of the positions, equally many of each class, sorted and the same for every seed; 0: all."""
    if limit == 0 or limit >= len(index_M):
        return index_M
    labels_M = labels_N[index_M]
    counts_C = equal_per_class(class_sizes(labels_M, count_classes), limit)
    return index_M[_positions(choose_per_class(labels_M, counts_C, seed=0, stream=Stream.LIMIT))]


def class_sizes(labels_N: Tensor, count_classes: int) -> Tensor:
    """Images per class: int64 [C]."""
    return torch.bincount(labels_N, minlength=count_classes)


def share_per_class(sizes_C: Tensor, fraction: float, keep: int = 1) -> Tensor:
    """How many images of each class make up `fraction` of the whole: int64 [C], by the largest remainders.

    Every count is the exact share rounded down or up, then moved into [1, size - keep].
    """
    exact_C = sizes_C.double() * fraction
    counts_C = exact_C.floor().long()
    missing = round(int(sizes_C.sum()) * fraction) - int(counts_C.sum())
    largest = torch.argsort(exact_C - counts_C, descending=True, stable=True)
    counts_C[largest[:missing]] += 1
    return counts_C.clamp(min=1).minimum(sizes_C - keep)


def equal_per_class(sizes_C: Tensor, limit: int) -> Tensor:
    """Counts [C] that add up to `limit` and differ by at most one, except where a class has no more images."""
    level = _largest_level(sizes_C, limit)
    counts_C = sizes_C.clamp(max=level)
    with_more = (sizes_C > level).nonzero()[:, 0]
    counts_C[with_more[: limit - int(counts_C.sum())]] += 1
    return counts_C


def choose_per_class(labels_N: Tensor, counts_C: Tensor, *, seed: int, stream: int) -> Tensor:
    """A random choice of counts_C[c] images of each class c: bool [N], fixed by (seed, stream)."""
    shuffled_N = permutation(len(labels_N), seed=seed, epoch=0, stream=stream)
    order_N = shuffled_N[torch.argsort(labels_N[shuffled_N], stable=True)]
    sorted_labels_N = labels_N[order_N]
    sizes_C = class_sizes(labels_N, len(counts_C))
    first_C = sizes_C.cumsum(0) - sizes_C
    rank_N = torch.arange(len(labels_N)) - first_C[sorted_labels_N]
    chosen_N = torch.zeros(len(labels_N), dtype=torch.bool)
    chosen_N[order_N] = rank_N < counts_C[sorted_labels_N]
    return chosen_N


def _largest_level(sizes_C: Tensor, limit: int) -> int:
    """The largest count per class whose sum, with no class above its size, does not exceed `limit`."""
    level = limit // len(sizes_C)
    while True:
        spare = limit - int(sizes_C.clamp(max=level).sum())
        able = int((sizes_C > level).sum())
        if able == 0 or spare < able:
            return level
        level += spare // able


def _check_file_order(labels_N: Tensor, valid_N: Tensor, classes: Sequence[str], config: DataSection) -> None:
    for part, words in ((~valid_N, "first"), (valid_N, "last")):
        missing = [name for name, size in zip(classes, class_sizes(labels_N[part], len(classes))) if size == 0]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"data.split=file_order: the {words} part of the files lacks class '{missing[0]}'{more} "
                "(files sorted by class?); set data.split=stratified"
            )


def _positions(mask_N: Tensor) -> Tensor:
    return mask_N.nonzero()[:, 0]
