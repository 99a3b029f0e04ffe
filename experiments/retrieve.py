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
    python experiments/retrieve.py shipped   what ships: its networks, its size, what it takes for new
    python experiments/retrieve.py speed     seconds of one core (needs transformers)

Networks are those of the corpus that ships, or of --corpus. A row of results/retrieve_rows.jsonl is one trial; rows
that are there are not made again, so that a stopped command goes on. --models, --questions and --seeds choose what
is carried out and printed; --show prints what there is. results/retrieve_PART.json tells all that the rows know of
a part, whatever was chosen; sets and encoders of other sizes have a file of their own. Seeds 0 and up are for
reports alone: what was chosen was chosen on 100 to 108.

Encoders that learn from families never see those of the networks that ask, but for `seen` and the searched
networks. What no chance enters is done once: a control has no seed where the question has none. P values are
one-sided, of MAP at 20, and exchange whole families.
"""

from __future__ import annotations

import argparse
import datetime
import functools
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
    REDUCED,
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
from retrieve_tables import comparisons, draw_map, draw_panels, in_lines, tables, told

import nge_search
from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_atomic, write_json
from nge_search.retrieve.asked_network import asked_network
from nge_search.retrieve.catalogue import graphs_of, known_corpus, open_catalogue, shipped_folder
from nge_search.retrieve.comparison import figures
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.layout import layout
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.questions import Asked, Question
from nge_search.retrieve.sources import LIBRARIES
from nge_search.retrieve.tasks import SMALLEST_FAMILY
from nge_search.settings.retrieve import CorpusSection, RetrieveBenchConfig

RESULTS = Path(__file__).parent / "results"
VISION = ("timm", "torchvision")
#: Encoders whose networks are drawn as points, at most so many of a question that is divided, for Figure 5.
PICTURED, MOST_POINTS = ("gcn", "gat", "nar"), 600
#: Seeds from here on are for choosing.
CHOOSING = 100
_SIZES = {
    "members": "searched networks of a class",
    "edits": "genes in which they differ from their centre",
    "width": "features of published networks",
    "batch": "graphs in their batches",
    "epochs": "epochs of them",
    "motif_epochs": "epochs of their first stage",
}


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
    parser.add_argument("part", choices=(*PARTS, "choice", "darts", "shipped", "speed"))
    parser.add_argument("--corpus", default="", help="run folder of `nge retrieve build`, or a file that it wrote")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--models", default="", help="some of the part's models, as 'own;wl1, contracted'")
    parser.add_argument("--questions", default="", help="some of the part's questions, as nas,seen")
    parser.add_argument("--seeds", default="", help="as 0-2 or 100,101; by default as many as PARTS says, from 0")
    parser.add_argument("--families", type=int, default=20, help="families that are drawn, of `unseen`")
    for name, what in _SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{what}; by default by the question")
    parser.add_argument("--count", type=int, default=1_000_000, help="embeddings that search is timed on")
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        if options.part == "darts":
            show_darts(options.out)
        elif options.part == "shipped":
            show_shipped(options.out)
        elif options.part == "speed":
            retrieve_speed.measure(options.out, options.count)
        elif options.part == "choice":
            asked = options.corpus, VISION, options.families, REDUCED["seen"]
            path = options.out / f"{name_of(options)}.json"
            retrieve_choice.show(lambda question, seed: ask(question, seed, *asked), path)
        elif not make_tables(options):
            parser.error("no row yet; leave --show out")
    except UserError as error:
        parser.error(str(error))


def make_tables(options: argparse.Namespace) -> int:
    """Carry out what is missing of what is asked for, and print its tables; the number of rows there are."""
    wanted, path = list(trials(options)), options.out / "retrieve_rows.jsonl"
    found = read_rows(path, Trial)
    if not options.show:
        waiting = (row_of(trial, options) for trial in wanted if trial not in found)
        for row in keep_rows(path, waiting):
            print(f"{row['task']} {row['model']} {row['seed']}: {row['seconds']} s", flush=True)
        found = read_rows(path, Trial)
    rows = [found[trial] for trial in wanted if trial in found]
    if rows:
        print(tables(rows, comparisons(rows)))
        print(f"\n{len(rows)} of {len(wanted)} trials")
    write_part(found, options)
    return len(rows)


def write_part(found: dict[Trial, dict[str, Any]], options: argparse.Namespace) -> None:
    """What all rows tell of a part and of sizes, in its file; pictures of what is placed in the plane."""
    part = PARTS[options.part]
    own = [
        trial
        for trial in found
        if trial.question in part.questions
        and trial.model in part.models
        and trial.seed < CHOOSING
        and trial.set == reduced_to(trial.question, trial.model, options)
    ]
    if not own:
        return
    own.sort(key=lambda one: (part.questions.index(one.question), part.models.index(one.model), one.seed))
    rows = [found[trial] for trial in own]
    header = results_header("python experiments/retrieve.py", options.part)
    days = sorted({row["date"] for row in rows})
    measured = {"rows": len(rows), "measured": [days[0], days[-1]]}
    seconds = {"core_seconds": round(sum(row["seconds"] for row in rows))}
    results = {"results": told(rows), "comparisons": comparisons(rows)}
    path = options.out / f"{name_of(options)}.json"
    write_atomic(path, in_lines({**header, **measured, **seconds, **results}))
    if options.part == "nas":
        draw_panels(rows, path.with_suffix(".png"))


def name_of(options: argparse.Namespace) -> str:
    """Of a part's file, with a corpus and sizes that are not the usual ones."""
    given = [f"{name}_{getattr(options, name)}" for name in _SIZES if getattr(options, name) is not None]
    families = [] if options.families == 20 else [f"families_{options.families}"]
    corpus = [Path(options.corpus).stem] if options.corpus else []
    return "_".join(["retrieve", options.part, *corpus, *families, *given])


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Those of a part, question by question."""
    part = PARTS[options.part]
    questions = [name for name in part.questions if not options.questions or name in options.questions.split(",")]
    models = [name for name in part.models if not options.models or name in options.models.split(";")]
    seeds = numbers(options.seeds) if options.seeds else range(part.seeds)
    for question in questions:
        for seed in seeds:
            for model in [name for name in models if question == "nas" or name != SLOTS]:
                chance = by_chance(model, question)
                if chance or seed == seeds[0]:
                    yield Trial(question, model, seed if chance else 0, reduced_to(question, model, options))


def reduced(question: str, options: argparse.Namespace) -> Reduced:
    """What is usual of a question, and what is asked for."""
    given = {name: getattr(options, name) for name in _SIZES if getattr(options, name) is not None}
    return replace(REDUCED["nas" if question == "nas" else "seen"], **given)


def reduced_to(question: str, model: str, options: argparse.Namespace) -> str:
    """What a row's figures depend on besides its question, encoder and seed."""
    own = reduced(question, options)
    network = f"width {own.width}, batch {own.batch}, {own.epochs} epochs"
    if own.motif_epochs != 5 and "nar" in model:
        network += f", {own.motif_epochs} of motifs"
    searched = f"{own.members} a class, {own.edits} edits"
    if question == "nas":
        return f"{searched}, {network}"
    parts = [
        options.corpus,
        f"{options.families} families" if question == "unseen" and options.families != 20 else "",
        searched if model == TRANSFERRED else "",
        network if of_network(model) else "",
    ]
    return ", ".join(filter(None, parts))


