"""Plugins and operations of one's own that cannot be used, and files that name them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nge_search import operation_registry
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.deploy.export_folder import RECORD
from nge_search.settings import load

BEGIN = "from torch import nn\nfrom nge_search import register_operation\n"
SEARCH = ["search", "supernet.operations=[skip_connect,mine]"]

#: What my_ops.py holds, the command's words, and what its line of error says.
PLUGINS: dict[str, tuple[str | None, list[str], tuple[str, ...]]] = {
    "not there": (None, [*SEARCH, "plugins=[my_ops]"], ("no module 'my_ops'", "nor installed")),
    "a package that is not there": (None, [*SEARCH, "plugins=[lab.my_ops]"], ("no module 'lab'",)),
    "a file": ("", [*SEARCH, "plugins=[my_ops.py]"], ("plugins=[my_ops.py]", "no module", "'my_ops")),
    "a path": ("", [*SEARCH, "plugins=[./my_ops]"], ("plugins=[./my_ops]", "name a Python module")),
    "relative": ("", [*SEARCH, "plugins=[.my_ops]"], ("plugins=[.my_ops]", "name a Python module")),
    "no list": ("", [*SEARCH, "plugins=my_ops"], ("plugins=", "must be a list of names, as [a,b]")),
    "a number": ("", [*SEARCH, "plugins=[7]"], ("plugins=[7]", "name a Python module")),
    "a long name": ("", [*SEARCH, f"plugins=[{'a' * 300}]"], ("plugins=[aaa", "name a Python module")),
    "empty": ("", [*SEARCH, "plugins=[my_ops]"], ("registers no operation",)),
    "somebody else's": ("", [*SEARCH, "plugins=[math]"], ("plugins=[math]", "registers no operation")),
    "bad syntax": ("def (", [*SEARCH, "plugins=[my_ops]"], ("SyntaxError", "my_ops.py, line 1")),
    "an error": (
        "\n1 / 0",
        [*SEARCH, "plugins=[my_ops]"],
        ("ZeroDivisionError: division by zero (my_ops.py, line 2)",),
    ),
    "an exit": ("raise SystemExit(3)", [*SEARCH, "plugins=[my_ops]"], ("SystemExit: 3 (my_ops.py, line 1)",)),
    "a missing import": ("import nowhere_to_be_found", [*SEARCH, "plugins=[my_ops]"], ("'nowhere_to_be_found'",)),
    "a taken name": (
        f"{BEGIN}register_operation('sep_conv_3x3', nn.Identity)",
        [*SEARCH, "plugins=[my_ops]"],
        ("plugins=[my_ops]: operation 'sep_conv_3x3' is registered already, of the package",),
    ),
    "one name twice": (
        f"{BEGIN}for _ in range(2):\n    register_operation('mine', nn.Identity)",
        [*SEARCH, "plugins=[my_ops]"],
        ("operation 'mine' is registered already, of 'my_ops'",),
    ),
    "no function": (
        f"{BEGIN}register_operation('mine', 'nn.Identity')",
        [*SEARCH, "plugins=[my_ops]"],
        ("build must be a function",),
    ),
    "another operation": (
        f"{BEGIN}register_operation('mien', lambda *_: nn.Identity())",
        [*SEARCH, "plugins=[my_ops]"],
        ("supernet.operations=mine: allowed are", "did you mean 'mien'"),
    ),
    "of another shape": (
        f"{BEGIN}register_operation('mine', lambda c, stride, affine: nn.Conv2d(c, c, 3, stride))",
        [*SEARCH, "plugins=[my_ops]", "run.progress=none", "device=cpu"],
        ("operation 'mine' of the plugin 'my_ops' in training makes [2, ", "rounded up"),
    ),
    "show": (None, ["show", "darts_v2", "plugins=[my_ops]"], ("no module 'my_ops'",)),
}


@pytest.fixture(autouse=True)
def nothing_known(no_plugins: None) -> None:
    """Each test's plugin is its own."""


