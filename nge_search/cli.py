"""The `nge` command: one word per task, the same code as the launchers."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nge_search.architecture.genotype import SPACE
from nge_search.console import escape_what_cannot_be_shown, show
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.launch import Launch, read_launch
from nge_search.errors import UserError, from_os_error, nearest, plain, shorten
from nge_search.files import user_path
from nge_search.recipes import retrain_command
from nge_search.settings.load import help_text, load_config, search_schema, to_yaml, training_schema
from nge_search.settings.schema import NETWORKS, EvalConfig, RunningConfig, SearchConfig
from nge_search.settings.segmentation import SegmentationConfig
from nge_search.settings.strategies import BenchmarkConfig

Choice = Callable[[str | None, Sequence[str]], type[RunningConfig]]


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{plain(message, 200)}; see `{self.prog} --help`")


def _path(given: str) -> str:
    """A path that is an argument, `~` expanded."""
    if not given.strip():
        raise UserError("a path is not blank; leave the flag out, or name a file or folder")
    return str(user_path(given)) if given.startswith("~") or "\0" in given else given


def _configured(choose: Choice, program: str, words: Sequence[str]) -> RunningConfig | None:
    """Parse `--config FILE key=value ...`; None once `--help` or `--print-config` has been served.

    `choose` tells the schema from the file and the settings.
    """
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=_path)
    parser.add_argument("--print-config", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args(list(words))
    schema = choose(options.config, options.settings)
    if options.help:
        print(f"usage: {program} [--config FILE] [--print-config] [key=value ...]\n")
        print("Settings, with their defaults:\n" + help_text(schema), end="")
        if schema is EvalConfig:
            print("\nThose of a segmentation network: --help task=segmentation")
        if schema is SearchConfig:
            print("\nThose of a search in a table of accuracies: --help task=benchmark")
        return None
    config = load_config(schema, options.config, options.settings)
    if options.print_config:
        print(to_yaml(config), end="")
        return None
    return config


def _search(words: Sequence[str]) -> None:
    config = _configured(search_schema, "nge search", words)
    if isinstance(config, BenchmarkConfig):
        from nge_search.strategies.run import run_benchmark

        summary = run_benchmark(config)
        with _summarised(config):
            _say(_benchmark_lines(config, summary))
    elif isinstance(config, SearchConfig):
        from nge_search.gradient.run import run_search

        summary = run_search(config)
        with _summarised(config):
            _say(_search_lines(config, summary))


@contextlib.contextmanager
def _summarised(config: RunningConfig) -> Iterator[None]:
    """A finished run's summary.json may hold anything: what cannot be told of it becomes one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        path = Path(config.run.dir) / "summary.json"
        raise UserError(
            f"{path} is damaged ({shorten(error)}); delete it to go on from the last checkpoint"
        ) from None


def _benchmark_lines(config: BenchmarkConfig, summary: dict[str, Any]) -> list[str]:
    judged = f", {summary['score_column']} {summary['score']:.2f} %" if config.benchmark.score else ""
    cost = summary["simulated_seconds"]
    saved = f"; training them would have taken {cost / 3600:.1f} h" if cost else ""
    settled = f"; it settled before its {config.strategy.queries}" * (summary["queries"] < config.strategy.queries)
    return [
        summary["architecture"],
        f"{config.benchmark.signal} {summary['signal']:.2f} %{judged} "
        f"(the best in the table {summary['best']:.2f} %) after {summary['queries']} queries{settled}, "
        f"{summary['seconds']:.1f} s{saved}",
        f"report {Path(config.run.dir) / 'report.html'}",
    ]


