"""The networks under timm's interface: the same functions, and what timm's own code expects of a model."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2

from nge_search.architecture.load import load_genotype
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES
from nge_search.networks.timm_models import ARCHITECTURES

KINDS = pytest.mark.parametrize("kind", ARCHITECTURES)
SIDES = {"cifar": 16, "imagenet": 64}

#: Channels and reductions of the feature maps of networks with 4 channels, a stem of 12 and 6 cells.
FEATURES = {
    "cifar": ([12, 16, 32, 64], [1, 1, 2, 4]),
    "imagenet": ([4, 4, 16, 32, 64], [4, 8, 8, 16, 32]),
}


def small(kind: str, **kwargs) -> torch.nn.Module:
    return timm.create_model(
        ARCHITECTURES[kind], **{"genotype": "pc_darts_cifar", "channels": 4, "cells": 6, **kwargs}
    )


def images(kind: str, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, SIDES[kind], SIDES[kind], generator=generator)


@KINDS
@pytest.mark.parametrize("auxiliary", [False, True])
def test_it_is_our_network(kind, auxiliary):
    """Also with a state dict that has an auxiliary head."""
    torch.manual_seed(0)
    ours = FAMILIES[kind].build(load_genotype("pc_darts_cifar"), 4, 6, 7, auxiliary=auxiliary)
    state = ours.state_dict()
    theirs = small(
        kind, num_classes=7, pretrained=True, pretrained_cfg_overlay={"state_dict": state, "num_classes": 7}
    )
    assert list(theirs.state_dict()) == [name for name in state if not name.startswith("auxiliary.")]
    x = images(kind)
    assert torch.equal(theirs.eval()(x), ours.eval()(x)[0])
    assert torch.equal(theirs.forward_head(theirs.forward_features(x)), theirs(x))
    if not auxiliary:
        assert torch.equal(theirs.train()(x), ours.train()(x)[0])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_defaults_are_those_of_the_published_network(kind):
    with torch.device("meta"):
        model = timm.create_model(ARCHITECTURES[kind])
    family = FAMILIES[kind]
    assert (len(model.cells), model.cells[0].c_out, model.num_classes) == (
        family.cells,
        4 * family.channels,
        family.classes,
    )
    assert ARCHITECTURES[kind] in timm.list_models("nge_*")
    cfg = model.default_cfg
    assert cfg["architecture"] == ARCHITECTURES[kind]
    assert model.get_submodule(cfg["first_conv"]).in_channels == 3
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    data = resolve_data_config({}, model=model)
    assert data["input_size"] == (3, family.image_size, family.image_size)
    assert data["interpolation"] == "bilinear"
    assert data["crop_pct"] == (1.0 if kind == "cifar" else 0.875)
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model(ARCHITECTURES[kind], pretrained=True, channels=2, cells=1)


def test_genotypes_of_every_form(tmp_path):
    genotype = load_genotype("p_darts")
    (tmp_path / "genotype.json").write_text(genotype.to_json())
    for form in ("p_darts", genotype, genotype.to_dict(), tmp_path, str(tmp_path / "genotype.json")):
        assert small("cifar", genotype=form).genotype == genotype
    with pytest.raises(UserError, match="did you mean 'p_darts'"):
        small("cifar", genotype="p_dart")
    with pytest.raises(UserError, match="key 'format' is missing"):
        small("cifar", genotype={})


@KINDS
def test_features(kind):
    model = small(kind, features_only=True).eval()
    channels, reductions = FEATURES[kind]
    assert model.feature_info.channels() == channels
    assert model.feature_info.reduction() == reductions
    maps = model(images(kind))
    shapes = [(2, c, SIDES[kind] // r, SIDES[kind] // r) for c, r in zip(channels, reductions)]
    assert [tuple(one.shape) for one in maps] == shapes
    chosen = small(kind, features_only=True, out_indices=(1, -1)).eval()
    assert chosen.feature_info.channels() == [channels[1], channels[-1]]
    chosen.load_state_dict(model.state_dict())
    for one, other in zip(chosen(images(kind)), (maps[1], maps[-1])):
        assert torch.equal(one, other)
    body = model.body
    assert torch.equal(maps[-1], body.forward_features(images(kind)))


@pytest.mark.parametrize(
    ("stride", "reductions"), [(32, [4, 8, 8, 16, 32]), (16, [4, 8, 8, 16, 16]), (8, [4, 8, 8, 8, 8])]
)
@pytest.mark.parametrize("cells", [3, 6])
def test_features_at_a_kept_resolution(stride, reductions, cells):
    model = small("imagenet", features_only=True, cells=cells, output_stride=stride).eval()
    assert model.feature_info.reduction() == reductions
    assert [64 // one.shape[-1] for one in model(images("imagenet"))] == reductions


@KINDS
@pytest.mark.parametrize("cells", [1, 2, 3, 4])
def test_features_of_shallow_networks(kind, cells):
    model = small(kind, features_only=True, cells=cells).eval()
    maps = model(images(kind))
    for one, channels, reduction in zip(maps, model.feature_info.channels(), model.feature_info.reduction()):
        assert tuple(one.shape) == (2, channels, SIDES[kind] // reduction, SIDES[kind] // reduction)
    assert len(maps) == len(model.feature_info)


@KINDS
def test_head(kind):
    model = small(kind, num_classes=7).eval()
    x = images(kind)
    features = model.forward_features(x)
    assert model.num_features == model.head_hidden_size == features.shape[1]
    pooled = features.mean(dim=(2, 3))
    assert torch.equal(model.forward_head(features, pre_logits=True), pooled)
    model.double().reset_classifier(3)
    assert model.num_classes == 3
    assert model(x.double()).shape == (2, 3)
    model.float().reset_classifier(0)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features)
    bare = small(kind, num_classes=0, global_pool="").eval()
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(x), features)
    for words, match in (((5,), "num_classes=0"), ((0, "max"), "allowed are 'avg' and ''")):
        with pytest.raises(UserError, match=match):
            model.reset_classifier(*words)


@KINDS
def test_other_images_and_classes(kind):
    model = small(kind, in_chans=1, num_classes=5)
    assert (model.in_chans, model.num_classes) == (1, 5)
    assert model(images(kind, channels=1)).shape == (2, 5)


def test_pretrained_weights_adapt_to_other_images_and_classes():
    state = small("cifar", num_classes=5).state_dict()
    source = {"state_dict": dict(state), "num_classes": 5}
    model = small("cifar", num_classes=2, in_chans=1, pretrained=True, pretrained_cfg_overlay=source)
    loaded = model.state_dict()
    torch.testing.assert_close(loaded.pop("stem.0.weight"), state["stem.0.weight"].sum(dim=1, keepdim=True))
    kept = [name for name in loaded if not name.startswith("classifier.")]
    assert all(torch.equal(loaded[name], state[name]) for name in kept)


@KINDS
def test_drop_path_and_dropout_act_in_training_only(kind):
    x = images(kind)
    for rates in ({"drop_path_rate": 0.5}, {"drop_rate": 0.5}):
        model = small(kind, **rates)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0  # so that passes differ by what is dropped alone
        torch.manual_seed(0)
        first, second = model(x), model(x)
        assert not torch.equal(first, second)
        torch.manual_seed(0)
        assert torch.equal(model(x), first)
        model.eval()
        assert torch.equal(model(x), model(x))
    with pytest.raises(UserError, match="drop_path_rate=1"):
        small(kind, drop_path_rate=1.0)


def test_drop_path_is_drawn_per_image():
    """The rate is that of `drop_path_factors`, for every image and operation."""
    model, drawn = small("cifar", drop_path_rate=0.25), []
    for cell in model.cells:
        cell.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[2]))
    torch.manual_seed(0)
    model(torch.randn(400, 3, 4, 4))
    keep = torch.cat(drawn, dim=1)
    assert keep.shape == (400, model.drop_slots)
    assert sorted(keep.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert keep.mean().item() == pytest.approx(1, abs=0.02)
    assert len(keep.unique(dim=0)) == 400


def test_layer_groups_cover_every_parameter():
    model = small("imagenet")
    optimiser = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.0, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimiser.param_groups}
    assert len(scales) == 1 + 6 + 1  # the stem, the cells, the head
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(model.parameters()))


def test_every_parameter_gets_a_gradient():
    model = small("cifar", drop_path_rate=0.1)
    model(images("cifar")).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@KINDS
@pytest.mark.parametrize("train", [False, True])
def test_intermediates_are_the_features(kind, train):
    """Those that hooks find, in evaluation; in training those of the same pass, drop-path included."""
    model = small(kind, drop_path_rate=0.5).train(train)
    hooked = small(kind, features_only=True).eval()
    hooked.body.load_state_dict(model.state_dict(), strict=False)
    torch.manual_seed(0)
    last, maps = model.forward_intermediates(images(kind))
    torch.manual_seed(0)
    assert torch.equal(last, model.forward_features(images(kind)))
    assert torch.equal(maps[-1], last)
    assert [one.shape[1] for one in maps] == FEATURES[kind][0]
    if not train:
        for one, other in zip(maps, hooked(images(kind)), strict=True):
            assert torch.equal(one, other)


@KINDS
def test_intermediates_by_position(kind):
    model = small(kind).eval()
    x = images(kind)
    _, maps = model.forward_intermediates(x)
    for indices, expected in ((2, maps[-2:]), ([0, -1], [maps[0], maps[-1]]), ((2, 1), maps[1:3]), ([0], maps[:1])):
        found = model.forward_intermediates(x, indices, intermediates_only=True, stop_early=True)
        assert len(found) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(found, expected))
    computed = []
    for position, cell in enumerate(model.cells):
        cell.register_forward_hook(lambda *_, position=position: computed.append(position))
    model.forward_intermediates(x, [-2], stop_early=True)
    assert computed == [0, 1, 2, 3]  # up to the last cell before the second reduction
    for indices in (0, len(maps) + 1, [len(maps)], [-len(maps) - 1], [], "last", [1.0], [None], 2.0):
        with pytest.raises(UserError, match="feature maps"):
            model.forward_intermediates(x, indices)
    with pytest.raises(UserError, match="output_fmt='NLC'"):
        model.forward_intermediates(x, output_fmt="NLC")


@KINDS
def test_pruned_to_some_of_its_maps(kind):
    model, x = small(kind), images(kind)
    _, maps = model.eval().forward_intermediates(x)
    assert model.prune_intermediate_layers([1, -2]) == [1, len(maps) - 2]
    assert (len(model.cells), model.num_features) == (4, FEATURES[kind][0][-2])
    assert torch.equal(model(x), maps[-2])
    model.prune_intermediate_layers([0])
    assert torch.equal(model(x), maps[len(model.stem_reductions) - 1])
    assert model.train()(x).shape[1] == model.num_features


def test_gradient_checkpointing_keeps_less_and_computes_the_same():
    """Gradients, running statistics and outputs, with drop-path; in float64, as the fast forms round otherwise."""

    def step(checkpointing: bool) -> tuple[int, torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(0)
        model = small("cifar", drop_path_rate=0.5).double()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(1)
        kept = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(images("cifar").double()).square().sum()
        loss.backward()
        return kept, loss, [*(parameter.grad for parameter in model.parameters()), *model.buffers()]

    (all_kept, loss, numbers), (kept, same_loss, same) = step(False), step(True)
    assert kept < all_kept / 4
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(same, numbers)
    model = small("cifar")
    model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)
    for given in ("no", None, 1, 0.0, []):
        with pytest.raises(UserError, match=r"set_grad_checkpointing\(.*\): give True or False"):
            model.set_grad_checkpointing(given)
    assert not model.checkpointed


@KINDS
@pytest.mark.parametrize(
    "settings",
    [{"cells": 0}, {"channels": "4"}, {"channels": 0}, {"in_chans": 0}, {"num_classes": -1}, {"cells": 2.0}],
)
def test_numbers_that_make_no_network(kind, settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"{name}=.*: give a whole number from"):
        timm.create_model(ARCHITECTURES[kind], genotype="darts_v1", **settings)
