"""What turns a cell graph into operation probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nge_search.settings.base import Section, option
from nge_search.settings.names import EMBEDDINGS


@dataclass
class EmbeddingSection(Section):
    """What turns a cell graph into operation probabilities, and how it learns."""

    prefix: ClassVar[str] = "embedding"

    kind: str = option(
        "nge",
        "What gives P: nge: graph convolutions (Eq. 5-10); rnn: an LSTM in their place; plain: neither; direct: "
        "free parameters.",
        choices=EMBEDDINGS,
    )
    adjacency: str = option(
        "predecessors",
        "Neighbours that a node hears (Eq. 6): predecessors: earlier nodes; printed: later ones, as the paper "
        "prints it; symmetric: both (Kipf and Welling).",
        choices=("predecessors", "printed", "symmetric"),
    )
    input_dim: int = option(64, "Length D of a node's learned input vector.", at_least=1, at_most=4096)
    hidden_dim: int = option(128, "Width of the hidden graph convolutions.", at_least=1, at_most=4096)
    output_dim: int = option(64, "Length F of a node's embedding.", at_least=1, at_most=4096)
    edge_dim: int = option(64, "Length K of an edge's embedding and of its hidden layer.", at_least=1, at_most=4096)
    layers: int = option(3, "Number L of graph convolutions of embedding.kind=nge.", at_least=1, at_most=64)
    recurrent_layers: int = option(2, "Number of LSTM layers of embedding.kind=rnn.", at_least=1, at_most=64)
    shared: bool = option(
        True, "Share all layers between normal and reduction cells, which then differ in X alone."
    )
    edges: str = option(
        "printed",
        "What P's classifier reads of an edge: printed: its vector (Eq. 9); split: what all edges' vectors have in "
        "common and what sets this one apart, each of rms 1, and the classifier starts at zero. Free parameters "
        "have no vectors.",
        choices=("printed", "split"),
    )
    jumping: bool = option(
        False,
        "Read the nodes' learned input vectors X beside what graph convolutions or the LSTM make of them (jumping "
        "knowledge).",
    )
    uniform_start: bool = option(
        False, "Start P's classifier, or free parameters, at zero: P is uniform at first, as with edges=split."
    )
    initialisation: str = option(
        "he",
        "Normal distribution that layers start from: he: of std sqrt(2 / fan_in); normal: of embedding.init_std.",
        choices=("he", "normal"),
    )
    init_std: float = option(0.1, "Standard deviation of embedding.initialisation=normal.", above=0)
    learning_rate: float = option(
        6e-4,
        "Adam's learning rate for the embedding, the same throughout but for search.embedding_warmup_epochs.",
        at_least=0,
    )
    beta1: float = option(0.5, "Adam's first beta, 0.5 in DARTS.", at_least=0, below=1)
    beta2: float = option(0.999, "Adam's second beta for the embedding.", at_least=0, below=1)
    weight_decay: float = option(1e-3, "L2 penalty on the embedding's parameters.", at_least=0)
    weight_decay_on_x: bool = option(True, "Apply embedding.weight_decay to the node vectors X, too.")

    def check_vertices(self, vertices: int) -> None:
        """Raise UserError unless each of so many vertices can start as a one-hot vector of its own."""
        if self.kind != "direct" and self.input_dim < vertices:
            raise self.refuse(
                "input_dim", f"must be at least {vertices}: each vertex of a cell starts as a one-hot vector"
            )
