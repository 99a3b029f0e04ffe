"""Graphs of modules: worked out by hand, and what leaves no trace in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nge_search.architecture.graph import PLAIN, Edge, Graph, Label
from nge_search.counting import multiply_adds
from nge_search.retrieve.extraction import (
    STAND_IN,
    Inputs,
    Untraceable,
    extract,
    hollow_copy,
    images,
    stand_in,
    trace,
    without_views,
)

SMALL = images(3, 8, 8)


def convolution(kernel: int = 3, stride: int = 1) -> Label:
    return Label.of("Convolution", kernel=kernel, stride=stride, groups=1)


class Residual(nn.Module):
    """A block with a shortcut, a part that gates it, and a linear layer."""

    def __init__(self, reverse: bool = False, prefix: str = ""):
        super().__init__()
        layers: dict[str, Callable[[], nn.Module]] = {
            "stem": lambda: nn.Conv2d(3, 4, 3, padding=1),
            "norm": lambda: nn.BatchNorm2d(4),
            "gate": lambda: nn.Conv2d(4, 4, 1),
            "head": lambda: nn.Linear(4, 5),
        }
        self.prefix = prefix
        for name in reversed(layers) if reverse else layers:
            setattr(self, prefix + name, layers[name]())

    def layer(self, name: str) -> Any:
        return getattr(self, self.prefix + name)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer("stem")(x)
        x = x + functional.relu_(self.layer("norm")(x))
        x = x * self.layer("gate")(x).sigmoid()
        return self.layer("head")(x.mean((2, 3)))


def test_a_graph_worked_out_by_hand() -> None:
    graph = extract(Residual(), SMALL)
    assert graph.nodes == (
        Label("input"),
        convolution(3),
        Label("NativeBatchNorm"),
        Label("Relu"),
        Label("Add"),
        convolution(1),
        Label("Sigmoid"),
        Label("Mul"),
        Label("Mean"),
        Label("Addmm"),
    )
    pairs = [(0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (4, 5), (5, 6), (4, 7), (6, 7), (7, 8), (8, 9)]
    assert graph.edges == tuple(Edge(*pair) for pair in pairs)
    assert (graph.inputs, graph.outputs) == ((0,), (9,))


def test_names_registration_batch_and_size_leave_no_trace() -> None:
    graph = extract(Residual(), SMALL)
    renamed = extract(Residual(reverse=True, prefix="another_"), SMALL)
    assert renamed == graph
    assert renamed.digest == graph.digest
    assert next(name for name, _ in Residual(reverse=True).named_children()) == "head"
    for batch in (3, 7):
        assert extract(Residual(), images(3, 8, 8, batch=batch)) == graph
    assert extract(Residual(), images(3, 20, 12)) == graph


class Attention(nn.Module):
    """torch's attention of several heads, whose reshaping depends on the batch where it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def test_attention_is_written_out() -> None:
    graph = extract(Attention(), images(8, 4, 4))
    names = Counter(label.name for label in graph.nodes)
    assert names["Bmm"] == 2
    assert sum(count for name, count in names.items() if "Softmax" in name) == 1
    assert not [name for name in names if "ScaledDotProduct" in name]
    assert extract(Attention(), images(8, 4, 4, batch=5)) == graph


def test_attention_in_one_call_is_switched_off_in_the_copy_alone() -> None:
    class Fused(nn.Module):
        fused_attn = True

        def forward(self, x: Tensor) -> Tensor:
            return x.sin() if self.fused_attn else x.cos()

    module = Fused()
    assert [label.name for label in extract(module, SMALL).nodes] == ["input", "Cos"]
    assert module.fused_attn


def test_the_module_is_left_alone() -> None:
    module = Residual().train()
    module.stem.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert extract(module, SMALL) == extract(Residual(), SMALL)
    assert module.training
    assert not module.stem.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(value.device.type == "cpu" for value in module.state_dict().values())


