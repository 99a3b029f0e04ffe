"""Zero-cost metrics of a space's architectures: rows of operations, settings, what comes from the cache."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nge_search.data.datasets import load_dataset
from nge_search.errors import UserError
from nge_search.predict import zero_cost
from nge_search.predict.zero_cost import (
    Examples,
    ZeroCostSettings,
    architecture_digest,
    operation_layers,
    zero_cost_features,
    zero_cost_operations,
)
from nge_search.predict.zero_cost_metrics import METRICS, SALIENCIES, measure_network
from nge_search.settings.data import DataSection
from nge_search.spaces import Code, DartsSpace, EnasMacroSpace, NasBench101Space, NasBench201Space, Space

SMALL = ZeroCostSettings(batch=4, side=8)
SPACES = (NasBench201Space(), NasBench101Space(), DartsSpace(), EnasMacroSpace())


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_rows_add_up_the_layers_of_an_operation_over_cells(space: Space) -> None:
    random = np.random.default_rng(4)
    codes = [space.random(random) for _ in range(3)]
    on_nodes, used = space.cell_space.operations_on == "vertices", 0
    for code, found in zip(codes, zero_cost_operations(space, codes, SMALL)):
        for kind, graph in space.graphs(code).items():
            labels = graph.nodes if on_nodes else [edge.label for edge in graph.edges]
            assert found[kind].shape == (len(labels), len(SALIENCIES))
            expected_RS = _by_names(space, code, kind, len(labels))
            np.testing.assert_allclose(found[kind], expected_RS, rtol=1e-9)
            for row_S, label in zip(found[kind], labels):
                reduces = kind == "reduce" and label.name == "skip_connect"
                assert not row_S.any() or "conv" in label.name or reduces
                used += row_S.any()
    assert used > 3


def _by_names(space: Space, code: Code, kind: str, count: int) -> np.ndarray:
    """The rows of a kind of cell, [count, S], from the layers that the names of parameters tell."""
    torch.manual_seed(SMALL.seed)
    network, inputs = space.network(code, channels=8, cells=3), SMALL.inputs
    layers = measure_network(network, inputs.images_BCHW, inputs.label_B).layer_S
    if space.name == "enas_macro":
        layers = {_as_cell(name): value_S for name, value_S in layers.items() if ".operation." in name}
    cells = {
        "enas_macro": ["layers"],
        "nasbench101": [f"stacks.{stack}.0" for stack in range(3)],
        "nasbench201": [f"stages.{stage}.0" for stage in range(3)],
        "darts": ["cells.0"] if kind == "normal" else ["cells.1", "cells.2"],
    }[space.name]
    first, rows_RS = int(space.cell_space.operations_on == "vertices"), np.zeros((count, len(SALIENCIES)))
    for name, value_S in layers.items():
        cell, _, rest = name.partition(".operations.")
        if cell in cells and rest:
            rows_RS[int(rest.split(".")[0]) + first] += value_S
    return rows_RS


def _as_cell(name: str) -> str:
    """Of a layer of ENAS' network, which stands there three times, as the operation of a cell is named."""
    _, position, _, rest = name.split(".", 3)
    return f"layers.operations.{int(position) % 6}.{name}.{rest}"


def test_operations_in_symmetric_positions_differ() -> None:
    """Paths 0-1-3 and 0-2-3 of the same convolutions."""
    space = NasBench201Space()
    none, convolution = (space.cell_space.operations.index(name) for name in ("none", "nor_conv_3x3"))
    code = (convolution, convolution, none, none, convolution, convolution)
    rows_RS = zero_cost_operations(space, [code], SMALL)[0]["cell"]
    ends = [(edge.source, edge.target) for edge in space.graphs(code)["cell"].edges]
    first, second = rows_RS[ends.index((0, 1))], rows_RS[ends.index((0, 2))]
    assert (np.abs(first - second)[[0, 1, 2, 4]] > 1e-3 * np.abs(first)[[0, 1, 2, 4]]).all()


def test_features_are_those_of_the_network_whatever_was_drawn_before() -> None:
    space, random = NasBench201Space(), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(3)]
    state = torch.get_rng_state()
    found_NM = zero_cost_features(space, [*codes, codes[0]], SMALL)
    assert found_NM.shape == (4, len(METRICS))
    assert found_NM.dtype == np.float64
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(5)
    with torch.no_grad():
        np.testing.assert_array_equal(zero_cost_features(space, codes[::-1], SMALL), found_NM[2::-1])
    np.testing.assert_array_equal(found_NM[3], found_NM[0])
    other_NM = zero_cost_features(space, codes, ZeroCostSettings(batch=4, side=8, seed=1))
    assert (other_NM[:, :5] != found_NM[:3, :5]).all()
    np.testing.assert_array_equal(other_NM[:, -2:], found_NM[:3, -2:])
    assert zero_cost_features(space, [], SMALL).shape == (0, len(METRICS))


def test_architectures_without_a_path_have_finite_metrics() -> None:
    space = NasBench201Space()
    convolution = space.cell_space.operations.index("nor_conv_3x3")
    codes = [(0,) * 6, (convolution, 0, 0, 0, 0, 0)]
    found_NM = zero_cost_features(space, codes, SMALL)
    assert np.isfinite(found_NM).all()
    assert found_NM[0, METRICS.index("naswot")] == 0
    assert not zero_cost_operations(space, codes[1:], SMALL)[0]["cell"].any()


