"""Zero-cost metrics of one network: what a batch tells of untrained weights (Abdelfattah et al., 2021).

With w the weights of a layer, g = dL/dw of the cross-entropy L on one batch, and H the Hessian of L in all weights:

    grad_norm   ||g||                      (Abdelfattah et al., 2021)
    snip        sum |w g|                  (Lee et al., 2019)
    grasp       -sum w (H g)               (Wang et al., 2020; the sign as in Abdelfattah et al., 2021)
    plain       sum w g                    (Mozer and Smolensky, 1989; signed)
    synflow     sum |w dR/dw|              (Tanaka et al., 2020; R below)
    naswot      log |det K|                (Mellor et al., 2021)
    jacob_cov   -sum log(v + k) + 1 / (v + k), k = 1e-5     (Mellor et al., first version)

Weights are those of convolutions and linear layers: no biases, nothing of a normalisation. Normalisations use the
batch's statistics, which jacob_cov holds constant. A network's saliency is the sum over its layers, an operation's
the sum over its own.

**What a normalisation does to them.** The output of a normalisation does not change when all weights of a layer
between it and the normalisation before are scaled. So for such a layer <w, g> = 0, and differentiating that once
more, -<w, H g> = ||g||^2: plain is zero, and grasp is the square of grad_norm, exactly but for the normalisation's
epsilon. (With epsilon, plain of output channel c before a normalisation of variance v and scale s is
epsilon / (v + epsilon) s dL/ds.) Every convolution in the operations of NAS-Bench-101,
NAS-Bench-201, DARTS and ENAS is such a layer. The consequence: of the five saliencies of an operation three are
independent; plain is rounding and epsilon, not to be scaled up (`symmetry_breaking` sets it to zero), and grasp
adds nothing to grad_norm. In a whole network plain tells of the classifier and the shortcuts without normalisation
alone.

Legend: B images, S saliencies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nge_search.counting import count_parameters

#: Of weights, in the order of TA-GATES (Section 3.2).
SALIENCIES = ("grad_norm", "snip", "grasp", "plain", "synflow")
#: Of a network.
METRICS = (*SALIENCIES, "naswot", "jacob_cov", "parameters", "mult_adds")

_SMALLEST_EIGENVALUE = 1e-5


@dataclass(frozen=True)
class NetworkMetrics:
    """What was measured of one network.

    Attributes:
        layer_S: float64 saliencies of each convolution and linear layer, by its name in the network.
        naswot, jacob_cov: see the module.
        parameters, mult_adds: as `counting` counts them, for one image.
    """

    layer_S: dict[str, np.ndarray]
    naswot: float
    jacob_cov: float
    parameters: int
    mult_adds: int

    def row(self) -> np.ndarray:
        """The network's metrics, float64, in the order of `METRICS`."""
        total_S = np.sum(list(self.layer_S.values()), axis=0)
        return np.array([*total_S, self.naswot, self.jacob_cov, self.parameters, self.mult_adds], dtype=np.float64)


@torch.enable_grad()
def measure_network(network: nn.Module, x_BCHW: Tensor, label_B: Tensor) -> NetworkMetrics:
    """All metrics of a network from one pass for the saliencies and naswot, one for jacob_cov and one for synflow.

    Args:
        network: untrained; its `forward` gives (logits, ...). It is used up: its normalisations hold the batch's
            statistics behind it.
        x_BCHW: images of the dtype of its weights.
        label_B: their classes, int64.
    """
    layers = weights_of(network)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches: of the one that comes now
    # Not channels-last: networks then compute as written, by operations that can be differentiated twice.
    x_BCHW = x_BCHW.contiguous(memory_format=torch.contiguous_format)
    with _Watcher(len(x_BCHW)) as watcher:
        logits_BC = network(x_BCHW)[0]
    first = gradient_saliencies(functional.cross_entropy(logits_BC, label_B), layers)
    flow = synflow(network, tuple(x_BCHW.shape[1:]))
    return NetworkMetrics(
        layer_S={name: np.append(row, flow[name]) for name, row in first.items()},
        naswot=log_determinant(watcher.kernel_BB.numpy()),
        jacob_cov=jacobian_score(image_gradients(network.eval(), x_BCHW).flatten(1).double().numpy()),
        parameters=count_parameters(network),
        mult_adds=watcher.mult_adds,
    )


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights of all convolutions and linear layers, by the layer's name."""
    return {
        name: module.weight
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }


def gradient_saliencies(loss: Tensor, layers: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """grad_norm, snip, grasp and plain of each layer, float64 [4]; zeros for one that the loss does not see."""
    weights = list(layers.values())
    gradients = _gradients(loss, weights, create_graph=True)
    # H g is the gradient of <g, g> with the first g held constant.
    product = torch.stack([(gradient.detach() * gradient).sum() for gradient in gradients]).sum()
    curvatures = _gradients(product, weights)
    rows = []
    with torch.no_grad():
        for w, g, hg in zip(weights, gradients, curvatures):
            wg = (w * g).double()
            rows.append(torch.stack([g.double().norm(), wg.abs().sum(), -(w * hg).double().sum(), wg.sum()]))
    return dict(zip(layers, torch.stack(rows).numpy()))


def synflow(network: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """sum |w dR/dw| of each layer, in float64; `shape` is an image's [C, H, W].

    R is the sum of the logits of an image of ones, in a copy of the network with all parameters made positive and
    all normalisations taken out.
    """
    twin = copy.deepcopy(network).double().eval()
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
    layers = weights_of(twin)
    total = twin(torch.ones(1, *shape, dtype=torch.float64))[0].sum()
    gradients = _gradients(total, list(layers.values()))
    return {name: float((w.detach() * g).abs().sum()) for (name, w), g in zip(layers.items(), gradients)}


def image_gradients(network: nn.Module, x_BCHW: Tensor) -> Tensor:
    """d sum(logits of image b) / d x_b, [B, C, H, W], of a network that takes each image for itself (eval mode).

    In training mode images would act on each other. The gradient of the sum of all logits, which the code of
    Abdelfattah et al. takes, then is zero for outputs behind a normalisation: their sum over the batch is constant.
    DARTS' networks, which have no ReLU before the classifier, would be left with rounding.
    """
    images_BCHW = x_BCHW.detach().clone().requires_grad_()
    return _gradients(network(images_BCHW)[0].sum(), [images_BCHW])[0]


def log_determinant(kernel_BB: np.ndarray) -> float:
    """naswot: log |det K| of K_ab, the number of ReLU units that images a and b agree about being on or off.

    0 where K is singular: of whole numbers, |det K| is at least 1 otherwise.
    """
    eigenvalues_B = np.linalg.eigvalsh(kernel_BB)
    if eigenvalues_B[0] <= eigenvalues_B[-1] * len(kernel_BB) * np.finfo(np.float64).eps:
        return 0.0
    return float(np.log(eigenvalues_B).sum())


def jacobian_score(jacobian_BF: np.ndarray) -> float:
    """jacob_cov: from the eigenvalues v of the correlation matrix of the images' gradients.

    Gradients that are the same in every pixel have no correlation; such images count as alike.
    """
    centred_BF = jacobian_BF - jacobian_BF.mean(axis=1, keepdims=True)
    norm_B = np.linalg.norm(centred_BF, axis=1)
    varies_B = norm_B > np.abs(jacobian_BF).max(axis=1, initial=0) * np.finfo(np.float32).eps
    unit_BF = centred_BF / np.where(varies_B, norm_B, 1)[:, None]
    correlation_BB = np.where(varies_B[:, None] & varies_B, unit_BF @ unit_BF.T, 0)
    correlation_BB += ~varies_B[:, None] & ~varies_B
    v_B = np.linalg.eigvalsh(correlation_BB).clip(min=0) + _SMALLEST_EIGENVALUE
    return float(-np.sum(np.log(v_B) + 1 / v_B))


def _gradients(value: Tensor, inputs: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """d value / d inputs; zeros for those that it does not depend on."""
    return torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)


class _Watcher(TorchDispatchMode):
    """Sees a forward pass, in whatever way modules or functions call ReLUs and convolutions.

    Attributes:
        kernel_BB: for how many units of ReLUs two images agree, float64, whole numbers.
        mult_adds: of one image.
    """

    def __init__(self, images: int):
        super().__init__()
        self.kernel_BB = torch.zeros(images, images, dtype=torch.float64)
        self.mult_adds = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in (torch.ops.aten.relu, torch.ops.aten.relu_):
            on_BU = (result > 0).flatten(1).to(torch.float32).mul_(2).sub_(1)
            self.kernel_BB += (on_BU @ on_BU.T).double().add_(on_BU.shape[1]).div_(2)
        elif kind == torch.ops.aten.convolution:
            self.mult_adds += result[0].numel() * args[1][0].numel()
        elif kind == torch.ops.aten.addmm:
            self.mult_adds += args[2].numel()
        return result
