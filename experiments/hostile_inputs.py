"""What do the commands make of files and words that are damaged, or written to harm?

    python experiments/hostile_inputs.py                         2,250 inputs, some minutes on one CPU core
    python experiments/hostile_inputs.py --kind tables --seed 7  one of them again, with what it prints

Sound inputs of nine kinds are mutated: bytes flipped, cut, inserted and repeated, tokens swapped, numbers made
extreme, keys removed and mistyped, values nested. Each is given to its command in a process of its own. Right is
an exit code of 0, or of 2 with one line; no traceback; and little more time and memory than the sound input takes.
Prints a table, writes experiments/results/hostile_inputs.json, and keeps the inputs that went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hostile_mutations import Sound, make_sound_inputs
from hostile_predictors import predictors

from nge_search.cli import main as run_command
from nge_search.engine.environment import results_header
from nge_search.files import write_json

EACH = 250

#: Beyond what the sound input takes.
MOST_SECONDS, MOST_BYTES = 5.0, 1 << 30

#: A process is ended after this much more CPU time than the sound input's, or time by the clock, and gets no more
#: memory than it has when it starts and this.
_CPU_LIMIT, _WALL_LIMIT, _MEMORY_LIMIT = 20, 120, 6 << 30

_TRACEBACK_EXIT = 70
_RESULTS = Path(__file__).parent / "results" / "hostile_inputs.json"


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is minus the signal of one that was killed."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int


@dataclass
class Tally:
    """What became of the inputs of a kind."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    other: int = 0
    tracebacks: int = 0
    hangs: int = 0
    most_seconds: float = 0.0
    most_mb: float = 0.0
    failed: list[str] = field(default_factory=list)


def run_apart(words: list[str], folder: Path, cpu_seconds: float) -> Ended:
    """Run `nge WORDS` in `folder`, in a forked process."""
    streams = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which only wait here
        process = os.fork()
    if process == 0:
        _run_as_child(words, folder, streams, cpu_seconds)
    watch = threading.Timer(_WALL_LIMIT, os.kill, (process, signal.SIGKILL))
    watch.start()
    _, status, usage = os.wait4(process, 0)
    watch.cancel()
    out, err = (path.read_text(encoding="utf-8", errors="replace") for path in streams)
    for path in streams:
        path.unlink()
    seconds = usage.ru_utime + usage.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, usage.ru_maxrss << 10)


