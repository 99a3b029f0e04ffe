"""The `nge` command: a word, or two, per task; the same code as the launchers."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nge_search import kinds, operation_registry
from nge_search.commands.design import draw as design_draw
from nge_search.commands.export import export
from nge_search.commands.parser import TRUST_CODE, Parser, given_path, require_free, without_plugins
from nge_search.commands.predict import score as predict_score
from nge_search.commands.retrieve import add as retrieve_add
from nge_search.commands.retrieve import query as retrieve_query
from nge_search.commands.testing import test
from nge_search.console import escape_what_cannot_be_shown, show
from nge_search.engine.interrupt import Interrupted
from nge_search.engine.launch import Launch, busy_threads, read_launch, waiting
from nge_search.engine.run_reader import require_said
from nge_search.errors import UserError, from_os_error, nearest, plain, shorten
from nge_search.kinds import Kind
from nge_search.registry import resolve
from nge_search.settings.load import help_text, import_named_plugins, kind_for, load_config, schema_of, to_yaml
from nge_search.settings.names import NETWORKS
from nge_search.settings.run import DEVICE_HELP, DEVICES, RunningConfig

if TYPE_CHECKING:
    import torch


def _configured(command: str, words: Sequence[str]) -> tuple[Kind, RunningConfig, bool] | None:
    """Parse `--config FILE --json key=value ...`; None once `--help` or `--print-config` has been served."""
    program = f"nge {command}"
    parser = Parser(prog=program, add_help=False, allow_abbrev=False, epilog="")
    parser.add_argument(
        "--config",
        type=given_path,
        metavar="FILE",
        help="YAML file with settings in sections, or the name of one that ships: `nge configs`",
    )
    parser.add_argument("--print-config", action="store_true", help="print the merged settings, and start nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, as summary.json has it")
    parser.add_argument("-h", "--help", action="store_true", help="print this list, and start nothing")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="settings, which override those of FILE",
    )
    options = parser.parse_intermixed_args(list(words))
    kind = kind_for(command, options.config, options.settings)
    if options.help:
        print(parser.format_help())
        print(f"{kind.title}: settings, with their defaults:\n" + help_text(schema_of(kind)), end="")
        for other in kinds.of_command(command):
            if other is not kind:
                print(f"\n{other.title}: --help task={other.task}")
        return None
    import_named_plugins(options.config, options.settings, command)
    config = load_config(schema_of(kind), options.config, options.settings)
    if options.print_config:
        print(to_yaml(config), end="")
        return None
    require_said(config, options.settings)
    return kind, config, options.json


def _start(command: str, words: Sequence[str]) -> None:
    """Start a run of a kind that the command has, and print what it came to."""
    configured = _configured(command, words)
    if configured is None:
        return
    kind, config, as_json = configured
    if as_json:
        config.run.progress = "none"  # standard output is for the result alone
    summary = resolve(kind.run)(config)
    with _summarised(config):
        _say(json.dumps(summary, indent=2).splitlines() if as_json else resolve(kind.closing)(config, summary))


@contextlib.contextmanager
def _summarised(config: RunningConfig) -> Iterator[None]:
    """A finished run's summary.json may hold anything: what cannot be told of it becomes one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        path = Path(config.run.dir) / kinds.SUMMARY
        raise UserError(
            f"{path} is damaged ({shorten(error)}); delete it to go on from the last checkpoint"
        ) from None


