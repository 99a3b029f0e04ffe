"""Which encoder finds the networks that are built alike? Controls, published encoders and ours, by hard questions.

    python experiments/retrieve.py vision    families that no encoder was told of, near twins, torchvision -> timm
    python experiments/retrieve.py seen      a tenth of each family is asked of the rest, whose names are learnt
    python experiments/retrieve.py code      whose code a model of transformers takes over (needs transformers)
    python experiments/retrieve.py nas       NAR's Table 1 and Figure 5: searched networks, and those of `seen`
    python experiments/retrieve.py splits    the same: other ways to divide graphs; its Table 2
    python experiments/retrieve.py losses    the same: one loss alone; its Table 3
    python experiments/retrieve.py transfer  those of `seen`, after searched networks or not; its Table 4
    python experiments/retrieve.py choice    whether our settings are chosen, too, by families that are not reported
    python experiments/retrieve.py darts     what DARTS' second network is like, and the map of the corpus with it
    python experiments/retrieve.py speed     seconds of one core

Networks are those of the corpus that ships, or of --corpus. A row of results/retrieve_rows.jsonl is one trial; rows
that are there are not made again, so that a stopped command goes on. --models, --questions and --seeds choose;
--show prints what there is. Each part prints its tables in Markdown, and writes results/retrieve_PART.json, with the
questions in its name if some are chosen. Seeds 0 and up are for reports alone: what was chosen was chosen on 100 to
108.

Encoders that learn from families never see those of the networks that ask, but for `seen` and the searched
networks. What no chance enters is done once: a control has no seed where the question has none. P values are
one-sided, of MAP at 20, and exchange whole families.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import retrieve_choice
import retrieve_speed
import torch
from kept_rows import keep_rows, numbers, read_rows
from predict_tables import markdown, three
from retrieve_encoders import (
    FINGERPRINTS,
    LDA_OWN,
    SLOTS,
    SMOOTHED,
    TRANSFERRED,
    VARIANTS,
    Reduced,
    Watched,
    by_chance,
    candidate_of,
    of_network,
)
from retrieve_tables import comparisons, draw_map, draw_panels, tables

import nge_search
from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_json
from nge_search.retrieve.asked_network import asked_network
from nge_search.retrieve.catalogue import graphs_of, known_corpus, open_catalogue
from nge_search.retrieve.comparison import figures, summarise
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.layout import layout
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.questions import Asked, Question
from nge_search.settings.retrieve import CorpusSection, RetrieveBenchConfig

RESULTS = Path(__file__).parent / "results"
VISION = ("timm", "torchvision")
#: Questions whose networks a seed draws or divides.
DRAWN = ("unseen", "seen", "nas")
#: Encoders whose networks are drawn as points, at most so many of a question that is divided, for Figure 5.
PICTURED, MOST_POINTS = ("gcn", "gat", "nar"), 600


@dataclass(frozen=True)
class Part:
    """Questions, and who answers them."""

    questions: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int = 3
    libraries: tuple[str, ...] = VISION


_SPLITS = tuple(name for name in VARIANTS if not name.endswith("alone"))
_LOSSES = tuple(name for name in VARIANTS if name.endswith("alone"))
PARTS = {
    "vision": Part(
        ("unseen", "families", "twins", "torchvision", "distinct"),
        (*FINGERPRINTS, *SMOOTHED, "lda", "own_plain", "own"),
    ),
    "seen": Part(("seen",), ("wl1", "wl2", "own", "own_families", "lda", LDA_OWN)),
    "code": Part(("code", "code_rest"), (*FINGERPRINTS, "own", "own_plain", "own_code"), libraries=()),
    "nas": Part(("nas", "seen"), ("operations", SLOTS, "gcn", "gat", "nar"), 1),
    "splits": Part(("nas", "seen"), ("nar", *_SPLITS), 1),
    "losses": Part(("nas", "seen"), ("nar", *_LOSSES), 1),
    "transfer": Part(("seen",), ("nar", TRANSFERRED), 1),
}


@dataclass(frozen=True)
class Trial:
    """A question of a seed, put to an encoder; `set` says how published networks and searched ones were reduced."""

    question: str
    model: str
    seed: int
    set: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "choice", "darts", "speed"))
    parser.add_argument("--corpus", default="", help="run folder of `nge retrieve build`, or a file that it wrote")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--models", default="", help="some of the part's models, as 'own;wl1, contracted'")
    parser.add_argument("--questions", default="", help="some of the part's questions, as nas,seen")
    parser.add_argument("--seeds", default="", help="as 0-2 or 100,101; by default as many as PARTS says, from 0")
    parser.add_argument("--families", type=int, default=20, help="families that are drawn, of `unseen`")
    parser.add_argument("--members", type=int, default=100, help="searched networks of a class")
    parser.add_argument("--edits", type=int, default=8, help="genes in which they differ from their centre")
    parser.add_argument("--width", type=int, default=128, help="features of published networks")
    parser.add_argument("--batch", type=int, default=64, help="graphs in their batches")
    parser.add_argument("--epochs", type=int, default=15, help="of them")
    parser.add_argument("--motif-epochs", type=int, default=5, help="of their first stage")
    parser.add_argument("--count", type=int, default=1_000_000, help="embeddings that search is timed on")
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        if options.part == "darts":
            show_darts(options.out)
        elif options.part == "speed":
            retrieve_speed.measure(options.out, options.count)
        elif options.part == "choice":
            given = json.dumps(vars(options), default=str)
            retrieve_choice.show(lambda question, seed: ask(question, seed, "vision", given), options.out)
        elif not make_tables(options):
            parser.error("no row yet; leave --show out")
    except UserError as error:
        parser.error(str(error))


def make_tables(options: argparse.Namespace) -> int:
    """Carry out what is missing of a part, and print its tables; the number of rows there are."""
    wanted, path = list(trials(options)), options.out / "retrieve_rows.jsonl"
    found = read_rows(path, Trial)
    if not options.show:
        waiting = (row_of(trial, options) for trial in wanted if trial not in found)
        for row in keep_rows(path, waiting):
            print(f"{row['task']} {row['model']} {row['seed']}: {row['seconds']} s", flush=True)
        found = read_rows(path, Trial)
    rows = [found[trial] for trial in wanted if trial in found]
    if rows:
        told = [{name: row[name] for name in row if name not in ("trial", "date", "points")} for row in rows]
        compared = comparisons(told)
        print(tables(told, compared))
        print(f"\n{len(rows)} of {len(wanted)} trials")
        header = results_header("python experiments/retrieve.py", options.part)
        results = {"trials": len(wanted), "results": summarise(told), "comparisons": compared}
        name = "_".join(["retrieve", options.part, *options.questions.split(",")]).rstrip("_")
        write_json(options.out / f"{name}.json", {**header, **results})
        draw_panels(rows, options.out / f"{name}.png")
    return len(rows)


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Those of a part, question by question."""
    part = PARTS[options.part]
    questions = [name for name in part.questions if not options.questions or name in options.questions.split(",")]
    models = [name for name in part.models if not options.models or name in options.models.split(";")]
    seeds = numbers(options.seeds) if options.seeds else range(part.seeds)
    for question in questions:
        for seed in seeds:
            for model in [name for name in models if question == "nas" or name != SLOTS]:
                if question in DRAWN or by_chance(model) or seed == seeds[0]:
                    yield Trial(question, model, seed, reduced_to(question, model, options))