def _run_as_child(words: list[str], folder: Path, streams: list[Path], cpu_seconds: float) -> None:
    """The forked process's part; it does not return."""
    code = _TRACEBACK_EXIT
    try:
        os.chdir(folder)
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        limit = int(cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _MEMORY_LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        code = run_command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def judge(ended: Ended, sound: Ended) -> list[str]:
    """What is wrong with the end of a command; empty if nothing is."""
    faults = []
    if "Traceback (most recent call last)" in ended.out + ended.err:
        faults.append("traceback")
    if ended.code in (-signal.SIGXCPU, -signal.SIGKILL):
        faults.append("hang")
    elif ended.code not in (0, 2):
        faults.append(f"exit code {ended.code}")
    if ended.code == 2 and not (ended.err.startswith("error: ") and ended.err.count("\n") == 1):
        faults.append("not one line")
    if ended.seconds - sound.seconds > MOST_SECONDS:
        faults.append(f"{ended.seconds - sound.seconds:.1f} s more")
    if ended.peak_bytes - sound.peak_bytes > MOST_BYTES:
        faults.append(f"{(ended.peak_bytes - sound.peak_bytes) >> 20} MB more")
    return faults


class Trial:
    """Mutated inputs of one kind, each run and counted."""

    def __init__(self, kind: str, sounds: list[Sound], scratch: Path, kept: Path | None):
        self.kind, self.sounds, self.scratch, self.kept = kind, sounds, scratch, kept
        self.tally = Tally()
        self._sound: dict[str, Ended] = {}

    def run(self, seed: int) -> tuple[Ended, list[str]]:
        """Run the input that `seed` makes; the same seed makes the same input."""
        draw = random.Random(f"{self.kind} {seed}")
        sound = draw.choice(self.sounds)
        as_it_is = self._measure(sound)
        folder = self.scratch / f"{self.kind}-{seed}"
        shutil.copytree(sound.folder, folder, symlinks=True)
        words = sound.mutate(folder, draw)
        ended = run_apart(words, folder, as_it_is.seconds + _CPU_LIMIT)
        faults = judge(ended, as_it_is)
        self._count(seed, sound, ended, as_it_is, faults)
        if faults and self.kept is not None:
            shutil.rmtree(self.kept / folder.name, ignore_errors=True)
            shutil.copytree(folder, self.kept / folder.name, symlinks=True)
            (self.kept / f"{folder.name}.txt").write_text(f"{faults}\n{words}\n{ended.out}\n{ended.err}")
        shutil.rmtree(folder)
        return ended, faults

    def _measure(self, sound: Sound) -> Ended:
        """How the command ends on the sound input."""
        if sound.name not in self._sound:
            folder = self.scratch / f"{self.kind}-{sound.name}"
            shutil.copytree(sound.folder, folder, symlinks=True)
            ended = run_apart(list(sound.words), folder, 600)
            shutil.rmtree(folder)
            if ended.code != 0:
                raise RuntimeError(f"the sound input {sound.name} of {self.kind} is refused: {ended.err}")
            self._sound[sound.name] = ended
        return self._sound[sound.name]

    def _count(self, seed: int, sound: Sound, ended: Ended, as_it_is: Ended, faults: list[str]) -> None:
        tally = self.tally
        tally.inputs += 1
        tally.accepted += ended.code == 0
        tally.refused += ended.code == 2
        tally.other += ended.code not in (0, 2)
        tally.tracebacks += "traceback" in faults
        tally.hangs += "hang" in faults
        tally.most_seconds = max(tally.most_seconds, round(ended.seconds - as_it_is.seconds, 2))
        tally.most_mb = max(tally.most_mb, round((ended.peak_bytes - as_it_is.peak_bytes) / 2**20, 1))
        if faults:
            tally.failed.append(f"seed {seed} ({sound.name}): {', '.join(faults)}")


@contextlib.contextmanager
def prepared(kinds: list[str], kept: Path | None) -> Iterator[dict[str, Trial]]:
    """The trials, over sound inputs made in a temporary folder; that loads all modules, so that forks are quick."""
    torch.set_num_threads(1)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as place:
        sounds = make_sound_inputs(Path(place) / "sound", run_command)
        sounds["predictors"] = predictors(Path(place) / "sound")
        scratch = Path(place) / "scratch"
        scratch.mkdir()
        yield {kind: Trial(kind, sounds[kind], scratch, kept) for kind in kinds or sounds}


def show(tallies: dict[str, Tally]) -> list[str]:
    """The table, in lines."""
    head = f"{'kind':12} {'inputs':>6} {'exit 0':>6} {'exit 2':>6} {'other':>5} {'traces':>6} {'hangs':>5}"
    lines = [f"{head} {'CPU s more':>10} {'MB more':>8}"]
    for kind, tally in tallies.items():
        lines.append(
            f"{kind:12} {tally.inputs:6} {tally.accepted:6} {tally.refused:6} {tally.other:5} {tally.tracebacks:6} "
            f"{tally.hangs:5} {tally.most_seconds:10.2f} {tally.most_mb:8.1f}"
        )
        lines += [f"    {failed}" for failed in tally.failed]
    return lines


def main(say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=EACH, help="inputs of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", action="append", default=[], help="a kind of input; default: all")
    parser.add_argument("--seed", type=int, help="run this one of --kind alone, and say what it prints")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="file of results")
    parser.add_argument(
        "--keep", type=Path, default=Path("hostile_inputs_failed"), help="folder for what went wrong"
    )
    options = parser.parse_args()
    with prepared(options.kind, options.keep) as trials:
        if options.seed is not None:
            for trial in trials.values():
                ended, faults = trial.run(options.seed)
                say(f"exit code {ended.code}, {ended.seconds:.2f} s; {faults or 'right'}\n{ended.out}{ended.err}")
            return 0
        for trial in trials.values():
            for seed in range(options.first, options.first + options.each):
                trial.run(seed)
            say("\n".join(show({trial.kind: trial.tally})))
    tallies: dict[str, Any] = {kind: vars(trial.tally) for kind, trial in trials.items()}
    write_json(
        options.out,
        {
            **results_header("python experiments/hostile_inputs.py"),
            "seeds": [options.first, options.first + options.each - 1],
            "limits": {"cpu_seconds_more": MOST_SECONDS, "mb_more": MOST_BYTES >> 20},
            "kinds": tallies,
        },
    )
    say("\n".join(show({kind: trial.tally for kind, trial in trials.items()})))
    return int(any(trial.tally.failed for trial in trials.values()))


if __name__ == "__main__":
    sys.exit(main())
