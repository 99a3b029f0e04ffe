"""The kinds of runs: all that commands, reports and readers of run folders ask of one stands in its entry here.

Settings, functions and pages are named, and imported when they are used: this module imports nothing of ours.
A new kind of run edits this file and adds its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        name: in summary.json, in checkpoints, in the mark of a run folder, and of the folder below runs/.
        command: the word, or the two words, behind `nge` that start it.
        help: what the command does, in its list; where several kinds share a command, the first one's counts.
        task: the value of the setting `task` that tells it from the other kinds of its command; empty: it has none.
        title: what its settings and its report are headed with.
        settings: "module:class" of its configuration, derived from `RunningConfig`, with the class attributes
            `kind` (the name) and `figures` (keys that a finished summary.json must have), and a setting `task`
            where the command starts several kinds.
        run: "module:function" from the configuration to the content of summary.json, which says its "kind" too; it
            calls `nge_search.engine.session.run`, whose body trains a task or begins by itself.
        closing: "module:function" from the configuration and the summary to the lines that the command prints.
        page: the module whose `figures(run)` and `sections(run)` are its report.
        files: what it writes into its folder besides `FILES`.
        unit: what a row of metrics.jsonl is, one and many, and the setting that says how many there will be.
        given: what its function takes from Python besides settings, by name (`nge_search.engine.given`).
        network: "module:function" from its folder to the network that it has trained; empty where there is none.
        use: what its folder is and is good for; {run} stands for the folder, {retrain} for the line that retrains
            what was found.
        telling: sections of settings that no other kind without a `task` has (run folders from before tasks).
        rows: keys of metrics.jsonl that no other kind has (run folders without settings).
        formerly: names of the kind and of its task in older run folders, checkpoints and config files.
    """

    name: str
    command: str
    help: str
    task: str
    title: str
    settings: str
    run: str
    closing: str
    page: str
    files: tuple[str, ...]
    unit: tuple[str, str, str]
    use: str
    given: tuple[str, ...] = ()
    network: str = ""
    telling: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()


# What the files of run folders are called.
SUMMARY, ENVIRONMENT, METRICS, REPORT = "summary.json", "environment.json", "metrics.jsonl", "report.html"
CONFIG, GENOTYPE, DATASET = "config.yaml", "genotype.json", "dataset.json"
EVALUATION, SEGMENTATION = "evaluation.json", "segmentation.json"
PREDICTOR, PREDICTOR_TENSORS, PREDICTION = "predictor.json", "predictor.safetensors", "predict.json"
LINKS, LINKS_TENSORS, DRAWN = "links.json", "links.safetensors", "drawn.json"
CORPUS, RETRIEVAL_ENCODER, RETRIEVAL_INDEX = "corpus.nge", "encoder.safetensors", "index.safetensors"
RETRIEVAL = "retrieve.json"
#: Marks a folder as that of a run.
MARK = ".nge-run"
#: Of a short training that died: why.
FAILED = "failed.json"

#: What runs of every kind write, besides what is in `Kind.files`; summary.json is written last.
FILES = (SUMMARY, ENVIRONMENT, METRICS, REPORT, CONFIG)

#: Cells that were drawn link by link, one file each, in the order of their draws.
DRAWN_CELLS = tuple(f"cell_{number}.json" for number in range(1, 101))
#: All of them as a picture.
DRAWN_SHEET = ("cells.svg", "cells.png")

_DRAWINGS = tuple(f"genotype{kind}.{suffix}" for kind in ("", "_normal", "_reduce") for suffix in ("svg", "png"))

