"""transformers' types, by a stand-in of the library: what is asked of it, and what models are called with."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nge_search.errors import UserError
from nge_search.retrieve.extraction import trace
from nge_search.retrieve.sources import open_library
from nge_search.retrieve.transformers_networks import inputs_of


class Text(nn.Module):
    main_input_name = "input_ids"

    def __init__(self, config: Any):
        super().__init__()
        assert config.use_cache is False
        self.embedding, self.head = nn.Embedding(10, config.width), nn.Linear(config.width, 2)

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **words: Any) -> dict[str, Tensor]:
        if attention_mask is None:
            raise ValueError("it would look for padding")
        return {"last": self.head(self.embedding(input_ids))}


class Picture(nn.Module):
    main_input_name = "pixel_values"

    def __init__(self, config: Any):
        super().__init__()
        self.patches = nn.Conv2d(config.num_channels, 4, 8, stride=8)

    def forward(self, pixel_values: Tensor | None = None, output_attentions: bool = False) -> Any:
        return self.patches(pixel_values), None


class Config(SimpleNamespace):
    pass


Config.__module__ = "transformers.models.tiny.configuration_tiny"
CONFIGS = {
    "text": Config(model_type="text", width=4),
    "picture": Config(model_type="picture", num_channels=1, image_size=[16, 32]),
}


class AutoModel:
    @staticmethod
    def from_config(config: Any, attn_implementation: str) -> nn.Module:
        assert attn_implementation == "eager"
        return {"text": Text, "picture": Picture}[config.model_type](config)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that has what is asked of transformers."""
    library = ModuleType("transformers")
    names = {"text": "Text", "picture": ("Picture", "Other")}
    for name, value in {
        "__version__": "9.9",
        "AutoModel": AutoModel,
        "AutoConfig": SimpleNamespace(for_model=CONFIGS.__getitem__),
        "Text": Text,
        "Picture": Picture,
    }.items():
        setattr(library, name, value)
    auto = ModuleType("transformers.models.auto.modeling_auto")
    monkeypatch.setattr(auto, "MODEL_MAPPING_NAMES", names, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", library)
    monkeypatch.setitem(sys.modules, "transformers.models", ModuleType("transformers.models"))
    monkeypatch.setitem(sys.modules, "transformers.models.auto", ModuleType("transformers.models.auto"))
    monkeypatch.setitem(sys.modules, "transformers.models.auto.modeling_auto", auto)


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        UserError, match=r"^transformers cannot be imported .* pip install 'nge-search\[retrieve\]'$"
    ):
        open_library("transformers")


@pytest.mark.usefixtures("installed")
def test_types_are_built_and_traced() -> None:
    library = open_library("transformers")
    assert (library.version(), library.names()) == ("9.9", ["picture", "text"])
    assert library.origin("text") == ("tiny", "text")
    assert library.origin("picture") == ("tiny", "images")
    text = trace(*library.build("text"))
    assert next(label.name for label in text.graph.nodes) == "Embedding"
    module, inputs = library.build("picture")
    assert inputs.kwargs["pixel_values"].shape == (2, 1, 16, 32)
    picture = trace(module, inputs)
    assert [label.name for label in picture.graph.nodes] == ["input", "Convolution"]
    assert picture.multiply_adds == 8 * 4 * 64


def call(function: Any, config: Any, main: str = "input_ids") -> dict[str, tuple[int, ...]]:
    """The shapes of what a model with this `forward` is called with."""
    model = SimpleNamespace(forward=function, main_input_name=main)
    return {name: tuple(value.shape) for name, value in inputs_of(model, config).kwargs.items()}


def test_what_models_are_called_with() -> None:
    def translate(input_ids=None, attention_mask=None, decoder_input_ids=None, labels=None): ...

    def listen(input_features=None, decoder_input_ids=None): ...

    def wave(input_values, attention_mask=None): ...

    def compare(input_ids=None, pixel_values=None, attention_mask=None): ...

    def watch(pixel_values_videos=None): ...

    def unknown(input_ids=None, *, bbox): ...

    tokens = (2, 32)
    assert call(translate, Config(is_encoder_decoder=True)) == {
        "attention_mask": tokens,
        "decoder_input_ids": tokens,
        "input_ids": tokens,
    }
    assert call(translate, Config()) == {"attention_mask": tokens, "input_ids": tokens}
    whisper = Config(is_encoder_decoder=True, num_mel_bins=80, max_source_positions=1500)
    assert call(listen, whisper, "input_features") == {"decoder_input_ids": tokens, "input_features": (2, 80, 3000)}
    assert call(wave, Config(), "input_values") == {"input_values": (2, 16000)}
    spectrogram = Config(num_mel_bins=128, max_length=1024)
    assert call(wave, spectrogram, "input_values") == {"input_values": (2, 1024, 128)}
    vision = Config(image_size=64, to_dict=dict)
    assert call(compare, Config(text_config=Config(), vision_config=vision)) == {
        "attention_mask": tokens,
        "input_ids": tokens,
        "pixel_values": (2, 3, 64, 64),
    }
    assert call(watch, Config(num_frames=4), "pixel_values_videos") == {"pixel_values_videos": (2, 4, 3, 224, 224)}
    with pytest.raises(UserError, match="its argument bbox is not known here"):
        call(unknown, Config())


def test_contents_take_no_memory() -> None:
    def listen(input_features=None): ...

    model = SimpleNamespace(forward=listen, main_input_name="input_features")
    inputs = inputs_of(model, Config(num_mel_bins=1 << 20, max_source_positions=1 << 20))
    assert inputs.kwargs["input_features"].device == torch.device("meta")
