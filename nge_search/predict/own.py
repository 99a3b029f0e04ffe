"""Predictors of this project: processes on analytic features, a flow network with them before its head, and both.

`analytic_gp` is a mean of several Gaussian processes that see the same columns (`columns.Columns`) in different
groups; `flow` are GATES networks of a small width, side by side, whose head hears the analytic features, too;
`ensemble` adds the standardised scores of both. Processes say how sure they are: labels that are left out tell how
far off predictions are in deviations, on the whole and at each level of an interval.

What processes predict is decided by the likelihood of the labels, as in warped processes (Snelson et al., 2004):
where the best lie close together the logarithm of the error, and where noise pulls them apart the label itself. The
more a process explains of labels that are left out, the more it counts.

Legend: N architectures with labels, M asked for, E networks, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nge_search.predict.base import Predictor, ProbabilisticPredictor, State
from nge_search.predict.columns import PLACES, SUBTREES, Columns
from nge_search.predict.encoders import FlowEncoder, FlowSettings
from nge_search.predict.encoding import Cells, Form
from nge_search.predict.members import Members
from nge_search.predict.process import GaussianProcess, Hyperparameters, mixture, mixture_at, sampled
from nge_search.predict.targets import Target
from nge_search.predict.training import Inputs, ScoreNetwork, TrainingSettings, scores, train
from nge_search.spaces.base import Space

_AT_ONCE = 4096
#: Between which deviations are scaled.
_WIDENED = (1.0, 2.0)
#: Share of variance that a process explains at least, where it counts by that.
_LEAST_EXPLAINED = 0.01
#: The target that is chosen among others by the likelihood of labels, and by so many at most.
LIKELIEST = "likeliest"
_CHOSEN_ON = 200
#: Deviation of a network's scores, below which it does not tell architectures apart.
_LEAST_SPREAD = 0.01


@dataclass(frozen=True)
class OwnSettings:
    """What the predictors are made of; each part can be left out, to see what it is good for.

    Attributes:
        features: analytic features, for processes and networks.
        subtrees, places: bags of words, for processes.
        grouped: processes with a kernel for each group of analytic features, beside that with one for all.
        target: of processes: one of `targets.TARGETS`; or "likeliest", chosen among the log-error target with d
            as `offset`, that with d larger by the labels' deviation, and the label itself.
        offset: d of the log-error target, in percent.
        weighted: processes count by what each explains of labels that are left out, not alike.
        samples: of the processes' hyper-parameters, over which they are averaged; 0: those of largest density.
        sampled_up_to: so many labels; with more, the density is narrow and the labour large.
        members: E.
        width: of the networks' layers.
        training: of the networks.
    """

    features: bool = True
    subtrees: bool = True
    places: bool = True
    grouped: bool = True
    target: str = LIKELIEST
    offset: float = 2.0
    weighted: bool = True
    samples: int = 8
    sampled_up_to: int = 200
    members: int = 4
    width: int = 64
    training: TrainingSettings = TrainingSettings(pairs_per_architecture=1e6, drops_by_pair=False)


DEFAULTS = OwnSettings()


class Processes(ProbabilisticPredictor):
    """A mean of Gaussian processes whose kernels group the same columns differently."""

    def __init__(self, space: Space, settings: OwnSettings = DEFAULTS):
        bags = [name for name, wanted in ((SUBTREES, settings.subtrees), (PLACES, settings.places)) if wanted]
        self.settings = settings
        self.columns = Columns(Form.of(space), settings.features, bags)
        self.processes: list[list[GaussianProcess]] = []

    def groupings(self) -> list[list[list[int]]]:
        """For each process its groups of columns.

        One kernel over all features as quantiles, beside one for each bag; one for each group of features as
        quantiles; and one for each group of them standardised, beside the subtrees.
        """
        words = self.columns.words
        quantiles, standard = list(self.columns.quantiles.values()), list(self.columns.standard.values())
        found = [[[column for group in quantiles for column in group], *words.values()]]
        if self.settings.grouped:
            found += [quantiles, [*standard, *(words[name] for name in words if name == SUBTREES)]]
        told: list[list[list[int]]] = []  # without features some are empty, or the same again
        for groups in found:
            groups = [group for group in groups if group]
            if groups and groups not in told:
                told.append(groups)
        return told or [[[0]]]

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        label_N = label_N.double()
        self._x_NF = self.columns.fit(known)
        self._target = self._likeliest(label_N)
        self._y_N = self._target(label_N)
        self._build([self._parameters(groups, seed) for groups in self.groupings()])
        left_out = [mixture([process.left_out(self._y_N) for process in own]) for own in self.processes]
        self._weights = self._explained(left_out) if self.settings.weighted else [1 / len(left_out)] * len(left_out)
        mean_N, deviation_N = mixture(left_out, self._weights)
        off_N = (self._y_N - mean_N).abs() / deviation_N
        self.widening = min(max(float(off_N.square().mean().sqrt()), _WIDENED[0]), _WIDENED[1])
        self._off_N = off_N.sort().values / self.widening

    def _likeliest(self, label_N: Tensor) -> Target:
        """Of the candidates that under which the first process finds labels likeliest, of all or an even part."""
        targets = [Target.of(label_N, kind, d) for kind, d in self._candidates(label_N)]
        if len(targets) == 1:
            return targets[0]
        groups, step = self.groupings()[0], -(-len(label_N) // _CHOSEN_ON)
        x_nF, label_n = self._x_NF[::step], label_N[::step]

        def log_likelihood(target: Target) -> float:
            process = GaussianProcess(x_nF, target(label_n), groups)
            return process.log_likelihood + float(target.log_slope(label_n).sum())

        return max(targets, key=log_likelihood)

    def _candidates(self, label_N: Tensor) -> list[tuple[str, float]]:
        """Kinds and offsets of targets."""
        if self.settings.target != LIKELIEST:
            return [(self.settings.target, self.settings.offset)]
        offsets = self.settings.offset, self.settings.offset + float(label_N.std(correction=0))
        return [*(("log_error", d) for d in offsets), ("label", 0.0)]

    def _explained(self, left_out: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
        """Weights of the processes: squares of the shares of labels' variance that they explain.

        Each label is explained as if it were not known.
        """
        shares = [1 - float((self._y_N - mean_N).square().mean()) for mean_N, _ in left_out]
        squares = [max(share, _LEAST_EXPLAINED) ** 2 for share in shares]
        return [square / sum(squares) for square in squares]

    def _parameters(self, groups: list[list[int]], seed: int) -> list[Hyperparameters]:
        """Those with which processes on some groups of columns are averaged."""
        if self.settings.samples and len(self._y_N) <= self.settings.sampled_up_to:
            return sampled(self._x_NF, self._y_N, groups, self.settings.samples, seed)
        return [GaussianProcess(self._x_NF, self._y_N, groups).at]

    def _build(self, parameters: Sequence[Sequence[Hyperparameters]]) -> None:
        self.processes = [
            [GaussianProcess(self._x_NF, self._y_N, groups, at) for at in own]
            for groups, own in zip(self.groupings(), parameters)
        ]

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        parts = [self.at_points(self.columns(part)) for part in _parts(asked)]
        mean_M, deviation_M = (torch.cat(part) for part in zip(*parts))
        return mean_M, deviation_M

    def at_points(self, x_MF: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of architectures that are given by their columns."""
        assert self.processes, "fit comes first"
        mean_M, deviation_M = mixture([mixture_at(own, x_MF) for own in self.processes], self._weights)
        return mean_M, self.widening * deviation_M

    def deviations(self, level_L: Tensor) -> Tensor:
        """As of `ProbabilisticPredictor`, so that intervals cover what they would have of labels left out.

        An interval around the mean reaches as far as the share of distances that it is to cover. As many distances
        of a normal density are among them: hyper-parameters have seen the labels left out, which makes these near.
        """
        normal_N = torch.special.ndtri(torch.linspace(0.5, 1, 2 * len(self._off_N) + 1, dtype=torch.float64)[1::2])
        reach_L = torch.quantile(torch.cat([self._off_N, normal_N]), (2 * level_L - 1).abs())
        return torch.sign(level_L - 0.5) * reach_L

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`."""
        return list(self.columns.groups)

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`."""
        return self.at_points(self.columns.permuted(self.columns(asked), group, order_M))[0]

    def target(self, label: Tensor) -> Tensor:
        return self._target(label)

    def label(self, target: Tensor) -> Tensor:
        return self._target.label(target)

    def state(self) -> State:
        tensors, columns = self.columns.state()
        tensors = {f"columns.{name}": tensor for name, tensor in tensors.items()}
        for number, own in enumerate(self.processes):
            tensors[f"process.{number}"] = torch.stack([process.at.vector() for process in own])
        tensors |= {"x": self._x_NF, "y": self._y_N, "off": self._off_N}
        return tensors, {
            "columns": columns,
            "target": self._target.document(),
            "widening": self.widening,
            "weights": self._weights,
        }

    def load_state(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        self.columns.load_state(_under("columns", tensors), document["columns"])
        self._target, self.widening = Target.read(document["target"]), float(document["widening"])
        self._weights = [float(weight) for weight in document["weights"]]
        if len(self._weights) != len(self.groupings()):
            raise ValueError(f"{len(self._weights)} weights of {len(self.groupings())} processes")
        self._x_NF, self._y_N, self._off_N = tensors["x"], tensors["y"], tensors["off"]
        saved = [tensors[f"process.{number}"] for number in range(len(self.groupings()))]
        self._build([[Hyperparameters.of_vector(at_H) for at_H in at_SH] for at_SH in saved])


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
        return ScoreNetwork(encoder, self.features, (width,))

    @property
    def features(self) -> int:
        """How many analytic features they hear."""
        return len(self.columns.scales.kept)

    @property
    def heard(self) -> slice:
        """Where analytic features stand among all columns, standardised."""
        return slice(self.features, 2 * self.features)

    def _inputs(self, architectures: Sequence[Cells], x_NF: Tensor) -> Inputs:
        features_NF = x_NF.float() if self.features else None
        return Inputs(self.form.batch(architectures), len(self.form.kinds), features_NF)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        x_NF = self.columns.fit(known)
        inputs = self._inputs(known, x_NF[:, self.heard])
        self._members = Members(self._network, self.settings.members, seed)
        train(self._members, inputs, label_N, self.settings.training, seed)
        score_EN = scores(self._members, inputs)[:, -1].double()
        self._mean_E = score_EN.mean(dim=1)
        self._deviation_E = score_EN.std(dim=1, unbiased=False).clamp(min=_LEAST_SPREAD)

    def scores(self, asked: Sequence[Cells]) -> Tensor:
        return torch.cat([self.at_points(part, self.columns(part)[:, self.heard]) for part in _parts(asked)])

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`; they see the graphs besides."""
        return list(self.columns.groups)

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`."""
        return self.at_points(asked, self.columns.permuted(self.columns(asked), group, order_M)[:, self.heard])

    def at_points(self, asked: Sequence[Cells], x_MF: Tensor) -> Tensor:
        """The scores of architectures whose standardised features are known."""
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
    """Processes and networks: an even mixture of both.

    Networks' scores are brought to the mean and deviation that the processes' means have over the architectures to
    learn from; they are taken to be as sure as the processes are.
    """

    def __init__(self, space: Space, settings: OwnSettings = DEFAULTS):
        self.processes, self.networks = Processes(space, settings), FlowNetworks(space, settings)

    def fit(self, known: Sequence[Cells], label_N: Tensor, seed: int) -> None:
        self.processes.fit(known, label_N, seed)
        self.networks.fit(known, label_N, seed)
        mean_N, _ = self.processes.posterior(known)
        self._shift, self._scale = float(mean_N.mean()), float(mean_N.std(unbiased=False))

    def posterior(self, asked: Sequence[Cells]) -> tuple[Tensor, Tensor]:
        parts = [self._posterior(part, self.processes.columns(part)) for part in _parts(asked)]
        mean_M, deviation_M = (torch.cat(part) for part in zip(*parts))
        return mean_M, deviation_M

    def deviations(self, level_L: Tensor) -> Tensor:
        """Those of the processes."""
        return self.processes.deviations(level_L)

    def feature_groups(self) -> Sequence[str]:
        """As of `base.SeesFeatures`."""
        return self.processes.feature_groups()

    def permuted_scores(self, asked: Sequence[Cells], group: str, order_M: Tensor) -> Tensor:
        """As of `base.SeesFeatures`; both parts are given the same features."""
        columns = self.processes.columns
        return self._posterior(asked, columns.permuted(columns(asked), group, order_M))[0]

    def _posterior(self, asked: Sequence[Cells], x_MF: Tensor) -> tuple[Tensor, Tensor]:
        """Of architectures with these columns, of which the networks hear some."""
        mean_M, deviation_M = self.processes.at_points(x_MF)
        score_M = self.networks.at_points(asked, x_MF[:, self.networks.heard])
        return mixture([(mean_M, deviation_M), (self._shift + self._scale * score_M, deviation_M)])

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


def _parts(asked: Sequence[Cells]) -> Iterator[Sequence[Cells]]:
    """The architectures, so many at once as fit into memory; none at all are one part."""
    for start in range(0, max(len(asked), 1), _AT_ONCE):
        yield asked[start : start + _AT_ONCE]


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
