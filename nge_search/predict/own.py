"""Predictors of this project: processes on analytic features, a flow network with them before its head, and both.

`analytic_gp` is the mean of several Gaussian processes that see the same columns (`columns.Columns`) in different
groups; `flow` are GATES networks of a small width, side by side, whose head hears the analytic features, too;
`ensemble` adds the standardised scores of both. Processes say how sure they are; their deviations are scaled by
what each label's distance to its prediction is when that label is left out.

Legend: N architectures with labels, M asked for, E networks, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nge_search.predict.base import Predictor, ProbabilisticPredictor, State
from nge_search.predict.columns import PLACES, SUBTREES, Columns
from nge_search.predict.encoders import FlowEncoder, FlowSettings
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.members import Members
from nge_search.predict.process import GaussianProcess, Hyperparameters
from nge_search.predict.targets import Target
from nge_search.predict.training import Inputs, ScoreNetwork, TrainingSettings, scores, train
from nge_search.spaces.base import Space

_AT_ONCE = 4096
#: Between which deviations are scaled.
_WIDENED = (0.5, 2.0)


@dataclass(frozen=True)
class OwnSettings:
    """What the predictors are made of; each part can be left out, to see what it is good for.

    Attributes:
        features: analytic features, for processes and networks.
        subtrees, places: bags of words, for processes.
        grouped: processes with a kernel for each group of analytic features, beside that with one for all.
        target: of processes, one of `targets.TARGETS`.
        offset: d of the log-error target, in percent.
        members: E.
        width: of the networks' layers.
        training: of the networks.
    """

    features: bool = True
    subtrees: bool = True
    places: bool = True
    grouped: bool = True
    target: str = "log_error"
    offset: float = 2.0
    members: int = 4
    width: int = 64
    training: TrainingSettings = TrainingSettings(pairs_per_architecture=1e6)


DEFAULTS = OwnSettings()


class Processes(ProbabilisticPredictor):
    """The mean of Gaussian processes whose kernels group the same columns differently."""

    def __init__(self, space: Space, settings: OwnSettings = DEFAULTS):
        bags = [name for name, wanted in ((SUBTREES, settings.subtrees), (PLACES, settings.places)) if wanted]
        self.settings = settings
        self.columns = Columns(Form.of(space), settings.features, bags)
        self.processes: list[GaussianProcess] = []

    def groupings(self) -> list[list[list[int]]]:
        """For each process its groups of columns.

        One kernel over all analytic features beside one for each bag; one for each group of features; and the same
        beside the subtrees.
        """
        groups, grouped = self.columns.groups, self.columns.analytic
        bags = [groups[name] for name in self.columns.bags]
        joined = [[column for group in grouped for column in group]] if grouped else []
        found = [joined + bags]
        if self.settings.grouped and grouped:
            found.append(grouped)
            if SUBTREES in groups:
                found.append([*grouped, groups[SUBTREES]])
        return found

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        label_N = label_N.double()
        self._target = Target.of(label_N, self.settings.target, self.settings.offset)
        self._x_NF, self._y_N = self.columns.fit(known), self._target(label_N)
        self._build([None] * len(self.groupings()))
        mean_N, deviation_N = mixture([process.left_out(self._y_N) for process in self.processes])
        ratio = float(((self._y_N - mean_N) / deviation_N).square().mean().sqrt())
        self.widening = min(max(ratio, _WIDENED[0]), _WIDENED[1])

    def _build(self, parameters: Sequence[Hyperparameters | None]) -> None:
        self.processes = [
            GaussianProcess(self._x_NF, self._y_N, groups, at) for groups, at in zip(self.groupings(), parameters)
        ]

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        assert self.processes, "fit comes first"
        parts = [
            self._posterior(self.columns(asked[start : start + _AT_ONCE]))
            for start in range(0, len(asked), _AT_ONCE)
        ]
        mean_M, deviation_M = (torch.cat(part) for part in zip(*parts))
        return mean_M, self.widening * deviation_M

    def _posterior(self, x_MF: Tensor) -> tuple[Tensor, Tensor]:
        return mixture([process.predict(x_MF) for process in self.processes])

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`."""
        return list(self.columns.groups)

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`."""
        return self._posterior(self.columns.permuted(self.columns(asked), group, order_M))[0]

    def target(self, label: Tensor) -> Tensor:
        return self._target(label)

    def label(self, target: Tensor) -> Tensor:
        return self._target.label(target)

    def state(self) -> State:
        tensors, columns = self.columns.state()
        tensors = {f"columns.{name}": tensor for name, tensor in tensors.items()}
        for number, process in enumerate(self.processes):
            tensors[f"process.{number}"] = torch.cat([part.reshape(-1) for part in process.at.tensors()])
        tensors |= {"x": self._x_NF, "y": self._y_N}
        return tensors, {"columns": columns, "target": self._target.document(), "widening": self.widening}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self.columns.load_state(_under("columns", tensors), document["columns"])
        self._target, self.widening = Target.read(document["target"]), float(document["widening"])
        self._x_NF, self._y_N = tensors["x"], tensors["y"]
        saved = [tensors[f"process.{number}"] for number in range(len(self.groupings()))]
        self._build([Hyperparameters(*at[:-1].chunk(3), at[-1]) for at in saved])


def mixture(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the even mixture of normal densities."""
    mean_PM, deviation_PM = (torch.stack(part) for part in zip(*parts))
    mean_M = mean_PM.mean(dim=0)
    return mean_M, ((deviation_PM**2 + mean_PM**2).mean(dim=0) - mean_M**2).clamp(min=1e-12).sqrt()


class FlowNetworks(Predictor):
    """GATES networks with the analytic features before their heads; the score is the mean of theirs.

    Each network's scores are standardised by those of the architectures that it has learnt from.
    """

    def __init__(self, space: Space, settings: OwnSettings = DEFAULTS):
        self.settings, self.form = settings, Form.of(space)
        self.columns = Columns(self.form, settings.features, ())
        self._members: Members | None = None

    def _network(self) -> ScoreNetwork:
        form, width = self.form, self.settings.width
        flow = FlowSettings(
            steps=1,
            layers=form.width - form.inputs,  # edges of the longest path there can be
            operation_dim=width // 2,
            node_dim=width // 2,
            hidden_dim=width,
            width=width,
            residual=form.inputs,
        )
        encoder = FlowEncoder(flow, form.labels, form.inputs, len(form.kinds), form.on_edges)
        return ScoreNetwork(encoder, self._features, (width,))

    @property
    def _features(self) -> int:
        return len(self.columns.quantiles.kept)

    def _inputs(self, architectures: Sequence[Cells], x_NF: Tensor) -> Inputs:
        features_NF = x_NF.float() if self._features else None
        return Inputs(self.form.batch(architectures), len(self.form.kinds), features_NF)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        inputs = self._inputs(known, self.columns.fit(known))
        self._members = Members(self._network, self.settings.members, seed)
        train(self._members, inputs, label_N, self.settings.training, seed)
        score_EN = scores(self._members, inputs)[:, -1].double()
        self._mean_E, self._deviation_E = score_EN.mean(dim=1), score_EN.std(dim=1, unbiased=False).clamp(min=1e-12)

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        return self._scores(asked, self.columns(asked))

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`; they see the graphs besides."""
        return list(self.columns.groups)

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`."""
        return self._scores(asked, self.columns.permuted(self.columns(asked), group, order_M))

    def _scores(self, asked: Sequence[Cells], x_MF: Tensor) -> Tensor:
        assert self._members is not None, "fit comes first"
        score_EM = scores(self._members, self._inputs(asked, x_MF))[:, -1].double()
        return ((score_EM - self._mean_E[:, None]) / self._deviation_E[:, None]).mean(dim=0)

    def state(self) -> State:
        assert self._members is not None, "fit comes first"
        tensors, columns = self.columns.state()
        tensors = {f"columns.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {f"networks.{name}": tensor.detach() for name, tensor in self._members.parameters.items()}
        tensors |= {"mean": self._mean_E, "deviation": self._deviation_E}
        return tensors, {"columns": columns}

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self.columns.load_state(_under("columns", tensors), document["columns"])
        self._members = Members(self._network, self.settings.members, 0)
        self._members.load(_under("networks", tensors))
        self._mean_E, self._deviation_E = tensors["mean"], tensors["deviation"]


class Ensemble(ProbabilisticPredictor):
    """Processes and networks: the mean of both, networks brought to the mean and deviation of the processes.

    Deviations are those of the processes.
    """

    def __init__(self, space: Space, settings: OwnSettings = DEFAULTS):
        self.processes, self.networks = Processes(space, settings), FlowNetworks(space, settings)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        self.processes.fit(known, label_N, seed)
        self.networks.fit(known, label_N, seed)
        mean_N, _ = self.processes.posterior(known)
        score_N = self.networks.scores(known)
        self._scale = float(mean_N.std(unbiased=False) / score_N.std(unbiased=False).clamp(min=1e-12))
        self._shift = float(mean_N.mean()) - self._scale * float(score_N.mean())

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        mean_M, deviation_M = self.processes.posterior(asked)
        return self._joined(mean_M, self.networks.scores(asked)), deviation_M

    def _joined(self, mean_M: Tensor, score_M: Tensor) -> Tensor:
        return (mean_M + self._shift + self._scale * score_M) / 2

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`; those of analytic features are permuted for both parts alike."""
        return self.processes.feature_groups()

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`."""
        return self._joined(
            *(part.permuted_scores(asked, group, order_M) for part in (self.processes, self.networks))
        )

    def target(self, label: Tensor) -> Tensor:
        return self.processes.target(label)

    def label(self, target: Tensor) -> Tensor:
        return self.processes.label(target)

    def state(self) -> State:
        tensors: dict[str, Tensor] = {}
        document: dict[str, Any] = {"scale": self._scale, "shift": self._shift}
        for name, part in (("processes", self.processes), ("networks", self.networks)):
            own, document[name] = part.state()
            tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
        return tensors, document

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self.processes.load_state(_under("processes", tensors), document["processes"])
        self.networks.load_state(_under("networks", tensors), document["networks"])
        self._scale, self._shift = float(document["scale"]), float(document["shift"])


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, by the rest of their names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def analytic_gp(space: Space) -> Processes:
    """Gaussian processes on analytic features."""
    return Processes(space)


def flow(space: Space) -> FlowNetworks:
    """Flow networks with analytic features."""
    return FlowNetworks(space)


def ensemble(space: Space) -> Ensemble:
    """Processes and networks."""
    return Ensemble(space)
