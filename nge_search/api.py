"""The commands as Python functions: `nge_search.search(...)`, `.evaluate(...)`, `.predict_train(...)` and others.

torch is imported when a function is called, so that `import nge_search` stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nge_search import kinds
from nge_search.architecture.genotype import Genotype
from nge_search.architecture.load import read_architecture
from nge_search.engine.given import OnEpoch, check, settings_of
from nge_search.engine.run_reader import RunReader, require_said
from nge_search.errors import UserError, shorten
from nge_search.kinds import GENOTYPE, METRICS, Kind
from nge_search.registry import resolve
from nge_search.settings.design import MOST_CELLS
from nge_search.settings.load import import_named_plugins, kind_for, load_config, schema_of, to_dict
from nge_search.settings.run import RunningConfig


def run(command: str, config: Any = None, *overrides: str, **given: Any) -> dict[str, Any]:
    """Start a run, as the command (`search`, `predict train`) does; what kind of run it is, `task` tells.

    Args:
        command: the word, or the two words, behind `nge`.
        config: a YAML file, a (nested) mapping of settings, or a configuration; None: the defaults.
        overrides: `key=value` words, as on the command line.
        given: what some kinds of run take besides settings: `on_epoch`, `dataset`, `network`, as `evaluate` says.

    Returns:
        The content of summary.json.

    Raises:
        UserError: settings, data or a run folder that cannot be used, or a finished run to which a file
            or a default alone would add epochs; the message is one line.
    """
    if command not in kinds.commands():
        raise UserError(f"{shorten(command)} starts no run; allowed are {', '.join(kinds.commands())}")
    if any(value is not None for value in given.values()):
        given = check(_kind(command, config, overrides), given)
        overrides = (*overrides, *settings_of(given))
    kind, resolved = configure(command, config, overrides)
    if not isinstance(config, RunningConfig):
        require_said(resolved, [config, *overrides] if isinstance(config, Mapping) else overrides)
    return resolve(kind.run)(resolved, **{name: value for name, value in given.items() if value is not None})


def _kind(command: str, config: Any, overrides: Sequence[str]) -> Kind:
    """The kind of run, before its settings are checked; UserError for no configuration of the command."""
    if isinstance(config, RunningConfig):
        known = next((kind for kind in kinds.of_command(command) if kind.name == config.kind), None)
        if known is not None:
            return known
    if isinstance(config, Mapping):
        return kind_for(command, None, [config, *overrides])
    if config is None or isinstance(config, (str, Path)):
        return kind_for(command, config, overrides)
    names = " or a ".join(kind.settings.rpartition(":")[2] for kind in kinds.of_command(command))
    other = kinds.find(config.kind) if isinstance(config, RunningConfig) else None
    instead = "" if other is None else f", which is one of '{other.command}'"
    raise UserError(f"a configuration is a file, a mapping or a {names}, not {type(config).__name__}{instead}")


def configure(command: str, config: Any, overrides: Sequence[str]) -> tuple[Kind, RunningConfig]:
    """The kind of run, and its checked configuration, from what users hold: nothing, a file, a mapping, or one."""
    own = {"plugins": config.plugins} if isinstance(config, RunningConfig) else config
    layers = [own, *overrides] if isinstance(own, Mapping) else overrides
    import_named_plugins(config if isinstance(config, (str, Path)) else None, layers, command)
    kind = _kind(command, config, overrides)
    if isinstance(config, RunningConfig):
        return kind, load_config(type(config), None, [to_dict(config), *overrides])
    if isinstance(config, Mapping):
        return kind, load_config(schema_of(kind), None, [config, *overrides])
    return kind, load_config(schema_of(kind), config, overrides)


def search(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None,
    *overrides: str,
    on_epoch: OnEpoch | None = None,
    dataset: Any = None,
) -> dict[str, Any]:
    """Search for a cell, as `train_search.py` does; with `task` set to "queries", in a table or by short trainings.

    Arguments, result and errors as for `run` and `evaluate`; a configuration is a `SearchConfig` or a
    `QueriesConfig`, which takes neither `on_epoch` nor `dataset`.
    """
    return run("search", config, *overrides, on_epoch=on_epoch, dataset=dataset)


def evaluate(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None,
    *overrides: str,
    on_epoch: OnEpoch | None = None,
    dataset: Any = None,
    network: Any = None,
) -> dict[str, Any]:
    """Train a derived network and report its test error, as `train_eval.py` does.

    With `task` set to "segmentation" it is DeepLabv3's backbone, and the report is of mIoU; with "trial" it is a
    short training, as searches ask for. Other arguments, result and errors as for `run`; a configuration is an
    `EvalConfig` or a `SegmentationConfig`.

    Args:
        on_epoch: is called with a `Run` after every epoch, once it is saved; of several processes by the first.
            What it draws from random generators changes nothing, nor do gradients and modes of the networks, which
            come in evaluation mode; what it raises ends the run, which can be taken up. `run.stop()` ends it in
            order. A run that had finished before has no epochs.
        dataset: your own images in place of those of `data.name`: an `Images`, or a pair (train, test) of map-style
            datasets of (image, class).
        network: a `torch.nn.Module` from images to logits that is trained, itself, in place of a derived network;
            it takes over the weights of a run that had finished before.
            `dataset` and `network` are for classification (and `dataset` for searches by gradients).
    """
    return run("eval", config, *overrides, on_epoch=on_epoch, dataset=dataset, network=network)


def test(
    model: str | Path,
    *words: str,
    weights: str = "last",  # noqa: PT028 - not pytest's
    dataset: Any = None,  # noqa: PT028
) -> dict[str, Any]:
    """The figures of a trained network on labelled images, as `nge test --json` prints them.

    Args:
        model: run folder of a retraining or of a segmentation, or its export.
        words: `key=value` settings of the images, as "data.root=FOLDER"; none: the run's own test images.
        weights: of a retraining "last", or "ema" for the average of the weights.
        dataset: of a classifier, your own images, as for `evaluate`; those of its second part count.

    Returns:
        "images", and of a classifier "top1_error", "top5_error" and "loss", of a segmentation "miou",
        "pixel_accuracy" and "loss"; "per_class", "confusion" and "calibration". In percent, but for the loss and
        Brier's score.

    Raises:
        UserError: a model, settings or images that cannot be used.
    """
    from nge_search.deploy.testing import measure

    return measure(model, words, weights, dataset=dataset)


def predict_train(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Train what predicts accuracies, as `nge predict train` does.

    Arguments, result and errors as for `run`; a configuration is a `PredictConfig`.
    """
    return run("predict train", config, *overrides)