def reduced_to(question: str, model: str, options: argparse.Namespace) -> str:
    """What a row's figures depend on besides its question, encoder and seed."""
    network = f"width {options.width}, batch {options.batch}, {options.epochs} epochs"
    if options.motif_epochs != 5 and "nar" in model:
        network += f", {options.motif_epochs} of motifs"
    searched = f"{options.members} a class, {options.edits} edits"
    if question == "nas":
        return f"{searched}, {network}"
    parts = [options.corpus, searched if model == TRANSFERRED else "", network if of_network(model) else ""]
    return ", ".join(filter(None, parts))


def row_of(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Ask one question."""
    question = ask(trial.question, trial.seed, options.part, json.dumps(vars(options), default=str))
    reduced = Reduced(
        options.members, options.edits, options.width, options.batch, options.epochs, options.motif_epochs
    )
    whole = question.fitted_N is None
    found = candidate_of(trial.model, reduced, trial.seed, fitted_once=whole)
    watched = None if whole else Watched(found.make())
    began = time.process_time()
    answers = question.answers(found if watched is None else replace(found, make=lambda: watched), 5, trial.seed)
    seconds = round(time.process_time() - began, 2)
    told = {"task": trial.question, "model": trial.model, "seed": trial.seed, "trial": asdict(trial)}
    row = {**told, **figures(answers, question.task.family_Q)}
    if trial.model in PICTURED and watched is not None:
        kinds = question.families if trial.question == "nas" else kinds_of(options)
        row["points"] = points(kinds, watched.embedding_ND, trial.seed)
    return {**row, "date": datetime.date.today().isoformat(), "seconds": seconds}


def kinds_of(options: argparse.Namespace) -> list[str]:
    """What mixes places in each network of the part's corpus."""
    return [entry.label for entry in open_corpus(options.corpus, PARTS[options.part].libraries)[0].entries]


def points(kinds: Sequence[str], embedding_ND: np.ndarray, seed: int) -> dict[str, list[Any]]:
    """Where some of a question's networks lie in the plane, and of which kind each is."""
    count = len(embedding_ND)
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:MOST_POINTS])
    point_N2 = layout(embedding_ND[drawn].astype(np.float32), seed).round(3)
    return {
        "x": point_N2[:, 0].tolist(),
        "y": point_N2[:, 1].tolist(),
        "kinds": [kinds[place] for place in drawn.tolist()],
    }


