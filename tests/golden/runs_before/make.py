"""Small runs of all kinds, finished and stopped half way, as an earlier version left them: makes runs.tar.xz.

    PYTHONPATH=CHECKOUT python tests/golden/runs_before/make.py

CHECKOUT is one of commit 607d3b4, the last whose kinds of runs were called benchmark and voc; another version's
cannot stand in for it. Files are as that version wrote them, but for what is left out to keep them small: locks,
reports and drawings, all checkpoints but the newest, all pictures of segmentation.json but the first; and
environment.json says no more of the platform than its system. Cells are without pooling, where rounding decides
between pixels that are equal.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import platform
import sys
import tarfile
import tempfile
from pathlib import Path
from unittest import mock

from nge_search.cli import main
from nge_search.engine.checkpoint import CheckpointFolder
from nge_search.engine.run_folder import RunFolder
from nge_search.files import write_json
from nge_search.spaces import NasBench201Space

QUIET = ["threads=1", "run.progress=none", "run.tensorboard=false"]
EMBEDDING = "embedding.input_dim=4 embedding.hidden_dim=4 embedding.output_dim=4 embedding.edge_dim=4"
NETWORK = "network.genotype=runs/search/finished network.channels=2 network.cells=3"

#: By kind, the command without the run's name.
COMMANDS = {
    "search": f"""
        search precision=fp64 data.limit=64 supernet.channels=1 supernet.cells=3 supernet.nodes=2
        supernet.stem_multiplier=1 supernet.operations=[skip_connect,dil_conv_3x3] supernet.kernel=reference
        {EMBEDDING} search.batch_size=16 search.epochs=2""",
    "benchmark": f"""
        search task=benchmark benchmark.table=tables/made benchmark.signal=made_valid_12
        benchmark.score=made_test_200 strategy.name=nge_evolution strategy.queries=12 strategy.population=4
        strategy.tournament=2 {EMBEDDING}""",
    "eval": f"""
        eval {NETWORK} data.limit=64 network.drop_path=0.2 train.epochs=2 train.batch_size=16
        train.ema_decay=0.9 train.label_smoothing=0.1""",
    "voc": f"""
        eval task=segmentation {NETWORK} network.head_channels=2 network.output_stride=16 network.dropout=0.1
        data.name=scenes data.limit=8 data.crop=32 data.workers=0 data.scale_min=1.0 data.scale_max=1.0
        train.epochs=2 train.batch_size=4 train.eval_batch_size=100 train.evaluate_every=0""",
}
#: Behind how many calls of which method a run is stopped: in the second epoch, a search in its second phase.
STOPS = {
    "search": (CheckpointFolder, "save", 10),
    "benchmark": (RunFolder, "append_metrics", 5),
    "eval": (CheckpointFolder, "save", 13),
    "voc": (CheckpointFolder, "save", 4),
}
LEFT_OUT = (".lock", "report.html", *(f"*.{suffix}" for suffix in ("svg", "png")))


def cpu() -> str:
    """What the processor can do: where it differs, so may the last bits."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line for line in lines if line.startswith("flags"))


def make_table() -> None:
    """15,625 architectures of NAS-Bench-201, each as accurate as its operations' numbers add up to."""
    codes = itertools.product(range(5), repeat=6)
    rows = ((code, {"made_valid_12": 50.0 + sum(code), "made_test_200": 60.0 + code[0]}) for code in codes)
    build_table = importlib.import_module("nge_search.benchmarks.table").build_table  # its place in that commit
    build_table(NasBench201Space(), rows, "a made table", "architecture").save("tables/made")


def run(words: list[str]) -> int:
    told = mock.patch.object(sys, "argv", ["nge", *words]), mock.patch("platform.platform", platform.system)
    with told[0], told[1]:  # by environment.json
        return main(words)


def stop_after(owner: type, name: str, count: int) -> mock._patch:
    """Make the run end, as by Ctrl-C, behind so many calls of a method."""
    method, calls = getattr(owner, name), itertools.count(1)

    def stopping(*arguments: object) -> object:
        result = method(*arguments)
        if next(calls) == count:
            raise KeyboardInterrupt
        return result

    return mock.patch.object(owner, name, stopping)


def make_runs() -> None:
    """All runs, below the working folder."""
    make_table()
    commands = {kind: [*command.split(), *QUIET] for kind, command in COMMANDS.items()}
    for kind, words in commands.items():
        assert run([*words, "run.name=finished"]) == 0
        with stop_after(*STOPS[kind]):
            assert run([*words, "run.name=stopped", "run.checkpoint_seconds=0"]) == 130
        assert Path("runs", kind, "finished", "summary.json").exists()
        assert not Path("runs", kind, "stopped", "summary.json").exists()
        for name in ("finished", "stopped"):
            for old in CheckpointFolder(Path("runs", kind, name, "checkpoints")).newest_first()[1:]:
                old.unlink()
    found = Path("runs/voc/finished/segmentation.json")
    document = json.loads(found.read_text())
    write_json(found, document | {"pictures": document["pictures"][:1]})
    Path("made.json").write_text(json.dumps({"commands": commands, "cpu": cpu()}))


def pack(folder: Path, archive: Path) -> None:
    """The files below a folder, without what tells who packed them and when."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if not any(path.match(pattern) for pattern in LEFT_OUT):
                content = path.read_bytes()
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    archive = Path(__file__).resolve().with_name("runs.tar.xz")
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        make_runs()
        pack(Path(scratch), archive)
        os.chdir(archive.parent)
    print(f"{archive}: {archive.stat().st_size} bytes")