def predict_bench(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Compare predictors, as `nge predict bench` does.

    Arguments, result and errors as for `run`; a configuration is a `PredictBenchConfig`.
    """
    return run("predict bench", config, *overrides)


def predict_score(predictor: str | Path, architectures: str | Path) -> list[dict[str, Any]]:
    """What a trained predictor expects of architectures, as `nge predict score` writes it.

    Args:
        predictor: the run folder of a predictor.
        architectures: a CSV with the column `architecture`, the run folder of a search, or one architecture.

    Returns:
        For each, in their order, "architecture" and "score", the higher the better; of predictors that say how sure
        they are also "predicted" and the ends of intervals, "low_50", "high_50", "low_90" and "high_90", in
        percent; of the genotypes of a search "epoch", counted from 1.

    Raises:
        UserError: no predictor, no architectures, or such of another space.
    """
    from nge_search.predict.saved import load_predictor
    from nge_search.predict.scoring import score

    return [one.to_dict() for one in score(load_predictor(predictor), architectures)]


def design_train(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Learn from good and bad cells which links help, and draw new cells, as `nge design train` does.

    Arguments, result and errors as for `run`; a configuration is a `DesignConfig`.
    """
    return run("design train", config, *overrides)


def design_bench(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Measure drawn cells in a table, as `nge design bench` does.

    Arguments, result and errors as for `run`; a configuration is a `DesignBenchConfig`.
    """
    return run("design bench", config, *overrides)


def design_draw(links: str | Path, cells: int = 10, seed: int = 0, space: str = "") -> list[dict[str, Any]]:
    """Cells drawn by trained link models, as `nge design draw` writes them.

    Args:
        links: the run folder of link models.
        cells: how many different ones.
        seed: of the draws.
        space: the name of the space of the cells; empty: as the models were trained for.

    Returns:
        For each its JSON object.

    Raises:
        UserError: no link models, ones that cannot draw cells of that space, or not as many different cells.
    """
    from nge_search.design.drawing import draw
    from nge_search.design.saved import load_links

    if type(cells) is not int or not 1 <= cells <= MOST_CELLS:
        raise UserError(f"{cells!r} cells: must be a number between 1 and {MOST_CELLS}")
    return draw(load_links(links, space), cells, seed).to_list()


def retrieve_build(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Turn the networks of installed libraries into a corpus of graphs, as `nge retrieve build` does.

    Arguments, result and errors as for `run`; a configuration is a `RetrieveBuildConfig`.
    """
    return run("retrieve build", config, *overrides)


def retrieve_train(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Fit an encoder of networks to a corpus and index it, as `nge retrieve train` does.

    Arguments, result and errors as for `run`; a configuration is a `RetrieveConfig`.
    """
    return run("retrieve train", config, *overrides)


def retrieve_bench(
    config: RunningConfig | Mapping[str, Any] | str | Path | None = None, *overrides: str
) -> dict[str, Any]:
    """Compare encoders of networks, as `nge retrieve bench` does.

    Arguments, result and errors as for `run`; a configuration is a `RetrieveBenchConfig`.
    """
    return run("retrieve bench", config, *overrides)


def retrieve_query(
    network: Any, top: int = 10, task: str = "", catalogue: str | Path | None = None, inputs: Any = None
) -> dict[str, Any]:
    """The known networks that are most like one, as `nge retrieve query --json` prints them.

    Args:
        network: a `torch.nn.Module`, or what names a network: of the corpus, "LIBRARY:NAME", an architecture.
        top: number of networks.
        task: that they are made for; empty: any.
        catalogue: a folder of `nge retrieve train` or `add`; None: what ships.
        inputs: `nge_search.retrieve.extraction.Inputs` that a module is called with; None: images.

    Raises:
        UserError: nothing that it names, or a network that cannot be traced.
    """
    from nge_search.retrieve.asked_network import asked_module, asked_network
    from nge_search.retrieve.catalogue import open_catalogue
    from nge_search.retrieve.query import ask

    opened = open_catalogue(catalogue)
    asked = asked_network(str(network), opened.corpus) if isinstance(network, (str, Path)) else None
    return ask(opened, asked or asked_module(network, inputs), top, task).to_dict()


def derive(run: str | Path, epoch: int | None = None) -> Genotype | dict[str, Any]:
    """The genotype that a search's operation probabilities stand for, finished or not.

    Of a search in another space than DARTS' it is the JSON object of the architecture.

    Args:
        run: the folder of a search.
        epoch: after which epoch, counted from 1; None: the last recorded.

    Raises:
        UserError: not the folder of a search, or no such epoch.
    """
    reader = RunReader(run)
    found = reader.row(epoch)
    if "architecture" in found:
        raise UserError(f"'{run}' is a search in a table; its architecture is in {GENOTYPE}, once it has ended")
    if "genotype" not in found:
        raise UserError(f"'{run}' is not the run folder of a search: its epochs have no genotype")
    architecture = read_architecture(found["genotype"], f"{reader.path / METRICS}, epoch {found['epoch']}")
    return architecture.genotype or architecture.document
