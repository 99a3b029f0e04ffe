"""`nge bench supernet`: the fast supernet against its textbook form, on images of noise.

Each form runs in a process of its own, so that its peak memory is its own. Times are medians; a weight step is a
forward pass and the gradients of all weights, an architecture step those of P with the weights frozen.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nge_search.bench.measuring import Clock, heading, printed
from nge_search.bench.serving import Served, in_turn, serve
from nge_search.engine.cuda_graphs import record_cuda_graph, warm_up
from nge_search.engine.distributed import choose_device
from nge_search.engine.environment import describe, peak_memory_mb
from nge_search.engine.precision import allow_tf32, forward_context, full_precision
from nge_search.errors import UserError
from nge_search.gradient.cost import ExpectedCost
from nge_search.settings.run import DEVICE_HELP, DEVICES
from nge_search.settings.search import SupernetSection
from nge_search.supernet import DenseSupernet, Supernet, build_space, build_supernet, fuse, state_dict
from nge_search.supernet.reference import MixedCell

CLASSES = 10
#: Steps of the weights under a mixture and under one operation for each edge, and of the architecture.
_KINDS = {"weight": "weight", "drawn": "weight (drawn operations)", "architecture": "architecture"}
_DEPTHWISE_PER_EDGE = 6  # two in each separable convolution, one in each dilated one
FORMS = {
    "textbook_nchw": "textbook, NCHW (as DARTS ships it)",
    "textbook_channels_last": "textbook, channels last",
    "fused": "fused",
}
#: On a GPU also as searches run there: mixed precision, and steps replayed as CUDA graphs.
GRAPHED = {"fused_bf16_graphs": "fused, bf16, CUDA graphs"}
_TITLES = {**FORMS, **GRAPHED}


def _forms(device: torch.device) -> dict[str, str]:
    return {**FORMS, **GRAPHED} if device.type == "cuda" else FORMS


def main(words: Sequence[str], parser_class: type[argparse.ArgumentParser]) -> None:
    parser = parser_class(prog="nge bench supernet", description="Compare the forms of the supernet.")
    parser.add_argument("--device", default="auto", choices=DEVICES, help=DEVICE_HELP)
    parser.add_argument("--threads", type=int, default=0, help="number of CPU threads; 0: torch's own choice (0)")
    parser.add_argument(
        "--space",
        default="darts",
        choices=("darts", "nasbench201"),
        help="space whose supernet is measured (darts)",
    )
    for name, default, meaning in (
        ("batch", 32, "number of images per step"),
        ("channels", 16, "number of channels C of the first cell"),
        ("cells", 0, "number of cells; 0: 8 of darts, 15 of nasbench201"),
        ("size", 32, "side of the images in pixels"),
        ("steps", 5, "number of measured steps of each kind"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument("--form", choices=(*FORMS, *GRAPHED), help="measure this form alone, in this process")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(list(words))
    options.cells = options.cells or {"darts": 8, "nasbench201": 15}[options.space]
    for name, most in (("batch", 4096), ("channels", 1024), ("cells", 200), ("size", 4096), ("steps", 4096)):
        if not 1 <= getattr(options, name) <= most:
            raise UserError(f"--{name}={getattr(options, name)}: must be between 1 and {most}")
    if not 0 <= options.threads <= 1024:
        raise UserError(f"--threads={options.threads}: must be between 0 and 1024")
    _settings(options)  # refuses numbers that do not go together
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    allow_tf32(False)
    if options.form:
        if options.form not in _forms(device):
            raise UserError(f"--form={options.form}: needs a GPU; use one of {', '.join(FORMS)}")
        form = _Form(options, device)
        if options.serve:
            serve(form.facts, form.seconds)
        else:
            print(json.dumps(_measure(options, {options.form: form})[options.form]))
        return
    result = _compare(options, device, list(words))
    with printed(result, options.json, _lines):
        result["roofline"] = _roofline(options, device)
        result["differences"] = _differences(options)
    if "failed" in result:
        raise UserError("; ".join(f"not measured: {why}" for why in result["failed"].values()))


def _settings(options: argparse.Namespace) -> SupernetSection:
    return SupernetSection(space=options.space, channels=options.channels, cells=options.cells)


def _network(options: argparse.Namespace) -> Supernet | DenseSupernet:
    torch.manual_seed(0)
    settings = _settings(options)
    return build_supernet(settings, build_space(settings).cell_space, CLASSES, 3)


def _inputs(options: argparse.Namespace, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(options.batch, 3, options.size, options.size, generator=generator, dtype=dtype)
    tables = build_space(_settings(options)).cell_space.tables
    matrices = [torch.randn(table.shape, generator=generator, dtype=dtype).softmax(dim=1) for table in tables]
    return images, torch.arange(options.batch) % CLASSES, matrices


def _one_by_one(matrices: list[Tensor]) -> list[Tensor]:
    """One operation for each edge, all of them in turn: as often as uniform P draws them."""
    return [torch.eye(p_EO.shape[1]).to(p_EO)[torch.arange(len(p_EO)) % p_EO.shape[1]] for p_EO in matrices]


def _gradients(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    matrices: list[Tensor],
    kind: str,
    precision: str = "fp32",
) -> list[Tensor]:
    """Logits, and the gradients that a step of a kind (weight, drawn, architecture, or both) computes."""
    leaves = [p_EO.detach().requires_grad_(kind in ("architecture", "both")) for p_EO in matrices]
    for weight in network.parameters():
        weight.requires_grad_(kind != "architecture")
    with forward_context(precision, images.device):
        logits = network(images, *leaves)
    logits = full_precision(logits)
    inputs = [x for x in (*leaves, *network.parameters()) if x.requires_grad]
    loss = functional.cross_entropy(logits, labels)
    return [logits.detach(), *torch.autograd.grad(loss, inputs, materialize_grads=True)]


class _Counter(TorchDispatchMode):
    """Counts the operators that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


