"""What benches owe to whoever waits for them: whole fp32, and what was found before something failed."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nge_search.bench import supernet
from nge_search.bench.measuring import printed
from nge_search.cli import main
from nge_search.engine.precision import allow_tf32
from nge_search.errors import UserError

OPTIONS = argparse.Namespace(space="darts", batch=2, channels=2, cells=3, size=6, steps=2)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Torch's own choice, as it is before anybody has said something; then as it was."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(True)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("name", ["input", "retrain", "supernet"])
def test_fp32_is_no_tf32(name, tf32, monkeypatch, capsys):
    def compare(*_: Any) -> dict[str, Any]:
        return {"tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32}

    for part, does in (("_compare", compare), ("_differences", lambda *_: {}), ("_roofline", lambda *_: {})):
        monkeypatch.setattr(f"nge_search.bench.{name}.{part}", does, raising=part == "_compare")
    assert main(["bench", name, "--json", "--device", "cpu", *(["--count", "4"] if name == "input" else [])]) == 0
    assert json.loads(capsys.readouterr().out)["tf32"] is False


def test_a_result_is_printed_however_the_rest_ends(capsys):
    def lines(result: dict[str, Any]) -> list[str]:
        return [f"{len(result)} figures"]

    before, result = signal.getsignal(signal.SIGTERM), {"forms": 1}

    def grow(result: dict[str, Any]) -> None:
        with printed(result, True, lines):
            result["roofline"] = 2
            raise ImportError("no compiler")

    with pytest.raises(ImportError, match="no compiler"):
        grow(result)
    assert json.loads(capsys.readouterr().out) == {"forms": 1, "roofline": 2}
    with pytest.raises(SystemExit) as ended, printed(result, False, lines):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert capsys.readouterr().out == "2 figures\n"
    assert signal.getsignal(signal.SIGTERM) is before


class Answers:
    """In place of the process of a form; `broken` ones end before they answer."""

    broken = ""
    _counts = dict.fromkeys(supernet._KINDS, 3)
    facts = {"activation_memory_mb": 1.0, "operators": _counts, "kernels": _counts}  # noqa: RUF012

    def __init__(self, name: str, form: str, words: list[str]):
        if form == self.broken:
            raise UserError(f"measuring '{form}' ended with exit code 1")

    def seconds(self, kind: str) -> float:
        return 0.5

    def close(self) -> None:
        pass


def test_forms_that_a_gpu_cannot_do_cost_no_others(monkeypatch, capsys):
    monkeypatch.setattr(supernet, "Served", Answers)
    monkeypatch.setattr(supernet, "_forms", lambda device: {**supernet.FORMS, **supernet.GRAPHED})
    monkeypatch.setattr(supernet, "_differences", lambda options: {"logits": 0.0})
    monkeypatch.setattr(supernet, "_roofline", lambda *_: dict.fromkeys(("operations", "bytes"), 1.0))
    words = ["bench", "supernet", "--device", "cpu", "--steps", "2", "--json"]
    assert main(words) == 0
    assert "failed" not in json.loads(capsys.readouterr().out)
    monkeypatch.setattr(Answers, "broken", "fused_bf16_graphs")
    assert main(words) == 2
    out, error = capsys.readouterr()
    result = json.loads(out)
    assert list(result["forms"]) == list(supernet.FORMS)
    assert result["speedup_of_fused"]["textbook_nchw"]["weight"] == 1.0
    assert result["differences"] == {"logits": 0.0}
    assert error == "error: not measured: measuring 'fused_bf16_graphs' ended with exit code 1\n"
    monkeypatch.setattr(Answers, "broken", "textbook_nchw")  # the baseline
    assert main(words) == 2
    assert capsys.readouterr().out == ""


def test_lines_tell_what_there_is(monkeypatch):
    monkeypatch.setattr(supernet, "Served", Answers)
    result = supernet._compare(OPTIONS, torch.device("cpu"), [])
    lines = supernet._lines(result)
    assert any(line.startswith("fused: weight step 0.500 s") for line in lines)
    assert not any("roofline" in line or "difference" in line for line in lines)
