"""Neural graph embedding in one file: the method, read from top to bottom; torch and scikit-learn are all it needs.

    python examples/nge_in_one_file.py            # searches on 8x8 digits, some minutes on a CPU

It is the textbook form: every operation of every edge is computed. `nge_search` computes the same numbers (a test
holds this file to the package's stored losses), several times faster, on your images, on many GPUs, and resumes.
Legend: V vertices, E edges, O operations, B images, C channels, H and W sides. "Eq." are those of the paper.
"""

import math

import torch
from torch import nn
from torch.nn import functional

# -- 1. A cell is a graph: vertices 0 and 1 are given (the two cells before), 2 to 5 add up what reaches them.

INPUTS, NODES = 2, 4
INNER = range(INPUTS, INPUTS + NODES)
EDGES = [(source, target) for target in INNER for source in range(target)]  # 14


# -- 2. The embedding: from learned vertex vectors to P, the probability of every operation on every edge.
class Embedding(nn.Module):
    """X -> graph convolutions -> edge vectors -> P. All layers are shared by both kinds of cell; X is not."""

    def __init__(self, operations: int, inputs=64, hidden=128, outputs=64, edge=64):
        super().__init__()
        self.x = nn.ParameterList(torch.eye(INPUTS + NODES, inputs) for _ in ("normal", "reduction"))
        widths = (inputs, hidden), (hidden, hidden), (hidden, outputs)
        self.convolutions = nn.ModuleList(self.linear(*pair) for pair in widths)
        self.pair = self.linear(2 * outputs, edge)
        self.embed = self.linear(edge, edge)
        self.classify = self.linear(edge, operations)
        self.a_VV = torch.eye(INPUTS + NODES, dtype=torch.float64)  # Eq. 6-7: a vertex hears itself
        for source, target in EDGES:
            self.a_VV[target, source] = 1 / (target + 1)  # and, more softly, its predecessors

    @staticmethod
    def linear(inputs: int, outputs: int) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=False)
        nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
        return layer

    def forward(self) -> list[torch.Tensor]:
        """P [E, O] of the normal and of the reduction cell; rows sum to one."""
        return [self.probabilities(x_VD) for x_VD in self.x]

    def probabilities(self, x_VD: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:  # Eq. 8
            x_VD = functional.relu(convolution(self.a_VV.to(x_VD) @ x_VD))
        edges_EK = self.embed(functional.relu(self.pair(x_VD[torch.tensor(EDGES)].flatten(1))))  # Eq. 9
        return torch.softmax(self.classify(edges_EK), dim=1)  # Eq. 10


# -- 3. The candidate operations, as DARTS defines them. Normalisations have no parameters of their own in a search.
def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False)


def relu_conv_bn(c_in: int, c_out: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), norm(c_out))


def depthwise(c: int, kernel: int, stride: int, dilation: int) -> nn.Module:
    """ReLU, a convolution of each channel by itself, one across channels, normalisation."""
    pad = dilation * (kernel - 1) // 2
    spread = nn.Conv2d(c, c, kernel, stride, pad, dilation, groups=c, bias=False)
    return nn.Sequential(nn.ReLU(), spread, nn.Conv2d(c, c, 1, bias=False), norm(c))