class _Form:
    """One form of the supernet, warmed up.

    Attributes:
        facts: its peak memory of activations in MiB; per kind of step the operators and GPU kernels that it runs.
    """

    def __init__(self, options: argparse.Namespace, device: torch.device):
        textbook = _network(options).to(device)
        images, labels, matrices = _inputs(options)
        images, labels, matrices = images.to(device), labels.to(device), [p_EO.to(device) for p_EO in matrices]
        if options.form != "textbook_nchw":
            textbook = textbook.to(memory_format=torch.channels_last)
            images = images.to(memory_format=torch.channels_last)
        network: nn.Module = fuse(textbook) if options.form.startswith("fused") else textbook
        network.train()
        precision = "bf16" if options.form in GRAPHED else "fp32"
        before = _memory_mb(device)
        self._clock = Clock(device)
        given = {kind: _one_by_one(matrices) if kind == "drawn" else matrices for kind in _KINDS}

        def step(kind: str) -> None:
            _gradients(network, images, labels, given[kind], kind, precision)

        step("weight")
        self.facts: dict[str, Any] = {"activation_memory_mb": peak_memory_mb(device) - before}
        step("drawn")
        step("architecture")
        self._steps: dict[str, Callable[[], None]] = {kind: functools.partial(step, kind) for kind in _KINDS}
        self.facts["operators"] = {kind: _count_operators(own) for kind, own in self._steps.items()}
        if options.form in GRAPHED:
            for own in self._steps.values():
                warm_up(own)
            self._steps = {kind: record_cuda_graph(own) for kind, own in self._steps.items()}
        self.facts["kernels"] = {kind: _count_kernels(own, device) for kind, own in self._steps.items()}

    def seconds(self, kind: str) -> float:
        """One step."""
        self._clock.start()
        self._steps[kind]()
        return self._clock.lap()


def _count_operators(step: Callable[[], Any]) -> int:
    with _Counter() as counter:
        step()
    return counter.count


def _count_kernels(step: Callable[[], Any], device: torch.device) -> int | None:
    """Kernels that run on a GPU in one step; None on a CPU."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize(device)
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def _measure(options: argparse.Namespace, forms: Mapping[str, _Form | Served]) -> dict[str, Any]:
    """Figures by form: steps of all forms in turn, so that a change of the machine's speed meets all."""
    laps = {kind: in_turn(forms, kind, options.steps) for kind in _KINDS}
    found: dict[str, Any] = {}
    for name, form in forms.items():
        found[name] = {"activation_memory_mb": form.facts["activation_memory_mb"]}
        for kind in _KINDS:
            seconds = laps[kind][name]
            found[name][kind] = {
                "seconds": statistics.median(seconds),
                "spread": max(seconds) - min(seconds),
                "images_per_second": options.batch / statistics.median(seconds),
                "operators": form.facts["operators"][kind],
                "kernels": form.facts["kernels"][kind],
            }
    return found


