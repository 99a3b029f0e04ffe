"""Kept machine code: as fresh as all its sources, compiled by one process at a time, announced once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from nge_search.native import announcing, compiled

CALLER = """
import sys

import numpy as np

from toy.inner import middle
from nge_search.native.compiled import loop, record, task


@loop()
def twice(x):
    return 2 * middle.changed(x)


@task(record(), "compiling the toy, no time at all")
def nothing(block):
    pass


if __name__ == "__main__":
    from toy.caller import twice

    print(twice(1), sum(twice.stats.cache_hits.values()))
"""
MIDDLE = """
from .. import deep
from nge_search.native.compiled import part


@part()
def changed(x):
    return deep.lowest(x) + 1
"""
DEEP = """
from nge_search.native.compiled import part

STEP = {step}


@part()
def lowest(x):
    return x + STEP
"""


@pytest.fixture
def toy(tmp_path, checkout):
    """Runs a package in which a compiled function calls one of another file, which calls one of a third."""
    package, environment = tmp_path / "toy", {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(checkout)])
    (package / "inner").mkdir(parents=True)
    for name, text in (("", ""), ("inner", ""), ("caller", CALLER), ("inner/middle", MIDDLE), ("unrelated", "")):
        target = package / name / "__init__.py" if name in ("", "inner") else package / f"{name}.py"
        target.write_text(text)

    def run(step: int) -> tuple[str, str]:
        (package / "deep.py").write_text(DEEP.format(step=step))
        command = [sys.executable, "-c", CALLER.split("if __name__")[1].split("\n", 1)[1].replace("    ", "")]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        return ended.stdout, ended.stderr

    return run


def test_a_changed_callee_in_another_file_is_seen(toy):
    line = "compiling the toy, no time at all\n"
    assert toy(10) == ("24 0\n", line)
    assert toy(10) == ("24 1\n", "")  # neither compiled nor announced again
    assert toy(30) == ("64 0\n", line)


def test_a_digest_is_that_of_all_imported_sources_and_of_no_other(tmp_path):
    """However they are imported; a package's own file where names are imported from it; nothing of others."""
    texts = {
        "toy/__init__.py": "",
        "toy/a.py": "import os\nimport numpy\nfrom toy.b import (\n    one,\n    two,\n)\n",
        "toy/b.py": "def f():\n    from . import c\n",
        "toy/c.py": "import toy.d.e\nimport toy.f.g\nfrom .. import beyond\n",
        "toy/d/__init__.py": "",
        "toy/f/__init__.py": "",
        "toy/f/g.py": "",
        "toy/d/e.py": "from toy import a  # a circle\nfrom ..d import name\n",
        "toy/other.py": "",
        "beyond.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def digest() -> str:
        compiled.digest.cache_clear()
        return compiled.digest(tmp_path / "toy" / "a.py", "toy.a")

    first = digest()
    assert digest() == first
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "# changed\n")
        assert (digest() == first) == (name in ("toy/f/__init__.py", "toy/other.py", "beyond.py")), name
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("kernel", "parts"),
    [
        ("convolution", {"planes", "products", "sums", "taps"}),
        ("combine", {"products", "sums"}),
        ("pointwise", {"planes", "products", "sums"}),
        ("pool", set()),
        ("sums", {"products"}),
    ],
)
def test_kernels_are_stamped_with_all_that_they_are_made_of(checkout, kernel, parts):
    found: dict[str, bytes] = {}
    folder = "supernet.kernels.cpu"
    path = checkout / "nge_search" / folder.replace(".", "/") / f"{kernel}.py"
    compiled._collect(path, f"nge_search.{folder}.{kernel}", found)
    names = {f"{folder}.{name}" for name in (kernel, "decorators", *parts)}
    names |= {"native", "native.simd", "native.threads", "native.compiled", "native.announcing"}
    assert set(found) - {f"nge_search.{folder}"} == {f"nge_search.{name}" for name in names}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    return compiled._kept(test_one_process_at_a_time, "compiling for a test")


def _try(kept) -> bool:
    """Whether another process could get the lock of this function now."""
    code = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))\n"
    )
    place = zlib.crc32(kept.name.encode()) & 0x7FFFFFFF
    command = [sys.executable, "-c", code, os.path.join(kept.cache_path, "compiling.lock"), str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_one_process_at_a_time(kept):
    with compiled._alone(kept):
        assert not _try(kept)
        with compiled._alone(kept):  # what is compiled on the way
            pass
        assert not _try(kept)
    assert _try(kept)
    with pytest.raises(KeyboardInterrupt), compiled._alone(kept):
        raise KeyboardInterrupt
    assert _try(kept)


@pytest.mark.parametrize("trouble", ["held for too long", "no locks", "no file"])
def test_without_a_lock_each_compiles_for_itself(trouble, kept, monkeypatch):
    def refuse(*_):
        raise OSError(11 if trouble == "held for too long" else 37, "refused")

    said = []
    monkeypatch.setattr(compiled, "_PATIENCE", 0.1)
    monkeypatch.setattr(announcing, "_said", set())
    if trouble == "no file":
        os.mkfifo(os.path.join(kept.cache_path, "compiling.lock"))
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with announcing.announced_by(said.append), compiled._alone(kept):
        pass
    waited = ["compiling for a test"]
    assert said == (waited if trouble == "held for too long" else [])


def test_an_announcement_is_made_once_and_by_the_first_rank(monkeypatch, capsys):
    monkeypatch.setattr(announcing, "_said", set())
    for rank in ("1", "0", "0"):
        monkeypatch.setenv("RANK", rank)
        announcing.announce(f"compiling on rank {rank}")
    assert capsys.readouterr() == ("", "compiling on rank 0\n")
    said = []
    with announcing.announced_by(said.append):
        announcing.announce("compiling on rank 0")
        announcing.announce("compiling more")
    announcing.announce("compiling the rest")
    assert said == ["compiling more"]
    assert capsys.readouterr().err == "compiling the rest\n"


def test_data_workers_announce_nothing(monkeypatch, capsys):
    monkeypatch.setattr(announcing, "_said", set())
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    announcing.announce("compiling in a worker")
    assert capsys.readouterr() == ("", "")


def test_parts_leave_the_level_of_optimisation_as_it_was():
    import numba

    levels = []

    @compiled.part()
    def inner(x):
        return x + 1

    @compiled.loop()
    def outer(x):
        return inner(x)

    compile_ = numba.core.compiler.compile_extra
    level = numba.config.OPT

    def watched(context, library, function, *rest, **more):
        levels.append((function.__name__, int(numba.config.OPT)))
        return compile_(context, library, function, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.core.compiler, "compile_extra", watched)
        assert outer(np.int64(1)) == 2
    assert ("outer", 3) in levels
    assert ("inner", 0) in levels
    assert int(numba.config.OPT) == int(level)