def test_the_copy_has_no_contents_and_keeps_ties() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    module.register_buffer("steps", torch.zeros(1, dtype=torch.long))
    module.offsets = [torch.ones(4), {"more": torch.ones(4)}]
    hollow = hollow_copy(module)
    assert hollow[0].weight is hollow[1].weight
    assert {value.device.type for value in hollow.state_dict().values()} == {"meta"}
    assert hollow.offsets[0].device.type == hollow.offsets[1]["more"].device.type == "meta"
    assert hollow.steps.dtype == torch.long


class ByDepth(nn.Module):
    """Loops and branches on what is known without values."""

    def __init__(self, repeats: int):
        super().__init__()
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.repeats):
            x = x.relu() if x.shape[-1] > 4 and step % 2 == 0 else x.tanh()
        return x


def test_control_flow_by_shapes_is_followed() -> None:
    names = [label.name for label in extract(ByDepth(3), SMALL).nodes]
    assert names == ["input", "Relu", "Tanh", "Relu"]
    assert [label.name for label in extract(ByDepth(3), images(3, 4, 4)).nodes][1:] == ["Tanh"] * 3


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x.tanh()


def test_what_cannot_be_traced_says_why() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("a table\nof secrets")

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(3)

    class Uncopied(nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("is not to be copied")

    with pytest.raises(Untraceable, match=r"^ByValue cannot be traced: it needs the values of tensors"):
        extract(ByValue(), SMALL)
    with pytest.raises(Untraceable, match=r"^Failing cannot be traced: KeyError: .*a table"):
        extract(Failing(), SMALL)
    with pytest.raises(Untraceable, match=r"^Constant cannot be traced: no gradient reaches its outputs$"):
        extract(Constant(), SMALL)
    with pytest.raises(Untraceable, match=r"^Uncopied cannot be traced: TypeError: is not to be copied$"):
        extract(Uncopied(), SMALL)
    with pytest.raises(Untraceable, match=r"^Linear cannot be traced: RuntimeError"):
        extract(nn.Linear(5, 5), SMALL)


def test_conditions_hold_of_complete_inputs() -> None:
    """Only truth values are answered, and only where inputs are said to be complete."""

    class Checking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._check((x > 0).all().item())
            return x.relu() if (x == 1).all() else x.tanh()

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[: int(x.sum())]

    complete = replace(SMALL, complete=True)
    assert [label.name for label in extract(Checking(), complete).nodes] == ["input", "Relu"]
    assert [label.name for label in extract(ByValue(), complete).nodes] == ["input", "Relu"]
    with pytest.raises(Untraceable, match=r"^Checking cannot be traced: it needs the values of tensors"):
        extract(Checking(), SMALL)
    with pytest.raises(Untraceable, match=r"^Counting cannot be traced: it needs the values of tensors"):
        extract(Counting(), complete)


def test_tensors_made_on_the_way_and_numbers_read_from_others() -> None:
    class Making(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.arange(8.0)

    class Reading(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for scale in torch.linspace(1, 2, 2).tolist():
                x = x * scale
            return x

    assert [label.name for label in extract(Making(), SMALL).nodes] == ["input", "Mul"]
    assert [label.name for label in extract(Reading(), SMALL).nodes] == ["input", "Mul", "Mul"]


def test_half_precision_gives_the_same_graph() -> None:
    graph = extract(Residual(), SMALL)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        assert extract(Residual().to(kind), SMALL) == graph


@dataclass
class Found:
    first: Tensor
    others: dict[str, Tensor]
    steps: int = 3


class Several(nn.Module):
    """Inputs by keyword, and outputs in containers."""

    def forward(self, left: Tensor, *, right: Tensor, ids: Tensor | None = None, unused: Any = None) -> Any:
        total = left.sin() - right
        return Found(total.exp(), {"again": total, "own": left.cos()}), [None, total]


def test_two_inputs_by_keyword_and_several_outputs() -> None:
    half = torch.zeros(2, 3)
    graph = extract(
        Several(), Inputs((half,), {"unused": half, "right": half, "ids": torch.ones(2, dtype=torch.long)})
    )
    assert [label.name for label in graph.nodes] == ["input", "input", "Sin", "Sub", "Exp", "Cos"]
    assert [(edge.source, edge.target) for edge in graph.edges] == [(0, 2), (1, 3), (2, 3), (3, 4), (0, 5)]
    assert (graph.inputs, graph.outputs) == ((0, 1), (4, 3, 5))


def test_tokens_leave_from_their_embedding() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embedding(ids).mean(1))

    found = trace(Text(), Inputs((torch.zeros(6, 5, dtype=torch.long),), batch=6))
    assert [label.name for label in found.graph.nodes] == ["Embedding", "Mean", "Addmm"]
    assert found.graph.inputs == ()
    assert found.multiply_adds == 8


def test_parameters_are_no_nodes_but_what_is_made_of_them_is() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.scale = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.table.exp() * self.scale

    graph = extract(Table(), SMALL)
    assert [label.name for label in graph.nodes] == ["input", "Exp", "Mul", "Add"]
    assert graph.incoming[1] == ()


def test_inputs_may_be_changed_in_place() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.sub_(1)
            x[:, 0] += 1
            return x.relu_()

    names = [label.name for label in extract(InPlace(), SMALL).nodes]
    assert names[0] == "input"
    assert names[1] == "Sub"
    assert "CopySlices" in names


def test_sizes_are_those_of_one_example() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, groups=3),
        nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.Flatten(2),
        nn.Linear(36, 7),
        Attended(7),
    )
    for batch in (2, 5):
        found = trace(module, images(3, 8, 8, batch=batch))
        assert found.parameters == sum(p.numel() for p in module.parameters())
        assert found.multiply_adds == multiply_adds(module, (1, 3, 8, 8))


