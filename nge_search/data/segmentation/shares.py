"""How much of a set's masks each class takes: counted before a training, shown, and refused where it says nothing.

Legend: K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nge_search.data.decoding import for_each
from nge_search.data.segmentation.dataset import IGNORED, MaskedDataset, MaskedSource
from nge_search.errors import UserError
from nge_search.settings.segmentation import MaskedDataSection

#: Of a set with more, so many masks are counted, evenly spread; fewer if they are large.
MOST_MASKS = 512
_MOST_PIXELS = 1 << 28
_MOST_IGNORED = 0.95
_SHOWN_CLASSES = 4
#: Of those that never occur.
_NAMED_CLASSES = 2


@dataclass(frozen=True)
class Shares:
    """Pixels of `counted` of a set's `images` masks: by class, and those that do not count."""

    images: int
    counted: int
    pixels_K: tuple[int, ...]
    ignored: int

    @property
    def total(self) -> int:
        return sum(self.pixels_K) + self.ignored

    def describe(self, what: str, classes: tuple[str, ...]) -> str:
        """A remark for the user, such as "8 validation masks: person 60.0 %, 20 classes never, 40.0 % ignored"."""
        present = sorted(((pixels, -i) for i, pixels in enumerate(self.pixels_K) if pixels), reverse=True)
        parts = [f"{classes[-i]} {self._percent(pixels)}" for pixels, i in present[:_SHOWN_CLASSES]]
        rest, never = present[_SHOWN_CLASSES:], [name for name, pixels in zip(classes, self.pixels_K) if not pixels]
        if rest:
            parts.append(f"{_classes(len(rest))} more {self._percent(sum(pixels for pixels, _ in rest))}")
        if never:
            parts.append(f"{' and '.join(never) if len(never) <= _NAMED_CLASSES else _classes(len(never))} never")
        parts.append(f"{self._percent(self.ignored)} ignored")
        some = f"{self.counted} of " if self.counted < self.images else ""
        return f"{some}{self.images} {what} mask{'s' * (self.images != 1)}: {', '.join(parts)}"

    def fault(self, classes: tuple[str, ...]) -> str:
        """Why a training or a validation on these masks would say nothing; empty if it would."""
        present = [name for name, pixels in zip(classes, self.pixels_K) if pixels]
        if self.ignored > _MOST_IGNORED * self.total:
            return f"{self._percent(self.ignored)} of the pixels are {IGNORED}, which does not count"
        if len(present) > 1:
            return ""
        rest = f", and {self._percent(self.ignored)} of the pixels are {IGNORED}, which does not count"
        return f"no class but '{present[0]}' occurs" + rest * (self.ignored > 0)

    def _percent(self, pixels: int) -> str:
        share = 100 * pixels / max(self.total, 1)
        return f"{share:.1f} %" if share >= 0.05 or not pixels else "under 0.1 %"


def count_shares(dataset: MaskedDataset, config: MaskedDataSection) -> dict[str, Shares]:
    """The shares of the training masks ("train") and of the validation masks ("test").

    Raises:
        UserError: a mask that cannot be read; or, unless `data.allow_sparse_masks`, a set in which at most one
            class occurs or of whose pixels over 95 % are ignored.
    """
    shares = {name: _count(source, len(dataset.classes)) for name, source in _sets(dataset)}
    for name, words in (("train", "training"), ("test", "validation")):
        fault = shares[name].fault(dataset.classes)
        if fault and not config.allow_sparse_masks:
            some = " that were looked at" if shares[name].counted < shares[name].images else ""
            raise UserError(
                f"in the {words} masks{some}, {fault}; masks must hold the numbers of classes, as 0 and 1 for two "
                "(not 0 and 255); if this is meant, set data.allow_sparse_masks=true"
            )
    return shares


def notice(shares: dict[str, Shares], classes: tuple[str, ...]) -> str:
    """One line for the user about both sets."""
    return "; ".join(
        shares[name].describe(words, classes) for name, words in (("train", "training"), ("test", "validation"))
    )


def to_document(shares: dict[str, Shares]) -> dict[str, Any]:
    """What dataset.json keeps of them."""
    return {
        name: {
            "images": found.images,
            "counted": found.counted,
            "pixels": list(found.pixels_K),
            "ignored": found.ignored,
        }
        for name, found in shares.items()
    }


def _sets(dataset: MaskedDataset) -> tuple[tuple[str, MaskedSource], tuple[str, MaskedSource]]:
    return ("train", dataset.train), ("test", dataset.test)


def _count(source: MaskedSource, classes: int) -> Shares:
    images = len(source)
    mean_pixels = max(1, int(source.sizes_N2.prod(dim=1).double().mean()))
    counted = min(images, MOST_MASKS, max(1, _MOST_PIXELS // mean_pixels))
    positions = [images * i // counted for i in range(counted)]

    def one(position: int) -> torch.Tensor:
        return torch.bincount(source.read_mask(position).flatten(), minlength=IGNORED + 1)

    pixels = torch.stack(for_each(one, positions, torch.get_num_threads())).sum(dim=0).tolist()
    return Shares(images, counted, tuple(pixels[:classes]), pixels[IGNORED])


def _classes(count: int) -> str:
    return f"{count} class{'es' * (count != 1)}"