@pytest.mark.parametrize("case", PLUGINS)
def test_plugins_that_cannot_be_used(case, require_line, capsys):
    content, words, says = PLUGINS[case]
    if content is not None:
        Path("my_ops.py").write_text(content)
    path = list(sys.path)
    assert main(words) == 2
    require_line(capsys.readouterr().err, says)
    assert sys.path == path
    if "shape" not in case and case != "another operation":
        assert operation_registry.names() == operation_registry.BUILT_IN
    assert not Path("runs").exists()


GOOD = load_genotype("darts_v2").to_dict()
THEIRS = json.dumps(GOOD).replace("sep_conv_3x3", "theirs", 1)


@pytest.mark.parametrize(
    ("plugins", "words", "says"),
    [
        ({"theirs": "my_ops"}, [], ("'theirs' is of the plugin 'my_ops'", "plugins=[my_ops]", "--trust-code")),
        ({"theirs": "os; x"}, ["--trust-code"], ("plugins=[os; x]", "name a Python module")),
        ({"theirs": "math"}, ["--trust-code"], ("plugins=[math]", "registers no operation")),
        ({"theirs": "my_ops"}, ["--trust-code"], ("no module 'my_ops'",)),
        ({"theirs": "__main__"}, ["--trust-code"], ("registered by a program or notebook",)),
        ({"theirs": ["my_ops"]}, [], ("plugins must be an object of operations and their modules",)),
        (["my_ops"], [], ("plugins must be an object",)),
        ({}, ["--trust-code"], ("unknown operation 'theirs'",)),
        ({"other": "my_ops"}, ["--trust-code"], ("unknown operation 'theirs'",)),
    ],
)
def test_what_a_genotype_names(plugins, words, says, require_line, capsys):
    Path("cell.json").write_text(json.dumps({**json.loads(THEIRS), "plugins": plugins}))
    assert main(["show", "cell.json", *words]) == 2
    require_line(capsys.readouterr().err, says)


def test_a_run_folder_imports_nothing_on_its_own(finished, require_line, capsys):
    """Its config and its genotype may name what they like."""
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with open("finished/config.yaml") as file:
        text = file.read()
    assert "plugins: []" in text
    Path("finished/config.yaml").write_text(text.replace("plugins: []", "plugins: [evil]"))
    genotype = json.loads(Path("finished/genotype.json").read_text())
    genotype["normal"][0][0], genotype["plugins"] = "theirs", {"theirs": "evil"}
    Path("finished/genotype.json").write_text(json.dumps(genotype))
    commands = (
        ["show", "finished"],
        ["eval", "network.genotype=finished"],
        ["search", "--config", "finished/config.yaml"],
    )
    for words in commands:
        assert main(words) == 2
        require_line(capsys.readouterr().err, ("evil", "--trust-code"))
    assert main(["report", "finished"]) == 0
    assert not Path("ran").exists()


@pytest.mark.parametrize("there", [".nge-run", "environment.json", "summary.json", "metrics.jsonl", ".nge-export"])
def test_files_beside_those_of_a_run_or_an_export_import_nothing(there, require_line, capsys):
    """Also through a link from elsewhere, and where the run's mark was lost on the way."""
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    folder = Path("theirs")
    folder.mkdir()
    (folder / there).touch()
    (folder / "config.yaml").write_text("plugins: [evil]\n")
    Path("mine.yaml").symlink_to(folder / "config.yaml")
    for path in ("theirs/config.yaml", "mine.yaml"):
        assert main(["search", "--config", path, "--print-config"]) == 2
        require_line(capsys.readouterr().err, ("the file of a run or an export", "plugins=[evil]"))
    assert not Path("ran").exists()


def test_what_is_no_config_imports_nothing(require_line, capsys):
    """As the config.json of an export, whose mark may be gone."""
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    Path("config.json").write_text(json.dumps({"plugins": ["evil"], "architecture": "nge_cifar"}))
    assert main(["search", "--config", "config.json"]) == 2
    require_line(capsys.readouterr().err, ("config.json: unknown key 'architecture'",))
    assert not Path("ran").exists()


def test_the_mark_of_exports_is_known_to_configs():
    assert RECORD in load._OF_FOLDERS