def test_images_of_a_data_set() -> None:
    dataset = load_dataset(DataSection(name="digits"))
    examples = Examples.of_dataset(dataset, 6, seed=2)
    assert examples.images_BCHW.shape == (6, dataset.channels, 8, 8)
    whole = (dataset.train.read(range(len(dataset.train))).float() / 255 - dataset.mean[0]) / dataset.std[0]
    for image, label in zip(examples.images_BCHW, examples.label_B):
        same = [i for i, other in enumerate(whole) if torch.allclose(other, image)]
        assert any(dataset.train.labels_N[i] == label for i in same)
    settings = ZeroCostSettings(examples=examples)
    row_NM = zero_cost_features(NasBench201Space(), [(3,) * 6], settings)
    again_NM = zero_cost_features(NasBench201Space(), [(3,) * 6], ZeroCostSettings(batch=8, examples=examples))
    np.testing.assert_array_equal(row_NM, again_NM)
    assert settings.digest == ZeroCostSettings(batch=8, examples=examples).digest
    other = ZeroCostSettings(examples=Examples.of_dataset(dataset, 6, seed=3))
    assert other.digest != settings.digest
    with pytest.raises(UserError, match="fewer than 9999"):
        Examples.of_dataset(dataset, 9999)


def test_settings_that_cannot_be() -> None:
    for name, value in (("channels", 7), ("cells", 4), ("batch", 1), ("side", 2.5), ("seed", -1), ("classes", 1)):
        with pytest.raises(UserError, match=f"^{name} must be"):
            ZeroCostSettings(**{name: value})
    images, labels = torch.zeros(2, 3, 8, 8), torch.tensor([0, 3])
    with pytest.raises(UserError, match="class 3; classes=3"):
        ZeroCostSettings(classes=3, examples=Examples(images, labels))
    for wrong in (images[:1], images.long(), images[0], images / 0):
        with pytest.raises(UserError, match="at least two images"):
            Examples(wrong, labels[: len(wrong)])
    for wrong in (labels[:1], labels.float(), -labels):
        with pytest.raises(UserError, match="as many classes"):
            Examples(images, wrong)


def test_images_beyond_all_measure_are_refused() -> None:
    examples = Examples(torch.finfo().max * torch.randn(2, 3, 8, 8).sign(), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="is not finite; normalise the images"):
        zero_cost_features(NasBench201Space(), [(3,) * 6], ZeroCostSettings(examples=examples))


def test_networks_that_are_not_known() -> None:
    with pytest.raises(UserError, match="class Linear"):
        list(operation_layers(nn.Linear(2, 2)))


def test_digests_tell_numberings_and_spaces_apart() -> None:
    space = NasBench201Space()
    first, twin = (space.graphs(code) for code in ((3, 0, 0, 0, 3, 0), (0, 3, 0, 0, 0, 3)))
    assert first["cell"].digest == twin["cell"].digest
    assert architecture_digest(space, first) != architecture_digest(space, twin)
    assert architecture_digest(space, first) != architecture_digest(NasBench101Space(), first)
    assert (
        architecture_digest(space, first) == "32db422cc8e9caba715dada24fc1537a"
    )  # caches of other versions stay good


def test_codes_of_one_graph_are_one_architecture(tmp_path: Path) -> None:
    """NAS-Bench-101's vertices without edges may carry any operation."""
    space = NasBench101Space(4)
    edges = [int(edge in ((0, 1), (1, 3))) for edge in space.cell_space.edges]
    codes = [(*edges, 0, unused) for unused in range(3)]
    found_NM = zero_cost_features(space, codes, SMALL, tmp_path)
    assert (found_NM == found_NM[0]).all()
    (lines,) = [path.read_text().splitlines() for path in tmp_path.glob("*.jsonl")]
    assert len(lines) == 1


def test_terminals_see_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, codes = NasBench201Space(), [(3, 0, 0, 3, 0, operation) for operation in range(4)]
    zero_cost_features(space, codes[:2], SMALL, tmp_path)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    zero_cost_features(space, codes, SMALL, tmp_path)
    assert "zero-cost:  50%" in terminal.getvalue()
    assert "2/4 [" in terminal.getvalue()


def test_what_is_in_the_cache_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, random = NasBench201Space(), np.random.default_rng(0)
    codes = [space.random(random) for _ in range(4)]
    fresh_NM = zero_cost_features(space, codes, SMALL)
    measured: list[tuple[int, ...]] = []
    measure = zero_cost.measure

    def counting(space: Space, code: tuple[int, ...], settings: ZeroCostSettings) -> zero_cost.Measurement:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(code)
        return measure(space, code, settings)

    monkeypatch.setattr(zero_cost, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        zero_cost_features(space, codes, SMALL, tmp_path / "cache")
    measured.clear()
    np.testing.assert_array_equal(zero_cost_features(space, codes, SMALL, tmp_path / "cache"), fresh_NM)
    assert measured == codes[2:]
    operations = zero_cost_operations(space, codes, SMALL, tmp_path / "cache")
    assert measured == codes[2:]
    monkeypatch.undo()
    for kept, new in zip(operations, zero_cost_operations(space, codes, SMALL)):
        np.testing.assert_array_equal(kept["cell"], new["cell"])
