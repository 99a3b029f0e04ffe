"""Sums of regression trees, as arrays: what boosting has learnt, evaluated without the library that learnt it.

Legend: T trees, K nodes of all trees together, N architectures, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nge_search.errors import UserError

_MOST_NODES = 1 << 22
_AT_ONCE = 1 << 22  # nodes visited side by side


@dataclass(frozen=True)
class Trees:
    """Trees whose nodes stand one tree behind the other, children behind their parents.

    Attributes:
        root_T: the first node of each, int64.
        left_K, right_K: the node that follows where a feature is below a threshold, and where it is not; leaves
            lead to themselves, int64.
        feature_K: which feature decides, int64.
        value_K: the threshold, or what a leaf adds, float64.
    """

    root_T: np.ndarray
    left_K: np.ndarray
    right_K: np.ndarray
    feature_K: np.ndarray
    value_K: np.ndarray

    @staticmethod
    def of_xgboost(model: Mapping[str, Any]) -> Trees:
        """Those of a model as XGBoost writes it in JSON; its constant is left out, as it changes no order."""
        trees: Sequence[Mapping[str, Any]] = model["learner"]["gradient_booster"]["model"]["trees"]
        roots, parts, first = [], [], 0
        for tree in trees:
            left, right = (np.array(tree[f"{side}_children"], dtype=np.int64) for side in ("left", "right"))
            own = np.arange(len(left))
            is_leaf = left < 0
            left, right = (np.where(is_leaf, own, side) + first for side in (left, right))
            feature = np.where(is_leaf, 0, np.array(tree["split_indices"], dtype=np.int64))
            parts.append((left, right, feature, np.array(tree["split_conditions"], dtype=np.float64)))
            roots.append(first)
            first += len(own)
        return Trees(np.array(roots, dtype=np.int64), *(np.concatenate(columns) for columns in zip(*parts)))

    def __call__(self, x_NF: np.ndarray) -> np.ndarray:
        """The sum of the leaves that each row comes to: float64 [N]."""
        at_once = max(1, _AT_ONCE // len(self.root_T))
        parts = [self._sums(x_NF[first : first + at_once]) for first in range(0, len(x_NF), at_once)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _sums(self, x_NF: np.ndarray) -> np.ndarray:
        row_N1 = np.arange(len(x_NF))[:, None]
        node_NT = np.broadcast_to(self.root_T, (len(x_NF), len(self.root_T)))
        while True:
            below_NT = x_NF[row_N1, self.feature_K[node_NT]] < self.value_K[node_NT]
            following_NT = np.where(below_NT, self.left_K[node_NT], self.right_K[node_NT])
            if np.array_equal(following_NT, node_NT):
                return self.value_K[node_NT].sum(axis=1)
            node_NT = following_NT

    def tensors(self) -> dict[str, Tensor]:
        """The arrays by name."""
        return {
            "root": torch.from_numpy(self.root_T),
            "left": torch.from_numpy(self.left_K),
            "right": torch.from_numpy(self.right_K),
            "feature": torch.from_numpy(self.feature_K),
            "value": torch.from_numpy(self.value_K),
        }

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor], features: int) -> Trees:
        """What `tensors` gave, for rows of F features.

        Raises:
            UserError: other tensors, or nodes that lead nowhere, or back.
        """
        names = ("root", "left", "right", "feature", "value")
        if set(tensors) != set(names):
            raise UserError(f"trees are the tensors {', '.join(names)}, not {', '.join(sorted(tensors))[:200]}")
        root, *rest = (tensors[name].numpy() for name in names)
        count = len(rest[0]) if rest[0].ndim == 1 else 0
        sizes = root.ndim == 1 and 1 <= len(root) <= count <= _MOST_NODES and all(a.shape == (count,) for a in rest)
        types = all(tensors[name].dtype == torch.int64 for name in names[:-1])
        if not sizes or not types or tensors["value"].dtype != torch.float64:
            raise UserError("the tensors of trees are not of one length, or of other types")
        own = np.arange(count)
        left, right, feature, _ = rest
        for following in (left, right):
            if (following < own).any() or (following >= count).any():
                raise UserError("a node of a tree leads to none that stands behind it")
        if ((left == own) != (right == own)).any():
            raise UserError("a node of a tree is half a leaf")
        if (feature < 0).any() or (feature >= features).any() or (root < 0).any() or (root >= count).any():
            raise UserError("a tree asks for a feature, or begins at a node, that is not there")
        return Trees(root, *rest)
