"""Networks as ONNX and torch.export files, each compared with the network before it counts as written.

Both take batches of any size, of images of one side or of any height and width. Legend: B images of a batch, C
channels, H and W sides in pixels, K classes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nge_search.errors import RunFailure, UserError, plain

ONNX_FILE, TORCH_FILE = "model.onnx", "model.pt2"

#: Largest difference of an exported file's outputs, relative to the largest logit where that is above 1.
_TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 3)
#: What the exporter's operators are written for; runtimes have had it since 2022.
_OPSET = 18
#: Ends of what is any number; torch 2.7 needs one that it can tell from that of 64-bit integers.
_MOST_IMAGES, _LARGEST_SIDE = 1 << 31, 1 << 15


@dataclass(frozen=True)
class Images:
    """What images a file takes, and what it gives for them.

    Attributes:
        channels, side: of the images that the network was trained on, or is exported for.
        smallest: the smallest height and width in pixels where any are taken; 0: `side` alone.
        argmax: the result are classes, int64 [B, H, W], and not logits.
    """

    channels: int
    side: int
    smallest: int = 0
    argmax: bool = False

    @property
    def output(self) -> str:
        """The name of what comes out."""
        return "classes" if self.argmax else "logits"

    @property
    def dynamic_shapes(self) -> tuple[dict[int, torch.export.Dim]]:
        """Which of the dimensions B, C, H, W of the input may be others, as `torch.export` takes it."""
        dims = {0: torch.export.Dim("batch", max=_MOST_IMAGES)}
        if self.smallest:
            for place, name in ((2, "height"), (3, "width")):
                dims[place] = torch.export.Dim(name, min=self.smallest, max=_LARGEST_SIDE)
        return (dims,)

    def of(self, network: nn.Module) -> nn.Module:
        """What a file holds of a network that gives logits [B, K, ...]."""
        return MostLikely(network).eval() if self.argmax else network

    def random(self, batch: int, height: int = 0, width: int = 0) -> Tensor:
        """Images that are the same at every call; by default of `side`."""
        shape = batch, self.channels, height or self.side, width or self.side
        return torch.randn(shape, generator=torch.Generator().manual_seed(batch))

    def checked(self) -> Iterator[Tensor]:
        """One image and several; where any size is taken, also odd ones, oblong ones, and the smallest."""
        for batch in _CHECKED_BATCHES:
            yield self.random(batch)
        if self.smallest:
            yield self.random(2, self.side + 3, self.side + 8)
            yield self.random(1, self.smallest, self.smallest + 1)


class MostLikely(nn.Module):
    """The class of largest logit, for networks that give logits [B, K, ...]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network(x_BCHW).argmax(dim=1)


def require_onnx() -> None:
    """Raise UserError unless the packages that write and check ONNX are there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"format onnx needs packages that are missing ({error}): pip install 'nge-search[export]'"
        ) from None


def _write_onnx(network: nn.Module, images: Images, folder: Path) -> None:
    import onnx
    import onnxruntime

    path = folder / ONNX_FILE
    with _exporting(ONNX_FILE):
        program = torch.onnx.export(
            images.of(network),
            (images.random(2),),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=[images.output],
            dynamic_shapes=images.dynamic_shapes,
            verbose=False,
        )
        assert program is not None  # with `dynamo`
        path.write_bytes(program.model_proto.SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        require_agreement(
            ONNX_FILE, network, lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), images
        )


def _write_torch(network: nn.Module, images: Images, folder: Path) -> None:
    path = folder / TORCH_FILE
    with _exporting(TORCH_FILE):
        program = torch.export.export(images.of(network), (images.random(2),), dynamic_shapes=images.dynamic_shapes)
        content = io.BytesIO()  # whose lack of room is told by the system, not by torch
        torch.export.save(program, content)
        path.write_bytes(content.getbuffer())
        require_agreement(TORCH_FILE, network, torch.export.load(path).module(), images)


def _write_nothing(network: nn.Module, images: Images, folder: Path) -> None:
    """timm's files, or those of a segmentation, are always written."""


#: What can be exported, and what writes and checks it besides the files that are always written.
FORMATS: dict[str, Callable[[nn.Module, Images, Path], None]] = {
    "timm": _write_nothing,
    "onnx": _write_onnx,
    "torch": _write_torch,
}


@torch.no_grad()
def require_agreement(name: str, network: nn.Module, exported: Callable[[Tensor], Tensor], images: Images) -> None:
    """Raise RunFailure unless `exported` gives the network's results, for all of `images.checked()`.

    A class may be another one than the network's where their logits are as good as equal.
    """
    for x in images.checked():
        expected, given = network(x), exported(x)
        limit = _TOLERANCE * max(1.0, expected.abs().max().item())
        difference = math.inf
        if images.argmax and given.shape == expected[:, 0].shape:
            chosen = expected.gather(1, given[:, None])[:, 0]
            difference = (expected.amax(dim=1) - chosen).max().item()
        elif given.shape == expected.shape:
            difference = (given - expected).abs().max().item()
        if not difference <= limit:
            raise RunFailure(
                f"{name} does not compute what the network does: its outputs differ by {difference:.3g} on a batch "
                f"of {len(x)} of {x.shape[2]}x{x.shape[3]} pixels, more than {limit:.3g}"
            )


@contextlib.contextmanager
def _exporting(name: str) -> Iterator[None]:
    """Within it torch's exporters are quiet, and what they, or the file `name`, raise is one line."""
    try:
        with _quiet():
            yield
    except (UserError, OSError, MemoryError):  # the system's errors, and ours, are told as everywhere else
        raise
    except Exception as error:  # exporters raise whatever stopped them, the caller's own operations among it
        reason = plain(" ".join(str(error).split()), 300)
        raise RunFailure(
            f"{name} cannot be made of this network: {type(error).__name__}: {reason}; operations of your own must "
            "not decide in Python by what tensors hold, or leave the format out: weights and config.json need none"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of their own inner life."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
