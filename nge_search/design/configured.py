"""From settings to what they mean: rules of growth, architectures that teach, how link models are made."""

from __future__ import annotations

from collections.abc import Mapping

from nge_search.design.darts import REPLACEMENTS, DartsRules
from nge_search.design.generator import DrawSettings
from nge_search.design.growth import Rules
from nge_search.design.link_model import LinkModelSettings, TrainingSettings
from nge_search.design.protocol import DesignSettings, require_teachable
from nge_search.design.samples import SampleSettings, choose_cells
from nge_search.design.spaces import code_in, rules_of
from nge_search.errors import UserError
from nge_search.settings.design import DesignSection
from nge_search.spaces import Code, DartsSpace, NasBench101Space, Space
from nge_search.tables.labels import Labelled, known_space

#: Names of NAS-Bench-101's operations by those of DARTS'.
Chains = Mapping[str, tuple[str, ...]]


def settings_of(section: DesignSection, labels: int) -> DesignSettings:
    """How cells are drawn, where there are so many labels."""
    return DesignSettings(
        best=section.best_of(labels),
        lowest=section.lowest,
        members=section.members,
        together=section.together,
        links=section.links,
        samples=SampleSettings(section.samples, section.kept, section.ways, section.negatives, section.worst),
        model=LinkModelSettings(
            section.layers, section.width, section.hidden, section.model == "gat", section.reverse
        ),
        training=TrainingSettings(section.epochs, section.batch_size, section.learning_rate),
        draw=DrawSettings(section.temperature, section.score),
    )


def learning_rules(section: DesignSection, space: Space, chains: Chains | None = None) -> Rules:
    """By which the cells that teach grow.

    Args:
        chains: by operation of DARTS what stands for it in place of the default.

    Raises:
        UserError: a space without such rules, or settings of another space.
    """
    for name, value in (("vertices", section.vertices), ("dangling", section.dangling)):
        if value and not isinstance(space, NasBench101Space):
            raise section.refuse(name, f"it is for cells of nasbench101, and these are of {space.name}")
    if isinstance(space, DartsSpace):
        if section.links:
            raise section.refuse("links", "genotypes of darts all have as many")
        return DartsRules(space.cell_space, {**REPLACEMENTS, **(chains or {})})
    try:
        rules = rules_of(space, section.vertices, section.dangling)
        rules.start(section.links or 1)
    except UserError as error:
        raise section.refuse("links" if section.links else "vertices", str(error)) from None
    return rules


def drawing_rules(rules: Rules, space: str = "", chains: Chains | None = None) -> Rules:
    """By which cells are drawn after those that have taught.

    Args:
        rules: of the ones that have taught.
        space: the name of the space of the drawn ones; empty: the same.
        chains: by operation of DARTS what stands for it in place of the default.

    Raises:
        UserError: no such space or chain, or one whose cells these cannot teach to draw.
    """
    if space not in ("", rules.space.name):
        into = rules_of(known_space(space))
        require_teachable(rules, into)
        return DartsRules(None, {**REPLACEMENTS, **(chains or {})}) if isinstance(into, DartsRules) else into
    if chains and not isinstance(rules, DartsRules):
        raise UserError(f"replacements are of operations of darts, and cells of {rules.space.name} are drawn")
    return rules


def teachers(rules: Rules, labelled: Labelled, section: DesignSection) -> tuple[list[Code], list[Code], list[str]]:
    """The good and the bad architectures, and a notice of those that are too large to teach.

    Raises:
        UserError: too few, or such that good ones are not better than bad ones; names the setting.
    """
    found = [code_in(rules, labelled.space, code) for code in labelled.codes]
    rows = [row for row, code in enumerate(found) if code is not None]
    codes = [code for code in found if code is not None]
    notices = []
    if len(codes) < len(found):
        notices.append(
            f"{len(found) - len(codes)} of {len(found)} architectures are larger than design.vertices="
            f"{section.vertices} allows; left out"
        )
    try:
        good, bad = choose_cells(
            rules, codes, labelled.label_N[rows], section.best_of(len(labelled)), section.lowest
        )
    except UserError as error:
        raise section.refuse("best", str(error)) from None
    return good, bad, notices
