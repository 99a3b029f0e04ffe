"""A short training: so many steps on one half of the training images, then an evaluation on the other.

It tells, in seconds, how well an architecture learns, which is what searches compare architectures by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.load import Architecture
from nge_search.data import Augmentation, Batch, Dataset, Loader, Store, load_dataset, split_train_valid, store
from nge_search.data.own import origin_of
from nge_search.data.split import few_per_class
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser
from nge_search.engine.distributed import World
from nge_search.engine.optimisers import build_sgd, clip_gradients, cosine, set_learning_rate
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.metrics.classification import Meter
from nge_search.networks.families import FAMILIES, Family, Trainable
from nge_search.networks.sizes import nearest_channels
from nge_search.recipes import LARGE_SIDE
from nge_search.settings.amounts import read_amount
from nge_search.settings.data import DataSection
from nge_search.settings.trial import TrialConfig
from nge_search.training.phases import EvaluationPhase, NetworkTraining, TrainPhase, classified

#: Images of a validation step.
_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class TrialImages:
    """What short trainings learn from and are validated on, loaded once for many of them.

    Attributes:
        train, valid: positions among the training images.
        images: these, on the device.
    """

    dataset: Dataset
    train: Tensor
    valid: Tensor
    images: Store
    augmentation: Augmentation

    @classmethod
    def load(
        cls, config: TrialConfig, device: torch.device, load: Callable[[DataSection], Dataset] = load_dataset
    ) -> TrialImages:
        """The images that the settings name, divided as a search by gradients divides them.

        Raises:
            UserError: images that cannot be used, or limits that leave too few.
        """
        section = config.evaluator
        data = dataclasses.replace(config.data, image_size=section.side or config.data.image_size)
        dataset = load(data)
        labels_N, classes = dataset.train.labels_N, len(dataset.classes)
        train, valid = split_train_valid(labels_N, dataset.classes, data, config.seed)
        for name, least in (("images", 2), ("valid_images", 1)):
            if 0 < getattr(section, name) < least * classes:
                raise section.refuse(name, f"too few for {classes} classes; at least {least * classes}")
        return cls(
            dataset,
            few_per_class(labels_N, train, classes, section.images),
            few_per_class(labels_N, valid, classes, section.valid_images),
            store(dataset.train, data, device, config.run.worker_patience),
            Augmentation(data, dataset),
        )

    def loaders(self, config: TrialConfig, world: World) -> tuple[Loader, Loader]:
        """Of the images that are learnt from, and of those that are validated on."""

        def loader(index: Tensor, batch_size: int, train: bool) -> Loader:
            return Loader(
                self.images,
                index,
                self.augmentation,
                batch_size=batch_size,
                train=train,
                seed=config.seed,
                stream="trial",
                rank=world.rank,
                world_size=world.size,
                dtype=weight_dtype(config.precision),
            )

        return (
            loader(self.train, config.evaluator.batch_size, True),
            loader(self.valid, _EVALUATED_AT_ONCE, False),
        )


def describe_images(dataset: Dataset) -> dict[str, Any]:
    """What has to be known of the images to train elsewhere what was found."""
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "train_images": len(dataset.train),
        "image_size": dataset.image_size,
        "channels": dataset.channels,
    }


class StepLosses:
    """The sum over steps of each step's mean loss, over all ranks together.

    Attributes:
        sums: [1], this rank's part.
    """

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(1, dtype=torch.float64, device=device)

    def reset(self) -> None:
        self.sums.zero_()


class ShortTraining(NetworkTraining):
    """A network on its way through `evaluator.steps` steps, which count as one epoch.

    The learning rate falls step by step on half a cosine.
    """

    tags: ClassVar[Mapping[str, str]] = {
        "train_loss": "loss/train",
        "valid_loss": "loss/valid",
        "train_top1": "top1/train",
        "valid_top1": "top1/valid",
    }
    meters: Mapping[str, Meter]
    outcomes: StepLosses

    def __init__(self, config: TrialConfig, network: Trainable, images: TrialImages, world: World):
        self.config, self.world = config, world
        self.fingerprint, self.origin = images.dataset.fingerprint, origin_of(images.dataset, config.data)
        self.train, self.test = images.loaders(config, world)
        section, dtype = config.evaluator, weight_dtype(config.precision)
        self.network = network.to(world.device, dtype).to(memory_format=torch.channels_last)
        self.weights = list(self.network.parameters())
        self.optimiser = build_sgd(self.weights, section.learning_rate, section.momentum, section.weight_decay)
        self.epochs, self.found = 1, {}
        self.phases = [_ShortPhase(self), EvaluationPhase(self, "valid", self.network)]
        classes = len(images.dataset.classes)
        self.meters = {phase.name: Meter(world.device, classes) for phase in self.phases}
        self.outcomes = StepLosses(world.device)
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def train_step(self, batch: Batch, epoch: int) -> None:
        with forward_context(self.config.precision, self.world.device):
            logits_BK, _ = self.network(batch.images_BCHW)
        logits_BK = full_precision(logits_BK)
        loss_sum = functional.cross_entropy(logits_BK, batch.labels_B, reduction="sum")
        self.meters["train"].update(logits_BK.detach(), batch.labels_B, loss_sum.detach())
        loss = loss_sum / batch.total
        loss.backward()
        self.world.sum_gradients(self.weights)
        norm = clip_gradients(self.weights, self.config.evaluator.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.outcomes.sums += loss.detach().double()
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss.detach())

    @torch.no_grad()
    def test_step(self, name: str, network: nn.Module, batch: Batch) -> None:
        if len(batch.labels_B) == 0:
            return
        logits_BK, losses_B = classified(network, batch, self.config.precision, self.world.device)
        self.meters[name].update(logits_BK, batch.labels_B, losses_B.double().sum())

    def set_rate(self, step: int) -> None:
        """The learning rate of a step, counted from 0."""
        section = self.config.evaluator
        rate = cosine(step, section.steps, section.learning_rate, section.learning_rate_min)
        set_learning_rate(self.optimiser, rate)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.network, state.get("network"), source)
        load_optimiser(self.optimiser, state.get("optimiser"), source)

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            result = meter.result(self.world)
            row.update({f"{name}_{figure}": result[figure] for figure in ("loss", "top1") if figure in result})
        row["train_losses"] = float(self.world.gather_rows(self.outcomes.sums).sum())
        return row

    def line(self, row: dict[str, Any]) -> str:
        return (
            f"train loss {row['train_loss']:.4g}, validation loss {row['valid_loss']:.4g}, "
            f"validation top-1 {row['valid_top1']:.2f} %"
        )


class _ShortPhase(TrainPhase):
    """So many steps, over as many passes as they take."""

    task: ShortTraining

    def steps(self, epoch: int) -> int:
        return self.task.config.evaluator.steps

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, ...]]:
        self.at = first
        left = range(first, self.steps(epoch))
        return ((batch,) for _, batch in zip(left, self.task.train.endless(epoch, first)))

    def step(self, *batches: Batch) -> None:
        self.task.set_rate(self.at)
        super().step(*batches)
        self.at += 1


def family_of(space: str, side: int) -> Family:
    """The networks that cells of a space are stacked into, for images of that side in pixels."""
    if space == FAMILIES["imagenet"].space:
        return FAMILIES["imagenet" if side > LARGE_SIDE else "cifar"]
    return next(family for family in FAMILIES.values() if family.space == space)


def build_network(config: TrialConfig, architecture: Architecture, dataset: Dataset) -> Trainable:
    """The untrained network of a short training.

    Raises:
        UserError: no number of channels gives it the mult-adds of `evaluator.macs`.
    """
    family, section = family_of(architecture.space, dataset.image_size), config.evaluator

    def build(channels: int) -> Trainable:
        return family.build(architecture.graphs, channels, section.cells, len(dataset.classes), dataset.channels)

    if section.macs is None:
        return build(section.channels)
    key = section.key("macs")
    macs = read_amount(section.macs, key)
    channels, _ = nearest_channels(
        build, "macs", dataset.image_size, macs, key, dataset.channels, family.least_channels
    )
    return build(channels)
