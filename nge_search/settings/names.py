"""The names that settings offer: every registry of the package holds exactly these, and asserts it."""

from __future__ import annotations

from collections.abc import Collection

from nge_search import kinds
from nge_search.operation_registry import BUILT_IN

#: Sets of architectures (`nge_search.spaces`).
SPACES = ("darts", "nasbench101", "nasbench201", "enas_macro")
#: Those that have a supernet.
SUPERNET_SPACES = ("darts", "nasbench201")

#: The package's own operations that a genotype may name (`operation_registry.names` has the users', too). The first
#: seven are NGE's search space, in its order, and what is searched by default.
OPERATIONS = BUILT_IN
SEARCH_OPERATIONS = OPERATIONS[:7]
#: Of a cell in DARTS' notation: the outputs of the two cells before it.
INPUT_NODES = 2

#: What gives P (`nge_search.embedding`).
EMBEDDINGS = ("nge", "direct", "plain", "rnn")

#: Searches by queries (`nge_search.strategies`).
STRATEGIES = (
    *("random", "local_search", "evolution", "reinforce", "nge_reinforce", "nge_evolution"),
    *("predictor", "design"),
)
#: What judges the architectures of such a search, and what short trainings are compared by (`nge_search.spaces`).
EVALUATORS = ("table", "training")
SIGNALS = ("valid_loss", "valid_top1", "train_losses")
#: What becomes of the probabilities that a search by gradients ends with (`nge_search.gradient.selection`).
SELECTIONS = ("argmax", "short", "perturbation", "predictor")
#: How a predictor's forecasts are weighed (`nge_search.strategies.acquisition`).
ACQUISITIONS = ("expected_improvement", "thompson", "greedy")
#: Where a predictor's candidates come from (`nge_search.strategies.predictor`).
CANDIDATES = ("policy", "design")

#: What scores architectures without training them (`nge_search.predict`).
PREDICTORS = (
    *("ta_gates", "gates", "gcn", "lstm", "mlp", "xgboost", "nasbowl"),
    *("analytic_gp", "flow", "ensemble"),
)
#: Those that are networks on graphs or decisions (`nge_search.predict.networks`).
NETWORK_PREDICTORS = PREDICTORS[:5]
#: What predicts accuracies half-way and at the end of a training together (`nge_search.predict.anytime`).
ANYTIME_PREDICTORS = ("single_gates", "multi_lstm", "multi_gates", "multi_control", "ta_gates")
#: How operations of one type are told apart, where updates look, what is read (`nge_search.predict.encoders`).
BREAKINGS = ("none", "random", "add", "concat")
UPDATES_FROM = ("nodes", "messages")
READOUTS = ("output", "mean")

#: Those that say how sure they are.
PROBABILISTIC = ("analytic_gp", "ensemble")

#: What draws cells link by link; what link models learn from, and what moves are drawn by (`nge_search.design`).
DESIGN_METHODS = ("links", "frequencies", "uniform")
SAMPLES = ("grown", "paper", "common")
SCORES = ("logit", "probability")
#: Installed packages that have networks to find (`nge_search.retrieve.sources`).
NETWORK_LIBRARIES = ("timm", "torchvision", "transformers")
#: What turns networks into vectors (`nge_search.retrieve.models`): untrained controls, and what is fitted.
UNTRAINED_RETRIEVERS = (
    *("operations", "operations_with_attributes", "wl1", "wl2", "wl1_names", "wl2_names", "wl2_idf", "motifs_idf"),
)
RETRIEVERS = (
    *(*UNTRAINED_RETRIEVERS, "lda", "nar", "gcn", "gat", "views"),
    *("own", "own_plain", "own_code", "own_families", "own_views"),
)
#: Questions by which they are compared (`nge_search.retrieve.questions`).
RETRIEVAL_TASKS = ("families", "unseen", "twins", "torchvision", "seen", "nas", "code")
#: How networks are divided into motifs (`nge_search.retrieve.motifs`), and what of a node these look at.
MOTIF_SPLITS = ("frequent", "node_number", "motif_number", "random")
MOTIF_LABELS = ("nothing", "names", "attributes")

#: How the learning rate of a classifier falls (`nge_search.engine.optimisers`).
SCHEDULES = ("cosine", "linear", "constant")
#: What it does in epochs that are added to a training (`nge_search.training.continuation`).
CONTINUATIONS = ("constant", "cosine", "restart")

#: Datasets whose images have a class (`nge_search.data`), and those whose pixels have one.
#: "own" is given from Python.
DATASETS = ("digits", "cifar10", "cifar100", "imagenet", "tiny_imagenet", "folder", "own")
SEGMENTATION_DATASETS = ("scenes", "voc")

#: Kinds of networks that cells are stacked into (`nge_search.networks`). Those of other spaces than DARTS' stand
#: last; of them these have three stages of cells.
THREE_STAGES = ("nasbench101", "nasbench201")
BENCHMARK_NETWORKS = (*THREE_STAGES, "enas_macro")
NETWORKS = ("cifar", "imagenet", *BENCHMARK_NETWORKS)

#: Where a search judges architectures, and what a derived network is trained for.
SEARCH_TASKS = tuple(kind.task for kind in kinds.of_command("search"))
TASKS = tuple(kind.task for kind in kinds.of_command("eval"))

#: The kinds of networks that are exported as classifiers, and timm's names of them.
EXPORTED = {"cifar": "nge_cifar", "imagenet": "nge_imagenet"}


def require_names(registry: Collection[str], names: Collection[str]) -> None:
    """Raise AssertionError unless a registry holds exactly the names that settings offer."""
    assert sorted(registry) == sorted(names), f"{sorted(registry)}, but settings offer {sorted(names)}"
