"""A wheel of the checkout, alone in a folder: its configs, and a search, a training and a query from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
TINY = ("run.progress=none", "run.tensorboard=false", "data.limit=64", "threads=1")


def environment(folder: Path, wheel: Path) -> tuple[Path, Path]:
    """A virtual environment that has the wheel, and this one's other packages; its bin and site-packages."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    (place / "beside.pth").write_text("".join(f"{sysconfig.get_path(name)}\n" for name in ("purelib", "platlib")))
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return folder / "bin", place


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools to build a wheel")
@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip to install a wheel")
def test_a_wheel_works_alone(tmp_path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    for name in NEEDED:
        shutil.copy(ROOT / name, source)
    for name in ("nge_search", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path / "wheels")]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    shutil.rmtree(source)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    bin_folder, place = environment(tmp_path / "environment", wheel)
    shipped = {path.relative_to(place / "nge_search").as_posix() for path in place.glob("nge_search/configs/*/*")}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*/*.yaml")}

    def nge(*words: str) -> str:
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [bin_folder / "nge", *words], cwd=elsewhere, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert {Path(config["path"]).is_relative_to(place) for config in json.loads(nge("configs", "--json"))} == {True}
    small = ("supernet.channels=2", "supernet.cells=3", "supernet.kernel=reference", "search.selection=argmax")
    nge("search", "--config", "digits", *TINY, *small, "search.epochs=1")
    nge("eval", "--config", "digits", *TINY, "network.genotype=runs/search/digits", "train.epochs=1")
    summary = json.loads((elsewhere / "runs" / "eval" / "digits" / "summary.json").read_text())
    tested = json.loads(nge("test", "runs/eval/digits", "--json", "threads=1"))
    assert tested["top1_error"] == summary["top1_error"]
    assert "resnet50" in nge("retrieve", "query", "resnet50")
