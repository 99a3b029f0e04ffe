"""Cells as other programs write them: every form of published cells is read, and nothing is carried out."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nge_search
from nge_search.architecture.genotype import PUBLISHED, Genotype
from nge_search.architecture.load import load_architecture, load_genotype
from nge_search.cli import main
from nge_search.counting import count_parameters
from nge_search.errors import UserError
from nge_search.networks.families import FAMILIES
from nge_search.networks.timm_models import TimmCifarNetwork
from nge_search.tables.labels import read_architectures

#: As the authors' repositories have them, but for line breaks.
TEXTS = {
    "darts_v1": "DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], "
    "reduce_concat=[2, 3, 4, 5])",
    "darts_v2": "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], "
    "reduce_concat=[2, 3, 4, 5])",
    "pc_darts_cifar": "PC_DARTS_cifar = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('sep_conv_3x3', 0), ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), "
    "('dil_conv_3x3', 1)], normal_concat=range(2, 6), reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), "
    "('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 2)], reduce_concat=range(2, 6))",
    "pc_darts_imagenet": "PC_DARTS_image = Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), "
    "('dil_conv_5x5', 4)], normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), "
    "('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), "
    "('sep_conv_3x3', 3)], reduce_concat=range(2, 6))",
    "p_darts": "PDARTS = Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0),"
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3',0), ('dil_conv_5x5', 4)], "
    "normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), "
    "('dil_conv_5x5', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)], "
    "reduce_concat=range(2, 6))",
}  # fmt: skip

#: Parameters by DARTS' own code; the others' in millions, as their papers print them.
EXACT = {
    ("darts_v1", "cifar"): 3_169_414,
    ("darts_v2", "cifar"): 3_349_342,
    ("darts_v1", "imagenet"): 4_510_432,
    ("darts_v2", "imagenet"): 4_718_752,
}
PRINTED = {
    ("pc_darts_cifar", "cifar"): 3.6,
    ("p_darts", "cifar"): 3.4,
    ("pc_darts_imagenet", "imagenet"): 5.3,
    ("p_darts", "imagenet"): 4.9,
}


def bare(genotype: Genotype) -> dict[str, Any]:
    """The four parts of a genotype alone."""
    document = genotype.to_dict()
    return {key: document[key] for key in ("normal", "normal_concat", "reduce", "reduce_concat")}


def nni(genotype: Genotype, read: Callable[[int], Any] = lambda node: [node]) -> dict[str, Any]:
    """The dictionary that NNI exports; `read` is how it writes an input."""
    found: dict[str, Any] = {}
    for kind, cell in genotype.cells():
        for position, (operation, node) in enumerate(cell.genes):
            place = f"{2 + position // 2}_{position % 2}"
            found |= {f"{kind}/op_{place}": operation, f"{kind}/input_{place}": read(node)}
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_every_form_of_a_published_cell_is_that_cell(name: str, tmp_path: Path) -> None:
    expected, text = PUBLISHED[name], TEXTS[name]
    alone = text[text.index("Genotype") :]
    log = f"2019-12-01 12:00 epoch 49\n12/01 12:00:01 AM genotype = {alone}\n12/01 train 000 é\n"
    brackets = f"[12/01 12:00] epoch 49\n[12/01 12:00] genotype = {alone}\n[12/01 12:01] train\n"
    objects = f"{{'epoch': 49}}\n{alone}\n"
    messages = f'{{"epoch": 49}}\n{{"epoch": 49, "said": "genotype = {alone}"}}\n'
    forms = {
        "text": text,
        "text alone": alone,
        "log": log,
        "log with times in brackets": brackets,
        "log of objects": objects,
        "log of messages in JSON": messages,
        "JSON that speaks of it": json.dumps(expected.to_dict() | {"provenance": {"source": f"a genotype {text}"}}),
        "lines": text.replace("[", "[  # a remark\n  ").replace(" = ", "="),
        "JSON": json.dumps(bare(expected)),
        "JSON in lines": json.dumps(bare(expected), indent=2),
        "dictionary": str(bare(expected) | {"normal_concat": range(2, 6), "normal": list(expected.normal.genes)}),
        "NNI": json.dumps(nni(expected)),
        "NNI, earlier": json.dumps({"width": 36, "depth": 20, **nni(expected, int)}),
        "NNI, printed": str(nni(expected, int)),
        "NNI, a list": json.dumps([nni(expected)]),
    }
    for form, given in forms.items():
        (tmp_path / form).write_text(given, encoding="utf-8")
        found = load_genotype(tmp_path / form)
        assert found == expected, form
        assert found.provenance["source"].startswith("a genotype "), form
        if "log" not in form and form != "lines":
            assert load_genotype(given) == expected, form
        assert Genotype.from_json(found.to_json()) == expected


def test_python_objects_are_read_too() -> None:
    kind = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
    expected = PUBLISHED["p_darts"]
    given = kind(list(expected.normal.genes), range(2, 6), list(expected.reduce.genes), range(2, 6))
    assert load_genotype(given) == load_genotype(str(given)) == load_genotype(given._asdict()) == expected
    assert nge_search.load_genotype(nni(expected)) == expected
    network = TimmCifarNetwork(nni(expected), channels=4, cells=3)
    assert len(network.cells) == 3
    for wrong, says in (
        ((1, 2), "is a tuple with names"),
        (given._replace(normal_concat=range(2, 10**30)), "normal_concat: 6 is not an inner node"),
        (given._replace(reduce=None), "reduce must be a list of"),
    ):
        with pytest.raises(UserError, match=says):
            load_genotype(wrong)


def test_cells_that_were_read_have_the_published_sizes() -> None:
    for name, kind in (*EXACT, *PRINTED):
        family = FAMILIES[kind]
        with torch.device("meta"):
            network = family.build(load_genotype(TEXTS[name]), family.channels, family.cells, family.classes)
        parameters = count_parameters(network)
        known = EXACT.get((name, kind))
        assert parameters == known if known else round(parameters / 1e6, 1) == PRINTED[name, kind]


def test_lines_of_a_word_are_read_too() -> None:
    """As a shell gives what `$(cat genotype.txt)` stands for."""
    text = TEXTS["darts_v2"].replace("reduce=", "\n  reduce=")
    assert load_genotype(text) == PUBLISHED["darts_v2"]
    with pytest.raises(UserError, match="control characters are not allowed in a name or path"):
        load_genotype(f"a log\n{text}")


def test_keys_that_are_no_text_are_refused() -> None:
    for document in ({1: 2}, {None: []}, {(1, 2): 3}):
        with pytest.raises(UserError, match="unknown key"):
            Genotype.from_dict(document)


def test_a_file_is_written_as_our_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "genotypes.py", tmp_path / "cell.json"
    source.write_text(
        f"from collections import namedtuple\nGenotype = namedtuple('Genotype', 'a')\n{TEXTS['p_darts']}\n"
    )
    assert main(["derive", "--from", str(source)]) == 0
    shown = capsys.readouterr()
    assert Genotype.from_json(shown.out) == PUBLISHED["p_darts"]
    assert "expect" in shown.err
    assert main(["derive", "--from", str(source), "--out", str(out)]) == 0
    assert out.read_text() == shown.out
    assert load_genotype(out) == PUBLISHED["p_darts"]
    assert main(["derive", "--from", "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|"]) == 0
    capsys.readouterr()
    for words, says in (
        (["--from", str(source), "--out", str(out)], "is there already"),
        ([], "give the run folder of a search, or --from FILE"),
        ([str(tmp_path), "--from", str(source)], "give the run folder of a search, or --from FILE"),
        (["--from", str(source), "--epoch", "3"], "leave it out with --from"),
        (["--from", str(tmp_path / "none.txt")], "does not exist"),
        (["--from", str(tmp_path)], "neither a file, a run folder with a genotype.json"),
    ):
        assert main(["derive", *words]) == 2
        error = capsys.readouterr().err
        assert says in error, error
        assert error.count("\n") == 1


def test_rows_of_a_csv_may_be_such_texts(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("architecture\n" + "".join(f'"{text}"\n' for text in TEXTS.values()))
    space, codes = read_architectures(path)
    assert codes == [space.code(PUBLISHED[name].graphs()) for name in TEXTS]


GOOD = TEXTS["p_darts"]
HOSTILE = {
    "a call": (GOOD.replace("range(2, 6)", "__import__('os')"), "'__import__' is not allowed"),
    "an attribute": (GOOD.replace("range(2, 6)", "range.real"), ".real, reduce=[('avg\" has no meaning there"),
    "a nested call": (GOOD.replace("range(2, 6)", "[range(range(9))]"), "a value is no literal"),
    "itself": (GOOD.replace("range(2, 6)", "Genotype(normal=1)"), "a value is no literal"),
    "range of text": (GOOD.replace("range(2, 6)", "range('2')"), "a value is no literal"),
    "range of nothing": (GOOD.replace("range(2, 6)", "range(2, 6, 0)"), "a value is no literal"),
    "a long range": (GOOD.replace("range(2, 6)", "range(2, 999999999)"), "6 is not an inner node"),
    "a huge number": (GOOD.replace("range(2, 6)", "range(" + "9" * 5000 + ")"), "has no meaning there"),
    "arithmetic": (GOOD.replace("range(2, 6)", "[2]*9"), "has no meaning there"),
    "a lambda": (GOOD.replace("range(2, 6)", "lambda"), "'lambda' is not allowed"),
    "deep": (GOOD.replace("range(2, 6)", "[" * 9000 + "]" * 9000), "nested too deeply"),
    "no end": (GOOD[:-1], "it ends too early"),
    "cut off within a name": (GOOD[: GOOD.index("avg_pool") + 5], "it ends too early, before or in"),
    "cut off behind a comma": (GOOD[: GOOD.index("avg_pool") - 3], "it was cut off"),
    "wrong brackets": (GOOD.replace("range(2, 6)", "(2]"), "is no genotype as DARTS or NNI writes it"),
    "by place": (GOOD.replace("normal=", "", 1), "takes normal=, normal_concat="),
    "by place alone": ("Genotype(normal, reduce)", "takes normal=, normal_concat=, reduce=, reduce_concat="),
    "nothing": ("Genotype()", "takes normal=, normal_concat="),
    "a part twice": (GOOD.replace("reduce=", "normal="), "a part of Genotype(...) is given twice"),
    "a part missing": (GOOD.replace(", reduce_concat=range(2, 6)", ""), "key 'reduce_concat' is missing"),
    "a part misspelt": (GOOD.replace("reduce_concat", "reduce_conact"), "did you mean 'reduce_concat'?"),
    "a later node": (GOOD.replace("('dil_conv_5x5', 4)", "('dil_conv_5x5', 5)"), "node 5 cannot read node 5"),
    "a strange operation": (GOOD.replace("dil_conv_5x5", "none"), "unknown operation 'none'"),
    "not ASCII": (GOOD.replace("dil_conv_5x5", "dïl_conv_5x5"), "unknown operation 'dïl_conv_5x5'"),
    "wide digits": (GOOD.replace("range(2, 6)", "range(２, 6)"), "has no meaning there"),
    "a wide name": (GOOD.replace("range(2, 6)", "ｒange(2, 6)"), "has no meaning there"),
    "a null": (GOOD.replace("dil_conv_5x5", "\0"), "DARTS or NNI writes it: source code"),
    "several": (GOOD + "\n" + TEXTS["darts_v1"], "holds 2 different genotypes"),
    "long": ("Genotype(normal=[" + "('sep_conv_3x3', 0), " * 5000 + "])", "a genotype of more than 65536"),
    "many": ("Genotype(" * 20_000, "nested too deeply"),
    "a long name": ("Genotype(" + "n" * 60_000 + "=1)", "is not allowed"),
    "no genotype": ("import os\n", "not valid JSON"),
    "a set": (str({"normal": 1, "reduce": 2}).replace(": ", ", "), "a genotype is a JSON object, not set"),
    "a dictionary and more": (str(bare(PUBLISHED["p_darts"])) + ".x", "'.x' stands behind it"),
    "a name twice": ("{'normal': 1, 'normal': 2}", "keys of a dictionary must be different names"),
    "unhashable": ("{['normal']: 1}", "keys of a dictionary must be different names"),
    "bare, misspelt": ('{"normal": [], "normal_cat": [2]}', "unknown key 'normal_cat'"),
    "bare, no list": ('{"normal": 3, "normal_concat": 4, "reduce": 5, "reduce_concat": 6}', "must be a list of"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_texts_are_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, says = HOSTILE[case]
    path = tmp_path / "genotype.txt"
    path.write_text(text, encoding="utf-8")
    assert main(["derive", "--from", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert says in error, error
    assert error.count("\n") == 1
    assert len(error) < 600


def test_dictionaries_of_nni_that_are_refused() -> None:
    whole = nni(PUBLISHED["darts_v2"])
    for change, says in (
        ({"normal/op_2_0": None}, "key 'normal/op_2_0' of NNI's dictionary is missing"),
        ({"normal/opp_2_0": "skip_connect"}, "unknown key 'normal/opp_2_0' of NNI's dictionary"),
        (
            {"normal/op_6_0": "skip_connect"},
            "'normal/op_6_0' is not of NNI's DARTS space, whose inner nodes are 2 to 5",
        ),
        ({"reduce/op_5_2": "skip_connect"}, "'reduce/op_5_2' is not of NNI's DARTS space"),
        ({"normal/op_2_0": 3}, "unknown operation 3"),
        ({"normal/input_2_0": [2]}, "node 2 cannot read node 2"),
        ({"normal/input_2_0": [0, 1]}, r"input node \[0, 1\] is not a node number"),
        ({"normal/input_2_0": "0"}, "input node '0' is not a node number"),
    ):
        given = {key: value for key, value in (whole | change).items() if value is not None}
        with pytest.raises(UserError, match=says):
            load_architecture(given)
    with pytest.raises(UserError, match="a genotype is a JSON object, not list"):
        load_architecture(json.dumps([whole, whole]))
