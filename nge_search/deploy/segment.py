"""Images through a trained segmentation network: a palette PNG for each, whose pixels are classes, and overlays."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import torch
from PIL import Image
from torch import Tensor

from nge_search import kinds
from nge_search.data.decoding import for_each, load, to_tensor
from nge_search.data.segmentation.augmentation import MaskedAugmentation
from nge_search.deploy.classify import find_images
from nge_search.engine.checkpoint import require_same_tensors
from nge_search.engine.distributed import choose_device
from nge_search.engine.precision import allow_tf32
from nge_search.engine.run_reader import RunReader, use_of
from nge_search.errors import UserError
from nge_search.files import new_folder, refuse_odd_target, user_path, write_atomic
from nge_search.kinds import CONFIG
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.weights import MODEL_FILE
from nge_search.settings.load import load_config
from nge_search.settings.segmentation import MOST_CLASSES, SegmentationConfig
from nge_search.training.segmentation import predict
from nge_search.training.segmentation_results import overlay_image, palette_image
from nge_search.training.segmentation_run import build_network

#: What a file's name has before .png: the classes, and the image with their colours laid over it.
_MASK, _OVERLAY = "", "_overlay"


@dataclass(frozen=True)
class Segmented:
    """An image, the PNG with its classes, and the share of pixels of each class that occurs; or why it has none.

    `overlay` is the PNG of the image under its classes' colours, where there is one.
    """

    path: str
    mask: Path | None = None
    shares: tuple[tuple[str, float], ...] = ()
    error: UserError | None = None
    overlay: Path | None = None


@dataclass(frozen=True)
class TrainedSegmenter:
    """A network in evaluation mode, its classes, and how images are prepared and evaluated."""

    network: DeepLabV3
    classes: tuple[str, ...]
    normalisation: MaskedAugmentation
    scales: tuple[float, ...]
    flip: bool

    @torch.inference_mode()
    def __call__(self, pixels_3HW: Tensor) -> Tensor:
        """The class of every pixel of a uint8 image: int64 [H, W], on the image's device."""
        nothing_1HW = torch.zeros_like(pixels_3HW[:1])
        images = self.normalisation.evaluate(torch.cat([pixels_3HW, nothing_1HW])[None])
        return predict(self.network, images[:, :3], self.scales, self.flip).argmax(dim=1)[0]


def read_trained(run: str | Path) -> TrainedSegmenter:
    """The network that a segmentation run has trained, so far or to its end, on the CPU.

    Raises:
        UserError: another folder, or a damaged one.
    """
    run = user_path(run)
    if (run / MODEL_FILE).is_file():
        raise UserError(
            f"'{run}' is an exported classifier; use it as it is: nge classify {quote(str(run))} IMAGES"
        )
    if not (run / CONFIG).is_file():
        raise UserError(f"'{run}' is not the folder of a segmentation run, such as runs/segmentation/scenes")
    reader = RunReader(run)
    saved = reader.checkpoint()
    kind = (RunReader(run, lenient=True).kind or SegmentationConfig.kind) if saved is None else saved.kind
    if kinds.current_name(kind) != SegmentationConfig.kind:
        use = use_of(run, str(kind)) or "the folder of another kind of run"
        raise UserError(f"'{run}' is not the folder of a segmentation run: it is {use}")
    if saved is None:
        raise UserError(f"'{run}' has no checkpoint yet, so there are no weights to take")
    config = load_config(SegmentationConfig, run / CONFIG)
    images = reader.described_images()
    classes = images.names("classes")
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{images.source} is damaged: {len(classes)} classes, of which a mask holds {MOST_CLASSES}")
    with torch.device("meta"):  # takes no memory, whatever sizes the files claim
        network = build_network(config.network, reader.saved_genotype(), len(classes), False)
    given = saved.state.section("task").section("network").document
    weights = {
        name: tensor.float() if isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor
        for name, tensor in given.items()
        if not str(name).startswith("backbone.auxiliary.")
    }
    require_same_tensors(network.state_dict(), weights, saved.state.source)
    network.load_state_dict(weights, assign=True)
    return TrainedSegmenter(
        network.eval().to(memory_format=torch.channels_last),
        tuple(classes),
        MaskedAugmentation(False, images.numbers("mean", 3), images.numbers("std", 3, above=0)),
        config.train.scales,
        config.train.eval_flip,
    )


def trained_network(run: Path) -> DeepLabV3:
    """The network of `read_trained`."""
    return read_trained(run).network


def segment(
    run: str | Path,
    images: Sequence[str],
    out: str | Path,
    *,
    overlay: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> Iterator[Segmented]:
    """Write `out`/NAME.png, in VOC's palette, for every image in files and folders, in their order.

    With `overlay`, also NAME_overlay.png: the image, half covered by its classes' colours.

    Raises:
        UserError: a run, a folder or a device that cannot be used, or PNGs that would replace each other or other
            files. An image that cannot be read is passed on.
    """
    chosen, out = choose_device(device), user_path(out)
    targets = _targets(find_images(images), out, (_MASK, _OVERLAY) if overlay else (_MASK,), overwrite)
    trained = read_trained(run)
    trained.network.to(chosen)
    allow_tf32(False)
    with new_folder(out), _none_of_few() as written:
        for path, (mask, *overlays) in targets.items():
            try:
                (image,) = for_each(load, [path], threads=1)  # which silences what Pillow says of metadata
                pixels_3HW = to_tensor(image)
                classes_HW = trained(pixels_3HW.to(chosen)).cpu()
            except UserError as error:
                yield Segmented(path, error=error)
                continue
            _write(palette_image(classes_HW), mask, written)
            for target in overlays:
                _write(overlay_image(pixels_3HW, classes_HW), target, written)
            shares = _shares(classes_HW, trained.classes)
            yield Segmented(path, mask, shares, overlay=next(iter(overlays), None))


def _write(image: Image.Image, target: Path, written: list[Path]) -> None:
    """Write a PNG, and add it to `written` if there was none."""
    content = io.BytesIO()
    image.save(content, "PNG")
    is_new = not target.exists()
    write_atomic(target, content.getvalue())
    written += [target] * is_new


@contextlib.contextmanager
def _none_of_few() -> Iterator[list[Path]]:
    """A list of new files that go again where the disk has no room for the next: they would be in the way later."""
    written: list[Path] = []
    try:
        yield written
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _shares(classes_HW: Tensor, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The share of pixels of each class that occurs, largest first."""
    counts = torch.bincount(classes_HW.flatten(), minlength=len(names)) / classes_HW.numel()
    shares = sorted(((share, name) for share, name in zip(counts.tolist(), names) if share), reverse=True)
    return tuple((name, share) for share, name in shares)


def _targets(paths: Sequence[str], out: Path, ends: Sequence[str], overwrite: bool) -> dict[str, list[Path]]:
    """Where the PNGs of each image go, one for each of `ends`."""
    targets: dict[str, list[Path]] = {}
    taken: dict[Path, str] = {}
    given = {os.path.realpath(path) for path in paths}
    for path, end in itertools.product(paths, ends):
        target = out / f"{Path(path).stem}{end}.png"
        if target in taken:
            raise UserError(f"'{taken[target]}' and '{path}' would both become '{target}'; segment them one by one")
        if os.path.realpath(target) in given:
            raise UserError(f"'{target}' would replace an image that is to be segmented; choose another --out")
        refuse_odd_target(target)
        if target.exists() and not overwrite:
            raise UserError(f"'{target}' exists; choose another --out, or add --overwrite")
        targets.setdefault(path, []).append(target)
        taken[target] = path
    return targets
