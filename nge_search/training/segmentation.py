"""Training a segmentation network: what a step does, and the phases of an epoch.

Legend: B images, H and W sides in pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.data import Batch, Loader
from nge_search.data.segmentation.dataset import IGNORED, MaskedDataset
from nge_search.engine.checkpoint import load_module
from nge_search.engine.checkpoint_parts import load_optimiser, read_best
from nge_search.engine.distributed import World
from nge_search.engine.optimisers import build_sgd, clip_gradients, poly
from nge_search.engine.precision import forward_context, full_precision, weight_dtype
from nge_search.engine.sync_batchnorm import freeze_statistics, synchronise_statistics
from nge_search.json_reader import Reader
from nge_search.keyed_random import Stream, uniform
from nge_search.kinds import SEGMENTATION
from nge_search.metrics.segmentation import Confusion, PixelMeter, mean_over_union
from nge_search.networks.classifier import drop_path_factors
from nge_search.networks.deeplab import DeepLabV3
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.training.continuation import Plan
from nge_search.training.phases import (
    EvaluationPhase,
    PlannedTraining,
    TrainPhase,
    with_averaged_statistics,
)
from nge_search.training.segmentation_results import Samples, describe_segmentation


class SegmentationTraining(PlannedTraining):
    """A network, its optimiser, the loaders of training and validation images, and what is known of the best epoch.

    Attributes:
        best: the epoch with the highest mIoU, and that mIoU; empty before there is one. For the record, nothing is
            chosen by it.
    """

    tags: ClassVar[Mapping[str, str]] = {
        "train_loss": "loss/train",
        "test_loss": "loss/test",
        "train_pixel_accuracy": "pixel_accuracy/train",
        "test_pixel_accuracy": "pixel_accuracy/test",
        "test_miou": "miou/test",
        "learning_rate": "learning_rate/backbone",
        "head_learning_rate": "learning_rate/heads",
    }
    config: SegmentationConfig
    network: DeepLabV3
    meters: dict[str, PixelMeter]
    outcomes: Confusion
    document = SEGMENTATION
    pictures = "nge_search.report.tensorboard:segmentation_pictures"

    def __init__(
        self,
        config: SegmentationConfig,
        network: DeepLabV3,
        train: Loader,
        test: Loader,
        dataset: MaskedDataset,
        world: World,
    ):
        self.config, self.world, self.dataset = config, world, dataset
        self.fingerprint, self.origin = dataset.fingerprint, f"data.root={config.data.root}"
        self.train, self.test = train, test
        section = config.train
        network = network.to(world.device, weight_dtype(config.precision))
        self.network = network.to(memory_format=torch.channels_last)
        if section.freeze_statistics:
            freeze_statistics(self.network.backbone)
        if section.sync_statistics and world.size > 1:
            synchronise_statistics(self.network)
        self.weights = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = self._build_optimiser()
        self.updates = 0
        self.epochs, self.evaluate_every, self.plan = section.epochs, section.evaluate_every, Plan(section)
        self.best: dict[str, Any] = {}
        self.phases = [TrainPhase(self), EvaluationPhase(self, "test", self.network)]
        self.meters = {phase.name: PixelMeter(world.device) for phase in self.phases}
        self.outcomes = Confusion(len(dataset.classes), world.device)
        self.samples = Samples(dataset)
        self.found = {}
        self.finite = torch.ones((), dtype=torch.bool, device=world.device)

    def _build_optimiser(self) -> torch.optim.SGD:
        """Two groups, the backbone's weights and the heads'."""
        section = self.config.train
        backbone: list[nn.Parameter] = []
        heads: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                inside = name.startswith("backbone.") and not name.startswith("backbone.auxiliary.")
                (backbone if inside else heads).append(parameter)
        groups = [{"params": backbone}, {"params": heads}]
        return build_sgd(groups, section.learning_rate, section.momentum, section.weight_decay)

    def train_step(self, batch: Batch, epoch: int) -> None:
        """One SGD step on this rank's part of a global batch, in `train.accumulate` pieces."""
        section = self.config.train
        counted = (batch.images_BCHW[:, -1] != IGNORED).sum().double()
        self.world.sum_tensors([counted])
        loss = torch.zeros_like(counted)
        for piece in with_averaged_statistics(
            self.network, batch.cut(section.accumulate, self.world.rank, self.world.size)
        ):
            loss += self._add_gradients(piece, epoch, counted.clamp_min(1))
        self.world.sum_gradients(self.weights)
        norm = clip_gradients(self.weights, section.clip)
        self._set_learning_rates()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.finite &= torch.isfinite(norm) & torch.isfinite(loss)
        self.updates += 1

    def _set_learning_rates(self) -> None:
        """Both rates fall with the steps of the whole training."""
        for group, rate in zip(self.optimiser.param_groups, self._rates_of_step(self.updates)):
            group["lr"] = rate

    def initial_rates(self) -> tuple[float, ...]:
        return self.config.train.learning_rate, self.config.train.head_learning_rate

    def rates(self, epoch: int) -> tuple[float, ...]:
        return self._rates_of_step((epoch + 1) * self.train.steps - 1)

    def _rates_of_step(self, step: int) -> tuple[float, ...]:
        section, steps = self.config.train, self.train.steps
        added = self.plan.at(step // steps)
        if added is None:
            done = step / (steps * self.plan.original)
            last, power = section.learning_rate_min, section.power
            return tuple(poly(done, rate, last, power) for rate in self.initial_rates())
        done = (step - added.first * steps) / (steps * (added.epochs - added.first))
        return tuple(added.rate(group, done, section.learning_rate_min) for group in range(len(added.rates)))

    def _add_gradients(self, batch: Batch, epoch: int, counted: Tensor) -> Tensor:
        """Add the gradients of the mean loss that are due to a part of the step's images; returns its own part."""
        images_BCHW, truth_BHW = _split(batch)
        with forward_context(self.config.precision, self.world.device):
            logits_BKHW, auxiliary_BKHW = self.network(images_BCHW, self._keep(batch, epoch))
        logits_BKHW = full_precision(logits_BKHW)
        loss_sum = _loss_sum(logits_BKHW, truth_BHW)
        predicted_BHW = logits_BKHW.detach().argmax(dim=1)
        self.meters["train"].update(predicted_BHW, truth_BHW, IGNORED, loss_sum.detach())
        if auxiliary_BKHW is not None:
            more = _loss_sum(full_precision(auxiliary_BKHW), truth_BHW)
            loss_sum = loss_sum + self.config.network.auxiliary_weight * more
        loss = loss_sum / counted.to(loss_sum.dtype)
        loss.backward()
        return loss.detach()

    def _keep(self, batch: Batch, epoch: int) -> Tensor | None:
        """Dropout's factors, drawn per image from (seed, epoch, image): [B, F, h, w]."""
        rate = self.config.network.dropout
        if rate == 0:
            return None
        stride = self.network.output_stride
        shape = self.network.head_channels, *(-(-side // stride) for side in batch.images_BCHW.shape[2:])
        each = shape[0] * shape[1] * shape[2]
        keys = batch.index_B[:, None] * each + torch.arange(each, device=batch.index_B.device)
        drawn = uniform(
            keys.flatten(),
            seed=self.config.seed,
            epoch=epoch,
            stream=Stream.DROPOUT,
            dtype=weight_dtype(self.config.precision),
        )
        return drop_path_factors(drawn.view(len(batch.index_B), *shape), rate)

    @torch.no_grad()
    def test_step(self, name: str, network: nn.Module, batch: Batch) -> None:
        """Add this rank's part of a validation batch to the counts."""
        if len(batch.index_B) == 0:
            return
        images_BCHW, truth_BHW = _split(batch)
        scores_BKHW = self._scores(network, images_BCHW)
        predicted_BHW = scores_BKHW.argmax(dim=1)
        self.meters[name].update(predicted_BHW, truth_BHW, IGNORED, _loss_sum(scores_BKHW, truth_BHW))
        self.outcomes.update(predicted_BHW, truth_BHW, IGNORED)

    def _scores(self, network: nn.Module, images_BCHW: Tensor) -> Tensor:
        """What evaluation goes by: logits, or logarithms of mean probabilities, [B, K, H, W]."""
        section = self.config.train
        with forward_context(self.config.precision, self.world.device):
            return predict(network, images_BCHW, section.scales, section.eval_flip)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "updates": self.updates,
            "best": dict(self.best),
            **self.plan.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], source: str) -> None:
        load_module(self.network, state.get("network"), source)
        load_optimiser(self.optimiser, state.get("optimiser"), source)
        self.updates = Reader(source, state).integer("updates", 0, 1 << 53)
        self.best = read_best(state, "miou", self.epochs, source)
        self.plan.load_state_dict(state, 2, source)
        if math.isnan(self.best.get("miou", 0.0)):  # as older versions wrote it where no pixel counted
            self.best = {}

    def epoch_row(self, epoch: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, meter in self.meters.items():
            row.update({f"{name}_{figure}": value for figure, value in meter.result(self.world).items()})
        row["learning_rate"], row["head_learning_rate"] = (g["lr"] for g in self.optimiser.param_groups)
        self.found = {}
        if not self.evaluates(epoch):
            return row
        counts_KK = self.outcomes.result(self.world)
        miou = mean_over_union(counts_KK)
        if miou is not None:
            row["test_miou"] = 100 * miou
            if not self.best or row["test_miou"] > self.best["miou"]:
                self.best = {"epoch": epoch, "miou": row["test_miou"]}
        if self.world.is_main:
            shown = self.samples.compare(self._classes_of)
            self.found = describe_segmentation(epoch, self.dataset, counts_KK, shown)
        return row

    @torch.no_grad()
    def _classes_of(self, pixels_B4HW: Tensor) -> Tensor:
        """The class of every pixel of raw images, int64 [B, H, W] on the CPU."""
        images = self.test.augmentation.evaluate(
            pixels_B4HW.to(self.world.device), dtype=weight_dtype(self.config.precision)
        )
        self.network.eval()
        return self._scores(self.network, images[:, :3]).argmax(dim=1).cpu()

    def scalars(self, row: dict[str, Any]) -> dict[str, float]:
        iou = zip(self.found.get("classes", ()), self.found.get("iou", ()))
        return {
            **super().scalars(row),
            **{f"iou/{name}": 100 * value for name, value in iou if value is not None},
        }

    def line(self, row: dict[str, Any]) -> str:
        """As for every task; a figure over no pixel is left out, and said so."""
        parts = [f"train loss {row['train_loss']:.4g}" if "train_loss" in row else "no training pixel counted"]
        if "test_miou" in row:
            parts.append(f"test mIoU {row['test_miou']:.2f} %")
        elif self.evaluates(row["epoch"]):
            parts.append("no validation pixel counted")
        return ", ".join(parts)


def predict(network: nn.Module, images_BCHW: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Logits of a network in evaluation mode; over several scales and mirrored images, log mean probabilities.

    Args:
        scales: factors by which the images are resized.
        flip: take the mirrored images too.

    Returns:
        [B, K, H, W] at the size of the images, in fp32 or wider.
    """
    if tuple(scales) == (1.0,) and not flip:
        return full_precision(network(images_BCHW)[0])
    size, total, count = images_BCHW.shape[2:], images_BCHW.new_zeros(()), 0
    for scale in scales:
        sides = [max(1, round(side * scale)) for side in size]
        resized = functional.interpolate(images_BCHW, sides, mode="bilinear", align_corners=False)
        for mirrored in (False, True) if flip else (False,):
            logits = full_precision(network(resized.flip(3) if mirrored else resized)[0])
            logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
            probabilities = (logits.flip(3) if mirrored else logits).softmax(dim=1)
            total, count = total + probabilities, count + 1
    return (total / count).log()


def _split(batch: Batch) -> tuple[Tensor, Tensor]:
    """Images [B, 3, H, W], and classes int64 [B, H, W]."""
    return batch.images_BCHW[:, :3], batch.images_BCHW[:, 3].long()


def _loss_sum(logits_BKHW: Tensor, truth_BHW: Tensor) -> Tensor:
    """Cross-entropy, summed over the pixels that count."""
    return functional.cross_entropy(logits_BKHW, truth_BHW, ignore_index=IGNORED, reduction="sum")