KINDS = (
    Kind(
        name="search",
        command="search",
        help="search for a cell, in a supernet or in a table of accuracies (train_search.py)",
        task="supernet",
        title="Architecture search",
        settings="nge_search.settings.search:SearchConfig",
        run="nge_search.gradient.run:run_search",
        closing="nge_search.gradient.run:closing_lines",
        page="nge_search.report.pages.search",
        files=(GENOTYPE, DATASET, *_DRAWINGS),
        unit=("epoch", "epochs", "search.epochs"),
        use="a search; train what it found: {retrain}",
        given=("on_epoch", "dataset"),
        telling=("search",),
        rows=("p_normal", "p_cell", "architecture_loss", "entropy_normal", "embedding_learning_rate"),
    ),
    Kind(
        name="queries",
        command="search",
        help="",
        task="queries",
        title="Search by queries",
        settings="nge_search.settings.strategies:QueriesConfig",
        run="nge_search.strategies.run:run_queries",
        closing="nge_search.strategies.run:closing_lines",
        page="nge_search.report.pages.queries",
        files=(GENOTYPE, DATASET, *_DRAWINGS),
        unit=("query", "queries", "strategy.queries"),
        use="a search in a table, or by short trainings; look up what it found: nge table TABLE --find {run}",
        rows=("best_signal",),
        formerly=("benchmark",),
    ),
    Kind(
        name="eval",
        command="eval",
        help="train a derived network, to classify or to segment, and test it (train_eval.py)",
        task="classification",
        title="Retraining",
        settings="nge_search.settings.classification:EvalConfig",
        run="nge_search.training.run:run_eval",
        closing="nge_search.training.run:closing_lines",
        page="nge_search.report.pages.classification",
        files=(GENOTYPE, DATASET, EVALUATION),
        unit=("epoch", "epochs", "train.epochs"),
        use="a retraining; export it: nge export {run} --out FOLDER, then: nge classify FOLDER IMAGES",
        given=("on_epoch", "dataset", "network"),
        network="nge_search.deploy.export:trained_network",
        telling=("network", "train"),
        rows=("test_top1", "drop_path"),
    ),
    Kind(
        name="segmentation",
        command="eval",
        help="",
        task="segmentation",
        title="Semantic segmentation",
        settings="nge_search.settings.segmentation:SegmentationConfig",
        run="nge_search.training.segmentation_run:run_segmentation",
        closing="nge_search.training.segmentation_run:closing_lines",
        page="nge_search.report.pages.segmentation",
        files=(GENOTYPE, DATASET, SEGMENTATION),
        unit=("epoch", "epochs", "train.epochs"),
        use="a segmentation; use it as it is: nge segment {run} IMAGES --out FOLDER",
        given=("on_epoch",),
        network="nge_search.deploy.segmenter:trained_network",
        rows=("train_pixel_accuracy", "test_miou"),
        formerly=("voc",),
    ),
    Kind(
        name="trial",
        command="eval",
        help="",
        task="trial",
        title="Short training",
        settings="nge_search.settings.trial:TrialConfig",
        run="nge_search.training.trial_run:run_trial",
        closing="nge_search.training.trial_run:closing_lines",
        page="nge_search.report.pages.trial",
        files=(GENOTYPE, DATASET, FAILED),
        unit=("step", "steps", "evaluator.steps"),
        use="a short training; repeat it: nge eval --config {run}/config.yaml run.dir=ELSEWHERE",
    ),
    Kind(
        name="predict",
        command="predict train",
        help="train what predicts accuracies, from architectures that have one",
        task="",
        title="Predictor",
        settings="nge_search.settings.predict:PredictConfig",
        run="nge_search.predict.train_run:run_train",
        closing="nge_search.predict.train_run:closing_lines",
        page="nge_search.report.pages.predict",
        files=(PREDICTOR, PREDICTOR_TENSORS, PREDICTION),
        unit=("fold", "folds", "predict.folds"),
        use="a predictor; score architectures by it: nge predict score {run} ARCHITECTURES.csv",
    ),
    Kind(
        name="predict_bench",
        command="predict bench",
        help="compare predictors by how well they rank what they have not seen",
        task="",
        title="Predictors compared",
        settings="nge_search.settings.predict:PredictBenchConfig",
        run="nge_search.predict.bench_run:run_bench",
        closing="nge_search.predict.bench_run:closing_lines",
        page="nge_search.report.pages.predict_bench",
        files=(),
        unit=("trial", "trials", "bench.seeds"),
        use="a comparison of predictors; print it: nge predict bench --config {run}/config.yaml",
    ),
    Kind(
        name="design",
        command="design train",
        help="learn from good and bad cells which links help, and draw new cells",
        task="",
        title="Cells drawn link by link",
        settings="nge_search.settings.design:DesignConfig",
        run="nge_search.design.train_run:run_train",
        closing="nge_search.design.train_run:closing_lines",
        page="nge_search.report.pages.design",
        files=(LINKS, LINKS_TENSORS, DRAWN, *DRAWN_CELLS, *DRAWN_SHEET),
        unit=("epoch", "epochs", "design.epochs"),
        use="a link model; draw cells by it: nge design draw {run} -n 10 --out FOLDER",
    ),
    Kind(
        name="design_bench",
        command="design bench",
        help="measure drawn cells in a table, against controls",
        task="",
        title="Drawn cells measured",
        settings="nge_search.settings.design:DesignBenchConfig",
        run="nge_search.design.bench_run:run_bench",
        closing="nge_search.design.bench_run:closing_lines",
        page="nge_search.report.pages.design_bench",
        files=(),
        unit=("trial", "trials", "bench.seeds"),
        use="drawn cells, measured; print it: nge design bench --config {run}/config.yaml",
    ),
    Kind(
        name="retrieve_build",
        command="retrieve build",
        help="turn the networks of installed libraries into a corpus of graphs",
        task="",
        title="Corpus of networks",
        settings="nge_search.settings.retrieve:RetrieveBuildConfig",
        run="nge_search.retrieve.build_run:run_build",
        closing="nge_search.retrieve.build_run:closing_lines",
        page="nge_search.report.pages.retrieve_build",
        files=(CORPUS,),
        unit=("library", "libraries", "build.libraries"),
        use="a corpus of networks; train an encoder on it: nge retrieve train corpus.file={run}",
    ),
    Kind(
        name="retrieve",
        command="retrieve train",
        help="fit what tells which networks are alike, and index a corpus by it",
        task="",
        title="Retrieval of networks",
        settings="nge_search.settings.retrieve:RetrieveConfig",
        run="nge_search.retrieve.train_run:run_train",
        closing="nge_search.retrieve.train_run:closing_lines",
        page="nge_search.report.pages.retrieve",
        files=(CORPUS, RETRIEVAL_ENCODER, RETRIEVAL_INDEX, RETRIEVAL),
        unit=("epoch", "epochs", "encoder.epochs"),
        use="an index of networks; ask it: nge retrieve query NETWORK --catalogue {run}",
    ),
    Kind(
        name="retrieve_bench",
        command="retrieve bench",
        help="compare encoders of networks by questions whose answers are known",
        task="",
        title="Encoders of networks compared",
        settings="nge_search.settings.retrieve:RetrieveBenchConfig",
        run="nge_search.retrieve.bench_run:run_bench",
        closing="nge_search.retrieve.bench_run:closing_lines",
        page="nge_search.report.pages.retrieve_bench",
        files=(),
        unit=("trial", "trials", "bench.seeds"),
        use="a comparison of encoders; print it: nge retrieve bench --config {run}/config.yaml",
    ),
)


