"""`experiments/gpu/record.sh`: every piece on the CPU, what a stopped record goes on with, what is refused."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from nge_search.cli import main

ROOT = Path(__file__).parents[1]
PIECES = [
    "tests_supernet", "tests_training", "tests_engine", "supernet", "search", "retrain", "search_eager",
    "search_fp32", "tests_retrieve", "classification", "segmentation",
]  # fmt: skip


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments" / "gpu")
    return importlib.import_module("record")


def here(command: Sequence[str], seconds: float, log: Path) -> tuple[int, str]:
    """Runs of this process; benches and tests answer at once."""
    assert 0 < seconds <= 240
    log.write_text("")
    script = Path(command[1]).name
    if script in ("train_search.py", "train_eval.py"):
        return main([script[6:-3], *command[2:], "run.tensorboard=false", "run.progress=none"]), ""
    return at_once(command)


def at_once(command: Sequence[str]) -> tuple[int, str]:
    """What benches printed on some CPU, and tests on none; runs print nothing, and these leave nothing."""
    if "bench" in command:
        name = command[command.index("bench") + 1]
        return 0, (ROOT / "experiments" / "results" / f"{name}_cpu.json").read_text()
    if "pytest" in command:
        return 0, "SKIPPED [5] tests/supernet/test_cuda.py: needs a GPU\n\n5 skipped in 1.00s\n"
    return 0, ""


def test_every_piece_on_the_cpu(record, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nge_search.data.segmentation.scenes.TEST", 8)
    words = [str(tmp_path / "out"), "--device", "cpu", "--small"]
    assert record.main(words, here) == 0
    found = json.loads((tmp_path / "out" / "record.json").read_text())
    assert list(found["pieces"]) == [piece.name for piece in record.PIECES] == PIECES
    assert {piece["state"] for piece in found["pieces"].values()} == {"done"}
    assert (found["images"], found["device"]) == ("digits", "cpu")
    assert found["pieces"]["tests_engine"]["figures"]["result"] == "5 skipped in 1.00s"
    for name in ("search", "search_eager", "search_fp32", "classification", "segmentation"):
        figures = found["pieces"][name]["figures"]
        assert [row["epoch"] for row in figures["epochs"]] == [1]
        assert figures["summary"]["seconds"] > 0
        assert figures["precision"] == ("fp32" if name == "search_fp32" else "bf16")
        assert figures["packages"]["torch"]
        assert figures["device_name"] == figures["summary"]["device"]
    supernet = found["pieces"]["supernet"]["figures"]
    fused, roof = supernet["forms"]["fused"], supernet["roofline"]
    bound = max(roof["seconds_for_operations"], roof["seconds_for_bytes"])
    steps = -(-25_000 // supernet["settings"]["batch"])
    own = fused["weight"]["seconds"] + fused["architecture"]["seconds"]
    assert found["expected"]["weight_step_over_roofline"]["fused"] == fused["weight"]["seconds"] / bound
    assert found["expected"]["search_of_25_epochs_seconds"] == pytest.approx(25 * steps * own)

    def never(*_):
        raise AssertionError("what is done is not done again")

    capsys.readouterr()
    assert record.main(words, never) == 0
    assert "segmentation done" in capsys.readouterr().out


def test_what_failed_or_met_its_limit_is_done_by_the_next_call(record, tmp_path, capsys):
    asked: list[str] = []

    def badly(command, seconds, log):
        asked.append(command[1])
        if "bench" in command:
            return 1, "no JSON"
        return (143, "") if "train_search" in command[1] else at_once(command)

    words = [str(tmp_path / "out"), "--device", "cpu", "--small"]
    chosen = ["--piece", "tests_engine", "--piece", "supernet", "--piece", "search_fp32"]
    assert record.main([*words, *chosen], badly) == 1
    assert "tests_engine done, supernet failed, search_fp32 unfinished" in capsys.readouterr().out
    assert record.main([*words, *chosen], lambda command, *_: at_once(command)) == 0
    found = json.loads((tmp_path / "out" / "record.json").read_text())["pieces"]
    assert {name: piece["state"] for name, piece in found.items()} == dict.fromkeys(found, "done")
    assert len(found) == len(asked) == 3


def test_what_was_not_begun_comes_first_and_what_met_its_limit_last(record, tmp_path, monkeypatch):
    asked: list[tuple[str, float]] = []

    def run(command, seconds, log):
        asked.append((command[0], seconds))
        return {"a": 143, "b": 1}.get(command[0], 0), ""

    monkeypatch.setattr(
        record,
        "PIECES",
        [record.Piece(name, "", lambda _, name=name: [name], record._last_line, 70.0) for name in "abc"],
    )
    record.record_all(record.Options(tmp_path / "out", "cuda"), "ab", 600, run)
    record.record_all(record.Options(tmp_path / "out", "cuda"), "abc", 600, run)
    assert [name for name, _ in asked] == ["a", "b", "c", "b", "a"]
    assert {seconds for _, seconds in asked} == {70.0}


def test_a_record_says_only_what_happened(record, tmp_path):
    """On a GPU searches have to be recorded as graphs, or fail; pieces keep to twelve minutes."""
    for device, recorded in (("cuda", "always"), ("cpu", "auto")):
        options = record.Options(tmp_path, device, data=("data.root=/data",))
        words = {piece.name: piece.command(options) for piece in record.PIECES}
        for name in ("search", "search_fp32"):
            assert f"search.cuda_graphs={recorded}" in words[name]
        assert "search.cuda_graphs=never" in words["search_eager"]
        assert {"data.limit=5000", "search.epochs=1"} <= set(words["search_fp32"])
        assert not any(word.startswith("data.limit") for word in words["search"])
        assert [word for word in words["tests_engine"] if word.endswith("test_cuda.py")] == [
            str(ROOT / "tests" / "engine" / "test_cuda.py")
        ]
    assert all(record.LEAST <= piece.limit <= record.LONGEST for piece in record.PIECES)


def test_what_a_failed_bench_has_printed_is_kept(record, tmp_path):
    whole = (ROOT / "experiments" / "results" / "supernet_cpu.json").read_text()
    found = record.record_all(
        record.Options(tmp_path / "out", "cuda"), ["supernet", "retrain"], 600, lambda *_: (2, whole)
    )
    piece = found["pieces"]["supernet"]
    assert (piece["state"], piece["code"]) == ("failed", 2)
    assert piece["figures"]["forms"]["fused"]
    assert found["expected"]["search_of_25_epochs_seconds"] > 0


def test_tests_that_failed_are_named(record, tmp_path):
    out = "FAILED tests/a.py::b - assert 1\nERROR tests/a.py::c - no\nSKIPPED [1] d\n1 failed in 2.00s\n"
    figures = record._last_line(out, tmp_path)
    assert figures["result"] == "1 failed in 2.00s"
    assert [len(figures[name]) for name in ("failed", "error", "skipped")] == [1, 1, 1]


def test_a_call_ends_with_its_time(record, tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])

    def slowly(command, seconds, log):
        clock[0] += 100
        return 0, "5 skipped"

    monkeypatch.setattr(
        record, "PIECES", [record.Piece(name, "", lambda _: [], record._last_line) for name in "abc"]
    )
    record.record_all(record.Options(tmp_path / "out", "cpu", True), "abc", 250, slowly)
    assert "time is up before c" in capsys.readouterr().out


def test_a_process_is_asked_to_end_before_it_is_killed(record, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SAVING", 60.0)
    waits = "import time; print('up', flush=True); time.sleep(600)"
    code, _ = record.execute([sys.executable, "-S", "-c", waits], 61.0, tmp_path / "log")
    assert code == -15  # the signal's, which a run answers by 143
    assert record.execute([sys.executable, "-S", "-c", "print(1)"], 60.0, tmp_path / "log") == (0, "1\n")


def test_no_process_of_a_piece_outlives_it(record, tmp_path):
    """Such as the other forms of a bench, or pytest's."""
    child = "import time; time.sleep(600)"
    parent = (
        "import subprocess, sys; "
        f"print(subprocess.Popen([sys.executable, '-S', '-c', {child!r}], stdout=subprocess.DEVNULL).pid)"
    )
    code, out = record.execute([sys.executable, "-S", "-c", parent], 600.0, tmp_path / "log")
    assert code == 0

    def lives() -> bool:
        try:
            return Path(f"/proc/{int(out)}/stat").read_text().split()[2] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while lives():  # until the kernel is done with it
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_are_called_what_they_are(record, tmp_path):
    (tmp_path / "a" / "cifar-10-batches-py").mkdir(parents=True)
    words, label = record.images_of([f"data.root={tmp_path / 'a'}", "seed=1"])
    assert words == (f"data.root={tmp_path / 'a'}", "seed=1")
    assert "lossless" in label
    for suffix, said in ((".jpg", "lossy"), (".png", "image files")):
        folder = tmp_path / suffix / "train" / "airplane"
        folder.mkdir(parents=True)
        (folder / f"0001{suffix}").touch()
        words, label = record.images_of([f"data.root={tmp_path / suffix}"])
        assert words[0] == "data.name=folder"
        assert said in label


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["out"], "name the folder of CIFAR-10"),
        (["out", "data.root=nowhere"], "holds neither cifar-10-batches-py/ nor train/airplane/"),
        (["out", "--small", "seed"], "'seed' is not a setting"),
        (["out", "--small", "--piece", "sarch"], "invalid choice: 'sarch'"),
        (["out", "--small", "--minutes", "0"], "--minutes=0.0: must be between"),
        (["out", "--small", "--minutes", "nan"], "--minutes=nan: must be between"),
        (["out", "--small", "--device", "gpu"], "invalid choice: 'gpu'"),
        ([], "the following arguments are required: out"),
        (["out", "--small"], "device=cuda: torch finds no GPU here"),
        (["taken", "--small", "--device", "cpu"], "is no record that this script began"),
        (["taken/file", "--small", "--device", "cpu"], "is no record that this script began"),
        (["other", "--small", "--device", "cpu"], "records device=cuda, not cpu"),
        (["damaged", "--small", "--device", "auto"], "is no record of this script"),
        (["lists", "--small", "--device", "auto"], "is no record of this script"),
        (["stateless", "--small", "--device", "auto"], "is no record of this script"),
        (["folder", "--small", "--device", "cpu"], "is a folder"),
        (["taken/file/out", "--small", "--device", "cpu"], "choose a path whose parents are folders"),
        (["out", "data.root=~nobody-of-this-name"], "there is no such home folder"),
        (["out", "data.root=.", "search.epoch=3"], "did you mean"),
        (["out", "--small", "seed=1"], "'seed=1': --small takes no settings"),
    ],
)
def test_what_is_refused(record, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("taken", "other", "damaged", "lists", "stateless", "folder", "train/airplane"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "folder" / "record.json").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "damaged" / "record.json").write_text("[1]")
    told = {"format": record.FORMAT, "device": "cuda", "small": True, "images": "digits", "pieces": {}}
    (tmp_path / "other" / "record.json").write_text(json.dumps(told))
    for name, piece in (("lists", []), ("stateless", {"state": []})):
        own = {**told, "device": "cpu", "pieces": {"tests_supernet": piece}}
        (tmp_path / name / "record.json").write_text(json.dumps(own))
    assert record.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "out").exists()


