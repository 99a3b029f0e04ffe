"""The networks most like one, as a table, and what it shares with the first of them."""

from __future__ import annotations

from nge_search.report.parts.numbers import plain, scaled, share
from nge_search.report.parts.page import grid, notice, records
from nge_search.report.parts.sections import hint
from nge_search.report.parts.shared_run import run_figure
from nge_search.retrieve.query import Answered, motif_line

_MOST_MOTIFS = 5


def nearest_table(answered: Answered, motifs: bool = True) -> str:
    """What was found, as HTML; `motifs`: with what is shared with each."""
    rows = []
    for near in answered.nearest:
        about = near.answer.about
        also = about.get("also") or []
        own = motif_line(near.why.shared[0]) if near.why.shared else "–"
        rows.append(
            (
                near.answer.name + (f" (+{len(also)})" if also else ""),
                str(about.get("family", "")),
                str(about.get("task", "")),
                *([own] if motifs else []),
                plain(near.answer.similarity, 3),
                share(near.why.share),
                str(len(near.why.first_nodes)),
                scaled(float(about.get("parameters") or 0)),
            )
        )
    names = ["network", "family", "task", *(["largest shared motif"] if motifs else [])]
    table = records("Nearest networks", names, ["similarity", "in shared motifs", "in a row", "parameters"], rows)
    words = (
        "(+n): as many others have the same graph. A motif is a run of operations, wired alike; the share is of "
        "the operations of the network that was looked for. In a row: the longest run of operations that both have."
    )
    verdict = answered.verdict()
    told = notice(f"{verdict[0].upper()}{verdict[1:]}.", "warning" if answered.is_new else "")
    return told + table + hint(words) if table else ""


def longest_run(answered: Answered) -> str:
    """The longest run of operations that the first answer shares, in both."""
    if not answered.nearest:
        return ""
    first = answered.nearest[0]
    other = answered.catalogue.retriever.graph(first.answer.name)
    pair = [
        run_figure(answered.asked.name, answered.graph, first.why.first_nodes),
        run_figure(first.answer.name, other, first.why.second_nodes),
    ]
    return grid(pair)


def motif_table(answered: Answered) -> str:
    """Shared motifs of the first answer."""
    if not answered.nearest:
        return ""
    rows = [
        (", ".join(motif.operations), str(motif.first), str(motif.second), share(motif.share))
        for motif in answered.nearest[0].why.shared[:_MOST_MOTIFS]
    ]
    title = f"Motifs shared with {answered.nearest[0].answer.name}"
    return records(title, ["operations"], ["times here", "times there", "share"], rows)
