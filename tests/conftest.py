"""What all tests share: one thread per process, a scratch working folder, and a tiny search."""

from __future__ import annotations

import functools
import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nge_search import operation_registry
from nge_search.engine import run_files
from nge_search.engine.logger import Logger
from nge_search.supernet.kernels.backends import Backends

ROOT = Path(__file__).parents[1]

#: Settings under which a search on digits takes a fraction of a second per epoch; in the paper's form.
TINY_SEARCH = (
    "threads=1",
    "run.progress=none",
    "run.tensorboard=false",
    "data.limit=64",
    "supernet.channels=2",
    "supernet.cells=3",
    "supernet.nodes=2",
    "supernet.kernel=reference",  # compiles nothing
    "embedding.input_dim=8",
    "embedding.hidden_dim=12",
    "embedding.output_dim=8",
    "embedding.edge_dim=8",
    "embedding.edges=printed",
    "search.batch_size=16",
    "search.epochs=2",
    "search.average=false",
    "search.mixture=weighted",
    "search.warmup_epochs=0",
    "search.selection=argmax",
)


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tests run side by side; idle threads that wait for a core slow all of them


#: Rooms whose tests share runs that take seconds.
SHARING = ("bad_input", "deploy", "retrieve", "strategies")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of a GPU without one; run the tests of a file, or of a room that shares runs, in one process."""
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch finds none here"))
        if item.get_closest_marker("xdist_group") is None:
            place = item.path.relative_to(ROOT / "tests")
            group = place.parts[0] if place.parts[0] in SHARING else place.as_posix()
            item.add_marker(pytest.mark.xdist_group(group))


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.fixture
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """Within it no file may grow beyond so many bytes: writing on is an OSError, as on a full disk."""
    return _largest_file


@pytest.fixture(scope="session")
def tiny_search() -> tuple[str, ...]:
    return TINY_SEARCH


@pytest.fixture(scope="session")
def dense_search() -> list[str]:
    """As `tiny_search`, in NAS-Bench-201's supernet, in its fast form."""
    words = [word for word in TINY_SEARCH if not word.startswith("supernet.")]
    return [*words, "supernet.space=nasbench201", "supernet.cells=3", "supernet.channels=4"]


@pytest.fixture
def no_plugins(monkeypatch) -> Iterator[None]:
    """No plugin of another test is imported; afterwards no operation is known that was not before."""
    monkeypatch.setattr(operation_registry, "_OPERATIONS", dict(operation_registry._OPERATIONS))
    monkeypatch.setattr(operation_registry, "_trusts_files", False)
    sys.modules.pop("my_ops", None)
    yield
    sys.modules.pop("my_ops", None)


@pytest.fixture
def own_operations(no_plugins, monkeypatch) -> None:
    """The operations of examples/my_ops.py are known."""
    monkeypatch.chdir(ROOT / "examples")
    operation_registry.import_plugins(["my_ops"])


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's root."""
    return ROOT


#: Figures of a row of metrics.jsonl that differ from run to run.
TIMES = ("seconds", "images_per_second", "peak_memory_mb")


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of a run folder's metrics.jsonl, without what differs from run to run."""

    def read(run: Path) -> list[dict[str, Any]]:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]

    return read


@pytest.fixture(scope="module")
def unreported() -> Iterator[None]:
    """Runs end without drawings and reports, which take longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("save_drawings", "write_report"):
            patch.setattr(f"nge_search.report.{name}", lambda *given: [])
        yield


@pytest.fixture(scope="session")
def stopped_at() -> Callable[[int], AbstractContextManager[None]]:
    """Within it runs receive SIGTERM at the end of the step of this number, counted over all of them."""

    @contextmanager
    def stop(step: int) -> Iterator[None]:
        advance, done = Logger.advance, [0]

        def advance_and_signal(logger: Logger) -> None:
            advance(logger)
            done[0] += 1
            if done[0] == step:
                signal.raise_signal(signal.SIGTERM)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Logger, "advance", advance_and_signal)
            yield

    return stop


@pytest.fixture(scope="session")
def require_listed() -> Callable[[Path], None]:
    """Check that all files of a run are on the list of those that run.overwrite deletes, but for mark and lock."""

    def require(run: Path) -> None:
        found = {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.is_dir()}
        listed = {path.relative_to(run).as_posix() for path in run_files.files_of_run(run)}
        assert found - listed == {run_files.MARK, run_files.LOCK}

    return require


@pytest.fixture
def torch_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supernets compute as on a GPU: the fast one with PyTorch's kernels, and all operations, sampled or not."""
    monkeypatch.setattr(Backends, "choose", lambda backends, _: backends.pytorch)
    monkeypatch.setattr("nge_search.supernet.sampled.sampled_operation", lambda _: None)


@pytest.fixture
def voc_tree(tmp_path: Path, write_voc_tree: Callable[..., Path]) -> Callable[..., Path]:
    """`write_voc_tree` in the test's own folder."""
    return functools.partial(write_voc_tree, tmp_path / "VOC2012")


@pytest.fixture(scope="session")
def write_voc_tree() -> Callable[..., Path]:
    """Writes a folder in PASCAL VOC's layout: blocks of four classes, each of a brightness, with borders of 255."""
    three_sizes = ((60, 48), (48, 60), (53, 37))

    def write(root: Path, train: int, val: int, sizes: tuple[tuple[int, int], ...] = three_sizes) -> Path:
        random = np.random.default_rng(0)
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for part, count in (("train", train), ("val", val)):
            names = [f"{part}_{i:03d}" for i in range(count)]
            (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
            for i, name in enumerate(names):
                width, height = sizes[i % len(sizes)]
                blocks = random.choice([0, 5, 12, 20], (-(-height // 16), -(-width // 16)))
                mask = np.kron(blocks, np.ones((16, 16), int))[:height, :width].astype(np.uint8)
                noise = random.integers(0, 30, (height, width, 3))
                Image.fromarray((mask[..., None] * 10 + noise).astype(np.uint8)).save(
                    root / "JPEGImages" / f"{name}.jpg", quality=95
                )
                mask[:2] = 255
                image = Image.fromarray(mask, mode="P")
                image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
                image.save(root / "SegmentationClass" / f"{name}.png")
        return root

    return write


class _InThisProcess:
    """What takes the place of a pool of one process."""

    def __init__(self, processes: int, max_tasks_per_child: int | None = None):
        assert processes == 1

    def __enter__(self) -> _InThisProcess:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *words: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*words))
        return done


@pytest.fixture
def in_this_process() -> type[_InThisProcess]:
    """A pool of one process that carries everything out in this one."""
    return _InThisProcess
