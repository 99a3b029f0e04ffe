"""The graph of any module: from its autograd graph, on the meta device, without memory for weights or activations.

A copy of the module without contents, in evaluation mode, is called once, on a batch without contents; what
gradients would flow through is its graph. Names of modules, the order in which they are registered, and the batch
size leave no trace in it, and neither do widths and resolutions. Parameters belong to the operations that take them
(Pei et al., 2024, appendix A.4): leaves and their transposition are no nodes. What is computed from
parameters alone, such as a table of relative positions, is one, without an input.

The device and the form of attention are always the same, because both leave traces.
"""

from __future__ import annotations

import copy
import heapq
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nge_search.architecture.graph import INPUT, PLAIN, Edge, Graph, Label
from nge_search.errors import UserError, plain
from nge_search.retrieve.operation_labels import SPLICED, VIEWS, label_of, multiply_adds_of, operation_name

#: Of an edge into what stands in for a step that cannot be traced (`stand_in`).
STAND_IN = Label("stand-in")

#: Images of a batch by default: more than one, so that no reshaping is saved that others need.
BATCH = 2
SHAPE = (3, 224, 224)


class Untraceable(UserError):
    """A module that has no graph here; the message says why."""


@dataclass(frozen=True)
class Inputs:
    """What a module is called with; contents do not matter, shapes and types do.

    Attributes:
        args, kwargs: tensors, in lists, tuples and dictionaries where the module takes them so, and other values.
        batch: number of examples in them, by which mult-adds are divided.
        complete: nothing of them is padding or amiss: where a module asks whether something holds of all numbers of
            a tensor, it does.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    complete: bool = False


@dataclass(frozen=True)
class Traced:
    """What is known of a module.

    Attributes:
        graph: operations on nodes, which are numbered in the order in which they are carried out; edges by target
            and source. The inputs that are used and hold numbers of floating point are nodes.
        parameters: their number.
        multiply_adds: of one example: convolutions and matrix products count, everything else is free.
    """

    graph: Graph
    parameters: int
    multiply_adds: int


def images(*shape: int, batch: int = BATCH) -> Inputs:
    """A batch of tensors of a shape, [3, 224, 224] by default, as the only argument."""
    return Inputs((torch.empty(batch, *(shape or SHAPE), device="meta"),), batch=batch)


def extract(module: nn.Module, inputs: Inputs | None = None) -> Graph:
    """The graph of a module; see `trace`."""
    return trace(module, inputs).graph


def trace(module: nn.Module, inputs: Inputs | None = None) -> Traced:
    """The graph and the size of a module, which is left alone.

    Args:
        inputs: None: `images()`. Tensors of floating point are taken in the type of the module's first parameter.

    Raises:
        Untraceable: it cannot be copied; it fails on these inputs; what it does depends on the values of tensors;
            or no gradient reaches its outputs.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return _trace(module, inputs or images())
    except UserError:
        raise
    except Exception as error:  # a module of any origin raises anything
        raise _refuse(module, _reason(error)) from None


def _trace(module: nn.Module, inputs: Inputs) -> Traced:
    hollow = hollow_copy(module)
    given: dict[Any, int] = {}
    kind = next((p.dtype for p in hollow.parameters() if p.is_floating_point()), torch.get_default_dtype())
    prepared = _prepare(inputs, kind, given)
    outputs = _call(hollow, prepared)
    roots = [tensor.grad_fn for tensor in _tensors(outputs) if tensor.grad_fn is not None]
    if not roots:
        raise _refuse(module, "no gradient reaches its outputs")
    walk = _Walk(roots, given, prepared)
    return Traced(walk.graph(), sum(p.numel() for p in hollow.parameters()), walk.multiply_adds)


def stand_in(shape: tuple[int, ...], operation: str, *sources: Tensor) -> Tensor:
    """A tensor of a shape in place of what an operation would make of others but cannot be traced.

    In the graph the operation is a node, and the edges into it are labelled `STAND_IN`.
    """
    return _StandIn.apply(operation, shape, *sources)