class Halve(nn.Module):
    """Half the resolution by two 1x1 convolutions, the second of the image shifted by a pixel."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        widths = c_out // 2, c_out - c_out // 2
        self.even, self.odd = (nn.Conv2d(c_in, width, 1, 2, bias=False) for width in widths)
        self.norm = norm(c_out)

    def forward(self, x):
        x = functional.relu(x)
        shifted = functional.pad(x[:, :, 1:, 1:], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


OPERATIONS = {
    "skip_connect": lambda c, stride: nn.Identity() if stride == 1 else Halve(c, c),
    "max_pool_3x3": lambda c, stride: nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(c)),
    "avg_pool_3x3": lambda c, stride: nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(c)),
    "sep_conv_3x3": lambda c, stride: nn.Sequential(depthwise(c, 3, stride, 1), depthwise(c, 3, 1, 1)),
    "sep_conv_5x5": lambda c, stride: nn.Sequential(depthwise(c, 5, stride, 1), depthwise(c, 5, 1, 1)),
    "dil_conv_3x3": lambda c, stride: depthwise(c, 3, stride, 2),
    "dil_conv_5x5": lambda c, stride: depthwise(c, 5, stride, 2),
}


# -- 4. The supernet: cells in which every edge carries every operation, weighted by P (Eq. 11).
class Cell(nn.Module):
    def __init__(self, c_before: int, c_last: int, c: int, reduction: bool, reduction_before: bool):
        super().__init__()
        self.reduction = reduction
        self.first = Halve(c_before, c) if reduction_before else relu_conv_bn(c_before, c)
        self.second = relu_conv_bn(c_last, c)
        strides = [2 if reduction and source < INPUTS else 1 for source, _ in EDGES]
        self.edges = nn.ModuleList(nn.ModuleList(make(c, s) for make in OPERATIONS.values()) for s in strides)

    def forward(self, before, last, p_EO):
        states = [self.first(before), self.second(last)]
        for node in INNER:
            arriving = [edge for edge, (_, target) in enumerate(EDGES) if target == node]
            terms = (p * op(states[EDGES[e][0]]) for e in arriving for p, op in zip(p_EO[e], self.edges[e]))
            states.append(sum(terms))
        return torch.cat(states[INPUTS:], dim=1)


class Supernet(nn.Module):
    def __init__(self, channels: int, cells: int, classes: int, image_channels: int):
        super().__init__()
        stem = 3 * channels  # reductions at a third and at two thirds of the depth double the channels
        self.stem = nn.Sequential(nn.Conv2d(image_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem))
        self.cells = nn.ModuleList()
        before, last, reduced = stem, stem, False
        for position in range(cells):
            reduction = position in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            self.cells.append(Cell(before, last, channels, reduction, reduced))
            before, last, reduced = last, NODES * channels, reduction
        self.classifier = nn.Linear(last, classes)

    def forward(self, x_BCHW, p_normal_EO, p_reduction_EO):
        before = last = self.stem(x_BCHW)
        for cell in self.cells:
            before, last = last, cell(before, last, p_reduction_EO if cell.reduction else p_normal_EO)
        return self.classifier(last.mean(dim=(2, 3)))


# -- 5. Algorithm 1: each epoch is a pass for the weights with P fixed, then one for P with the weights fixed.
class Search:
    def __init__(self, supernet: Supernet, embedding: Embedding, epochs: int):
        self.supernet, self.embedding, self.epochs = supernet, embedding, epochs
        self.sgd = torch.optim.SGD(supernet.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(embedding.parameters(), lr=6e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def start_epoch(self, epoch: int) -> None:
        self.sgd.param_groups[0]["lr"] = 0.025 * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def weight_step(self, images_BCHW, labels_B, p) -> float:
        loss = functional.cross_entropy(self.supernet(images_BCHW, *p), labels_B)
        self.sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.parameters(), 5.0)
        self.sgd.step()
        return loss.item()

    def embedding_step(self, images_BCHW, labels_B) -> float:
        loss = functional.cross_entropy(self.supernet(images_BCHW, *self.embedding()), labels_B)
        self.adam.zero_grad()
        loss.backward()  # gradients of the weights are thrown away before their next step
        self.adam.step()
        return loss.item()

    def epoch(self, epoch: int, train, valid) -> tuple[float, float]:
        """Mean losses of the two passes over (images, labels) batches."""
        self.start_epoch(epoch)
        p = [p_EO.detach() for p_EO in self.embedding()]
        losses = [self.weight_step(*batch, p) for batch in train], [self.embedding_step(*batch) for batch in valid]
        return sum(losses[0]) / len(train), sum(losses[1]) / len(valid)


def derive(p_EO: torch.Tensor) -> str:
    """Per inner node the two edges with the largest probability, each with its best operation (DARTS' rule)."""
    chosen = []
    for node in INNER:
        edges = [edge for edge, (_, target) in enumerate(EDGES) if target == node]
        for edge in sorted(sorted(edges, key=lambda e: -p_EO[e].max())[:2]):
            chosen.append(f"{list(OPERATIONS)[p_EO[edge].argmax()]}({EDGES[edge][0]})")
    return ", ".join(chosen)


def main(epochs: int = 10, count: int = 1797) -> None:
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:count] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[:count])
    supernet, embedding = Supernet(4, 3, 10, 1), Embedding(len(OPERATIONS))
    search = Search(supernet, embedding, epochs)
    for epoch in range(epochs):
        order = torch.randperm(len(labels) // 2)
        train = [(images[i], labels[i]) for i in order.split(64)]
        valid = [(images[i + len(order)], labels[i + len(order)]) for i in order.split(64)]
        print(f"epoch {epoch + 1}: train loss %.3f, architecture loss %.3f" % search.epoch(epoch, train, valid))
    for kind, p_EO in zip(("normal", "reduction"), embedding()):
        print(f"{kind}: {derive(p_EO)}")


if __name__ == "__main__":
    main()
