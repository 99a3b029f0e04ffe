"""Link models that were trained, as two files of a folder: links.safetensors has the weights, links.json all else.

links.json says how the cells grow that taught and those that are drawn, what the models are, how moves are drawn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nge_search.design.configured import drawing_rules
from nge_search.design.controls import LinkModelScorer
from nge_search.design.darts import DartsRules
from nge_search.design.generator import DrawSettings, Generator
from nge_search.design.growth import Rules
from nge_search.design.link_model import LinkModel, LinkModelSettings
from nge_search.design.nasbench101 import NasBench101Rules
from nge_search.design.protocol import draw_seed
from nge_search.design.spaces import rules_of
from nge_search.engine.model_files import ModelFiles
from nge_search.errors import UserError, plain
from nge_search.json_reader import Reader
from nge_search.kinds import LINKS, LINKS_TENSORS
from nge_search.settings.names import SCORES, SPACES
from nge_search.spaces import Code, read_space
from nge_search.tables.labels import Lesson

_FILES = ModelFiles("link model", "nge-links", 1, LINKS, LINKS_TENSORS, "the run folder of `nge design train`")
#: Cells that taught, and sizes of drawn ones, at most.
_MOST_TEACHERS = 10_000


@dataclass(frozen=True)
class SavedLinks:
    """Link models that were trained, with all that is needed to draw cells by them.

    Attributes:
        rules: of the cells that taught.
        into: of the cells that are drawn.
        model: M link models.
        together: whether they judge moves together.
        draw: how moves are drawn.
        sizes: numbers of moves, one of which each drawn cell takes by chance.
        good, bad: the cells that taught.
        lesson: what these were chosen from.
    """

    rules: Rules
    into: Rules
    model: LinkModel
    together: bool
    draw: DrawSettings
    sizes: tuple[int, ...]
    good: tuple[Code, ...]
    bad: tuple[Code, ...]
    lesson: Lesson

    def describe(self) -> str:
        """What they are and what they are made from, in one line."""
        own, drawn = self.rules.space.name, self.into.space.name
        into = "" if drawn == own else f", for cells of {drawn}"
        models = f"{self.model.members} link models" if self.model.members > 1 else "a link model"
        return f"{models} for {own}{into}, taught by the {len(self.good)} best and worst of {self.lesson}"

    def generator(self, seed: int) -> Generator:
        """What draws cells; all chance depends on `seed` alone."""
        scorer = LinkModelScorer(self.into, self.model, self.together)
        return Generator(self.into, scorer, self.sizes, self.draw, draw_seed(seed))


def save_links(folder: Path, saved: SavedLinks) -> list[Path]:
    """Write both files, in place of earlier ones, the document last; returns their paths."""
    rules, into = saved.rules, saved.into
    document = {
        "space": rules.space.name,
        "vertices": rules.space.cell_space.vertices,
        "dangling": isinstance(rules, NasBench101Rules) and rules.dangling,
        "into": into.space.name,
        "replacements": {name: ">".join(chain) for name, chain in _chains(into).items()},
        "model": {**asdict(saved.model.settings), "members": saved.model.members},
        "together": saved.together,
        "draw": asdict(saved.draw),
        "sizes": list(saved.sizes),
        "good": [rules.space.text(code) for code in saved.good],
        "bad": [rules.space.text(code) for code in saved.bad],
        "learnt": saved.lesson.to_dict(),
    }
    return _FILES.save(folder, saved.model.state_dict(), document)


def _chains(rules: Rules) -> dict[str, tuple[str, ...]]:
    """What stands for DARTS' operations."""
    return dict(rules.replacements) if isinstance(rules, DartsRules) else {}


def load_links(reference: str | Path, space: str = "") -> SavedLinks:
    """The link models in a folder: the run folder of `nge design train`, or one that both files were copied into.

    Args:
        reference: the folder, or one of the files in it.
        space: the name of the space of the cells to draw; empty: as they were trained for.

    Raises:
        UserError: no link models, ones of another version, ones that cannot draw cells of that space, or files that
            are damaged.
    """
    found = _FILES.read(reference)
    return _FILES.open(found, lambda: _opened(found, space))


def _opened(found: Reader, space: str) -> SavedLinks:
    own = read_space(found)
    chains = {name: tuple(filter(None, text.split(">"))) for name, text in found.texts("replacements").items()}
    rules: Rules = rules_of(own, dangling=_flag(found, "dangling"))
    if isinstance(rules, DartsRules):
        rules = DartsRules(rules.cell_space, chains)
    drawn = found.text("into", SPACES)
    into = rules if drawn == own.name else drawing_rules(rules, drawn, chains)
    if space not in ("", into.space.name):
        into = _other(found, rules, space)
    draw = found.section("draw")
    settings = DrawSettings(draw.number("temperature", 0, 1e6), draw.text("score", SCORES))
    sizes = found.any("sizes")
    sizes = found.integers("sizes", len(sizes) if isinstance(sizes, list) else 0, 1, 63)
    if not 0 < len(sizes) <= _MOST_TEACHERS:
        raise UserError(f"'sizes' must be 1 to {_MOST_TEACHERS} integers")
    for size in set(sizes):
        into.start(size)
    good, bad = (tuple(own.parse(text) for text in found.names(key)[:_MOST_TEACHERS]) for key in ("good", "bad"))
    return SavedLinks(
        rules,
        into,
        _model(found, rules),
        _flag(found, "together"),
        settings,
        tuple(sizes),
        good,
        bad,
        Lesson.read(found.section("learnt")),
    )


def _other(found: Reader, rules: Rules, space: str) -> Rules:
    try:
        return drawing_rules(rules, space)
    except UserError as error:
        raise UserError(f"{found.source}: {error}") from None


def _model(found: Reader, rules: Rules) -> LinkModel:
    """The models with their weights."""
    given = found.section("model")
    settings = LinkModelSettings(
        given.integer("layers", 1, 16),
        given.integer("width", 1, 1024),
        given.integer("hidden", 1, 4096),
        _flag(given, "attention"),
        _flag(given, "reverse"),
    )
    with torch.device("meta"):  # so that nothing is as large as a stranger says, but as the file
        model = LinkModel(rules.features_LF, settings, given.integer("members", 1, 100))
    tensors, wanted = _FILES.read_tensors(found), model.state_dict()
    if tensors.keys() != wanted.keys():
        raise UserError(f"{Path(found.source).with_name(LINKS_TENSORS)} holds no weights of such link models")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            raise UserError(
                f"{plain(name)} is {tensor.dtype} {list(tensor.shape)}, not {wanted[name].dtype} "
                f"{list(wanted[name].shape)}"
            )
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False)


def _flag(found: Reader, key: str) -> bool:
    value = found.any(key)
    if not isinstance(value, bool):
        raise UserError(f"'{key}' must be true or false")
    return value