def _derive(words: Sequence[str]) -> None:
    parser = Parser(
        prog="nge derive",
        description="The genotype that a search stands for after an epoch, or that a file holds as another program "
        "writes it, and what it is expected to reach.",
    )
    parser.add_argument("run", type=given_path, nargs="?", help="run folder of a search")
    parser.add_argument(
        "--from",
        dest="source",
        type=given_path,
        metavar="FILE",
        help="instead of a run: text as DARTS prints it, the same as JSON, or the dictionary that NNI exports",
    )
    parser.add_argument("--epoch", type=int, help="epoch of the search, from 1 (its last)")
    parser.add_argument("--out", type=given_path, help="file to write, instead of printing")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")
    options = parser.parse_args(words)
    if (options.run is None) == (options.source is None):
        raise UserError("give the run folder of a search, or --from FILE; see `nge derive --help`")
    if options.source is not None and options.epoch is not None:
        raise UserError("--epoch is of a search; leave it out with --from")
    from nge_search.api import derive
    from nge_search.architecture.genotype import Genotype
    from nge_search.architecture.load import load_architecture
    from nge_search.files import write_atomic
    from nge_search.predict.shipped import expected

    require_free([options.out] if options.out else [], options.overwrite)
    if options.source is None:
        found = derive(options.run, options.epoch)
    else:
        architecture = load_architecture(options.source)
        found = architecture.genotype or architecture.document
    text = found.to_json() if isinstance(found, Genotype) else json.dumps(found, indent=2) + "\n"
    if options.out:
        write_atomic(Path(options.out), text)
        show(f"genotype: {options.out}")
    else:
        print(text, end="")
    expectation = expected(found) if isinstance(found, Genotype) else None
    if expectation is not None:
        show(*expectation.lines(), file=sys.stdout if options.out else sys.stderr)