class _StandIn(torch.autograd.Function):
    operation: str

    @staticmethod
    def forward(ctx: Any, operation: str, shape: tuple[int, ...], *sources: Tensor) -> Tensor:
        ctx.operation = operation
        return sources[0].new_empty(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise NotImplementedError("what stands in for an operation has no gradient")


def without_views(graph: Graph) -> Graph:
    """The graph without the operations that only look at numbers in another way, or copy them (`VIEWS`).

    What fed one feeds what it fed. Nodes keep their order.
    """
    place: dict[int, int] = {}
    passed: dict[int, list[int]] = {}  # of a view: the nodes that are seen through it, none or one
    nodes: list[Label] = []
    edges: list[Edge] = []

    def seen(node: int) -> list[int]:
        return [place[node]] if node in place else passed[node]

    for node in graph.order:
        arriving = [graph.edges[position] for position in graph.incoming[node]]
        if graph.nodes[node].name in VIEWS:
            passed[node] = [source for edge in arriving for source in seen(edge.source)]
            continue
        place[node] = len(nodes)
        edges += sorted(Edge(source, len(nodes), edge.label) for edge in arriving for source in seen(edge.source))
        nodes.append(graph.nodes[node])
    outputs = dict.fromkeys(source for node in graph.outputs for source in seen(node))
    return Graph(tuple(nodes), tuple(edges), tuple(place[node] for node in graph.inputs), tuple(outputs))


def hollow_copy(module: nn.Module) -> nn.Module:
    """A copy on the meta device, in evaluation mode, with all parameters to be trained and plain attention."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in _tensors({**part.__dict__, "_modules": None}):
            if id(tensor) not in memo:
                memo[id(tensor)] = _hollow(tensor)
    hollow = copy.deepcopy(module, memo).eval()
    for part in hollow.modules():
        if getattr(part, "fused_attn", False) is True:  # timm's: whether attention is one call
            part.__dict__["fused_attn"] = False
    return hollow


def _hollow(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=empty.is_floating_point() or empty.is_complex())
    return empty


def _prepare(inputs: Inputs, kind: torch.dtype, given: dict[Any, int]) -> Inputs:
    """The inputs on the meta device. `given` takes up the functions that hand in numbers of floating point."""

    def prepared(value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                return torch.empty_like(value, device="meta")
            leaf = torch.empty_like(value, device="meta", dtype=kind, requires_grad=True)
            handed = leaf.clone()  # modules may change what they are given, but not a leaf
            given[handed.grad_fn] = len(given)
            return handed
        if isinstance(value, Mapping):
            return {key: prepared(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(prepared(part) for part in value)
        return value

    args = tuple(prepared(value) for value in inputs.args)
    kwargs = {key: prepared(inputs.kwargs[key]) for key in sorted(inputs.kwargs)}
    return replace(inputs, args=args, kwargs=kwargs)


def _call(hollow: nn.Module, inputs: Inputs) -> Any:
    """What the module returns. Tensors that it makes by itself are on the meta device, unless it reads them."""
    try:
        return _called(hollow, inputs, torch.device("meta"))
    except Exception as error:  # a module of any origin raises anything
        try:
            return _called(hollow, inputs, None)
        except Exception:
            raise error from None


def _called(hollow: nn.Module, inputs: Inputs, device: torch.device | None) -> Any:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.jit.optimized_execution(False))  # which would melt operations into one
        if device is not None:
            stack.enter_context(device)
        if inputs.complete:
            stack.enter_context(_Complete())
        return hollow(*inputs.args, **inputs.kwargs)


class _Complete(TorchFunctionMode):
    """Truth values of tensors whose values are not known are true."""

    _asks = frozenset({Tensor.__bool__, Tensor.item})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._asks and args[0].is_meta and args[0].dtype == torch.bool:
            return True
        return func(*args, **(kwargs or {}))


def _refuse(module: nn.Module, reason: str) -> Untraceable:
    return Untraceable(f"{plain(type(module).__name__)} cannot be traced: {reason}")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = plain(lines[0] if lines else "it gives no reason", 200)
    if isinstance(error, (NotImplementedError, RuntimeError)) and re.search(r"\bmeta\b", text):
        return f"it needs the values of tensors, of which only shapes are known ({text})"
    return f"{type(error).__name__}: {text}"


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in lists, tuples, mappings and data classes, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _tensors(getattr(value, one.name))


class _Walk:
    """Goes through an autograd graph from the outputs, and writes it down from the inputs.

    Attributes:
        multiply_adds: of one example.
    """

    def __init__(self, roots: list[Any], given: Mapping[Any, int], inputs: Inputs):
        self._roots, self._given = roots, given
        self._reads_integers = any(
            not tensor.is_floating_point() for tensor in _tensors((inputs.args, inputs.kwargs))
        )
        self._labels: list[Label] = []
        self._edges: list[Edge] = []
        self._heard: dict[
            Any, list[int]
        ] = {}  # the nodes that a function hands on: itself, or what it stands before
        self._of_examples: set[int] = set()
        self.multiply_adds = 0
        sources = self._sources()
        for function in self._in_order(sources):
            self._write(function, sources[function], inputs.batch)

    def graph(self) -> Graph:
        inputs = sorted(
            (place, *self._heard[function]) for function, place in self._given.items() if function in self._heard
        )
        outputs = dict.fromkeys(node for root in self._roots for node in self._heard[root])
        return Graph(tuple(self._labels), tuple(self._edges), tuple(node for _, node in inputs), tuple(outputs))

    def _sources(self) -> dict[Any, list[Any]]:
        """All functions that lead to the outputs, and the functions that each of them hears from."""
        found: dict[Any, list[Any]] = {}
        waiting = list(self._roots)
        while waiting:
            function = waiting.pop()
            if function not in found:
                before = () if function in self._given else function.next_functions
                found[function] = [source for source, _ in before if source is not None]
                waiting += found[function]
        return found

    @staticmethod
    def _in_order(sources: Mapping[Any, list[Any]]) -> Iterator[Any]:
        """The functions behind those that they hear from; otherwise as they were called."""
        targets: dict[Any, list[Any]] = {function: [] for function in sources}
        for function, heard in sources.items():
            for source in heard:
                targets[source].append(function)
        missing = {function: len(heard) for function, heard in sources.items()}
        ready = [
            (function._sequence_nr(), place, function)
            for place, function in enumerate(sources)
            if not missing[function]
        ]
        place = {function: position for position, function in enumerate(sources)}
        heapq.heapify(ready)
        while ready:
            function = heapq.heappop(ready)[-1]
            yield function
            for target in targets[function]:
                missing[target] -= 1
                if not missing[target]:
                    heapq.heappush(ready, (target._sequence_nr(), place[target], target))

    def _write(self, function: Any, sources: list[Any], batch: int) -> None:
        name = operation_name(function)
        heard = sorted(node for source in sources for node in self._heard[source])
        if name in SPLICED and function not in self._given:
            self._heard[function] = heard
            return
        node = len(self._labels)
        self._heard[function] = [node]
        if function in self._given:
            self._labels.append(Label(INPUT))
            self._of_examples.add(node)
            return
        is_stand_in = getattr(function, "_forward_cls", None) is _StandIn
        self._labels.append(Label(function.operation) if is_stand_in else label_of(function))
        self._edges += [Edge(source, node, STAND_IN if is_stand_in else PLAIN) for source in heard]
        reads = name == "Embedding" and self._reads_integers
        if reads or not self._of_examples.isdisjoint(heard):
            self._of_examples.add(node)
        count = multiply_adds_of(function)
        self.multiply_adds += count // batch if node in self._of_examples else count
