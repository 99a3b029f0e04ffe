"""The settings of a semantic segmentation: `train_eval.py` with `task=segmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nge_search.errors import shorten
from nge_search.settings.base import Section, option
from nge_search.settings.data import pixel_limit
from nge_search.settings.exported import settings_of_export
from nge_search.settings.names import SEGMENTATION_DATASETS, TASKS
from nge_search.settings.optimisation import NetworkTrainSection
from nge_search.settings.run import DeviceConfig
from nge_search.settings.values import decimal

#: A pixel of a mask is a byte, and one of its values is for pixels that do not count.
MOST_CLASSES = 255
_LONGEST_NAME = 100


def fault_of_classes(names: Sequence[str]) -> str:
    """Why these are no names of classes, which masks number from 0; empty if they are."""
    if not 2 <= len(names) <= MOST_CLASSES:
        return f"give the names of 2 to {MOST_CLASSES} classes, the background first, as [background,road]"
    for name in names:
        if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            return (
                f"{shorten(name)} is no name of a class: give up to {_LONGEST_NAME} characters that can be shown, "
                "without blanks around them"
            )
        if names.count(name) > 1:
            return f"the class {shorten(name)} stands there twice"
    return ""


@dataclass
class MaskedDataSection(Section):
    """Which images and masks, and how training crops them."""

    prefix: ClassVar[str] = "data"

    name: str = option(
        "scenes",
        "Dataset of images and masks: generated scenes, or voc for PASCAL VOC's layout.",
        choices=SEGMENTATION_DATASETS,
    )
    root: str = option(
        "data",
        "Folder that holds JPEGImages/, SegmentationClass/ and ImageSets/ (scenes needs none).",
        free_on_resume=True,
        path=True,
    )
    classes: list[str] = option(
        [],
        "Names of the classes of your own masks, in the order of the numbers that masks have for them, from 0, the "
        "background first, as [background,road]; empty: those in SegmentationClass/classes.json, or else VOC's.",
    )
    train_set: str = option(
        "auto",
        "List of training images: train; train_aug: with the SBD masks in SegmentationClassAug/; auto: train_aug "
        "if it is there.",
        choices=("auto", "train", "train_aug"),
    )
    limit: int = option(0, "Largest number of training images to use; 0: all.", at_least=0)
    max_pixels: int = pixel_limit()
    crop: int = option(513, "Side of training crops, in pixels.", at_least=16, at_most=2049)
    scale_min: float = option(0.5, "Smallest factor by which a training image is resized.", above=0, at_most=8)
    scale_max: float = option(2.0, "Largest factor by which a training image is resized.", above=0, at_most=8)
    flip: bool = option(True, "Mirror training images at random, left to right.")
    resident: str = option(
        "auto",
        "Whether training images are held on the device: always; never: a DataLoader reads them; auto: if they fit "
        "and are not resized.",
        choices=("auto", "always", "never"),
        free_on_resume=True,
    )
    resident_megabytes: int = option(
        4096, "Largest image set that data.resident=auto holds, in MB.", at_least=1, free_on_resume=True
    )
    workers: int = option(2, "Number of the DataLoader's worker processes.", at_least=0, free_on_resume=True)
    allow_sparse_masks: bool = option(
        False,
        "Accept a set of masks in which at most one class occurs, or of whose pixels over 95 % are ignored.",
        free_on_resume=True,
    )

    #: A damaged image or mask always ends the run.
    corrupt: ClassVar[str] = "stop"
    download: ClassVar[bool] = False

    def check(self) -> None:
        if self.scale_min > self.scale_max:
            raise self.refuse("scale_min", f"above data.scale_max={self.scale_max}")
        if self.classes and self.name != "voc":
            raise self.refuse("classes", f"data.name={self.name} has classes of its own; set data.name=voc")
        if self.classes and (fault := fault_of_classes(self.classes)):
            raise self.refuse("classes", fault)


@dataclass
class DeepLabSection(Section):
    """DeepLabv3 on a derived network."""

    prefix: ClassVar[str] = "network"

    genotype: str = option(
        "darts_v2",
        "Architecture of the backbone: published name, JSON file, text as DARTS or NNI writes it, or run "
        "folder of a finished search.",
        free_on_resume=True,  # the cells themselves are compared
        path=True,
    )
    channels: int = option(48, "Number of channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(14, "Number of cells; those at 1/3 and 2/3 of the depth reduce.", at_least=2, at_most=200)
    output_stride: int = option(
        16,
        "How many times smaller than the image the features are; below 32, strides of reductions become dilations: "
        "8 | 16 | 32.",
    )
    head_channels: int = option(
        256, "Number of channels of each of the pyramid's branches.", at_least=1, at_most=4096
    )
    dropout: float = option(0.5, "Probability of dropout behind the pyramid.", at_least=0, below=1)
    weights: str = option(
        "",
        "Weights of an ImageNet network to start the backbone from: an exported folder, a .safetensors file or a "
        "run folder; empty: random ones. An exported folder sets genotype and sizes, too, unless the command line "
        "does.",
        path=True,
    )
    auxiliary: bool = option(False, "Train a second, convolutional head at 2/3 of the backbone's depth.")
    auxiliary_weight: float = option(0.4, "Weight of the auxiliary head's loss in the training loss.", at_least=0)

    def check(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise self.refuse("output_stride", "allowed are 8, 16, 32")


@dataclass
class SegmentationTrainSection(NetworkTrainSection):
    """How a segmentation network is trained."""

    learning_rate: float = option(0.007, "SGD's initial learning rate for the backbone.", at_least=0)
    head_learning_rate: float = option(0.07, "SGD's initial learning rate for the heads.", at_least=0)
    power: float = option(
        0.9, "Power by which learning rates fall (poly): at step s of S by (1 - s / S) to this power.", at_least=0
    )
    weight_decay: float = option(1e-4, "L2 penalty on the weights.", at_least=0)
    clip: float = option(
        0.0, "Largest norm of the weights' gradient, above which it is clipped; 0: no clipping.", at_least=0
    )
    epochs: int = option(
        46,
        "Number of epochs of the training, which may be raised on a run, finished or not.",
        at_least=1,
        may_grow=True,
    )
    batch_size: int = option(16, "Number of images per step, over all ranks together.", at_least=2)
    eval_batch_size: int = option(
        16,
        "Number of images per evaluation step, over all ranks together; only images of one size share a step.",
        at_least=1,
    )
    eval_scales: str = option(
        "1", "Factors by which evaluation resizes each image, as 0.75,1,1.25; their probabilities are averaged."
    )
    eval_flip: bool = option(False, "Average the probabilities with those of the mirrored image in evaluation.")
    freeze_statistics: bool = option(
        False, "Leave the backbone's batch normalisation as network.weights= has it, scales and shifts included."
    )

    def check(self) -> None:
        super().check()
        if self.learning_rate_min > self.head_learning_rate:
            raise self.refuse("learning_rate_min", f"above train.head_learning_rate={self.head_learning_rate}")
        scales = [decimal(scale) for scale in self.eval_scales.split(",")]
        if any(scale is None or not 0.1 <= scale <= 8 for scale in scales):
            raise self.refuse("eval_scales", "expected numbers from 0.1 to 8, as 0.75,1,1.25")

    @property
    def scales(self) -> tuple[float, ...]:
        """`eval_scales` as numbers."""
        return tuple(float(scale) for scale in self.eval_scales.split(","))


@dataclass
class SegmentationConfig(DeviceConfig):
    """Settings of `train_eval.py` with `task=segmentation`."""

    kind: ClassVar[str] = "segmentation"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("miou", "params", "macs", "epochs", "seconds")

    data: MaskedDataSection = field(default_factory=MaskedDataSection)
    task: str = option("segmentation", "What is trained; each has settings of its own.", choices=TASKS)
    network: DeepLabSection = field(default_factory=DeepLabSection)
    train: SegmentationTrainSection = field(default_factory=SegmentationTrainSection)

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return settings_of_export(given, ("imagenet",), ("channels", "cells"))

    def check(self) -> None:
        if self.train.freeze_statistics and not self.network.weights:
            raise self.train.refuse("freeze_statistics", "there are no statistics to keep without network.weights=")
