"""What one GPU does, recorded in pieces: `record.sh` starts it and says how.

Each piece is a command of its own, with a limit of time. A run that meets its limit saves its state, and goes on in
the next call; any other piece is done anew, behind those that were not begun yet. Nothing here needs a GPU to be
tried: --device cpu --small.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nge_search.commands.parser import Parser
from nge_search.engine.distributed import choose_device
from nge_search.engine.run_reader import RunReader
from nge_search.errors import UserError, from_os_error
from nge_search.files import read_text, user_path, write_atomic
from nge_search.json_reader import parse_json
from nge_search.settings.load import load_config
from nge_search.settings.run import DEVICES
from nge_search.settings.search import SearchConfig

ROOT = Path(__file__).parents[2]
FORMAT = "nge-gpu-record/1"
#: Of a record, in bytes.
LARGEST = 1 << 26
#: Seconds of a piece, at most, and of them those that a run has to save its state once it is asked to end.
LONGEST, SAVING = 240.0, 20.0
#: A piece is not begun with less time than this, in seconds; it is more than SAVING.
LEAST = 60.0
#: Processes of pytest, which wait for Python more than for the GPU that they share.
WORKERS = 4
#: The search that is recorded.
PAPER = ROOT / "configs" / "search" / "cifar10_paper.yaml"
#: Images that train the weights in an epoch of the paper's search.
HALF = 25_000
NGE = (sys.executable, "-m", "nge_search.cli")
SMALL_SEARCH = (
    "threads=1", "data.name=digits", "data.limit=64", "supernet.channels=2", "supernet.cells=3", "supernet.nodes=2",
    "search.batch_size=16", "search.epochs=1", "supernet.kernel=reference",
)  # fmt: skip
SMALL_NETWORK = ("threads=1", "data.limit=64", "network.channels=4", "network.cells=3", "train.epochs=1")
#: Of an epoch that is compared with another: 39 steps of each kind.
SHORT = ("search.epochs=1", "data.limit=5000")


@dataclass(frozen=True)
class Options:
    """What all pieces are told.

    Attributes:
        data: settings that name the images of the search; empty for a small record, which takes digits.
        label: what these images are, for whoever reads the figures.
    """

    out: Path
    device: str
    small: bool = False
    data: tuple[str, ...] = ()
    label: str = "digits"


@dataclass(frozen=True)
class Piece:
    """One command.

    Attributes:
        what: what it records.
        command: its words.
        read: figures from its standard output and its run folder.
        limit: seconds that it may take on a GPU; small pieces, on whatever there is, may take LONGEST.
        run: the run folder's name below OUT, for a run that goes on where it was stopped.
    """

    name: str
    what: str
    command: Callable[[Options], list[str]]
    read: Callable[[str, Path], dict[str, Any]]
    limit: float = LONGEST
    run: str = ""


@dataclass
class Done:
    """What came of a piece: `state` is done, failed or unfinished."""

    state: str
    seconds: float
    code: int
    figures: dict[str, Any] = field(default_factory=dict)


def _tests(room: str) -> Callable[[Options], list[str]]:
    """The tests of a room that need a GPU, several at once where pytest can do that."""

    def command(options: Options) -> list[str]:
        words = ["-q", "-rsfE", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "-m", "cuda"]
        if not options.small and importlib.util.find_spec("xdist"):
            words += ["-n", str(WORKERS), "--dist", "load"]
        return [sys.executable, "-m", "pytest", *words, str(ROOT / "tests" / room / "test_cuda.py")]

    return command


def _bench(name: str, small: Sequence[str], full: Sequence[str]) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        return [*NGE, "bench", name, "--device", options.device, "--json", *(small if options.small else full)]

    return command


def _search(name: str, precision: str, graphs: bool, short: bool = False) -> Callable[[Options], list[str]]:
    """The paper's search, `short`: an epoch of few images; on a GPU with CUDA graphs, or without any."""

    def command(options: Options) -> list[str]:
        words = SMALL_SEARCH if options.small else (*options.data, *(SHORT if short else ()))
        recorded = "never" if not graphs else "always" if options.device == "cuda" else "auto"
        more = f"precision={precision}", f"search.cuda_graphs={recorded}"
        place = [f"device={options.device}", f"run.dir={options.out / name}", "run.progress=lines"]
        return [sys.executable, str(ROOT / "train_search.py"), f"--config={PAPER}", *more, *words, *place]

    return command


