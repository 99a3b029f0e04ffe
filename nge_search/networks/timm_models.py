"""The networks as timm models: after this import `timm.create_model("nge_cifar", genotype="darts_v2")` works.

`nge_cifar` is `CifarNetwork` and `nge_imagenet` is `ImageNetNetwork`, with the same names of tensors but without
the auxiliary head. What `nge export` writes loads with `timm.create_model("local-dir:FOLDER", pretrained=True)`
from timm 1.0.26 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.cell_space import reduction_positions
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import load_genotype
from nge_search.counting import is_whole
from nge_search.errors import UserError, shorten
from nge_search.networks.cifar import CifarNetwork
from nge_search.networks.classifier import Classifier, drop_path_factors
from nge_search.networks.families import FAMILIES
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.settings.data import DATASETS
from nge_search.settings.names import EXPORTED

#: timm's name of each kind of network.
ARCHITECTURES = EXPORTED

#: The layers that timm adapts to images of other channels, and to other classes.
_FIRST_CONVOLUTIONS = {"cifar": "stem.0", "imagenet": "stem0.0"}
_CLASSIFIER = "classifier"


class TimmClassifier(Classifier):
    """timm's interface of a model, in front of one of our networks.

    Args:
        genotype: whatever `load_genotype` takes, such as a published name, a path or an object of the JSON format;
            or a `Genotype`.
        num_classes: number of classes; 0: the pooled features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier, in training.
        drop_path_rate: probability of dropping an operation's output, per image, in training.
        global_pool: "avg", or "" for the map itself, which goes with num_classes=0.
        sizes: `channels`, `cells` and, for CIFAR, `stem_multiplier`, as the network takes them.

    Raises:
        UserError: a genotype, a rate or a pooling that cannot be used.
    """

    stem_reductions: ClassVar[dict[str, int]]

    def __init__(
        self,
        genotype: str | Path | Mapping[str, Any] | Genotype = "darts_v2",
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        **sizes: int,
    ):
        if not 0 <= drop_path_rate < 1:
            raise UserError(f"drop_path_rate={drop_path_rate}: must be at least 0 and below 1")
        super().__init__(
            _resolve(genotype), classes=max(num_classes, 1), image_channels=in_chans, auxiliary=False, **sizes
        )
        self.in_chans = in_chans
        self.drop_rate, self.drop_path_rate = drop_rate, drop_path_rate
        self.num_features = self.head_hidden_size = self.cells[-1].c_out
        self.num_classes, self.global_pool = num_classes, global_pool
        if num_classes == 0 or global_pool != "avg":
            self.reset_classifier(num_classes, global_pool)
        self.feature_info = self._describe_features()

    def extra_repr(self) -> str:
        rates = f"drop_rate={self.drop_rate}, drop_path_rate={self.drop_path_rate}"
        return f"{super().extra_repr()}, global_pool='{self.global_pool}', {rates}"

    def _describe_features(self) -> list[dict[str, Any]]:
        """timm's list of feature maps: behind each stem, the last cell before each reduction, and the last of all.

        Where `output_stride` keeps a resolution, `reduction` is that of the map all the same.
        """
        info: list[dict[str, Any]] = []
        for stem, reduction in self.stem_reductions.items():
            *_, norm = self.get_submodule(stem).children()
            assert isinstance(norm, nn.BatchNorm2d)
            info.append({"num_chs": norm.num_features, "reduction": reduction, "module": stem})
        for last in (end - 1 for end in _resolution_ends(len(self.cells))):
            info.append(
                {"num_chs": self.cells[last].c_out, "reduction": self.reductions[last], "module": f"cells.{last}"}
            )
        return info

    # timm's methods take images alone and return a tensor alone, where a classifier of ours does more.

    def forward_features(self, x_BCHW: Tensor) -> Tensor:  # type: ignore[override]
        """Output of the last cell, [B, num_features, H, W]."""
        return super().forward_features(x_BCHW, self._draw_keep(x_BCHW))[0]

    def _draw_keep(self, x_BCHW: Tensor) -> Tensor | None:
        """Drop-path's factors of a batch in training, [B, drop_slots]."""
        if not (self.training and self.drop_path_rate):
            return None
        drawn_BD = torch.rand(len(x_BCHW), self.drop_slots, device=x_BCHW.device)
        return drop_path_factors(drawn_BD, self.drop_path_rate)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's feature maps of an image batch, those of `feature_info`, in rising order of position.

        Args:
            x: images, [B, C, H, W].
            indices: which maps: positions, negative ones from the end; a number: the last so many; None: all.
            norm: without effect, nothing is normalised behind a cell.
            stop_early: compute no cell behind the last map that is asked for.
            output_fmt: "NCHW" alone.
            intermediates_only: leave out the first of the results.

        Returns:
            The output of the last cell that was computed, and the maps.

        Raises:
            UserError: another format, or positions out of range.
        """
        if output_fmt != "NCHW":
            raise UserError(f"output_fmt={shorten(output_fmt)}: feature maps are NCHW")
        places = [self._positions[i] for i in sorted(set(self._wanted(indices)))]
        maps: dict[int, Tensor] = {}

        def take(position: int, output: Tensor) -> None:
            if position in places:
                maps[position] = output

        end = max(places[-1] + 1, 0) if stop_early else None
        last, _ = super().forward_features(x, self._draw_keep(x), take, end)
        found = [maps[place] for place in places]
        return found if intermediates_only else (last, found)

    @property
    def _positions(self) -> list[int]:
        """Of each map of `feature_info` the position of its cell; -2 and -1 for the inputs of the first one."""
        stems = range(-len(self.stem_reductions), 0)
        cells = [int(one["module"].partition(".")[2]) for one in self.feature_info[len(stems) :]]
        return [*stems, *cells]

    def _wanted(self, indices: int | Sequence[int] | None) -> list[int]:
        """timm's way of naming feature maps as positions from 0: a number is the last so many, None is all."""
        count = len(self.feature_info)
        last: Any = count if indices is None else indices
        given: list[Any] = [*range(-last, 0)] if is_whole(last) else [*last] if _is_sequence(last) else []
        if not given or not all(is_whole(i) and -count <= i < count for i in given):
            raise UserError(f"indices={shorten(indices)}: give a number or positions of {count} feature maps")
        return [i % count for i in given]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the cells behind the last of the maps `indices`, and the classifier; returns the maps' positions.

        Without those cells the classifier cannot stay either, whatever `prune_head` says.
        """
        wanted = self._wanted(indices)
        most = max(wanted)
        kept = max(self._positions[most] + 1, 0)
        pruned = kept < len(self.cells)
        self.cells = self.cells[:kept]
        if pruned:
            self.num_features = self.head_hidden_size = self.feature_info[most]["num_chs"]
            self.feature_info = self.feature_info[: most + 1]
        if prune_head or pruned:
            self.reset_classifier(0, "")
        return wanted

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, num_classes] of such a map; `pre_logits`: what the classifier would be given."""
        x = x_BCHW.mean(dim=(2, 3)) if self.global_pool else x_BCHW
        if self.drop_rate:
            x = functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward(self, x_BCHW: Tensor) -> Tensor:  # type: ignore[override]
        """Logits, [B, num_classes]."""
        return self.forward_head(self.forward_features(x_BCHW))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for `num_classes` classes; 0: none."""
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", ""):
            raise UserError(f"global_pool={shorten(pool)}: allowed are 'avg' and '' (none)")
        if not pool and num_classes:
            raise UserError("global_pool='' leaves no features to classify; set num_classes=0")
        self.num_classes, self.global_pool = num_classes, pool
        like = next(self.parameters())
        head = (
            nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype) if num_classes else None
        )
        self.classifier = nn.Identity() if head is None else head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's groups of parameters, for learning rates by depth."""
        return {"stem": r"^stem\d?", "blocks": r"^cells\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training keeps the outputs of cells alone, and computes the rest again for the gradients."""
        if not isinstance(enable, bool):
            raise UserError(f"set_grad_checkpointing({shorten(enable)}): give True or False")
        self.checkpointed = enable


class TimmCifarNetwork(TimmClassifier, CifarNetwork):
    """`CifarNetwork` for timm."""

    stem_reductions: ClassVar[dict[str, int]] = {"stem": 1}


class TimmImageNetNetwork(TimmClassifier, ImageNetNetwork):
    """`ImageNetNetwork` for timm."""

    stem_reductions: ClassVar[dict[str, int]] = {"stem0": 4, "stem1": 8}


#: Of the numbers that a network is made of.
_LEAST = {"channels": 1, "cells": 1, "in_chans": 1, "num_classes": 0}
_NETWORKS: dict[str, type[TimmClassifier]] = {"cifar": TimmCifarNetwork, "imagenet": TimmImageNetNetwork}


def _is_sequence(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, (str, bytes))


def _resolve(genotype: str | Path | Mapping[str, Any] | Genotype) -> Genotype:
    if isinstance(genotype, Genotype):
        return genotype
    return load_genotype(genotype)


def _resolution_ends(cells: int) -> list[int]:
    """How many cells there are up to the end of each resolution that has cells."""
    return [end for end in (*reduction_positions(cells), cells) if end > 0]


def _without_auxiliary(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("auxiliary.")}


def _default_cfg(kind: str, dataset: str, crop_pct: float) -> dict[str, Any]:
    family, facts = FAMILIES[kind], DATASETS[dataset]
    return {
        "num_classes": family.classes,
        "input_size": (facts.channels, family.image_size, family.image_size),
        "crop_pct": crop_pct,
        "interpolation": "bilinear",
        "mean": facts.mean,
        "std": facts.std,
        "first_conv": _FIRST_CONVOLUTIONS[kind],
        "classifier": _CLASSIFIER,
    }


default_cfgs = generate_default_cfgs(
    {
        ARCHITECTURES["cifar"]: _default_cfg("cifar", "cifar10", crop_pct=1.0),
        ARCHITECTURES["imagenet"]: _default_cfg("imagenet", "imagenet", crop_pct=0.875),
    }
)


def _create(kind: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    network = _NETWORKS[kind]
    for name, least in _LEAST.items():
        given = kwargs.get(name, least)
        if not is_whole(given) or given < least:
            raise UserError(f"{name}={shorten(given)}: give a whole number from {least} on")
    maps = len(network.stem_reductions) + len(_resolution_ends(kwargs.get("cells", FAMILIES[kind].cells)))
    return build_model_with_cfg(
        network,
        ARCHITECTURES[kind],
        pretrained,
        pretrained_filter_fn=_without_auxiliary,
        # Hooks: a cell takes two inputs, so that the network cannot be rebuilt as a sequence of modules.
        feature_cfg={"feature_cls": "hook", "no_rewrite": True, "out_indices": tuple(range(maps))},
        **kwargs,
    )


@register_model
def nge_cifar(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A network for CIFAR-sized images; arguments as for `TimmClassifier`, and timm's own."""
    return _create("cifar", pretrained, **kwargs)


@register_model
def nge_imagenet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A network for ImageNet-sized images; arguments as for `TimmClassifier`, and timm's own."""
    return _create("imagenet", pretrained, **kwargs)
