"""Every setting: its name, default, meaning and limits, checked when a configuration is built.

One dataclass per section and one per command. `option` attaches what `--help` prints and what
`Section` checks, so a setting is described in one place only. Messages name the key to change.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nge_search.architecture.genotype import INPUT_NODES, SEARCH_OPERATIONS
from nge_search.errors import UserError, nearest, plain


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    free_on_resume: bool = False,
    path: bool = False,
) -> Any:
    """A dataclass field with its meaning and limits.

    Args:
        free_on_resume: a resumed run may change it.
        path: it is a path, whose `~` is expanded.
    """
    metadata = {
        "meaning": meaning,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "below": below,
        "free_on_resume": free_on_resume,
        "path": path,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_LARGEST_INTEGER = 2**31 - 1
_LIMITS = (
    ("at_least", "at least", lambda value, limit: value >= limit),
    ("above", "above", lambda value, limit: value > limit),
    ("at_most", "at most", lambda value, limit: value <= limit),
    ("below", "below", lambda value, limit: value < limit),
)


class Section:
    """Checks each field against the limits that `option` recorded, at construction."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            if "meaning" in item.metadata:
                self._check_field(item.name, getattr(self, item.name), item.metadata)
        self.check()

    def check(self) -> None:
        """What limits on single fields cannot say; raises UserError. Sections override it."""

    def key(self, name: str) -> str:
        return f"{self.prefix}.{name}" if self.prefix else name

    def refuse(self, name: str, why: str) -> UserError:
        """The error for a field of this section: `key=value: why`."""
        return UserError(f"{self.key(name)}={plain(getattr(self, name), 300)}: {why}")

    def _check_field(self, name: str, value: Any, limits: Any) -> None:
        choices = limits["choices"]
        for element in value if isinstance(value, list) else [value]:
            if element is None:
                continue
            if choices and element not in choices:
                hint = nearest(str(element), choices)
                raise UserError(f"{self.key(name)}={plain(element)}: allowed are {', '.join(choices)}{hint}")
            if isinstance(element, float) and not math.isfinite(element):
                raise UserError(f"{self.key(name)}={element}: must be a finite number")
            if isinstance(element, int) and abs(element) > _LARGEST_INTEGER:
                raise UserError(f"{self.key(name)}={plain(element)}: must be at most {_LARGEST_INTEGER}")
            for limit, words, holds in _LIMITS:
                if limits[limit] is not None and not holds(element, limits[limit]):
                    raise UserError(f"{self.key(name)}={element}: must be {words} {limits[limit]}")


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
}


#: timm's configuration strings of RandAugment, without those of which timm would ignore a part.
_RAND_AUGMENT = re.compile(
    r"rand(-(m\d{1,2}|n[1-9]|p(0(\.\d+)?|1(\.0+)?)|mstd\d+(\.\d+)?|mmax[1-9]\d?|inc[01]|t(weights|3aw?)))*"
)

#: Kinds of networks that cells are stacked into; those of benchmarks from their own cells.
NETWORKS = ("cifar", "imagenet", "nasbench101", "nasbench201")
_PUBLISHED_NETWORKS = NETWORKS[2:]

#: What a derived network is trained for.
TASKS = ("classification", "segmentation")

#: Where a search judges architectures: in a supernet that it trains, or in a table of accuracies.
SEARCH_TASKS = ("supernet", "benchmark")

#: Pixels of an image beyond which its header alone has it refused; Pillow itself refuses more than the second.
MAX_PIXELS = 100_000_000
MOST_PIXELS = 178_956_970