def _training(name: str, config: str, *more: str) -> Callable[[Options], list[str]]:
    def command(options: Options) -> list[str]:
        path = ROOT / "configs" / "eval" / f"{config}.yaml"
        tiny = [*SMALL_NETWORK, *(["train.compile=false"] if config == "digits" else [])]
        words = (*more, *tiny) if options.small else more
        genotype = "network.genotype=darts_v2"
        place = [f"device={options.device}", f"run.dir={options.out / name}", "run.progress=lines"]
        return [sys.executable, str(ROOT / "train_eval.py"), f"--config={path}", genotype, *words, *place]

    return command


def _last_line(out: str, _: Path) -> dict[str, Any]:
    lines = [line for line in out.splitlines() if line.strip()]
    found = {name.lower(): [line for line in lines if line.startswith(name)] for name in ("FAILED", "ERROR")}
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    return {"result": lines[-1].strip("= ") if lines else "", "skipped": skipped, **found}


def _document(out: str, _: Path) -> dict[str, Any]:
    found = parse_json(out, "what the bench printed")
    if not isinstance(found, dict):
        raise UserError("the bench printed no JSON object")
    return found


def _rows(_: str, folder: Path) -> dict[str, Any]:
    """What a run's epochs took and came to; of an unfinished one, those that are over."""
    names = ("epoch", "seconds", "images_per_second", "peak_memory_mb", "valid_top1", "test_top1", "test_miou")
    run = RunReader(folder, lenient=True)
    return {
        "precision": run.setting("precision"),
        **{name: run.environment.get(name) for name in ("device_name", "git_commit", "packages")},
        "epochs": [{name: row[name] for name in names if name in row} for row in run.rows],
        "summary": run.summary,
    }


#: Of 16 channels, for which, and their multiples, a CPU compiles kernels once.
_TINY_BENCH = ("--batch=2", "--cells=3", "--channels=16", "--steps=1")

#: The most valuable first: no figure counts before the tests have passed.
PIECES = (
    Piece(
        "tests_supernet", "tests on a GPU: the supernet, and replayed steps", _tests("supernet"), _last_line, 60.0
    ),
    Piece("tests_training", "tests on a GPU: runs of each kind", _tests("training"), _last_line, 110.0),
    Piece("tests_engine", "tests on a GPU: NCCL, and runs under torchrun", _tests("engine"), _last_line, 90.0),
    Piece(
        "supernet",
        "steps of the supernet, fast and textbook, and the roofline",
        _bench("supernet", (*_TINY_BENCH, "--size=8"), ("--batch=64", "--steps=20")),
        _document,
        170.0,
    ),
    Piece(
        "search",
        "the paper's search, bf16, with CUDA graphs",
        _search("search", "bf16", graphs=True),
        _rows,
        150.0,
        "search",
    ),
    Piece(
        "retrain",
        "steps of a retraining, bf16 and compiled, beside DARTS'",
        _bench("retrain", (*_TINY_BENCH, "--workers=0"), ("--batch=128", "--steps=30", "--workers=8")),
        _document,
        180.0,
    ),
    Piece(
        "search_eager",
        "an epoch of that search on 5,000 images, without CUDA graphs",
        _search("search_eager", "bf16", graphs=False, short=True),
        _rows,
        60.0,
        "search_eager",
    ),
    Piece(
        "search_fp32",
        "an epoch of that search on 5,000 images in fp32, with CUDA graphs",
        _search("search_fp32", "fp32", graphs=True, short=True),
        _rows,
        60.0,
        "search_fp32",
    ),
    Piece("tests_retrieve", "tests on a GPU: graphs of networks, encoders", _tests("retrieve"), _last_line, 60.0),
    Piece(
        "classification",
        "a retraining of digits, bf16 and compiled",
        _training("classification", "digits", "precision=bf16", "train.compile=true"),
        _rows,
        120.0,
        "classification",
    ),
    Piece(
        "segmentation",
        "DeepLabv3 on generated scenes, bf16",
        _training("segmentation", "scenes", "precision=bf16"),
        _rows,
        120.0,
        "segmentation",
    ),
)


