"""Which models take over code, from files that are read and not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from nge_search.errors import UserError
from nge_search.retrieve import code_relations as module
from nge_search.retrieve.code_relations import code_relations


def test_imports_of_classes_between_folders(tmp_path: Path) -> None:
    files = {
        "new/modular_new.py": "from ..old.modeling_old import OldMLP, old_function\n"
        "from ..helpful.modeling_helpful import rotate\n"
        "from ...utils import Thing\n"
        "from .configuration_new import NewConfig\n"
        "from transformers.models.far.modeling_far import FarLayer\n"
        "from ..new.modeling_new import NewModel\n"
        "from ..constants.modeling_constants import SIZE\n"
        "raise SystemExit\n",
        "other/modular_other.py": "def later():\n    from ..new.modeling_new import NewLayer\n",
        "other/modeling_other.py": "from ..old.modeling_old import OldMLP\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert code_relations(tmp_path) == [("new", "far"), ("new", "old"), ("other", "new")]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"transformers is not installed; install it: pip install"):
        code_relations()