@dataclass
class RunConfig(Section):
    """Where a run lives and what it writes."""

    prefix: ClassVar[str] = "run"

    name: str = option("", "Name of the run; empty: the name of the config file.", free_on_resume=True)
    dir: str = option("", "Folder of the run; empty: runs/<kind>/<name>.", free_on_resume=True, path=True)
    overwrite: bool = option(False, "Start anew in a folder that holds a run, deleting it.", free_on_resume=True)
    log_every: int = option(
        50, "Steps between log lines; only these steps read results back.", at_least=1, free_on_resume=True
    )
    checkpoint_seconds: float = option(
        60.0,
        "Seconds between checkpoints inside an epoch; 0: after every step.",
        at_least=0,
        free_on_resume=True,
    )
    progress: str = option(
        "auto",
        "Progress display; auto: a bar on a terminal, plain lines otherwise.",
        choices=("auto", "bar", "lines", "none"),
        free_on_resume=True,
    )
    tensorboard: bool = option(True, "Write TensorBoard event files.", free_on_resume=True)
    stall_seconds: float = option(
        1800.0,
        "Seconds that the processes of a run wait for one that stands still, before it is named and the run ends; "
        "longer than its longest evaluation.",
        at_least=1,
        at_most=10**6,
        free_on_resume=True,
    )

    @property
    def worker_patience(self) -> float:
        """Seconds that one process waits for its workers: less, so that it says why before others miss it."""
        return 0.9 * self.stall_seconds