def execute(command: Sequence[str], seconds: float, log: Path) -> tuple[int, str]:
    """Exit code and standard output of a command; SIGTERM a while before `seconds` are over, then SIGKILL.

    Its standard error is kept in `log`. It has a session of its own, and no process that it started outlives it.
    """
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=max(1.0, seconds - SAVING))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                out, _ = process.communicate(timeout=SAVING)
            except subprocess.TimeoutExpired:
                _kill(process)
                out, _ = process.communicate()
        finally:
            _kill(process)
    return process.returncode, out


def _kill(process: subprocess.Popen[str]) -> None:
    """End what is left of a command's session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


Execute = Callable[[Sequence[str], float, Path], tuple[int, str]]


def do(piece: Piece, options: Options, seconds: float, run: Execute = execute) -> Done:
    """Carry a piece out, for so many seconds at most."""
    start = time.monotonic()
    code, out = run(piece.command(options), seconds, options.out / f"{piece.name}.log")
    took = round(time.monotonic() - start, 1)
    (options.out / f"{piece.name}.txt").write_text(out)
    stopped = code in (143, -signal.SIGTERM, -signal.SIGKILL)
    state = "done" if code == 0 else "unfinished" if stopped else "failed"
    figures: dict[str, Any] = {}
    if code == 0 or out.strip() or piece.read is not _document:  # a bench that failed may have printed some of it
        try:
            figures = piece.read(out, options.out / piece.run)
        except (UserError, ValueError) as error:
            state, figures = state if stopped else "failed", {"why": str(error)}
    return Done(state, took, code, figures)


def expected(supernet: dict[str, Any]) -> dict[str, Any]:
    """What a step and the whole search should take: by the bench's steps, and at least by the roofline.

    The roofline is the larger of the time for a weight step's operations at the rate of a product of matrices in
    float32, and for its bytes at the bandwidth of a copy: bf16 may pass the former.
    """
    forms, roof = supernet["forms"], supernet["roofline"]
    fastest = forms["fused_bf16_graphs" if "fused_bf16_graphs" in forms else "fused"]
    bound = max(roof["seconds_for_operations"], roof["seconds_for_bytes"])
    steps = -(-HALF // supernet["settings"]["batch"])
    both = fastest["weight"]["seconds"] + fastest["architecture"]["seconds"]
    return {
        "roofline_weight_step_seconds": bound,
        "weight_step_over_roofline": {name: form["weight"]["seconds"] / bound for name, form in forms.items()},
        "epoch_seconds": steps * both,
        "search_of_25_epochs_seconds": 25 * steps * both,
    }


def images_of(words: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The settings of the search's images under `data.root`, and what they are to be called.

    Raises:
        UserError: no CIFAR-10 there, in neither form.
    """
    roots = [word.partition("=")[2] for word in words if word.startswith("data.root=")]
    others = tuple(word for word in words if not word.startswith("data.root="))
    if not roots:
        raise UserError("name the folder of CIFAR-10: data.root=FOLDER; or --small for a dry run on digits")
    root = user_path(roots[-1]).absolute()
    load_config(SearchConfig, PAPER, others)  # so that a misspelt setting is said now, and not in a piece's log
    if (root / "cifar-10-batches-py").is_dir():
        return (f"data.root={root}", *others), "CIFAR-10, lossless (torchvision's files)"
    if (root / "train" / "airplane").is_dir():
        first = next(iter(sorted((root / "train" / "airplane").iterdir())), root)
        kind = (
            "a lossy copy: its accuracies are not CIFAR-10's"
            if first.suffix in (".jpg", ".jpeg")
            else "image files"
        )
        return ("data.name=folder", f"data.root={root}", "data.image_size=32", *others), f"CIFAR-10, {kind}"
    raise UserError(f"data.root={root}: holds neither cifar-10-batches-py/ nor train/airplane/")