@functools.lru_cache(2)
def open_corpus(file: str, libraries: tuple[str, ...]) -> tuple[Corpus, list[OrderedGraph]]:
    corpus = known_corpus(CorpusSection(file=file, libraries=list(libraries)))
    return corpus, graphs_of(corpus)


@functools.lru_cache(2)
def ask(name: str, seed: int, part: str, given: str) -> Question:
    """A question of the package's, or a part of one: `distinct` has no graph that timm has, too; `code_rest` leaves
    out the half of the models that `own_code` was chosen by."""
    options = json.loads(given)
    config = RetrieveBenchConfig()
    config.nas.members, config.nas.edits = options["members"], options["edits"]
    config.bench.families = options["families"]
    if name == "nas":
        return Asked(Corpus.of([], {}, {}), [], config).question("nas", seed)
    corpus, graphs = open_corpus(options["corpus"], PARTS[part].libraries)
    asked = Asked(corpus, graphs, config)
    whole = asked.question({"distinct": "torchvision", "code_rest": "code"}.get(name, name), seed)
    kept_Q = np.ones(len(whole.task.query_Q), bool)
    if name == "distinct":
        kept_Q = np.array([corpus.entries[place].of_library("timm") is None for place in whole.task.query_Q])
    if name == "code_rest":
        kept_Q = ~chosen_by(len(kept_Q))
    return replace(whole, task=whole.task.of_queries(kept_Q))


def chosen_by(count: int) -> np.ndarray:
    """Half of the models that take over code, by seed 100: bool [count]."""
    return np.random.default_rng(100).permutation(count) < count // 2


def show_darts(out: Path) -> None:
    """What is nearest to DARTS' second network, and where it lies among all others."""
    found = nge_search.retrieve_query("darts_v2", top=10)
    lines = [
        [near["name"], near["family"], three(near["similarity"]), three(near["shared"])]
        for near in found["nearest"]
    ]
    print(markdown(["network", "family", "similarity", "share in shared motifs"], lines))
    header = results_header("python experiments/retrieve.py darts")
    write_json(out / "retrieve_darts.json", {**header, **found})
    catalogue = open_catalogue()
    graph = catalogue.comparable(asked_network("darts_v2", catalogue.corpus).graph)
    query_1D = catalogue.embedder.embed([OrderedGraph.of(graph)])
    draw_map(catalogue.index.embedding_ND, catalogue.index.about, query_1D, out / "retrieve_map.png")


if __name__ == "__main__":
    main()