@dataclass
class DataConfig(Section):
    """Which images, how they are split, where they live, and how they are augmented."""

    prefix: ClassVar[str] = "data"

    name: str = option("digits", "Dataset.", choices=tuple(DATASETS))
    root: str = option(
        "data",
        "Folder of the dataset's files (digits needs none: scikit-learn ships it).",
        free_on_resume=True,
        path=True,
    )
    download: bool = option(False, "Download CIFAR into data.root when it is missing.", free_on_resume=True)
    limit: int = option(0, "Use at most this many training images, equally many per class; 0: all.", at_least=0)
    image_size: int = option(
        0,
        "Side in pixels to which images are resized; 0: as they are (folder: required if sizes differ).",
        at_least=0,
        at_most=1024,
    )
    valid_fraction: float = option(
        0.5, "Share of the training images that trains the architecture.", above=0, below=1
    )
    split: str = option(
        "stratified",
        "How training images are divided: stratified (by class, seeded) or file_order (first/last, as DARTS).",
        choices=("stratified", "file_order"),
    )
    test_fraction: float = option(
        0.2, "Share held out as test set, by class, where a folder has no test/ or val/.", above=0, below=1
    )
    crop_padding: int | None = option(
        None, "Zero padding of random crops, in pixels; null: an eighth of the side.", at_least=0
    )
    flip: bool | None = option(None, "Random horizontal flips; null: on, except for digits.")
    crop: str = option(
        "auto",
        "Random crops in training: padded (data.crop_padding), resized (a random area and aspect ratio), or auto: "
        "resized for imagenet, else padded.",
        choices=("auto", "padded", "resized"),
    )
    min_area: float = option(0.08, "Smallest share of the image that a resized crop shows.", above=0, at_most=1)
    resize: int = option(
        0,
        "Short side in pixels to which evaluation images are resized before their centre is cropped; 0: that of "
        "the crop.",
        at_least=0,
        at_most=1024,
    )
    jitter: float = option(
        0.0, "Largest relative change of brightness, contrast and saturation in training; 0: none.", at_least=0
    )
    hue: float = option(0.0, "Largest change of hue in training, in turns; 0: none.", at_least=0, at_most=0.5)
    rand_augment: str = option("", "timm's RandAugment in training, as rand-m9-mstd0.5-inc1; empty: none.")
    random_erasing: float = option(
        0.0, "Probability of timm's random erasing of a rectangle per training image.", at_least=0, at_most=1
    )
    cutout: int = option(0, "Side of the cutout square, in pixels; 0: none.", at_least=0)
    corrupt: str = option(
        "stop",
        "An image that cannot be read: stop names it and ends the run; skip names it, counts it and goes on.",
        choices=("stop", "skip"),
    )
    max_pixels: int = option(
        MAX_PIXELS,
        "Largest number of pixels of an image file; one whose header claims more is not decoded.",
        at_least=1,
        at_most=MOST_PIXELS,
        free_on_resume=True,
    )
    resident: str = option(
        "auto",
        "Hold all images on the device as uint8: always, never (a DataLoader reads them), or auto: if they fit.",
        choices=("auto", "always", "never"),
        free_on_resume=True,
    )
    resident_megabytes: int = option(
        4096,
        "Largest image set, in MB, that data.resident=auto holds on the device.",
        at_least=1,
        free_on_resume=True,
    )
    workers: int = option(
        2, "Worker processes of the DataLoader, and threads that decode files.", at_least=0, free_on_resume=True
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


@dataclass
class SupernetConfig(Section):
    """The proxy network in which all candidate operations share weights."""

    prefix: ClassVar[str] = "supernet"

    space: str = option(
        "darts",
        "darts: normal and reduction cells; nasbench201: the cell of NAS-Bench-201 in its network, whose only "
        "settings are channels, cells, kernel and sync_statistics.",
        choices=("darts", "nasbench201"),
    )
    channels: int = option(16, "Channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(
        8,
        "Number of cells; those at 1/3 and 2/3 of the depth reduce. In nasbench201 a multiple of 3: as many in "
        "each of its stages.",
        at_least=1,
        at_most=200,
    )
    nodes: int = option(4, "Inner nodes per cell.", at_least=2, at_most=16)
    stem_multiplier: int = option(3, "Channels of the stem, in units of supernet.channels.", at_least=1, at_most=16)
    operations: list[str] = option(
        [*SEARCH_OPERATIONS], "Candidate operations, in the order of P's columns.", choices=SEARCH_OPERATIONS
    )
    kernel: str = option(
        "fused",
        "fused: fast; reference: the textbook form, operation by operation. The same function and checkpoints.",
        choices=("fused", "reference"),
        free_on_resume=True,
    )
    sync_statistics: bool = option(
        False,
        "Compute batch-normalisation statistics over all ranks, so that results do not depend on their number.",
    )

    @property
    def vertices(self) -> int:
        """Of a cell, inputs included."""
        return 4 if self.space == "nasbench201" else self.nodes + INPUT_NODES

    def check(self) -> None:
        if len(self.operations) < 2:
            raise self.refuse("operations", "a search needs at least two operations")
        if len(set(self.operations)) != len(self.operations):
            raise self.refuse("operations", "an operation is named twice")
        if self.space == "nasbench201":
            self._check_nasbench201()

    def _check_nasbench201(self) -> None:
        if self.cells % 3:
            raise self.refuse("cells", f"{self.key('space')}=nasbench201 has three stages; set a multiple of 3")
        for item in dataclasses.fields(self):
            fixed = item.name in ("nodes", "operations", "stem_multiplier")
            default = item.default_factory() if callable(item.default_factory) else item.default
            if fixed and getattr(self, item.name) != default:
                raise self.refuse(item.name, f"fixed in {self.key('space')}=nasbench201; leave it out")


@dataclass
class EmbeddingConfig(Section):
    """What turns a cell graph into operation probabilities, and how it learns."""

    prefix: ClassVar[str] = "embedding"

    kind: str = option(
        "nge",
        "nge: graph convolutions (Eq. 5-10); rnn: an LSTM in their place; plain: neither; direct: free parameters.",
        choices=("nge", "direct", "plain", "rnn"),
    )
    adjacency: str = option(
        "predecessors",
        "Eq. 6: each node hears its predecessors; as printed (later to earlier); or symmetric (Kipf and Welling).",
        choices=("predecessors", "printed", "symmetric"),
    )
    input_dim: int = option(64, "D: length of a node's learned input vector.", at_least=1, at_most=4096)
    hidden_dim: int = option(128, "Width of the hidden graph convolutions.", at_least=1, at_most=4096)
    output_dim: int = option(64, "F: length of a node's embedding.", at_least=1, at_most=4096)
    edge_dim: int = option(
        64, "K: length of an edge's embedding and of its hidden layer.", at_least=1, at_most=4096
    )
    layers: int = option(3, "L: graph convolutions of embedding.kind=nge.", at_least=1, at_most=64)
    recurrent_layers: int = option(2, "LSTM layers of embedding.kind=rnn.", at_least=1, at_most=64)
    shared: bool = option(True, "Normal and reduction cells share all layers and differ in X alone.")
    initialisation: str = option(
        "he", "he: normal with std sqrt(2 / fan_in); normal: with std embedding.init_std.", choices=("he", "normal")
    )
    init_std: float = option(0.1, "Standard deviation of embedding.initialisation=normal.", above=0)
    learning_rate: float = option(6e-4, "Adam's learning rate, fixed.", at_least=0)
    beta1: float = option(0.5, "Adam's first beta (DARTS).", at_least=0, below=1)
    beta2: float = option(0.999, "Adam's second beta.", at_least=0, below=1)
    weight_decay: float = option(1e-3, "L2 penalty on the embedding.", at_least=0)
    weight_decay_on_x: bool = option(True, "Apply it to the node vectors X too.")

    def check_vertices(self, vertices: int) -> None:
        """Raise UserError unless each of so many vertices can start as a one-hot vector of its own."""
        if self.kind != "direct" and self.input_dim < vertices:
            raise self.refuse(
                "input_dim", f"must be at least {vertices}: each vertex of a cell starts as a one-hot vector"
            )


@dataclass
class SgdSection(Section):
    """How weights are trained: SGD with momentum under a falling learning rate."""

    learning_rate: float = option(0.025, "SGD's initial learning rate for the weights.", at_least=0)
    learning_rate_min: float = option(0.0, "Learning rate at the end of its schedule.", at_least=0)
    momentum: float = option(0.9, "SGD's momentum.", at_least=0, below=1)
    weight_decay: float = option(3e-4, "L2 penalty on the weights.", at_least=0)
    clip: float = option(5.0, "Largest gradient norm of the weights; 0: no clipping.", at_least=0)

    def check(self) -> None:
        if self.learning_rate_min > self.learning_rate:
            raise self.refuse("learning_rate_min", f"above {self.key('learning_rate')}={self.learning_rate}")


@dataclass
class SearchSection(SgdSection):
    """The bilevel search loop."""

    prefix: ClassVar[str] = "search"

    loop: str = option(
        "epochwise",
        "epochwise: a pass for the weights, then one for the embedding (Algorithm 1); batchwise: in turn (DARTS).",
        choices=("epochwise", "batchwise"),
    )
    order: str = option(
        "first",
        "first: weights held fixed; second: through one unrolled weight step (DARTS, Eq. 7-8).",
        choices=("first", "second"),
    )
    epochs: int = option(25, "Epochs.", at_least=1)
    warmup_epochs: int = option(0, "First epochs, in which the weights alone are trained.", at_least=0)
    mixture: str = option(
        "weighted",
        "What the supernet adds up: weighted: all operations, by P; sampled: at each step one operation for each "
        "edge, drawn from P.",
        choices=("weighted", "sampled"),
    )
    gradient: str = option(
        "relaxed",
        "P's gradient where operations are sampled: relaxed: a Gumbel-softmax's (GDAS); score: of the expected "
        "loss of what is drawn, by the score function (REINFORCE), from search.draws architectures on each batch.",
        choices=("relaxed", "score"),
    )
    temperature: float = option(1.0, "Temperature of search.gradient=relaxed's Gumbel-softmax.", above=0)
    draws: int = option(4, "Architectures that search.gradient=score compares on a batch.", at_least=2, at_most=64)
    batch_size: int = option(64, "Images per step, over all ranks together.", at_least=2)
    cost_weight: float = option(
        0.0,
        "Weight of the expected mult-adds of all edges, relative to those of uniform P, in the architecture loss.",
        at_least=0,
    )
    entropy_weight: float = option(
        0.0,
        "Weight of P's entropy as a bonus, falling linearly to 0 over the search: keeps edges from settling early.",
        at_least=0,
    )
    cuda_graphs: str = option(
        "auto",
        "Replay whole steps as CUDA graphs, launched at once: always, never, or auto: on a GPU with one process.",
        choices=("auto", "always", "never"),
        free_on_resume=True,
    )
    evaluate_every: int = option(
        1, "Epochs between evaluations on the validation half; 0: after the last only.", at_least=0
    )

    def check(self) -> None:
        super().check()
        if self.warmup_epochs >= self.epochs:
            raise self.refuse("warmup_epochs", f"leaves none of {self.key('epochs')}={self.epochs} for P")
        if self.gradient == "score" and self.mixture != "sampled":
            raise self.refuse("gradient", f"needs {self.key('mixture')}=sampled")
        if self.gradient == "score" and self.order == "second":
            raise self.refuse("gradient", f"the loss is not differentiated; use {self.key('order')}=first")


@dataclass
class NetworkConfig(Section):
    """The classifier that a derived cell is stacked into."""

    prefix: ClassVar[str] = "network"

    genotype: str = option(
        "darts_v2",
        "A genotype: published name, JSON file, or finished search's run folder.",
        free_on_resume=True,  # the cells themselves are compared
        path=True,
    )
    kind: str = option(
        "cifar",
        "cifar: a stem at full resolution; imagenet: a stem of stride 8; nasbench101, nasbench201: the networks "
        "that these benchmarks trained, of their own cells in three stages.",
        choices=NETWORKS,
    )
    channels: int = option(36, "Channels C of the first cell.", at_least=1, at_most=1024)
    cells: int = option(20, "Number of cells; those at 1/3 and 2/3 of the depth reduce.", at_least=1, at_most=200)
    stem_multiplier: int = option(
        3, "Channels of the stem of network.kind=cifar, in units of network.channels.", at_least=1, at_most=16
    )
    auxiliary: bool = option(False, "Train an auxiliary head at 2/3 of the depth (needs images of about 32x32).")
    auxiliary_weight: float = option(0.4, "Weight of the auxiliary head's loss.", at_least=0)
    weights: str = option(
        "",
        "Start from these weights: an exported folder, a .safetensors file or a run folder; empty: at random.",
        path=True,
    )
    reset_classifier: bool = option(
        False, "Leave the classifier of network.weights out, as for other classes, and train a new one."
    )
    drop_path: float = option(
        0.0,
        "Probability of dropping an operation's output per image, reached linearly at the end.",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        if self.kind not in _PUBLISHED_NETWORKS:
            return
        if self.cells % 3:
            raise self.refuse("cells", f"{self.key('kind')}={self.kind} has three stages; set a multiple of 3")
        for name in ("auxiliary", "drop_path"):
            if getattr(self, name):
                raise self.refuse(name, f"networks of {self.key('kind')}={self.kind} have none; leave it out")


@dataclass
class NetworkTrainSection(SgdSection):
    """What all trainings of a derived network have."""

    prefix: ClassVar[str] = "train"

    epochs: int = option(600, "Epochs.", at_least=1)
    batch_size: int = option(128, "Images per step, over all ranks together.", at_least=2)
    accumulate: int = option(
        1,
        "Parts in which every process takes its share of a step, one after another: less memory, the result of as "
        "many times more processes.",
        at_least=1,
    )
    eval_batch_size: int = option(256, "Images per evaluation step, over all ranks together.", at_least=1)
    evaluate_every: int = option(
        1, "Epochs between evaluations; 0: after the last only, which is always evaluated.", at_least=0
    )
    sync_statistics: bool = option(
        False, "Compute batch-normalisation statistics over all ranks instead of each rank's own images."
    )


@dataclass
class TrainSection(NetworkTrainSection):
    """How a classifier is trained."""

    schedule: str = option(
        "cosine", "How the learning rate falls, epoch by epoch: cosine or linear.", choices=("cosine", "linear")
    )
    warmup_epochs: int = option(
        0,
        "First epochs, in which the learning rate is multiplied by (epoch + 1) / train.warmup_epochs.",
        at_least=0,
    )
    label_smoothing: float = option(0.0, "Label smoothing of the training loss.", at_least=0, below=1)
    mixup: float = option(0.0, "timm's mixup: alpha of its Beta distribution; 0: none.", at_least=0)
    cutmix: float = option(0.0, "timm's cutmix: alpha of its Beta distribution; 0: none.", at_least=0)
    ema_decay: float = option(
        0.0, "Decay per step of an average of the weights, evaluated beside them; 0: none.", at_least=0, below=1
    )
    compile: bool = option(
        False, "Compile the cells with torch.compile: takes minutes at first, pays on GPUs.", free_on_resume=True
    )

    def check(self) -> None:
        super().check()
        if self.warmup_epochs > self.epochs:
            raise self.refuse("warmup_epochs", f"more than {self.key('epochs')}={self.epochs}")


@dataclass
class RunningConfig(Section):
    """What every command that leaves a run folder has."""

    kind: ClassVar[str]
    figures: ClassVar[tuple[str, ...]]

    seed: int = option(0, "Seed of everything random.", at_least=0)
    threads: int = option(
        0, "CPU threads of torch; 0: its own choice.", at_least=0, at_most=1024, free_on_resume=True
    )
    run: RunConfig = field(default_factory=RunConfig)


@dataclass
class CommandConfig(RunningConfig):
    """What every command that trains has."""

    device: str = option(
        "auto",
        "auto: a GPU if there is one.",
        choices=("auto", "cpu", "cuda"),
        free_on_resume=True,
    )
    precision: str = option(
        "fp32",
        "fp32; tf32: products rounded on GPUs that can; bf16: mixed, with P, losses and statistics in fp32; "
        "fp64: for checking results.",
        choices=("fp32", "tf32", "bf16", "fp64"),
    )
    threads: int = option(
        0, "CPU threads of torch; 0: its own choice.", at_least=0, at_most=1024, free_on_resume=True
    )
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)


@dataclass
class SearchConfig(CommandConfig):
    """Settings of `train_search.py` (`nge search`)."""

    kind: ClassVar[str] = "search"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = (
        "genotype",
        "valid_top1",
        "epochs",
        "seconds",
        "images_per_second",
        "peak_memory_mb",
        "device",
    )

    task: str = option(
        "supernet", "Where architectures are judged; each has settings of its own.", choices=SEARCH_TASKS
    )
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    search: SearchSection = field(default_factory=SearchSection)

    def check(self) -> None:
        self.embedding.check_vertices(self.supernet.vertices)


@dataclass
class EvalConfig(CommandConfig):
    """Settings of `train_eval.py` (`nge eval`)."""

    kind: ClassVar[str] = "eval"
    #: What summary.json of a finished run holds at least.
    figures: ClassVar[tuple[str, ...]] = ("top1_error", "params", "macs", "epochs", "seconds")

    task: str = option("classification", "What is trained; each has settings of its own.", choices=TASKS)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainSection = field(default_factory=TrainSection)

    def check(self) -> None:
        if self.network.auxiliary and not self.data.facts.auxiliary:
            raise self.network.refuse(
                "auxiliary", f"an auxiliary head does not fit the images of data.name={self.data.name}"
            )
        if self.network.reset_classifier and not self.network.weights:
            raise self.network.refuse("reset_classifier", "there is nothing to reset without network.weights=")
