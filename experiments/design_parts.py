"""What `design.py` compares: rows by part and space, and the columns of tables that teach and judge.

Choosing was done on seeds 100 to 108; nothing here depends on the data set.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nge_search.design.generator import DrawSettings
from nge_search.design.link_model import LinkModelSettings, TrainingSettings
from nge_search.design.protocol import DesignSettings
from nge_search.design.samples import SampleSettings
from nge_search.settings.strategies import StrategySection

NB101, NB201 = "nasbench101", "nasbench201"
#: By space and data set pairs of a signal and a score; the first pair that a table has is taken.
COLUMNS = {
    (NB101, "cifar10"): (("cifar10_valid_108", "cifar10_test_108"), ("cifar10_valid_4", "cifar10_test_4")),
    (NB201, "cifar10"): (("cifar10_valid_200", "cifar10_test_200"),),
    (NB201, "cifar100"): (("cifar100_valid_200", "cifar100_test_200"), ("cifar100_valid_200",) * 2),
}
#: Parts with what teaches in them; parts with the same share rows.
PROTOCOLS = {"oracle": "oracle", "ablations": "oracle", "honest": "honest", "searches": "searches"}
#: Seeds by protocol, if no other number is asked for.
REPEATS = {"oracle": 30, "honest": 30, "searches": 200}
#: Queries of the honest protocol that are random, and those that follow.
QUERIED, DRAWN = 100, 60
#: Numbers of queries after which searches are compared.
CHECKPOINTS = (30, 50, 100)


@dataclass(frozen=True)
class Row:
    """What is repeated: cells that are drawn, or a search.

    Attributes:
        design: how cells are drawn; None: a search.
        dangling: NAS-Bench-101's cells grow with nodes that lead nowhere, as printed.
        strategy: the search.
    """

    design: DesignSettings | None = None
    dangling: bool = False
    strategy: StrategySection | None = None


#: Of our draws where a whole table teaches: at 0.5 hardly 20 of 100 new cells of NAS-Bench-201 differ.
_ORACLE_TEMPERATURE = {NB101: 0.5, NB201: 1.3}
_PRINTED = DesignSettings(samples=SampleSettings("paper"), draw=DrawSettings(1.0))
#: The printed rate, which our training does in a fifth of the epochs.
_PRINTED_TRAINING = TrainingSettings(epochs=200, learning_rate=5e-4)
_CONTROLS = {name: Row(DesignSettings(name)) for name in ("uniform", "frequencies")}
_ABLATED = ("S off, I off", "S off", "I off", "G off")


def rows_of(part: str, space: str) -> dict[str, Row]:
    """The rows of a part by their names."""
    if part == "searches":
        named = {name: StrategySection(name=name) for name in ("random", "local_search", "evolution", "design")}
        named["design, frequencies"] = StrategySection(name="design", drawn_by="frequencies")
        return {name: Row(strategy=section) for name, section in named.items()}
    if part == "honest":
        names = ("random", "local_search", "evolution", "predictor")
        drawn = _CONTROLS | {"ours": Row(DesignSettings())} | _printed(space)
        return drawn | {name: Row(strategy=StrategySection(name=name)) for name in names}
    ours = dataclasses.replace(DesignSettings(), draw=DrawSettings(_ORACLE_TEMPERATURE[space]))
    if part == "oracle":
        return _CONTROLS | {"ours": Row(ours)} | _printed(space)
    return {
        **{f"ours, {name}": Row(_without(ours, name)) for name in _ABLATED},
        "ours": Row(ours),
        **{f"printed, {name}": Row(_without(_PRINTED, name)) for name in _ABLATED},
        "printed": Row(_PRINTED),
        "printed, 200 epochs": Row(dataclasses.replace(_PRINTED, training=_PRINTED_TRAINING)),
    }


def _printed(space: str) -> dict[str, Row]:
    """The paper's samples and temperature, trained as ours are; and what print leaves open read otherwise."""
    probability = dataclasses.replace(_PRINTED, draw=DrawSettings(1.0, "probability"))
    rows = {"printed": Row(_PRINTED), "printed, probabilities": Row(probability)}
    if space == NB101:
        rows["printed, 9 links, cut"] = Row(dataclasses.replace(_PRINTED, links=9), dangling=True)
    return rows


def _without(full: DesignSettings, name: str) -> DesignSettings:
    """Table 4: common samples (S off), no network on links turned round (I off), no attention (G off)."""
    off = name.split(", ")
    samples = dataclasses.replace(full.samples, construction="common") if "S off" in off else full.samples
    model = LinkModelSettings(attention="G off" not in off, reverse="I off" not in off)
    return dataclasses.replace(full, samples=samples, model=model)


def pairs_of(part: str, rows: dict[str, Row]) -> list[tuple[str, str]]:
    """Rows that are compared seed by seed: each with what stands beside it as its control."""
    if part == "ablations":
        return [(name, name.partition(",")[0]) for name in rows if "," in name]
    controls = {
        "oracle": ("uniform", "frequencies"),
        "honest": ("frequencies", "random", "evolution"),
        "searches": ("random", "local_search", "design, frequencies"),
    }[part]
    later = {control: controls[place:] for place, control in enumerate(controls, 1)}
    return [(name, control) for name in rows for control in later.get(name, controls)]