def of_slurm(folder: Path, scontrol: str, srun: str) -> dict[str, str]:
    """The environment of a job of one node with two GPUs, in which two commands do what is given."""
    for name, does in (("scontrol", scontrol), ("srun", srun)):
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node0", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_PER_NODE": "h200:2", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "12",
    }  # fmt: skip


@pytest.mark.parametrize("script", ["search", "retrain"])
def test_slurm_hands_on_the_cores_of_a_task(script, tmp_path):
    """`srun`, which stands in for itself here, takes them from a variable of its own."""
    own = of_slurm(tmp_path, "echo node0", 'echo "$SRUN_CPUS_PER_TASK" "$@"')
    command = ["bash", str(ROOT / "experiments" / "slurm" / f"{script}.slurm"), "seed=1"]
    words = subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.split()
    assert words[0] == "12"
    assert "--nproc_per_node=2" in words
    assert words[-1] == "seed=1"


@pytest.mark.parametrize("script", ["search", "retrain"])
def test_slurm_puts_a_job_back_that_it_ends(script, tmp_path):
    """At TERM the processes are asked to save; once they have ended, the job goes back into the queue."""
    log, ready = tmp_path / "log", tmp_path / "ready"
    saves = f"trap 'echo saved >> {log}; exit 0' TERM; touch {ready}; for _ in {{1..1000}}; do sleep 0.05; done"
    own = of_slurm(tmp_path, f'echo "$@" >> {log}; echo node0', saves)
    with subprocess.Popen(
        ["bash", str(ROOT / "experiments" / "slurm" / f"{script}.slurm"), "seed=1"], env=own
    ) as job:
        while not ready.exists() and job.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)  # from here on the script only waits, behind the line that sets its trap
        job.terminate()
        job.wait(60)
    assert log.read_text().splitlines() == ["show hostnames node0", "saved", "requeue 7"]


