"""The HTML report: complete, self-contained, safe, and robust against whatever a run folder holds."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from nge_search.architecture.genotype import Genotype
from nge_search.errors import UserError
from nge_search.predict import shipped
from nge_search.recipes import retrain_command
from nge_search.report import write_report

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&\ud800"


def test_search_report_holds_every_section_and_the_key_figures(runs, report) -> None:
    folder = runs.search()
    page = report(folder)
    assert page.anchors == [
        *(
            "cells",
            "expected",
            "alike",
            "retrain",
            "curves",
            "p",
            "evolution",
            "health",
            "norms",
            "genotype",
            "config",
        ),
        "environment",
    ]
    last = runs.rows(folder)[-1]
    figures = page.text("dl")
    for expected in (f"{last['valid_top1']:.2f} %", "54 min 52 s", "1487", "220 M", "NVIDIA H100 80GB HBM3"):
        assert expected in figures
    assert f"{last['entropy_normal']:.3g} / {last['entropy_reduce']:.3g}" in figures
    assert "Expected mult-adds of the supernet" in figures
    assert "under P, on all 14 edges of its cells" in figures
    assert "of the network" not in figures
    assert "Finished: 25 epochs." in page.text()
    assert page.text("h1") == "demo"
    for title in ("Loss", "Top-1 accuracy", "Throughput", "Peak memory", "Entropy of P", "Dead units"):
        assert title in page.text("figcaption")
    assert (folder / "config.yaml").read_text() in page.text("pre", within="config")
    assert "versions.torch2.7.1" in page.text("section").replace("\n", "")
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []


def test_it_says_what_the_cells_are_expected_to_reach(runs, report) -> None:
    """And from what; with a doubt where they are unlike all that were trained."""
    folder = runs.search()
    found = shipped.expected(Genotype.from_json((folder / "genotype.json").read_text()))
    text = report(folder).text("p", within="expected")
    assert all(line in text for line in found.lines())
    skips = [["skip_connect", node] for _ in range(4) for node in (0, 1)]
    collapsed = {**json.loads((folder / "genotype.json").read_text()), "normal": skips, "reduce": skips}
    (folder / "genotype.json").write_text(json.dumps(collapsed))
    assert "unlike" in report(folder).text("p", within="expected")


def test_the_drawn_cells_are_the_genotype(runs, report) -> None:
    folder = runs.search()
    page = report(folder)
    genotype = Genotype.from_json((folder / "genotype.json").read_text())
    pills = [element["attributes"] for element in page.find("rect", within="cells", class_="pill")]
    shown = [(pill["data-operation"], int(pill["data-gene"])) for pill in pills]
    for start, cell in ((0, genotype.normal), (8, genotype.reduce)):
        assert sorted(shown[start : start + 8], key=lambda pill: pill[1]) == [
            (operation, index) for index, (operation, _) in enumerate(cell.genes)
        ]
    (block,) = page.find("pre", within="genotype")
    assert Genotype.from_json(block["text"]) == genotype
    assert json.loads(block["text"]) == json.loads((folder / "genotype.json").read_text())
    assert page.find("button", within="genotype")


def test_heatmaps_show_p_of_the_last_epoch_and_mark_what_is_kept(runs, report) -> None:
    folder = runs.search()
    page = report(folder)
    last = runs.rows(folder)[-1]
    for kind in ("normal", "reduce"):
        assert page.heat(kind) == [pytest.approx(values, abs=5e-5) for values in last[f"p_{kind}"]]
        cells = page.find("td", within=f"p-{kind}")
        assert [cell["text"] for cell in cells] == [f"{p:.2f}" for values in last[f"p_{kind}"] for p in values]
        edges = [tuple(edge) for edge in last["edges"]]
        expected = set()
        for position, (operation, source) in enumerate(last["genotype"][kind]):
            expected.add((edges.index((source, 2 + position // 2)), last["operations"].index(operation)))
        kept = {divmod(i, 7) for i, cell in enumerate(cells) if "kept" in (cell["attributes"].get("class") or "")}
        assert kept == expected
        labels = [head["text"] for head in page.find("th", within=f"p-{kind}", scope="row")]
        assert labels == [f"{source}→{target}" for source, target in edges]
        names = [head["text"] for head in page.find("th", within=f"p-{kind}", scope="col")][1:]
        assert names == ["skip", "max 3×3", "avg 3×3", "sep 3×3", "sep 5×5", "dil 3×3", "dil 5×5"]


def test_slider_holds_every_epoch(runs, report) -> None:
    folder = runs.search()
    page = report(folder)
    (slider,) = page.find("input", within="p-reduce")
    assert (slider["attributes"]["max"], slider["attributes"]["value"]) == ("24", "24")
    (data,) = page.find("script", id="p-reduce-data")
    data = json.loads(data["text"])
    assert data["epochs"] == [str(epoch) for epoch in range(1, 26)]
    for values, row in zip(data["values"], runs.rows(folder)):
        assert values == [pytest.approx(p, abs=5e-5) for p in row["p_reduce"]]
    assert all(len(kept) == 8 for kept in data["kept"])


def test_long_runs_keep_first_and_last_epoch_on_a_short_slider(runs, report) -> None:
    folder = runs.search(epochs=240)
    page = report(folder)
    data = json.loads(page.find("script", id="p-normal-data")[0]["text"])
    assert len(data["epochs"]) == 100
    assert (data["epochs"][0], data["epochs"][-1]) == ("1", "240")
    assert (folder / "report.html").stat().st_size < 1_000_000


def test_every_edge_has_a_panel_in_the_place_of_its_source_and_target(runs, report) -> None:
    page = report(runs.search())
    panels = page.find("figure", within="evolution")
    assert len(panels) == 28
    assert panels[4]["attributes"]["style"] == "grid-row:2;grid-column:3"  # edge 2→3
    assert sum("kept" in panel["attributes"]["class"] for panel in panels) == 16
    assert len(page.find("path", within="evolution")) == 28 * 7


def test_collapse_is_pointed_out_only_where_it_happens(runs, report) -> None:
    folder = runs.search()
    last = runs.rows(folder)[-1]
    assert last["parameter_free_reduce"] > 0.5 > last["parameter_free_normal"]
    text = report(folder).text("p", within="health")
    assert f"reduction, share of P: {100 * last['parameter_free_reduce']:.0f} %" in text
    assert "normal, share of P" not in text

    def heal(row: dict) -> None:
        for key in row:
            if key.startswith("parameter_free"):
                row[key] = 0.5

    runs.rewrite(folder, heal)
    assert "more than half" not in report(folder).text()


@pytest.mark.parametrize("data", ["digits", "cifar10", "folder"])
def test_retrain_command_is_shown_for_the_run_as_given(runs, report, data: str, monkeypatch) -> None:
    folder = runs.search(epochs=2, data=data, name="a run")
    monkeypatch.chdir(folder.parent)
    page = report(Path("a run"))
    (command,) = page.find("pre", within="retrain")
    settings = yaml.safe_load((folder / "config.yaml").read_text())["data"]
    assert command["text"] == retrain_command("a run", settings)
    assert "'network.genotype=a run'" in command["text"]


def test_unfinished_run_says_how_far_it_is(runs, report) -> None:
    folder = runs.search(epochs=7, finished=False)
    os.utime(folder / "metrics.jsonl", (0, 0))
    page = report(folder)
    assert (
        "still running, or stopped, after epoch 7 (7 of 25 epochs recorded); last written 1970-01-01" in page.text()
    )
    assert "no genotype.json yet" in page.text("section")
    assert len(page.find("rect", within="cells", class_="pill")) == 16  # from the last row


def test_run_before_its_first_epoch(runs, report) -> None:
    folder = runs.search(epochs=1, finished=False)
    (folder / "metrics.jsonl").write_text("")
    page = report(folder)
    assert "before the end of its first epoch" in page.text()
    assert page.anchors == ["config", "environment"]


def test_one_epoch(runs, report) -> None:
    page = report(runs.search(epochs=1))
    assert not page.find("input")
    assert len(page.heat("normal")) == 14
    assert len(page.find("path", within="evolution")) == 28 * 7
    assert not page.find("polyline")
    assert page.find("circle", within="curves")


def test_nan_and_missing_values_leave_gaps(runs, report) -> None:
    folder = runs.search(epochs=6)
    rows = runs.rows(folder)
    rows[2]["train_loss"] = math.nan
    rows[3]["train_loss"] = math.inf
    del rows[2]["valid_loss"], rows[4]["p_reduce"], rows[1]["norms"]
    rows[-1]["p_normal"][3][2] = math.nan
    rows[-1]["p_normal"][0][0] = None
    runs.write_rows(folder, rows)
    page = report(folder)
    shown = page.heat("normal")
    assert math.isnan(shown[3][2])
    assert math.isnan(shown[0][0])
    assert shown[3][1] == pytest.approx(rows[-1]["p_normal"][3][1], abs=5e-5)
    data = json.loads(page.find("script", id="p-reduce-data")[0]["text"])
    assert data["epochs"] == ["1", "2", "3", "4", "6"]
    lines = [line["attributes"]["points"] for line in page.find("polyline", within="curves", class_="line s0")]
    assert [len(points.split()) for points in lines[:2]] == [2, 2]
    coordinates = [
        element["attributes"].get(name, "")
        for element in page.elements
        for name in ("points", "d", "x", "y", "cx", "cy", "x1", "y1", "width", "height")
    ]
    assert not [text for text in coordinates if re.search("nan|inf", text)]


@pytest.mark.parametrize(
    "keys",
    [
        {"operations", "edges"},
        {"p_normal", "p_reduce", "genotype"},
        {"norms", "dead_units", "entropy_normal", "entropy_reduce", "expected_macs"},
        {"epoch", "step", "seconds"},
        {"train_loss", "architecture_loss", "valid_loss", "valid_top1", "learning_rate"},
    ],
)
def test_missing_keys_cost_only_their_part(runs, report, keys: set[str]) -> None:
    folder = runs.search(epochs=3)
    runs.rewrite(folder, lambda row: [row.pop(key) for key in keys])
    page = report(folder)
    assert len(page.find("rect", within="cells", class_="pill")) == 16
    if "operations" in keys:  # seven columns and fourteen rows are the paper's space
        heads = [head["text"] for head in page.find("th", within="p-normal", scope="row")]
        assert heads[:3] == ["0→2", "1→2", "0→3"]
    assert ("p" in page.anchors) == ("p_normal" not in keys)


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [1, 2], [[]], [["a"]], {"a": {"b": []}}, True, 10**400])
def test_wrong_types_never_stop_the_report(runs, report, value: object) -> None:
    folder = runs.search(epochs=2)
    rows = runs.rows(folder)
    keys = list(rows[0])
    for group in range(3):
        runs.write_rows(folder, [rows[0], rows[1] | dict.fromkeys(keys[group::3], value)])
        assert report(folder).anchors[-1] == "environment"
    for name in ("summary.json", "environment.json", "genotype.json"):
        (folder / name).write_text(json.dumps(value))
    assert "config" in report(folder).anchors
    summary = dict.fromkeys(("kind", "genotype", "valid_top1", "epochs", "seconds", "device"), value)
    runs.write_summary(folder, **summary)
    assert "config" in report(folder).anchors


def test_broken_lines_are_left_out_and_only_the_last_one_silently(runs, report) -> None:
    folder = runs.search(epochs=4)
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + whole.splitlines()[-1][:200])
    page = report(folder)
    assert "left out" not in page.text()
    assert json.loads(page.find("script", id="p-normal-data")[0]["text"])["epochs"] == ["1", "2", "3", "4"]
    (folder / "metrics.jsonl").write_text("{half\n" + whole)
    assert "1 line(s) are not JSON objects" in report(folder).text()


def test_files_that_are_no_files_cost_only_themselves(runs, report) -> None:
    """Pipes, devices, and files far larger than a run writes."""
    folder = runs.search(epochs=2)
    for name, kind in (("summary.json", "named pipe"), ("environment.json", "device"), ("genotype.json", "bytes")):
        (folder / name).unlink(missing_ok=True)
        if kind == "named pipe":
            os.mkfifo(folder / name)
        elif kind == "device":
            (folder / name).symlink_to("/dev/zero")
        else:
            os.truncate(os.open(folder / name, os.O_CREAT | os.O_WRONLY), 1 << 40)
        assert f"{name} is left out" in report(folder).text("header")
        assert kind in report(folder).text("header")


def test_metrics_without_end_are_shown_as_far_as_they_go(runs, report, monkeypatch) -> None:
    folder = runs.search(epochs=3)
    rows = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(rows + '{"epoch": 3, "x": [' + "1," * (1 << 20))
    page = report(folder)
    assert "line 4 has more than" in page.text("header")
    assert json.loads(page.find("script", id="p-normal-data")[0]["text"])["epochs"] == ["1", "2", "3"]
    (folder / "metrics.jsonl").write_text(rows)
    monkeypatch.setattr("nge_search.engine.run_reader._MOST_ROWS", 2)
    assert "only its first 2 rows are shown" in report(folder).text("header")


def test_an_epoch_written_again_after_a_resume_counts_once(runs, report) -> None:
    folder = runs.search(epochs=4)
    rows = runs.rows(folder)
    again = rows[2] | {"valid_top1": 12.34}
    runs.write_rows(folder, [*rows, again])
    data = json.loads(report(folder).find("script", id="p-normal-data")[0]["text"])
    assert data["epochs"] == ["1", "2", "3", "4"]
    assert "valid" in report(folder).tip("epoch 3", "12.34")


def test_hostile_text_stays_text(runs, report) -> None:
    folder = runs.search(epochs=2)

    def poison(row: dict) -> None:
        row["norms"] = {HOSTILE: 1.0, "b": 2.0}
        row["operations"] = [HOSTILE, *row["operations"][1:]]
        row[HOSTILE] = 3.0

    runs.rewrite(folder, poison)
    config = {"run": {"name": "</pre>" + HOSTILE[:-1]}, "data": {"name": HOSTILE[:-1]}}
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps({HOSTILE: {"a": HOSTILE}, "list": [HOSTILE]}))
    runs.write_summary(folder, kind="search", device=HOSTILE, epochs=HOSTILE)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img" not in text
    page = report(folder)
    assert len(page.find("script")) == 3  # ours, and the data of two heatmaps
    assert "<script>alert(1)</script>" in page.text("h1")
    assert "<script>alert(1)</script>" in page.text("table")


def test_hostile_kind_and_folder_name(runs, report) -> None:
    folder = runs.search(epochs=1, name="a<b>&'c")
    runs.write_summary(folder, kind="<i>odd</i>", score=3.5)
    page = report(folder)
    assert not page.find("i", within="cells")
    assert "<i>odd</i>" in page.text("p")
    assert "score" in page.text("dl")
    assert "3.5" in page.text("dl")


def test_eval_report(runs, report) -> None:
    folder = runs.eval(epochs=40)
    page = report(folder)
    assert page.anchors == ["cells", "curves", "genotype", "config", "environment"]
    figures = page.text("dl")
    for expected in ("2.61 %", "0.07 %", "3.351 M", "531.4 M", "1 h 4 min", "2209"):
        assert expected in figures
    assert "Retraining" in page.text("header")
    titles = page.text("figcaption")
    for title in ("Loss", "Accuracy", "Learning rate", "Drop-path probability", "Throughput", "Peak memory"):
        assert title in titles
    assert len(page.find("polyline", within="curves")) == 2 + 3 + 1 + 1 + 2


def test_unfinished_eval_takes_its_errors_from_the_last_test(runs, report) -> None:
    folder = runs.eval(epochs=5, finished=False)
    page = report(folder)
    last = runs.rows(folder)[-1]
    assert f"{100 - last['test_top1']:.2f} %" in page.text("dl")
    assert "after epoch 5 (5 of 5 epochs recorded)" in page.text()
    assert "cells" not in page.anchors


def test_figures_this_report_does_not_know_are_still_charted(runs, report) -> None:
    folder = runs.eval(epochs=3)
    runs.rewrite(folder, lambda row: row.update(gradient_noise=row["epoch"] + 0.5))
    assert "gradient noise" in report(folder).text("figcaption", within="other")


def test_broken_genotype_is_told_and_replaced(runs, report) -> None:
    folder = runs.search(epochs=2)
    document = json.loads((folder / "genotype.json").read_text())
    document["normal"][0][0] = "sep_conv_9x9"
    (folder / "genotype.json").write_text(json.dumps(document))
    page = report(folder)
    assert "sep_conv_9x9" in page.text("header")
    assert len(page.find("rect", within="cells", class_="pill")) == 16


@pytest.mark.parametrize("config", ["a: [", "a: !!python/object:os.system {}", "just text", "- 1", "\x00", ""])
def test_config_that_is_no_yaml_is_shown_as_it_is(runs, report, config: str) -> None:
    folder = runs.search(epochs=1)
    (folder / "config.yaml").write_text(config)
    page = report(folder)
    if config.strip("\x00"):
        assert config in page.text("pre")


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ("seed: !!int ''\n", "not what it claims"),
        (
            "b0: &b0 [x]\n"
            + "".join(f"b{i + 1}: &b{i + 1} [*b{i}, *b{i}, *b{i}]\n" for i in range(12))
            + "run: {name: *b12}\n",
            "too many values",
        ),
        ("run: {name: " + "x" * (1 << 17) + "}\n", "bytes, more than"),
        ("run: {name: 0x" + "f" * 6000 + "}\n", ""),
        ("run: {name: [[a], {b: c}]}\ndata: {name: [x], root: {y: z}}\nsearch: 3\n", ""),
        ("run: [name]\ndata: [a]\ntask: [benchmark]\n", ""),
    ],
)
def test_hostile_config_costs_its_part_alone(runs, report, config: str, note: str) -> None:
    folder = runs.search(epochs=1)
    (folder / "config.yaml").write_text(config)
    page = report(folder)
    assert note in page.text("header")
    assert page.text("title").startswith(folder.name)


def test_not_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds neither config.yaml nor metrics.jsonl") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "missing")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("only", ["config.yaml", "metrics.jsonl"])
def test_one_of_the_two_files_is_enough(runs, report, only: str) -> None:
    folder = runs.search(epochs=2)
    for path in list(folder.iterdir()):
        if path.name != only:
            path.unlink()
    assert len(report(folder).anchors) >= 1


def test_report_replaces_the_older_one_and_is_the_same_again(runs) -> None:
    folder = runs.search(epochs=2)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    (folder / "config.yaml").write_text("run: {name: other}")
    assert write_report(folder).read_bytes() != first


def test_failed_write_keeps_the_older_report(runs, monkeypatch) -> None:
    folder = runs.search(epochs=2)
    first = write_report(folder).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(folder / "report.html"))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="free some space"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.endswith("tmp")]


@pytest.mark.parametrize("content", ["<!DOCTYPE html><html><body>Coverage</body></html>", "mine"])
def test_no_other_program_s_page_is_replaced(content: str, runs) -> None:
    folder = runs.search(epochs=2)
    (folder / "report.html").write_text(content)
    with pytest.raises(UserError, match="not a report of this program"):
        write_report(folder)
    assert (folder / "report.html").read_text() == content


def test_chromium_runs_the_page_without_errors_and_the_slider_shows_any_epoch(runs, parse, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine: the page's script was not run")
    folder = runs.search(epochs=5)
    text = write_report(folder).read_text(encoding="utf-8")
    # The copy moves both sliders to epoch 1; its policy is lifted, or it would refuse the added script.
    move = (
        "for (const s of document.querySelectorAll('input')) { s.value = 1; s.dispatchEvent(new Event('input')); }"
    )
    copy = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"<script>{move}</script></body>")
    (folder / "moved.html").write_text(copy, encoding="utf-8")
    for name in ("report.html", "moved.html"):
        done = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
                (folder / name).as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        page = parse(done.stdout)
        row = runs.rows(folder)[-1 if name == "report.html" else 1]
        for kind in ("normal", "reduce"):
            assert page.heat(kind) == [pytest.approx(values, abs=5e-5) for values in row[f"p_{kind}"]]
        assert not any("hidden" in button["attributes"] for button in page.find("button"))
        assert not any("hidden" in slider["attributes"] for slider in page.find("input"))


def test_a_p_that_has_not_moved_is_a_warning(runs, report):
    folder = runs.search()
    path, said = folder / "summary.json", "P is close to uniform <b>"
    path.write_text(json.dumps({**json.loads(path.read_text()), "undecided": said}))
    assert f"{said}." in [element["text"] for element in report(folder).find("p", class_="notice warning")]