def _show(words: Sequence[str]) -> None:
    parser = Parser(prog="nge show", description="An architecture's cells and the size of the network they form.")
    parser.add_argument(
        "genotype", type=given_path, help="architecture: published name, notation, file or run folder"
    )
    parser.add_argument(
        "--network",
        choices=NETWORKS,
        help="network that the cells are stacked into (cifar, or the benchmark's own)",
    )
    for name, meaning in (
        ("channels", "number of channels C of the first cell"),
        ("cells", "number of cells in the network"),
        ("classes", "number of classes told apart"),
        ("image-size", "side of the images in pixels"),
    ):
        parser.add_argument(f"--{name}", type=int, help=f"{meaning} (that of the published network)")
    parser.add_argument("--image-channels", type=int, default=3, help="number of the images' channels (3)")
    for name, meaning, number in (("macs", "mult-adds per image", "600M"), ("params", "parameters", "3.3M")):
        parser.add_argument(
            f"--target-{name}",
            metavar="NUMBER",
            help=f"number of {meaning}, such as {number}, that chooses the channels",
        )
    parser.add_argument("--latency", action="store_true", help="measure the network's latency on this device")
    parser.add_argument("--batch", type=int, default=1, help="number of images that --latency passes at once (1)")
    parser.add_argument("--threads", type=int, help="number of the CPU's threads for --latency (as torch chooses)")
    parser.add_argument("--device", choices=DEVICES, help=f"for --latency, {DEVICE_HELP}")
    parser.add_argument(
        "--draw", type=given_path, metavar="FOLDER", help="folder to write drawings of the cells into"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(words)
    sizes = {name: getattr(options, name) for name in ("channels", "cells", "classes", "image_size")}
    sizes["image_channels"] = options.image_channels
    for name, size in (sizes | {"batch": options.batch, "threads": options.threads}).items():
        if size is not None and not 1 <= size <= 4096:
            raise UserError(f"--{name.replace('_', '-')}={size}: must be between 1 and 4096")
    from nge_search.deploy.show import describe_network
    from nge_search.settings.amounts import read_target

    target = read_target(options.target_macs, options.target_params, "--target-")
    if target is not None and options.channels is not None:
        raise UserError(f"--channels={options.channels}: --target-{target[0]} chooses them; leave one of both out")
    lines, document = describe_network(
        options.genotype, options.network, **sizes, target=target, latency=_latency(options)
    )
    if options.draw:
        from nge_search.architecture.load import load_architecture
        from nge_search.report import save_drawings

        cells = load_architecture(options.genotype).graphs
        lines += [f"drew {path}" for path in save_drawings(cells, options.draw)]
    if options.json:
        lines = json.dumps(document, indent=2).splitlines()
    show(*lines)


def _latency(options: argparse.Namespace) -> tuple[torch.device, int] | None:
    """The device on which --latency measures, and the images at once; None where it is not asked for."""
    if not options.latency:
        if options.batch != 1 or options.threads is not None or options.device is not None:
            raise UserError("--batch, --threads and --device are of --latency; add it")
        return None
    import torch

    from nge_search.engine.distributed import choose_device

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return choose_device(options.device or "auto"), options.batch


def _classify(words: Sequence[str]) -> None:
    parser = Parser(prog="nge classify", description="What images show, by an exported network.")
    parser.add_argument("model", type=given_path, help="folder that nge export wrote")
    parser.add_argument(
        "images", type=given_path, nargs="+", help="image files, or folders that are searched for them"
    )
    parser.add_argument("--top", type=int, default=1, help="number of classes to print per image (1)")
    parser.add_argument("--json", action="store_true", help="print a JSON object per image")
    parser.add_argument("--batch", type=int, default=64, help="number of images per batch (64)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
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
            found = ", ".join(f"{name} {probability:.4f}" for name, probability in image.classes)
            show(f"{image.path}: {found}")
    _fail_all(unread)


def _segment(words: Sequence[str]) -> None:
    parser = Parser(prog="nge segment", description="The class of every pixel of images, as palette PNGs.")
    parser.add_argument("run", type=given_path, help="run folder of a segmentation, or its export")
    parser.add_argument(
        "images", type=given_path, nargs="+", help="image files, or folders that are searched for them"
    )
    parser.add_argument(
        "--out",
        type=given_path,
        required=True,
        metavar="FOLDER",
        help="folder to write NAME.png into, for each image",
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="write NAME_overlay.png besides: the image, half covered by the colours of its classes but the first",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace PNGs that FOLDER holds already")
    parser.add_argument("--device", choices=DEVICES, default="auto", help=DEVICE_HELP)
    options = parser.parse_args(words)
    from nge_search.deploy.segment import segment

    unread: list[UserError] = []
    more = {name: getattr(options, name) for name in ("overlay", "overwrite", "device")}
    for image in segment(options.run, options.images, options.out, **more):
        if image.error:
            unread.append(image.error)
        else:
            shares = ", ".join(f"{name} ({colour}) {100 * share:.1f} %" for name, share, colour in image.shares)
            wrote = " and ".join(str(path) for path in (image.mask, image.overlay) if path)
            show(f"{image.path}: {wrote} ({shares})")
    _fail_all(unread)


def _fail_all(errors: Sequence[UserError]) -> None:
    """Report all of them; the last one ends the command."""
    for error in errors[:-1]:
        _fail(error)
    if errors:
        raise errors[-1]


def _table(words: Sequence[str]) -> None:
    parser = Parser(prog="nge table", description="A table of architectures with their accuracies.")
    parser.add_argument("table", type=given_path, help="file of a benchmark, or a folder that --out wrote")
    parser.add_argument(
        "--out", type=given_path, metavar="FOLDER", help="folder to write the table into, to be opened at once"
    )
    parser.add_argument(
        "--find",
        type=given_path,
        metavar="ARCHITECTURE",
        help="print what is known of an architecture, as JSON: its notation, its file, or a run folder",
    )
    options = parser.parse_args(words)
    from nge_search.architecture.load import load_architecture
    from nge_search.tables import open_table

    table = open_table(options.table)
    if options.out:
        show(f"wrote {table.save(options.out)}", file=sys.stdout if options.find is None else sys.stderr)
    if options.find is not None:
        code = table.space.code_of(load_architecture(options.find))
        document = table.space.to_dict(code) | {"figures": table.figures(table.find(code))}
        print(json.dumps(document, indent=2))
    else:
        show(*table.describe())


def _report(words: Sequence[str]) -> None:
    parser = Parser(prog="nge report", description="Write a run's report.html anew; works while it runs, too.")
    parser.add_argument("run", type=given_path, help="run folder, of a run of any kind")
    options = parser.parse_args(words)
    from nge_search.report import write_report

    show(str(write_report(options.run)))


def _configs(words: Sequence[str]) -> None:
    parser = Parser(prog="nge configs", description="The configs that ship, with the time and memory they take.")
    parser.add_argument("group", nargs="?", help="command whose configs to list: search, eval, ... (all)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(words)
    from nge_search.settings.shipped import config_lines, shipped_configs

    found = shipped_configs(options.group)
    if options.json:
        show(*json.dumps([vars(config) | {"path": str(config.path)} for config in found], indent=2).splitlines())
    else:
        show(*config_lines(found))


def _bench(words: Sequence[str]) -> None:
    from nge_search.bench import main as bench

    bench(words, Parser)


def _doctor(words: Sequence[str]) -> None:
    parser = Parser(prog="nge doctor", description="What this machine can do, and what is missing.")
    parser.add_argument(
        "--root", type=given_path, default="data", help="folder in which datasets are looked for (data)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(words)
    from nge_search.doctor import examine, lines

    findings = examine(options.root)
    show(*(json.dumps(findings, indent=2).splitlines() if options.json else lines(findings)))


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    **{name: (functools.partial(_start, name), meaning) for name, meaning in kinds.commands().items()},
    "predict score": (predict_score, "the accuracies of architectures, as a trained predictor expects them"),
    "design draw": (design_draw, "draw cells by a trained link model"),
    "retrieve query": (retrieve_query, "the published networks that are most like one, and why"),
    "retrieve add": (retrieve_add, "networks that later queries find, too"),
    "derive": (_derive, "print the genotype of a search, at any epoch, or of another program's file"),
    "show": (_show, "an architecture's cells, parameters and mult-adds"),
    "test": (test, "a trained network's error on labelled images, by class, and its calibration"),
    "export": (export, "a trained network for timm, ONNX and torch.export"),
    "classify": (_classify, "what images show, by an exported network"),
    "segment": (_segment, "the class of every pixel of images, by a segmentation run or its export"),
    "bench": (_bench, "measure this machine against a baseline"),
    "table": (_table, "a benchmark's accuracies: convert, describe, look up"),
    "configs": (_configs, "the configs that ship, which --config takes by name"),
    "report": (_report, "write a run's report.html"),
    "doctor": (_doctor, "say what this machine can do"),
}


def _say(lines: list[str]) -> None:
    """Print a result in one of the processes of a run."""
    if read_launch(os.environ).rank == 0:
        show(*lines)


def _list(usage: str, names: Collection[str]) -> None:
    """Print what commands do."""
    width = max(map(len, names))
    print(f"usage: nge {usage} ...\n")
    print("\n".join(f"  {name:{width}} {COMMANDS[name][1]}" for name in names))
    print("\n`nge COMMAND --help` lists the flags or settings of a command")


def _named(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The command that words begin with, and those behind it; the first of two words alone where --help follows.

    Raises:
        UserError: no command.
    """
    for count in (2, 1):
        if (name := " ".join(words[:count])) in COMMANDS:
            return name, words[count:]
    second = [name.split()[1] for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if not second:
        hint = nearest(words[0], dict.fromkeys(name.split()[0] for name in COMMANDS))
        raise UserError(f"unknown command '{plain(words[0])}'{hint}; see `nge --help`")
    if words[1:2] in (["-h"], ["--help"]):
        return words[0], words[2:]
    given, hint = "a second word is missing", ""
    if words[1:]:
        given, hint = f"'{plain(words[1])}' is unknown", nearest(words[1], second)
    known = ", ".join(f"nge {words[0]} {word}" for word in second)
    raise UserError(f"nge {words[0]}: {given}; there are {known}{hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 1 for a failed run, 128 + n for signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "torch" not in sys.modules:
        os.environ.update(waiting(os.environ, busy_threads(), os.cpu_count() or 1))
    escape_what_cannot_be_shown()
    try:
        if not words or words[0] in ("-h", "--help"):
            _list("COMMAND", COMMANDS)
            return 0
        name, rest = _named(words)
        operation_registry.trust_files(TRUST_CODE in rest)
        if name not in kinds.commands():
            rest = without_plugins(rest)
        if name in COMMANDS:
            COMMANDS[name][0](rest)
        else:
            _list(f"{name} COMMAND", [known for known in COMMANDS if known.startswith(f"{name} ")])
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
