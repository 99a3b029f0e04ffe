"""The weights of a trained network: of a run folder, of an exported folder, or in a .safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nge_search import kinds
from nge_search.engine.given import OWN
from nge_search.engine.run_reader import RunReader, use_of
from nge_search.errors import UserError, plain
from nge_search.files import user_path
from nge_search.kinds import CONFIG, GENOTYPE
from nge_search.settings.classification import EvalConfig
from nge_search.settings.exported import MODEL_FILE as MODEL_FILE
from nge_search.tensor_reader import check_safetensors

#: In an exported folder; without `MODEL_FILE` it is none.
WEIGHTS_FILE = "model.safetensors"

#: Which weights of a run: those of its last step, or their average.
WEIGHTS = ("last", "ema")


@dataclass(frozen=True)
class RunWeights:
    """Weights of a retraining, as of `portable`; after how many epochs; a line for each damaged checkpoint."""

    weights: dict[str, Tensor]
    epoch: int
    notices: tuple[str, ...]


def read_weights(reference: str | Path) -> dict[str, Tensor]:
    """A trained network's state dict, in float32 and without the auxiliary head, on the CPU.

    `reference` is an exported folder, a .safetensors file, or the run folder of a retraining (its last weights).

    Raises:
        UserError: anything else.
    """
    path = user_path(reference)
    if path.is_dir() and (path / MODEL_FILE).is_file():
        path = path / WEIGHTS_FILE
    if path.is_dir():
        return read_run_weights(path).weights
    if not path.exists():
        raise UserError(f"'{path}' does not exist; give an exported folder, a .safetensors file or a run folder")
    check_safetensors(path)
    try:
        return portable(load_file(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"'{path}' is not a safetensors file, or is damaged ({error})") from None


def require_folder(run: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if not run.is_dir():
        raise UserError(f"'{run}' is not a folder; give the run folder of a training, such as runs/eval/cifar10")


def read_run_weights(run: Path, which: str = "last", exact: bool = False) -> RunWeights:
    """The newest weights of a retraining, `which` of `WEIGHTS`; `exact`: in their own type, as they were trained.

    Raises:
        UserError: the folder of another kind of run, or of none, or one without such weights.
    """
    if which not in WEIGHTS:
        raise UserError(f"weights '{plain(which)}' are unknown; allowed are {', '.join(WEIGHTS)}")
    require_folder(run)
    if not (run / CONFIG).is_file():
        raise UserError(f"'{run}' holds no {CONFIG}; it is not the folder of a run")
    saved = RunReader(run).checkpoint()
    kind = RunReader(run, lenient=True).kind if saved is None else saved.kind
    if kinds.find(kind) not in (None, kinds.find(EvalConfig.kind)):
        raise UserError(f"'{run}' is {use_of(run, kind)}")
    require_derived(run)
    if saved is None:
        raise UserError(f"'{run}' has no checkpoint yet, so there are no weights to take")
    epoch = saved.state.section("position").integer("epoch", 0, 1 << 53)
    weights = saved.state.section("task").any("network" if which == "last" else "ema")
    if weights is None:
        raise UserError(f"'{run}' kept no average of its weights (train.ema_decay=0); use weights=last")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UserError(f"{saved.state.source} is not a checkpoint of a retraining")
    own = {name: tensor for name, tensor in weights.items() if not name.startswith("auxiliary.")}
    return RunWeights(
        own if exact else portable(own), epoch, tuple(f"passed over: {line}" for line in saved.damaged)
    )


def require_derived(run: Path) -> None:
    """Raise UserError for the folder of a run that trained a module of the caller's, which has no architecture."""
    if RunReader(run, lenient=True).setting("network.genotype") == OWN and not (run / GENOTYPE).is_file():
        raise UserError(
            f"'{run}' trained a module that was given from Python; nge_search.evaluate(..., network=) with the "
            f"same settings loads its weights into such a module"
        )


def portable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In float32 where they are of a floating type, row-major, without the auxiliary head."""
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in weights.items()
        if not name.startswith("auxiliary.")
    }