def _memory_mb(device: torch.device) -> float:
    """Memory in use before the first step."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    return peak_memory_mb(device)


def _differences(options: argparse.Namespace) -> dict[str, float]:
    """Largest relative difference of logits and of any gradient, in float64, on a small batch on the CPU."""
    small = argparse.Namespace(**{**vars(options), "batch": min(4, options.batch), "size": min(16, options.size)})
    reference = _network(small).double()
    networks = (reference, fuse(copy.deepcopy(reference)))
    images, labels, matrices = _inputs(small, torch.float64)
    found = []
    for network in networks:
        network.train()
        logits, *gradients = _gradients(network, images, labels, matrices, "both")
        kinds = len(matrices)
        named = dict(zip((name for name, _ in network.named_parameters()), gradients[kinds:]))
        found.append((logits, gradients[:kinds], state_dict.by_reference_names(network, named)))

    def relative(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / b.norm().clamp_min(1e-30))

    (logits, p, weights), (fast_logits, fast_p, fast_weights) = found
    return {
        "logits": relative(fast_logits, logits),
        "p_gradients": max(relative(a, b) for a, b in zip(fast_p, p)),
        "weight_gradients": max(relative(fast_weights[name], value) for name, value in weights.items()),
    }


def _compare(options: argparse.Namespace, device: torch.device, words: list[str]) -> dict[str, Any]:
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        served: dict[str, _Form | Served] = {}
        for form in _forms(device):
            try:
                served[form] = stack.enter_context(contextlib.closing(Served("supernet", form, words)))
            except UserError as error:
                if form in FORMS:
                    raise
                failed[form] = str(error)  # the others are worth their minutes
        forms = _measure(options, served)
    speedups = {
        f"speedup_of_{fast}": {slow: _ratios(forms[slow], forms[fast]) for slow in list(FORMS)[:2]}
        for fast in list(forms)[2:]
    }
    return {
        "benchmark": "supernet",
        "n": options.steps,
        "environment": describe(device, 1, 0),
        "settings": {name: getattr(options, name) for name in ("space", "batch", "channels", "cells", "size")},
        "forms": forms,
        **speedups,
        **({"failed": failed} if failed else {}),
    }


def _ratios(slow: dict[str, Any], fast: dict[str, Any]) -> dict[str, float | None]:
    """How many times faster, by kind of step, and the share of memory: None where a tiny network needed none."""
    own = slow["activation_memory_mb"]
    return {
        **{kind: slow[kind]["seconds"] / fast[kind]["seconds"] for kind in _KINDS},
        "memory": fast["activation_memory_mb"] / own if own > 0 else None,
    }


def _roofline(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """What a weight step must compute and move, over what this machine can.

    Operations: two per multiply-add, three times the forward pass. Bytes: the output of every depthwise (in
    NAS-Bench-201 3x3) convolution written and read once forward; read, its gradient written and read once backward.
    """
    network = _network(options)
    cost, outputs = ExpectedCost(network, options.size), _stored_numbers(network, options.size)
    macs = float(sum(matrix.sum() for matrix in cost.matrices))
    bytes_moved = 5 * 4 * outputs * options.batch
    operations = 3 * 2 * macs * options.batch
    count, side = (
        (1 << 29, 8192) if device.type == "cuda" else (1 << 26, 2048)
    )  # beyond what caches and clocks hide
    big, matrix = torch.rand(2, count, device=device), torch.randn(side, side, device=device)
    clock = Clock(device)
    bandwidth = 4 * big.numel() / clock.median(lambda: big[0].copy_(big[1]), 7)
    rate = 2 * side**3 / clock.median(lambda: matrix @ matrix, 7)
    return {
        "operations": operations,
        "bytes": bytes_moved,
        "copy_bytes_per_second": bandwidth,
        "matrix_operations_per_second": rate,
        "seconds_for_operations": operations / rate,
        "seconds_for_bytes": bytes_moved / bandwidth,
    }


def _stored_numbers(network: Supernet | DenseSupernet, size: int) -> int:
    """Of the outputs per image of all depthwise, or in NAS-Bench-201 3x3, convolutions."""
    if isinstance(network, DenseSupernet):
        return sum(math.prod(shape) for _, _, _, shape in network.mixed_operations(size))
    found = 0
    for cell in network.cells:
        assert isinstance(cell, MixedCell)
        size = -(-size // 2) if cell.reduction else size
        found += _DEPTHWISE_PER_EDGE * len(cell.space.edges) * cell.channels * size**2
    return found


def _lines(result: dict[str, Any]) -> list[str]:
    lines = [heading(result)]
    forms = result["forms"]
    for form, figures in forms.items():
        steps = ", ".join(
            f"{title} step {figures[kind]['seconds']:.3f} s (spread {figures[kind]['spread']:.3f}, "
            f"{figures[kind]['images_per_second']:.1f} images/s, {figures[kind]['operators']} operators)"
            for kind, title in _KINDS.items()
        )
        lines.append(f"{_TITLES[form]}: {steps}, activations {figures['activation_memory_mb']:.0f} MB")
    for fast in list(forms)[2:]:
        for form, ratios in result[f"speedup_of_{fast}"].items():
            memory = "" if ratios["memory"] is None else f", {ratios['memory']:.2f} of the memory"
            lines.append(
                f"{_TITLES[fast]} against {_TITLES[form]}: weight step {ratios['weight']:.2f}x, architecture step "
                f"{ratios['architecture']:.2f}x{memory}"
            )
    for form, figures in forms.items():
        share = figures["drawn"]["seconds"] / figures["weight"]["seconds"]
        lines.append(f"{_TITLES[form]}: with drawn operations, a weight step takes {share:.2f} of the time")
    if "differences" in result:
        worst = ", ".join(f"{name} {value:.1e}" for name, value in result["differences"].items())
        lines.append(f"largest relative difference in float64: {worst}")
    if "roofline" in result:
        roofline = result["roofline"]
        lines.append(
            f"roofline of a weight step: {roofline['operations'] / 1e9:.0f} GFLOP take "
            f"{roofline['seconds_for_operations']:.3g} s at this machine's matrix rate, "
            f"{roofline['bytes'] / 1e9:.1f} GB {roofline['seconds_for_bytes']:.3g} s at its copy bandwidth"
        )
    return lines
