"""`nge retrieve query`: the known networks that are most like one, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nge_search.architecture.graph import Graph
from nge_search.errors import UserError
from nge_search.retrieve.asked_network import AskedNetwork
from nge_search.retrieve.catalogue import Catalogue, key
from nge_search.retrieve.index import Answer
from nge_search.retrieve.resemblance import Resemblance, SharedMotif, resemblance

#: Shared motifs that are told of, and operations of one that are spelt out.
_MOST_MOTIFS, _MOST_OPERATIONS = 3, 8
#: From which similarity on networks may be the same.
_SAME = 1 - 1e-5


@dataclass(frozen=True)
class Near:
    """One of the networks most like a query, and what the two have in common."""

    answer: Answer
    why: Resemblance

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        motifs = [
            {
                "operations": list(motif.operations),
                "times": motif.first,
                "times_there": motif.second,
                "share": round(motif.share, 4),
            }
            for motif in self.why.shared[:_MOST_MOTIFS]
        ]
        return {
            "name": self.answer.name,
            "similarity": round(self.answer.similarity, 6),
            **self.answer.about,
            "shared": round(self.why.share, 4),
            "longest_shared_run": len(self.why.first_nodes),
            "motifs": motifs,
        }


@dataclass(frozen=True)
class Answered:
    """What a query gave.

    Attributes:
        asked: the network that was looked for.
        graph: its graph, as the encoder takes it.
        nearest: the nearest first.
        is_new: whether nothing is near; None: the index cannot say.
        catalogue: that was asked.
    """

    asked: AskedNetwork
    graph: Graph
    nearest: tuple[Near, ...]
    is_new: bool | None
    catalogue: Catalogue

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        novelty = self.catalogue.index.novelty
        return {
            "network": self.asked.name,
            "known": self.asked.entry is not None,
            "nodes": len(self.graph.nodes),
            "parameters": self.asked.parameters,
            "multiply_adds": self.asked.multiply_adds,
            "new": self.is_new,
            "threshold": None if novelty is None else round(novelty.threshold, 6),
            "nearest": [near.to_dict() for near in self.nearest],
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        asked = self.asked
        lines = [
            f"{asked.name}: {len(self.graph.nodes)} operations, {asked.parameters:,} parameters, "
            f"{asked.multiply_adds:,} mult-adds"
        ]
        if asked.entry is not None and (same := [name for name in names_of(asked) if name != asked.name]):
            lines.append(f"the same graph: {_listed(same, 5)}")
        lines.append(self.verdict())
        for rank, near in enumerate(self.nearest, 1):
            answer = near.answer
            also = answer.about.get("also") or []
            more = f" (and {len(also)} of the same graph)" if also else ""
            lines.append(
                f"{rank:3}. {answer.similarity:.3f}  {answer.name}{more}, family {answer.about.get('family', '')}, "
                f"{100 * near.why.share:.0f} % in shared motifs, {len(near.why.first_nodes)} operations in a row"
            )
        sharing = next((near for near in self.nearest if near.why.shared), None)
        if sharing is not None:
            motifs = sharing.why.shared[:_MOST_MOTIFS]
            lines += [f"shared with {sharing.answer.name}: {motif_line(motif)}" for motif in motifs]
        return lines

    def verdict(self) -> str:
        """Whether the network is new, in words."""
        novelty = self.catalogue.index.novelty
        if not self.nearest:
            return "no network fits what was asked for"
        if novelty is None or self.is_new is None:
            return f"nearest of {len(self.catalogue.index)} graphs:"
        sure = f"of networks whose family is unknown {100 * novelty.detections:.0f} % count as new, of others "
        sure += f"{100 * novelty.false_alarms:.0f} %"
        which = "new: none" if self.is_new else "not new: one"
        return f"{which} of {len(self.catalogue.index)} graphs is as near as {novelty.threshold:.3f} ({sure})"


def names_of(asked: AskedNetwork) -> list[str]:
    """All names of a known network's graph, as "library:name"."""
    return [] if asked.entry is None else [f"{own.library}:{own.name}" for own in asked.entry.networks]


def motif_line(motif: SharedMotif) -> str:
    """A motif in words: how much of the network it is, how often it is there, and its operations."""
    return f"{100 * motif.share:.0f} % in {motif.first} x [{_listed(motif.operations, _MOST_OPERATIONS)}]"


def _listed(texts: Sequence[str], most: int) -> str:
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def ask(catalogue: Catalogue, asked: AskedNetwork, top: int = 10, task: str = "") -> Answered:
    """The networks of a catalogue that are most like one, itself left out if it is known by name.

    Args:
        task: that they must be made for, such as classification; empty: any.

    Raises:
        UserError: no network that is known has the task.
    """
    tasks = sorted({str(own.get("task", "")) for own in catalogue.index.about})
    if task and task not in tasks:
        raise UserError(f"no known network has the task '{task}'; there are {', '.join(filter(None, tasks))}")
    graph = catalogue.comparable(asked.graph)
    without = () if asked.entry is None else (key(asked.entry),)
    found = catalogue.retriever.query(graph, top, without, {"task": task} if task else None)
    answers = found.answers
    if answers and answers[0].similarity > _SAME:  # depths leave no trace in some encoders; in graphs they do
        same = _same_graph(catalogue, asked, task)
        others = (answer for answer in answers if same is None or answer.name != same.name)
        answers = tuple(filter(None, (same, *others)))[:top]
    nearest = tuple(Near(answer, resemblance(graph, catalogue.retriever.graph(answer.name))) for answer in answers)
    return Answered(asked, graph, nearest, found.is_new, catalogue)


def _same_graph(catalogue: Catalogue, asked: AskedNetwork, task: str) -> Answer | None:
    """The first entry that has a network's very graph; a known network is left out itself."""
    digest = asked.graph.digest
    for entry, own in zip(catalogue.corpus.entries, catalogue.index.about):
        if entry.digest == digest and entry is not asked.entry and task in ("", own.get("task")):
            return Answer(key(entry), 1.0, own)
    return None
