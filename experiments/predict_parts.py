"""What `predict.py` trains: sets of labelled architectures, variants of predictors, parts of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nge_search.predict.anytime import MODELS as ANYTIME
from nge_search.predict.predictors import PREDICTORS

#: Words of models beside the registry's: a registered one, and options of it.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "control": ("ta_gates", {"steps": 1}),
    "ta_gates, random": ("ta_gates", {"breaking": "random"}),
    "ta_gates, concat": ("ta_gates", {"breaking": "concat"}),
    "ta_gates, add": ("ta_gates", {"breaking": "add"}),
    "ta_gates, analytic": ("ta_gates", {"analytic": True}),
    "control, analytic": ("ta_gates", {"analytic": True, "steps": 1}),
    "gates, analytic": ("gates", {"analytic": True}),
    "analytic_gp, no features": ("analytic_gp", {"features": False}),
    "analytic_gp, no subtrees": ("analytic_gp", {"subtrees": False}),
    "analytic_gp, no places": ("analytic_gp", {"places": False}),
    "analytic_gp, features alone": ("analytic_gp", {"subtrees": False, "places": False}),
    "analytic_gp, one group": ("analytic_gp", {"grouped": False}),
    "analytic_gp, target label": ("analytic_gp", {"target": "label"}),
    "analytic_gp, target rank": ("analytic_gp", {"target": "rank"}),
    "flow, no features": ("flow", {"features": False}),
    "flow, one member": ("flow", {"members": 1}),
    "ensemble, no features": ("ensemble", {"features": False}),
}


@dataclass(frozen=True)
class Source:
    """A set of labelled architectures.

    Attributes:
        path: under --data.
        label: the column that is predicted.
        half: that of the accuracy half-way; empty: none.
        space: whose published figures stand beside it; empty: there are none.
        folds: parts that test once each; 0: a random half tests.
        what: for the tables' titles.
    """

    path: str
    label: str
    half: str
    space: str
    folds: int
    what: str


_DARTS = "darts_space/darts_214_genotype_acc.json"
SOURCES = {
    "nb201": Source(
        "nasbench201/nasbench201.csv",
        *("cifar10_test_200", "cifar10_test_12", "nasbench201", 0),
        "NAS-Bench-201, CIFAR-10 test after 200 epochs (half-way: after 12 of another schedule, a stand-in)",
    ),
    "cifar100": Source(
        "nasbench201/nasbench201.csv",
        *("cifar100_valid_200", "", "", 0),
        "NAS-Bench-201, CIFAR-100 validation after 200 epochs",
    ),
    "ec_nas": Source(
        "ec_nas/ec_nas_4epoch.csv",
        *("cifar10_valid_4", "cifar10_valid_2", "nasbench101", 0),
        "all 2,532 cells of NAS-Bench-101 with at most 5 vertices, after 4 epochs (EC-NAS; half-way: 2)",
    ),
    "nb101_550": Source(
        "nasbench101/nb101_labelled_all.csv",
        *("cifar10_valid_108", "", "nasbench101", 0),
        "550 rows of NAS-Bench-101, repeats of a cell averaged, after 108 epochs",
    ),
    "darts_surrogate": Source(
        "darts_space/nb301_surrogate_acc_zerocost.json",
        *("val_accuracy", "", "darts", 0),
        "1,218 DARTS cells whose accuracies a SURROGATE predicted: no trainings",
    ),
    "darts_214": Source(_DARTS, "final_test_acc", "acc_ep300", "darts", 10, "214 trained DARTS cells, ten-fold"),
    "enas": Source(
        "enas/enas6_weightsharing.csv",
        *("cifar10_weight_sharing", "", "enas", 0),
        "20,020 macro networks of ENAS, accuracies with SHARED weights: no trainings",
    ),
    "nb101": Source(
        "",
        *("cifar10_valid_108", "cifar10_valid_108_halfway", "nasbench101", 0),
        "NAS-Bench-101, TA-GATES' own split, mean validation accuracy after 108 epochs",
    ),
}


@dataclass(frozen=True)
class Part:
    """Trainings: on each set every model, for each number of labels (or share of them) so many seeds, from 0."""

    sources: tuple[str, ...]
    models: tuple[str, ...]
    budgets: dict[str, int]
    anytime: bool = False


_MANY = {"39": 9, "78": 9, "390": 5, "781": 3}
_OTHERS = {"40": 9, "80": 9, "10%": 9}
_BREAKING = ("control", "ta_gates", *(f"ta_gates, {how}" for how in ("random", "concat", "add")))
_FIRST = ("gates", "gates, analytic", "control", "control, analytic", "ta_gates", "ta_gates, analytic")
OWN = ("ensemble", "analytic_gp", "flow")
PARTS = {
    "table1": [Part(("nb201",), (*PREDICTORS, "control", "ta_gates, add"), _MANY)],
    "table2": [
        Part(("nb201",), ("gates", *_BREAKING), _MANY),
        Part(("ec_nas", "nb101_550", "darts_surrogate"), ("gates", *_BREAKING), _OTHERS),
    ],
    "table3": [
        Part(("nb201",), ANYTIME, {"39": 5, "78": 5, "390": 3}, anytime=True),
        Part(("ec_nas",), ANYTIME, {"40": 5, "80": 5, "10%": 5}, anytime=True),
        Part(("darts_214",), ANYTIME, {"100%": 1}, anytime=True),
    ],
    "ablation": [Part(("nb201",), (*_FIRST, *OWN, *(name for name in VARIANTS if name.startswith(OWN))), _MANY)],
    "spaces": [
        Part(("ec_nas", "nb101_550", "darts_surrogate", "enas"), (*OWN, "gates", "ta_gates", "control"), _OTHERS),
        Part(("darts_214",), (*OWN, "gates", "ta_gates", "control"), {"100%": 3}),
    ],
    "cifar100": [Part(("cifar100",), (*OWN, "gates", "ta_gates", "control"), _MANY)],
    "calibration": [
        Part(("nb201", "cifar100"), ("analytic_gp", "ensemble"), _MANY),
        Part(("ec_nas", "nb101_550", "darts_surrogate", "enas"), ("analytic_gp", "ensemble"), _OTHERS),
    ],
    "nb101": [
        Part(("nb101",), (*PREDICTORS, "control"), {"72": 9, "364": 9, "729": 9}),
        Part(("nb101",), ANYTIME, {"72": 5, "364": 5, "729": 5}, anytime=True),
    ],
}
