"""Where published networks come from: installed libraries, which build them without weights or downloads."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nge_search.errors import UserError, nearest, plain
from nge_search.registry import resolve
from nge_search.retrieve.extraction import Inputs, images

#: Libraries by name, as "module:class".
LIBRARIES = {
    "timm": "nge_search.retrieve.sources:Timm",
    "torchvision": "nge_search.retrieve.torchvision_networks:Torchvision",
    "transformers": "nge_search.retrieve.transformers_networks:Transformers",
}

CLASSIFICATION = "classification"


class Origin(NamedTuple):
    """What a library says of a network: its family, see `corpus.Network`, and its task."""

    family: str
    task: str


class Library(ABC):
    """An installed library of networks.

    Attributes:
        name: of the library.
    """

    name: ClassVar[str]

    @abstractmethod
    def version(self) -> str:
        """The version that is installed."""

    @abstractmethod
    def names(self) -> list[str]:
        """All its networks, sorted."""

    @abstractmethod
    def origin(self, name: str) -> Origin:
        """The family and the task of one of its networks."""

    @abstractmethod
    def build(self, name: str) -> tuple[nn.Module, Inputs]:
        """One of its networks, weights on the meta device, and what it is called with."""


def open_library(name: str) -> Library:
    """A library by its name, or one of a user as "module:class".

    Raises:
        UserError: it is unknown or not installed.
    """
    place = name if ":" in name else LIBRARIES.get(name)
    if place is None:
        raise UserError(
            f"library '{plain(name)}' is unknown; known are {', '.join(LIBRARIES)}{nearest(name, LIBRARIES)}"
        )
    return resolve(place)()


class Timm(Library):
    """timm: all its names; the module that defines a network is its family."""

    name = "timm"

    def __init__(self) -> None:
        import timm

        self._timm = timm

    def version(self) -> str:
        return self._timm.__version__

    def names(self) -> list[str]:
        return [name for name in sorted(self._timm.list_models()) if self._module(name).startswith("timm.")]

    def origin(self, name: str) -> Origin:
        return Origin(self._module(name).rpartition(".")[2], CLASSIFICATION)

    def build(self, name: str) -> tuple[nn.Module, Inputs]:
        network = build_hollow(lambda: self._timm.create_model(name))
        described: Any = network.pretrained_cfg
        return network, images(*(described.get("input_size") or ()))

    def _module(self, name: str) -> str:
        return self._timm.models.model_entrypoint(name).__module__


def build_hollow(constructor: Callable[[], nn.Module]) -> nn.Module:
    """The module that a constructor gives, without memory for its weights.

    A constructor that reads a value back, which a tensor on the meta device does not have, is called again with
    only those tensors there that wait for their values.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return constructor()
        except Exception as error:  # a constructor of any origin raises anything
            try:
                with _Unfilled():
                    return constructor()
            except Exception:
                raise error from None


class _Unfilled(TorchFunctionMode):
    """Tensors that are made to be filled later are made on the meta device; those that count something are not."""

    _functions = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        words = dict(kwargs or {})
        if func in self._functions and words.get("device") is None:
            words["device"] = "meta"
        return func(*args, **words)