class Attended(nn.Module):
    """A product of two activations, and one of parameters alone, which counts once for any batch."""

    def __init__(self, width: int):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(6, width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ x.transpose(1, 2) @ x + self.left @ self.right


def test_a_stand_in_is_marked() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x.sin(), x.cos()
            return stand_in((5, 3, 2, 2), "RoiAlign", a, b).relu()

    graph = extract(Cut(), SMALL)
    assert [label.name for label in graph.nodes] == ["input", "Sin", "Cos", "RoiAlign", "Relu"]
    assert graph.edges[2:] == (Edge(1, 3, STAND_IN), Edge(2, 3, STAND_IN), Edge(3, 4, PLAIN))
    with pytest.raises(NotImplementedError, match="no gradient"):
        stand_in((1,), "RoiAlign", torch.ones(1, requires_grad=True)).backward()


def test_views_are_contracted() -> None:
    nodes = ["input", "Conv", "View", "Permute", "Softmax", "Split", "Mul", "Expand", "Add", "Clone"]
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (5, 6), (4, 6), (7, 8), (6, 8), (8, 9)]
    graph = without_views(Graph.build(nodes, edges, [0], [9, 3]))
    assert [label.name for label in graph.nodes] == ["input", "Conv", "Softmax", "Mul", "Add"]
    assert [(edge.source, edge.target) for edge in graph.edges] == [(0, 1), (1, 2), (1, 3), (1, 3), (2, 3), (3, 4)]
    assert (graph.inputs, graph.outputs) == ((0,), (4, 1))
    marked = Graph.build(["input", "View", "RoiAlign"], [(0, 1), (1, 2, STAND_IN)], [0], [2])
    assert without_views(marked).edges == (Edge(0, 1, STAND_IN),)


def test_nothing_outside_changes_what_is_traced() -> None:
    graph = extract(Residual(), SMALL)
    with torch.no_grad():
        assert extract(Residual(), SMALL) == graph
    with torch.inference_mode():
        assert extract(Residual(), SMALL) == graph


def test_long_networks() -> None:
    """Deeper than Python's stack, with a branch at every step."""

    class Long(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(1000):
                x = x + x.relu()
            return x

    graph = extract(Long(), images(1))
    assert len(graph.nodes) == 2001
    assert len(graph.edges) == 3000