def row_of(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Ask one question."""
    own = reduced(trial.question, options)
    question = ask(trial.question, trial.seed, options.corpus, PARTS[options.part].libraries, options.families, own)
    whole = question.fitted_N is None
    found = candidate_of(trial.model, own, trial.seed, fitted_once=whole)
    watched = None if whole else Watched(found.make())
    began = time.process_time()
    answers = question.answers(found if watched is None else replace(found, make=lambda: watched), 5, trial.seed)
    seconds = round(time.process_time() - began, 2)
    of_row = {"task": trial.question, "model": trial.model, "seed": trial.seed, "trial": asdict(trial)}
    row = {**of_row, **figures(answers, question.task.family_Q)}
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
def ask(name: str, seed: int, file: str, libraries: tuple[str, ...], families: int, sizes: Reduced) -> Question:
    """A question of the package's, or a part of one: `distinct` has no graph that timm has, too; `code_rest` leaves
    out the half of the models that `own_code` was chosen by."""
    config = RetrieveBenchConfig()
    config.nas.members, config.nas.edits, config.bench.families = sizes.members, sizes.edits, families
    if name == "nas":
        return Asked(Corpus.of([], {}, {}), [], config).question("nas", seed)
    corpus, graphs = open_corpus(file, libraries)
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


def show_shipped(out: Path) -> None:
    """The networks that ship, those that have no graph, the files, and what is taken for new."""
    catalogue, folder = open_catalogue(), shipped_folder()
    corpus, novelty = catalogue.corpus, catalogue.index.novelty
    vision = corpus.of_libraries(VISION)
    found: dict[str, Any] = {"graphs": len(corpus), "vision_graphs": len(vision)}
    found["vision_families_of_5"] = len(vision.families(SMALLEST_FAMILY))
    for library in LIBRARIES:
        named = sum(network.library == library for entry in corpus.entries for network in entry.networks)
        missing = sum(name.startswith(f"{library}:") for name in corpus.skipped)
        found[library] = {"names": named + missing, "with_a_graph": named, "share": named / (named + missing)}
    found["bytes"] = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    found["new"] = None if novelty is None else asdict(novelty)
    found["quality"], found["made"] = catalogue.about["quality"], catalogue.about["made"]
    print(markdown(["what", "value"], [[name, str(value)] for name, value in found.items()]))
    write_json(out / "retrieve_shipped.json", {**results_header("python experiments/retrieve.py shipped"), **found})


if __name__ == "__main__":
    main()
