"""Which images are classified, and how they are split and augmented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from nge_search.settings import names
from nge_search.settings.base import Section, option


@dataclass(frozen=True)
class DatasetFacts:
    """What is fixed about a dataset. `image_size` and `channels` are None where the files decide.

    `cutout_divisor`: a cutout square may be at most the image side divided by this. `crop_divisor`: the
    default padding of random crops, as a fraction of the side (32 / 8 = 4 on CIFAR, as in DARTS).
    `resized_crop`: random crops are resized ones by default (ImageNet).
    """

    image_size: int | None
    channels: int
    classes: int | None
    flip: bool
    crop_divisor: int
    cutout_divisor: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    downloadable: bool = False
    auxiliary: bool = True
    resized_crop: bool = False


# CIFAR-10's statistics are DARTS' (cnn/utils.py); CIFAR-100's are those of its own training images; Tiny-ImageNet's
# those of 25 training images of each class, grey ones as RGB; ImageNet's are torchvision's.
DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(8, 1, 10, False, 8, 4, (0.3053,), (0.3760,), auxiliary=False),
    "cifar10": DatasetFacts(
        32,
        3,
        10,
        True,
        8,
        2,
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
        downloadable=True,
    ),
    "cifar100": DatasetFacts(
        32, 3, 100, True, 8, 2, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), downloadable=True
    ),
    "imagenet": DatasetFacts(
        224, 3, 1000, True, 8, 2, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resized_crop=True
    ),
    "tiny_imagenet": DatasetFacts(64, 3, 200, True, 8, 2, (0.4756, 0.4471, 0.3978), (0.2767, 0.2689, 0.2819)),
    "folder": DatasetFacts(None, 3, None, True, 8, 2, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "own": DatasetFacts(None, 3, None, True, 8, 2, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
names.require_names(DATASETS, names.DATASETS)


#: timm's configuration strings of RandAugment, without those of which timm would ignore a part.
_RAND_AUGMENT = re.compile(
    r"rand(-(m\d{1,2}|n[1-9]|p(0(\.\d+)?|1(\.0+)?)|mstd\d+(\.\d+)?|mmax[1-9]\d?|inc[01]|t(weights|3aw?)))*"
)


#: In pixels: of the square that a network sees, and of the short side of an image that it is cropped from.
LARGEST_SIDE, LARGEST_RESIZE = 1 << 11, 1 << 13

#: Pixels of an image beyond which its header alone has it refused by default, and beyond which Pillow refuses it.
MAX_PIXELS = 100_000_000
MOST_PIXELS = 178_956_970


def pixel_limit() -> Any:
    """The setting `max_pixels` of every section that names images."""
    return option(
        MAX_PIXELS,
        "Largest number of pixels of an image file; one whose header claims more is not decoded.",
        at_least=1,
        at_most=MOST_PIXELS,
        free_on_resume=True,
    )


@dataclass
class DataSection(Section):
    """Which images, how they are split, where they live, and how they are augmented."""

    prefix: ClassVar[str] = "data"

    name: str = option(
        "digits",
        "Name of the dataset of images; folder: images of your own in data.root; own: images that a Python program "
        "gives as dataset=.",
        choices=tuple(DATASETS),
    )
    root: str = option(
        "data",
        "Folder that holds the dataset's files (digits needs none: scikit-learn ships it).",
        free_on_resume=True,
        path=True,
    )
    download: bool = option(False, "Download CIFAR into data.root when it is missing.", free_on_resume=True)
    limit: int = option(0, "Largest number of training images to use, equally many per class; 0: all.", at_least=0)
    image_size: int = option(
        0,
        "Side in pixels to which images are resized; 0: their own (a folder of several sizes needs it).",
        at_least=0,
        at_most=LARGEST_SIDE,
    )
    valid_fraction: float = option(
        0.5, "Share of the training images that trains the architecture.", above=0, below=1
    )
    split: str = option(
        "stratified",
        "How training images are divided between weights and architecture: stratified: by class, seeded; "
        "file_order: the first and the last ones (DARTS).",
        choices=("stratified", "file_order"),
    )
    test_fraction: float = option(
        0.2,
        "Share of each class that is held out as test set where a folder has no test/ or val/.",
        above=0,
        below=1,
    )
    crop_padding: int | None = option(
        None, "Zero padding of random crops, in pixels; null: an eighth of the image's side.", at_least=0
    )
    flip: bool | None = option(
        None, "Mirror training images at random, left to right; null: yes, except for digits."
    )
    crop: str = option(
        "auto",
        "Random crops in training: padded: by data.crop_padding; resized: of a random area and aspect ratio; auto: "
        "resized for imagenet, else padded.",
        choices=("auto", "padded", "resized"),
    )
    min_area: float = option(0.08, "Smallest share of the image that a resized crop shows.", above=0, at_most=1)
    resize: int = option(
        0,
        "Short side in pixels to which evaluation images are resized before their centre is cropped; 0: the side "
        "of the crop.",
        at_least=0,
        at_most=LARGEST_RESIZE,
    )
    jitter: float = option(
        0.0, "Largest relative change of brightness, contrast and saturation in training; 0: no change.", at_least=0
    )
    hue: float = option(0.0, "Largest change of hue in training, in turns; 0: no change.", at_least=0, at_most=0.5)
    rand_augment: str = option(
        "", "Policy of timm's RandAugment in training, as rand-m9-mstd0.5-inc1; empty: none."
    )
    random_erasing: float = option(
        0.0, "Probability that timm's random erasing fills a rectangle of a training image.", at_least=0, at_most=1
    )
    cutout: int = option(0, "Side of the cutout square in training, in pixels; 0: no cutout.", at_least=0)
    corrupt: str = option(
        "stop",
        "What an image that cannot be read leads to: stop: it is named and ends the run; skip: it is named, "
        "counted and passed over.",
        choices=("stop", "skip"),
    )
    max_pixels: int = pixel_limit()
    resident: str = option(
        "auto",
        "Whether all images are held on the device as uint8: always; never: a DataLoader reads them; auto: if they "
        "fit.",
        choices=("auto", "always", "never"),
        free_on_resume=True,
    )
    resident_megabytes: int = option(
        4096,
        "Largest image set that data.resident=auto holds on the device, in MB.",
        at_least=1,
        free_on_resume=True,
    )
    workers: int = option(
        2,
        "Number of the DataLoader's worker processes, and of threads that decode files.",
        at_least=0,
        free_on_resume=True,
    )

    @property
    def facts(self) -> DatasetFacts:
        return DATASETS[self.name]

    @property
    def use_flip(self) -> bool:
        return self.facts.flip if self.flip is None else self.flip

    @property
    def resized_crop(self) -> bool:
        return self.facts.resized_crop if self.crop == "auto" else self.crop == "resized"

    @property
    def works_per_image(self) -> bool:
        """Whether training changes images one by one, on the CPU, before they are joined to a batch."""
        return self.resized_crop or bool(self.jitter or self.hue or self.rand_augment)

    def crop_for(self, side: int) -> int:
        """The padding of random crops of images of `side` pixels."""
        if self.resized_crop:
            return 0
        return side // self.facts.crop_divisor if self.crop_padding is None else self.crop_padding

    def check(self) -> None:
        if self.download and not self.facts.downloadable:
            raise self.refuse("download", f"data.name={self.name} cannot be downloaded")
        if self.flip and not self.facts.flip:
            raise self.refuse("flip", f"a mirrored image is no longer the same class in data.name={self.name}")
        if self.name == "digits" and self.image_size not in (0, 8, 16):
            raise self.refuse("image_size", "data.name=digits has 8x8 images; allowed are 0, 8 and 16 (upsampled)")
        self._check_work_per_image()
        side = self.image_size or self.facts.image_size
        if side:
            self.check_side(side)

    def _check_work_per_image(self) -> None:
        if self.resized_crop and self.crop_padding:
            raise self.refuse("crop_padding", "resized crops take no padding; set data.crop=padded")
        for name in ("jitter", "hue", "rand_augment"):
            if getattr(self, name) and self.facts.channels == 1:
                raise self.refuse(name, f"needs colour images; those of data.name={self.name} are grey")
        if self.rand_augment and not _RAND_AUGMENT.fullmatch(self.rand_augment):
            raise self.refuse(
                "rand_augment",
                "expected rand and settings of timm's RandAugment, as rand-m9-n2-mstd0.5-mmax15-p0.5-inc1",
            )
        if self.works_per_image and self.resident == "always":
            raise self.refuse(
                "resident",
                "resized crops, jitter and RandAugment need the images one by one; set data.resident=auto",
            )

    def check_side(self, side: int) -> None:
        """Refuse augmentation that does not fit images of `side` pixels; called again once a folder is read."""
        largest = side // self.facts.cutout_divisor
        if self.cutout > largest:
            raise self.refuse("cutout", f"too large for {side}x{side} images; at most {largest}")
        if self.crop_for(side) >= side:
            raise self.refuse("crop_padding", f"too large for {side}x{side} images; at most {side - 1}")
        if 0 < self.resize < side:
            raise self.refuse("resize", f"smaller than the {side}x{side} pixels that are cropped from it")
