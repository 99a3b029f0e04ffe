"""timm's mixup and cutmix, keyed so that a resumed run mixes alike."""

from __future__ import annotations

import torch
from timm.data import Mixup
from torch import Tensor
from torch.nn import functional

from nge_search.keyed_random import fold, global_generators_kept, seed_global_generators
from nge_search.settings.classification import TrainSection


class Mixing:
    """Mixes each image with another of its batch, and their labels alike.

    Args:
        mixup, cutmix: alphas of the Beta distributions, 0 for none; with both, each batch takes one of them.
        smoothing: label smoothing of the mixed targets.
    """

    def __init__(self, mixup: float, cutmix: float, smoothing: float, classes: int, seed: int):
        self._mixup = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=classes)
        self._classes, self._smoothing, self._seed = classes, smoothing, seed

    @classmethod
    def configured(cls, section: TrainSection, classes: int, seed: int) -> Mixing | None:
        """What the settings ask for; None: nothing."""
        if not section.mixup and not section.cutmix:
            return None
        return cls(section.mixup, section.cutmix, section.label_smoothing, classes, seed)

    def __call__(self, images_BCHW: Tensor, labels_B: Tensor, step: int, part: int) -> tuple[Tensor, Tensor]:
        """Mixed images, and targets [B, K] of their type. The last image of an odd number stays as it is.

        The draw is keyed by the step, counted over the run, and by which part of its batch this is.
        """
        even = len(labels_B) // 2 * 2
        device = images_BCHW.device
        with global_generators_kept(device):
            seed_global_generators(fold(self._seed, step, part), device)
            images, targets = self._mixup(images_BCHW[:even].clone(), labels_B[:even])
        rest = functional.one_hot(labels_B[even:], self._classes).to(targets.dtype)
        rest = rest * (1 - self._smoothing) + self._smoothing / self._classes
        return torch.cat([images, images_BCHW[even:]]), torch.cat([targets, rest]).to(images.dtype)