def _search_lines(config: SearchConfig, summary: dict[str, Any]) -> list[str]:
    folder = Path(config.run.dir)
    genotype = summary["genotype"]
    if genotype["space"] == SPACE:
        kinds = ("normal", "reduce")
        cells = [f"{kind}: " + ", ".join(f"{op}({node})" for op, node in genotype[kind]) for kind in kinds]
        after = f"retrain it: {retrain_command(folder, dataclasses.asdict(config.data))}"
    else:
        cells = [genotype["architecture"]]
        after = f"look it up: nge table TABLE --find {folder}"
    return [
        *cells,
        f"validation top-1 {summary['valid_top1']:.2f} % after {_epochs(summary)}, "
        f"{summary['seconds']:.0f} s, {summary['images_per_second']:.1f} images/s, "
        f"peak memory {summary['peak_memory_mb']:.0f} MB on {summary['device']}",
        f"genotype {folder / 'genotype.json'}, report {folder / 'report.html'}",
        after,
    ]


def _eval(words: Sequence[str]) -> None:
    config = _configured(training_schema, "nge eval", words)
    if not isinstance(config, (EvalConfig, SegmentationConfig)):
        return
    from nge_search.api import evaluate

    summary = evaluate(config)
    with _summarised(config):
        _say(_training_lines(config, summary))


def _training_lines(config: EvalConfig | SegmentationConfig, summary: dict[str, Any]) -> list[str]:
    if isinstance(config, SegmentationConfig):
        found, best = _segmentation_found(summary), summary["best_miou"]
    else:
        top5 = f" (top-5 {summary['top5_error']:.2f} %)" if "top5_error" in summary else ""
        found = f"error {summary['top1_error']:.2f} %{top5}"
        best = summary["best_top1_error"]
    return [
        f"test {found} after {_epochs(summary)}, 1 seed{_best(best, summary)}, "
        f"{summary['params']:,} parameters, "
        f"{summary['macs'] / 1e6:.2f}M mult-adds, {summary['seconds']:.0f} s",
        f"report {Path(config.run.dir) / 'report.html'}",
    ]


def _segmentation_found(summary: dict[str, Any]) -> str:
    if summary["miou"] is None:
        return "mIoU unknown (no validation pixel counts)"
    return f"mIoU {summary['miou']:.2f} % (pixel accuracy {summary['pixel_accuracy']:.2f} %)"


def _best(best: float | None, summary: dict[str, Any]) -> str:
    return "" if best is None else f" (best {best:.2f} % after epoch {summary['best_epoch']})"


def _epochs(summary: dict[str, Any]) -> str:
    return f"{summary['epochs']} epoch{'' if summary['epochs'] == 1 else 's'}"