def load(out: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The record so far, or a new one.

    Raises:
        UserError: a file or a folder of something else, or a record of another device or other images.
    """
    path = out / "record.json"
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is no record that this script began; name a new folder")
        out.mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, **told, "pieces": {}}
        write_atomic(path, json.dumps(record, indent=2) + "\n")
        return record
    record = parse_json(read_text(path, LARGEST), str(path))
    pieces = record.get("pieces") if isinstance(record, dict) and record.get("format") == FORMAT else None
    known = isinstance(pieces, dict) and all(isinstance(piece, dict) for piece in pieces.values())
    if not known or not all(isinstance(piece.get("state"), str) for piece in pieces.values()):
        raise UserError(f"{path} is no record of this script; name a new folder")
    for name, value in told.items():
        if record.get(name) != value:
            raise UserError(f"{out} records {name}={record.get(name)}, not {value}; name a new folder")
    return record


#: What was not begun comes first, then what failed, then what takes longer than its limit.
_TURN = {"failed": 1, "unfinished": 2}


def record_all(options: Options, names: Sequence[str], seconds: float, run: Execute = execute) -> dict[str, Any]:
    """All pieces of these names that are not done yet, as far as the time goes; the record is kept after each."""
    told = {"device": options.device, "small": options.small, "images": options.label}
    record, end = load(options.out, told), time.monotonic() + seconds
    states = {piece.name: record["pieces"].get(piece.name, {}).get("state", "to do") for piece in PIECES}
    due = [piece for piece in PIECES if piece.name in names and states[piece.name] != "done"]
    for piece in sorted(due, key=lambda piece: _TURN.get(states[piece.name], 0)):
        left = end - time.monotonic()
        if left < LEAST:
            print(f"time is up before {piece.name}; the same command goes on with it", flush=True)
            break
        print(f"{piece.name}: {piece.what} ...", flush=True)
        done = do(piece, options, min(left, LONGEST if options.small else piece.limit), run)
        record["pieces"][piece.name] = vars(done)
        if piece.name == "supernet" and {"forms", "roofline"} <= done.figures.keys():
            record["expected"] = expected(done.figures)
        write_atomic(options.out / "record.json", json.dumps(record, indent=2) + "\n")
        print(f"{piece.name}: {done.state} after {done.seconds} s", flush=True)
    return record


def main(words: Sequence[str], run: Execute = execute) -> int:
    parser = Parser(prog="record.sh", description="Record what one GPU does, in pieces.")
    parser.add_argument("out", type=Path, help="folder of the record: a new one, or one that is to be gone on with")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the search: data.root=FOLDER")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="device of all pieces (cuda)")
    parser.add_argument("--small", action="store_true", help="everything tiny and on digits, to try the script")
    parser.add_argument("--minutes", type=float, default=12.0, help="time of this call in minutes (12)")
    parser.add_argument(
        "--piece", action="append", default=[], choices=[piece.name for piece in PIECES], help="do this piece alone"
    )
    try:
        options = _options(parser, words)
        names = options.piece or [piece.name for piece in PIECES]
        data, label = ((), "digits") if options.small else images_of(options.settings)
        device = choose_device(options.device).type
        told = Options(options.out.absolute(), device, options.small, data, label)
        record = record_all(told, names, 60 * options.minutes, run)
    except (UserError, OSError) as error:
        known = error if isinstance(error, UserError) else from_os_error(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    states = {name: record["pieces"].get(name, {}).get("state", "to do") for name in names}
    print(f"{told.out / 'record.json'}: " + ", ".join(f"{name} {state}" for name, state in states.items()))
    return 1 if "failed" in states.values() else 0


def _options(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    options = parser.parse_intermixed_args(list(words))
    if not LEAST / 60 <= options.minutes <= 600:
        raise UserError(f"--minutes={options.minutes}: must be between {LEAST / 60} and 600")
    wrong = next((word for word in options.settings if "=" not in word), None)
    if wrong is not None:
        raise UserError(f"'{wrong}' is not a setting; write key=value, for example data.root=/data")
    if options.small and options.settings:
        raise UserError(f"'{options.settings[0]}': --small takes no settings, since it searches digits")
    return options


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)  # so that `execute` ends its command
    sys.exit(main(sys.argv[1:]))
