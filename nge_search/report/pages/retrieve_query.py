"""The page of a query: what a network is like, what it has in common with what, and where it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nge_search.errors import from_os_error, printable
from nge_search.files import write_atomic
from nge_search.report.parts.nearest_networks import longest_run, motif_table, nearest_table
from nge_search.report.parts.network_map import Place, network_map
from nge_search.report.parts.numbers import plain, scaled
from nge_search.report.parts.page import Figure, Section, document, table
from nge_search.report.parts.sections import hint
from nge_search.retrieve.catalogue import key
from nge_search.retrieve.layout import layout
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.query import Answered


def write_page(answered: Answered, path: Path) -> None:
    """Write what a query gave as one self-contained HTML page.

    Raises:
        UserError: it cannot be written.
    """
    try:
        write_atomic(path, printable(render(answered), keep="\n\t"))
    except OSError as error:
        raise from_os_error(error) or error from None


def render(answered: Answered) -> str:
    """The page."""
    asked, made = answered.asked, answered.catalogue.about.get("made")
    first = answered.nearest[0] if answered.nearest else None
    figures = [
        Figure(
            "–" if first is None else plain(first.answer.similarity, 3),
            "Similarity",
            "" if first is None else first.answer.name,
        ),
        Figure(plain(len(answered.graph.nodes), 6), "Operations", asked.name),
        Figure(scaled(float(asked.parameters)), "Parameters"),
        Figure(scaled(float(asked.multiply_adds)), "Mult-adds", "of one example"),
    ]
    sections = [
        Section("nearest", "What it is like", nearest_table(answered)),
        Section("motifs", "What it shares", motif_table(answered)),
        Section("run", "The longest run that both have", longest_run(answered)),
        Section("map", "Where it stands", _map(answered)),
        Section("versions", "What was asked", table(made) if isinstance(made, dict) else ""),
    ]
    return document(asked.name, "What is my network like?", "", figures, sections)


def _map(answered: Answered) -> str:
    """All known networks by t-SNE, the one that was looked for among them."""
    catalogue, asked = answered.catalogue, answered.asked
    entries, index = catalogue.corpus.entries, catalogue.index
    embedding_ND = index.embedding_ND
    known = asked.entry is not None
    if not known:
        own_D = catalogue.embedder.embed([OrderedGraph.of(answered.graph)])[0]
        embedding_ND = np.concatenate([embedding_ND, own_D[None].astype(np.float32)])
    points = layout(embedding_ND)
    places = [
        Place(float(x), float(y), key(entry), entry.family, entry.label) for entry, (x, y) in zip(entries, points)
    ]
    if asked.entry is None:
        own = Place(float(points[-1, 0]), float(points[-1, 1]), asked.name, asked.family, "")
    else:
        own = next(place for place in places if place.name == key(asked.entry))
    words = "t-SNE of cosines: near each other is alike; distances between far points tell nothing."
    return network_map("Known networks", places, own) + hint(words)
