"""The types that transformers' AutoModel knows, each with its default configuration (extra `retrieve`)."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nge_search.errors import UserError
from nge_search.retrieve.extraction import BATCH, Inputs
from nge_search.retrieve.sources import Library, Origin, build_hollow

_TOKENS, _FRAMES, _SAMPLES = 32, 8, 16_000

#: What a configuration calls the size of an image, the sizes of a spectrogram, and the number of a clip's frames.
_SIDES, _BANDS, _TIMES, _CLIPS = (
    ("image_size", "input_size"),
    ("num_mel_bins", "input_feat_per_channel", "feature_size"),
    ("max_length", "max_source_positions"),
    ("num_frames",),
)

#: A configuration of several networks keeps theirs below these names.
_PARTS = ("vision_config", "text_config", "audio_config", "backbone_config", "encoder", "decoder")


class Transformers(Library):
    """transformers; the folder of a model is its family, and what it is first called with says its task."""

    name = "transformers"

    def __init__(self) -> None:
        try:
            self._transformers = importlib.import_module("transformers")
            auto = importlib.import_module("transformers.models.auto.modeling_auto")
        except ImportError as error:
            raise UserError(
                f"transformers cannot be imported ({error}); install it: pip install 'nge-search[retrieve]'"
            ) from None
        self._types: Mapping[str, Any] = auto.MODEL_MAPPING_NAMES
        logging.getLogger("transformers").setLevel(logging.ERROR)  # default configurations give rise to warnings

    def version(self) -> str:
        return self._transformers.__version__

    def names(self) -> list[str]:
        return sorted(self._types)

    def origin(self, name: str) -> Origin:
        folder = type(self._config(name)).__module__.split(".")[-2]
        return Origin(folder, _task(self._class(name)))

    def build(self, name: str) -> tuple[nn.Module, Inputs]:
        config = self._config(name)
        for key, value in (("use_cache", False), ("_experts_implementation", "batched_mm")):
            for part in (config, *_parts(config)):
                setattr(part, key, value)  # experts one by one would read which of them are asked
        auto = self._transformers.AutoModel
        network = build_hollow(lambda: auto.from_config(config, attn_implementation="eager"))
        return network, inputs_of(network, config)

    def _config(self, name: str) -> Any:
        return self._transformers.AutoConfig.for_model(name)

    def _class(self, name: str) -> Any:
        known = self._types[name]
        return getattr(self._transformers, known if isinstance(known, str) else known[0])


def inputs_of(network: nn.Module, config: Any) -> Inputs:
    """What a model is called with: its main input, what it cannot do without, and those of all its parts.

    Raises:
        UserError: an argument that it cannot do without is unknown here.
    """
    taken = inspect.signature(network.forward).parameters
    main = getattr(network, "main_input_name", "input_ids")
    wanted = {main} & taken.keys()
    if getattr(config, "text_config", None) is not None:
        wanted |= {"input_ids", "pixel_values", "input_features"} & taken.keys()
    if getattr(config, "is_encoder_decoder", False):
        wanted |= {"decoder_input_ids"} & taken.keys()
    wanted |= {name for name, argument in taken.items() if _is_required(argument)}
    if "input_ids" in wanted:
        wanted |= {"attention_mask"} & taken.keys()
    unknown = sorted(wanted - _MAKERS.keys())
    if unknown:
        raise UserError(f"its argument {unknown[0]} is not known here")
    return Inputs(kwargs={name: _MAKERS[name](config) for name in sorted(wanted)}, batch=BATCH, complete=True)


def _task(known: Any) -> str:
    main = getattr(known, "main_input_name", "input_ids")
    return {
        "input_ids": "text",
        "pixel_values": "images",
        "pixel_values_videos": "video",
        "input_features": "audio",
        "input_values": "audio",
    }.get(main, "other")


def _is_required(argument: inspect.Parameter) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return argument.kind in kinds and argument.default is inspect.Parameter.empty


def _parts(config: Any) -> list[Any]:
    return [
        part for name in _PARTS if (part := getattr(config, name, None)) is not None and hasattr(part, "to_dict")
    ]


def _number(config: Any, names: tuple[str, ...], otherwise: Any) -> Any:
    """The first of these settings that the configuration, or one of its parts, has."""
    for owner in (config, *_parts(config)):
        for name in names:
            if getattr(owner, name, None) is not None:
                return getattr(owner, name)
    return otherwise


def _tokens(config: Any) -> Tensor:
    return torch.ones(BATCH, _TOKENS, dtype=torch.long, device="meta")


def _image(config: Any) -> Tensor:
    side = _number(config, _SIDES, 224)
    height, width = (side, side) if isinstance(side, int) else list(side)[-2:]
    return torch.empty(BATCH, int(_number(config, ("num_channels",), 3)), height, width, device="meta")


def _clip(config: Any) -> Tensor:
    return _image(config)[:, None].repeat(1, int(_number(config, _CLIPS, _FRAMES)), 1, 1, 1)


def _spectrogram(config: Any) -> Tensor:
    """[B, bands, times] where a convolution that halves times stands in front, else [B, times, bands]."""
    bands = int(_number(config, _BANDS, 80))
    if getattr(config, "max_source_positions", None) and hasattr(config, "num_mel_bins"):
        return torch.empty(BATCH, bands, 2 * int(config.max_source_positions), device="meta")
    return torch.empty(BATCH, int(_number(config, _TIMES, 256)), bands, device="meta")


def _sound(config: Any) -> Tensor:
    """A wave, or a spectrogram where the configuration has bands."""
    if _number(config, ("num_mel_bins",), None) is not None:
        return _spectrogram(config)
    return torch.empty(BATCH, _SAMPLES, device="meta")


_MAKERS: dict[str, Callable[[Any], Tensor]] = {
    "input_ids": _tokens,
    "attention_mask": _tokens,
    "decoder_input_ids": _tokens,
    "pixel_values": _image,
    "pixel_values_videos": _clip,
    "input_features": _spectrogram,
    "input_values": _sound,
}
