"""A module that the caller has, in the form in which derived networks are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nge_search.errors import UserError, plain, shorten

#: Images of the batch by which a module is tried.
_TRIED = 2


class OwnNetwork(nn.Module):
    """A classifier of the caller's: from images [B, C, H, W] to logits [B, classes]. It has no drop-path.

    Attributes:
        classes: logits per image.
        macs: mult-adds per image, as of `nge_search.counting.multiply_adds`.
        drop_slots, cells, compiled: as of `nge_search.networks.classifier.Classifier`; the module is the only cell.
    """

    drop_slots = 0

    def __init__(self, module: nn.Module, classes: int, macs: int):
        super().__init__()
        self.module, self.classes, self.macs, self.compiled = module, classes, macs, False

    @property
    def cells(self) -> list[nn.Module]:
        return [self.module]

    def forward(self, x_BCHW: Tensor, keep_BD: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits, and no auxiliary ones; UserError for a module that gives something else."""
        found = self.module(x_BCHW)
        if not isinstance(found, Tensor) or found.shape != (len(x_BCHW), self.classes):
            mode = "training" if self.training else "evaluation"
            raise UserError(
                f"network: {type(self.module).__name__} gives {_what(found)} in {mode} mode; it must give logits "
                f"{[len(x_BCHW), self.classes]} alone"
            )
        return found, None


def require_module(given: object) -> None:
    """Raise UserError unless `given` is a module."""
    if not isinstance(given, nn.Module):
        raise UserError(f"network={shorten(given)}: give a torch.nn.Module")


def own_network(module: nn.Module, channels: int, side: int, classes: int) -> OwnNetwork:
    """The caller's module, tried on images of a data set: it is called once, in evaluation mode.

    Raises:
        UserError: no module, one without weights to train or on the meta device, or one that does not give a logit
            for each class.
    """
    require_module(module)
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not weights:
        raise UserError(f"network: {type(module).__name__} has no parameters that learn")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UserError(
            f"network: {type(module).__name__} is on the meta device, without numbers; use to_empty first"
        )
    shape, training = (_TRIED, channels, side, side), module.training
    images = torch.zeros(shape, dtype=weights[0].dtype, device=weights[0].device)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            found = module.eval()(images)
    except Exception as error:  # the caller's own code may raise anything
        raise UserError(
            f"network: {type(module).__name__} does not take images {list(shape)} ({plain(str(error), 200)})"
        ) from error
    finally:
        module.train(training)
    if not isinstance(found, Tensor) or found.shape != (_TRIED, classes):
        raise UserError(
            f"network: {type(module).__name__} gives {_what(found)} for {_TRIED} images of {classes} classes; "
            f"it must give logits {[_TRIED, classes]}"
        )
    return OwnNetwork(module, classes, counter.get_total_flops() // (2 * _TRIED))


def _what(found: object) -> str:
    """What a module has given, in a message."""
    return str(list(found.shape)) if isinstance(found, Tensor) else type(found).__name__