@pytest.mark.parametrize(
    ("variables", "says"), [({}, "SLURM_JOB_NODELIST"), ({"SLURM_JOB_NODELIST": "a"}, "SLURM")]
)
@pytest.mark.parametrize("script", ["search", "retrain"])
def test_slurm_scripts_outside_slurm(script, variables, says, tmp_path):
    """Nothing is started, and the variable that is missing is named."""
    own = {"PATH": of_slurm(tmp_path, "echo node0", f"touch {tmp_path / 'started'}")["PATH"], **variables}
    command = ["bash", str(ROOT / "experiments" / "slurm" / f"{script}.slurm")]
    ended = subprocess.run(command, env=own, capture_output=True, text=True)
    assert ended.returncode != 0
    assert says in ended.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.slow
def test_the_script_itself(tmp_path):
    """Every piece in its own process, on the CPU; there the tests are skipped, so that no GPU may be in sight."""
    command = [str(ROOT / "experiments" / "gpu" / "record.sh"), str(tmp_path / "out"), "--device", "cpu", "--small"]
    own = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    for _ in range(9):  # a slow machine meets the limits of pieces; the same command goes on
        subprocess.run(command, env=own, check=True)
        found = json.loads((tmp_path / "out" / "record.json").read_text())
        states = {piece["state"] for piece in found["pieces"].values()}
        if states == {"done"} and len(found["pieces"]) == len(PIECES):
            break
    assert states == {"done"}
    assert list(found["pieces"]) == PIECES
    assert "skipped" in found["pieces"]["tests_engine"]["figures"]["result"]