def _derive(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge derive", description="The genotype that a search stands for after an epoch.")
    parser.add_argument("run", type=_path, help="run folder of a search")
    parser.add_argument("--epoch", type=int, help="epoch, from 1; default: the last")
    parser.add_argument("--out", type=_path, help="file to write; default: print")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")
    options = parser.parse_args(words)
    from nge_search.api import derive
    from nge_search.files import write_atomic

    if options.out and not options.overwrite and os.path.lexists(options.out):
        raise UserError(f"'{options.out}' is there already; choose another file, or add --overwrite")
    found = derive(options.run, options.epoch)
    text = json.dumps(found, indent=2) + "\n" if isinstance(found, dict) else found.to_json()
    if options.out:
        write_atomic(Path(options.out), text)
    else:
        print(text, end="")


def _show(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge show", description="An architecture's cells and the size of the network they form.")
    parser.add_argument("genotype", type=_path, help="published name, notation, JSON file or run folder")
    parser.add_argument("--network", choices=NETWORKS, help="network to stack (cifar, or the benchmark's own)")
    for name, meaning in (
        ("channels", "channels C of the first cell"),
        ("cells", "number of cells"),
        ("classes", "number of classes"),
        ("image-size", "side of the images in pixels"),
    ):
        parser.add_argument(f"--{name}", type=int, help=f"{meaning}; default: of the published network")
    parser.add_argument("--draw", type=_path, metavar="FOLDER", help="also write drawings of the cells there")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args(words)
    sizes = {name: getattr(options, name) for name in ("channels", "cells", "classes", "image_size")}
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= 4096:
            raise UserError(f"--{name.replace('_', '-')}={size}: must be between 1 and 4096")
    from nge_search.deploy.show import describe_network

    lines, document = describe_network(options.genotype, options.network, **sizes)
    if options.draw:
        from nge_search.architecture.load import load_architecture
        from nge_search.report import save_drawings

        cells = load_architecture(options.genotype).graphs
        lines += [f"drew {path}" for path in save_drawings(cells, options.draw)]
    if options.json:
        lines = json.dumps(document, indent=2).splitlines()
    show(*lines)


def _export(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge export", description="A retraining's network, for timm, ONNX and torch.export.")
    parser.add_argument("run", type=_path, help="run folder of a retraining, finished or not")
    parser.add_argument("--out", type=_path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        help="timm (always written), onnx, torch, or all; may be given several times",
    )
    parser.add_argument("--weights", default="last", help="last, or ema for the averaged weights (last)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export; other files in FOLDER are kept"
    )
    options = parser.parse_args(words)
    from nge_search.deploy.export import FORMATS, export_run
    from nge_search.deploy.export_folder import FILES

    formats = tuple(FORMATS) if "all" in options.format else tuple(options.format)
    out = export_run(
        options.run, options.out, formats=formats, weights=options.weights, overwrite=options.overwrite, say=show
    )
    wrote = [path.name for path in sorted(out.iterdir()) if path.name in FILES]
    show(f"wrote {', '.join(wrote)} in {out}; README.md says how to load it")


def _classify(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge classify", description="What images show, by an exported network.")
    parser.add_argument("model", type=_path, help="folder that nge export wrote")
    parser.add_argument("images", type=_path, nargs="+", help="image files, or folders that are searched for them")
    parser.add_argument("--top", type=int, default=1, help="how many classes to print per image (1)")
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    parser.add_argument("--batch", type=int, default=64, help="images per batch (64)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")
    options = parser.parse_args(words)
    for name in ("top", "batch"):
        if not 1 <= getattr(options, name) <= 1 << 20:
            raise UserError(f"--{name}={getattr(options, name)}: must be between 1 and {1 << 20}")
    from nge_search.deploy.classify import classify

    unread: list[UserError] = []
    given = {name: getattr(options, name) for name in ("top", "batch", "device")}
    for image in classify(options.model, options.images, **given):
        if image.error:
            unread.append(image.error)
        elif options.json:
            best = [{"class": name, "probability": probability} for name, probability in image.classes]
            print(json.dumps({"image": image.path, "classes": best}), flush=True)
        else:
            best = ", ".join(f"{name} {probability:.4f}" for name, probability in image.classes)
            show(f"{image.path}: {best}")
    _fail_all(unread)


def _segment(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge segment", description="The class of every pixel of images, as palette PNGs.")
    parser.add_argument("run", type=_path, help="run folder of a segmentation")
    parser.add_argument("images", type=_path, nargs="+", help="image files, or folders that are searched for them")
    parser.add_argument(
        "--out",
        type=_path,
        required=True,
        metavar="FOLDER",
        help="folder to write NAME.png into, for each image",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace PNGs that are there")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")
    options = parser.parse_args(words)
    from nge_search.deploy.segment import segment

    unread: list[UserError] = []
    more = {"overwrite": options.overwrite, "device": options.device}
    for image in segment(options.run, options.images, options.out, **more):
        if image.error:
            unread.append(image.error)
        else:
            shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in image.shares)
            show(f"{image.path}: {image.mask} ({shares})")
    _fail_all(unread)


def _fail_all(errors: Sequence[UserError]) -> None:
    """Report all of them; the last one ends the command."""
    for error in errors[:-1]:
        _fail(error)
    if errors:
        raise errors[-1]


def _table(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge table", description="A table of architectures with their accuracies.")
    parser.add_argument("table", type=_path, help="file of a benchmark, or a folder that --out wrote")
    parser.add_argument(
        "--out", type=_path, metavar="FOLDER", help="folder to write the table into, to be opened at once"
    )
    parser.add_argument(
        "--find",
        type=_path,
        metavar="ARCHITECTURE",
        help="print what is known of an architecture, as JSON: its notation, its JSON file, or a run folder",
    )
    options = parser.parse_args(words)
    from nge_search.tables import open_table

    table = open_table(options.table)
    if options.out:
        show(f"wrote {table.save(options.out)}", file=sys.stdout if options.find is None else sys.stderr)
    if options.find is not None:
        code = table.space.find(options.find)
        document = table.space.to_dict(code) | {"figures": table.figures(table.find(code))}
        print(json.dumps(document, indent=2))
    else:
        show(*table.describe())


def _report(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge report", description="Write a run's report.html anew; works while it runs, too.")
    parser.add_argument("run", type=_path, help="run folder")
    options = parser.parse_args(words)
    from nge_search.report import write_report

    show(str(write_report(options.run)))


def _bench(words: Sequence[str]) -> None:
    from nge_search.bench import main as bench

    bench(words, _Parser)


def _doctor(words: Sequence[str]) -> None:
    parser = _Parser(prog="nge doctor", description="What this machine can do, and what is missing.")
    parser.add_argument("--root", type=_path, default="data", help="folder to look for datasets in (data)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args(words)
    from nge_search.doctor import examine, lines

    findings = examine(options.root)
    show(*(json.dumps(findings, indent=2).splitlines() if options.json else lines(findings)))


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "search": (_search, "search for a cell (train_search.py)"),
    "eval": (_eval, "train a derived network and report its test error (train_eval.py)"),
    "derive": (_derive, "print the genotype of a search, at any epoch"),
    "show": (_show, "an architecture's cells, parameters and mult-adds"),
    "export": (_export, "a trained network for timm, ONNX and torch.export"),
    "classify": (_classify, "what images show, by an exported network"),
    "segment": (_segment, "the class of every pixel of images, by a segmentation run"),
    "bench": (_bench, "measure this machine against a baseline"),
    "table": (_table, "a benchmark's accuracies: convert, describe, look up"),
    "report": (_report, "write a run's report.html"),
    "doctor": (_doctor, "say what this machine can do"),
}


def _say(lines: list[str]) -> None:
    """Print a result in one of the processes of a run."""
    if read_launch(os.environ).rank == 0:
        show(*lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 1 for a failed run, 128 + n for signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    escape_what_cannot_be_shown()
    try:
        if not words or words[0] in ("-h", "--help"):
            print("usage: nge COMMAND ...\n")
            print("\n".join(f"  {name:8} {meaning}" for name, (_, meaning) in COMMANDS.items()))
            return 0
        if words[0] not in COMMANDS:
            hint = nearest(words[0], COMMANDS)
            raise UserError(f"unknown command '{plain(words[0])}'{hint}; see `nge --help`")
        COMMANDS[words[0]][0](words[1:])
        return 0
    except UserError as error:
        return _fail(error)
    except RecursionError:
        return _fail(UserError("the input is nested too deeply"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet
        return 0
    except OSError as error:
        known = from_os_error(error)
        if known is None:
            raise
        return _fail(known)
    except KeyboardInterrupt:
        return 130
    except Interrupted as stopped:
        return stopped.exit_code


def _fail(error: UserError) -> int:
    """Report on standard error; where all processes of a run fail alike, the first of them does."""
    where = "" if error.rank is None else f"on rank {error.rank}: "

    def report() -> None:
        show(f"error: {where}{error}", file=sys.stderr)

    try:
        launch = read_launch(os.environ)
    except UserError:
        launch = Launch()
    if where or launch.size == 1:
        report()
    else:
        from nge_search.engine.distributed import print_once

        print_once(launch, report, error.shared)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