def find(name: Any) -> Kind | None:
    """The kind of this name, or of this former name; None if there is none."""
    return next((kind for kind in KINDS if name == kind.name or name in kind.formerly), None)


def of_command(command: str) -> tuple[Kind, ...]:
    """The kinds that a command starts; the first one is meant where no task is named."""
    return tuple(kind for kind in KINDS if kind.command == command)


def commands() -> dict[str, str]:
    """The commands that start runs, and what they do."""
    return {kind.command: kind.help for kind in KINDS if kind.help}


def current_name(name: Any) -> Any:
    """What a kind is called today; what is none stays as it is."""
    known = find(name)
    return name if known is None else known.name


def current_task(task: Any) -> Any:
    """What a task is called today; what is none stays as it is."""
    known = find(task)
    return known.task if known is not None and task in known.formerly else task


def of_settings(config: Mapping[str, Any]) -> Kind | None:
    """The kind of run that settings are of, told from their task, else from sections that are of one kind alone."""
    task = config.get("task")
    if isinstance(task, str):
        return next((kind for kind in KINDS if kind.task and current_task(task) == kind.task), None)
    told = [kind for kind in KINDS if any(section in config for section in kind.telling)]
    return told[0] if len(told) == 1 else None


def of_rows(keys: Collection[str]) -> Kind | None:
    """The kind of run that rows with these keys are of."""
    return next((kind for kind in KINDS if any(key in keys for key in kind.rows)), None)


def own_files() -> tuple[str, ...]:
    """Every file that runs of any kind write, each once, summary.json first and config.yaml last."""
    names = dict.fromkeys([*FILES[:-1], *(name for kind in KINDS for name in kind.files), FILES[-1]])
    return tuple(names)
