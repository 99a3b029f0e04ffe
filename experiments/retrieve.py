"""Which encoder finds the networks that are built alike? Controls, published encoders and ours, by hard questions.

    python experiments/retrieve.py vision    families that no encoder was told of, near twins, torchvision -> timm
    python experiments/retrieve.py seen      a tenth of each family is asked of the rest, whose names are learnt
    python experiments/retrieve.py code      whose code a model of transformers takes over (needs transformers)
    python experiments/retrieve.py nas       NAR's set of searched networks, reduced; its Table 1
    python experiments/retrieve.py splits    the same set: other ways to divide graphs; its Table 2
    python experiments/retrieve.py losses    the same set: one loss alone; its Table 3
    python experiments/retrieve.py choice    whether our settings are chosen, too, by families that are not reported
    python experiments/retrieve.py darts     what DARTS' second network is like, and the map of the corpus with it

Networks are those of the corpus that ships, or of --corpus. A row of results/retrieve_rows.jsonl is one trial; rows
that are there are not made again, so that a stopped command goes on. --models and --seeds choose; --show prints
what there is. Each part writes results/retrieve_PART.json, and prints its tables in Markdown. Seeds 0 and up are
for reports alone: what was chosen was chosen on 100 to 108.

Encoders that learn from families never see those of the networks that ask, but for `seen` and the searched
networks. What no chance enters is done once: a control has no seed where the question has none. P values are
one-sided, of MAP at 20, and exchange whole families.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from predict import numbers
from predict_tables import markdown, three

import nge_search
from nge_search.engine.environment import results_header
from nge_search.errors import UserError
from nge_search.files import write_json
from nge_search.retrieve import own
from nge_search.retrieve.asked_network import asked_network
from nge_search.retrieve.catalogue import graphs_of, known_corpus, open_catalogue
from nge_search.retrieve.choosing import Candidate
from nge_search.retrieve.comparison import compare, figures, summarise
from nge_search.retrieve.corpus import Corpus
from nge_search.retrieve.embedders import Embedder, UntrainedEmbedder
from nge_search.retrieve.fingerprints import CONTROLS
from nge_search.retrieve.layout import layout
from nge_search.retrieve.models import FROM_FAMILIES, NETWORKS, OURS, candidate
from nge_search.retrieve.nas_set import NasSetSettings, nas_set, slot_features
from nge_search.retrieve.ordered import OrderedGraph
from nge_search.retrieve.questions import Asked, Question
from nge_search.retrieve.smoothing import Smoothing
from nge_search.settings.retrieve import CorpusSection, RetrieveBenchConfig

RESULTS = Path(__file__).parent / "results"
VISION = ("timm", "torchvision")

#: Controls beside the registry's: without views; and what smoothing alone does.
FINGERPRINTS = {
    "wl1, contracted": replace(CONTROLS["wl1"], views=False),
    "wl2, contracted": replace(CONTROLS["wl2"], views=False),
}
#: Encoders of the searched networks: a registered one, and options of it.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"nar, {split}": ("nar", {"split": split}) for split in ("node_number", "motif_number", "random")},
    "nar, contrast alone": ("nar", {"classify": False}),
    "nar, classes alone": ("nar", {"contrast": False}),
}
UNTRAINED = (*CONTROLS, *FINGERPRINTS)
SMOOTHED = {f"{name}, smoothed": name for name in ("wl1", "wl1, contracted")}
#: Of the searched networks alone: what each step of each cell has, in one row.
SLOTS = "slots of steps"
#: Questions whose networks a seed draws or divides.
DRAWN = ("unseen", "seen", "nas")


@dataclass(frozen=True)
class Part:
    """Questions, and who answers them."""

    questions: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int = 3
    libraries: tuple[str, ...] = VISION


PARTS = {
    "vision": Part(
        ("unseen", "families", "twins", "torchvision", "distinct"),
        (*UNTRAINED, *SMOOTHED, "lda", "own_plain", "own"),
    ),
    "seen": Part(("seen",), ("wl1", "wl2", "own", "lda")),
    "code": Part(("code", "code_rest"), (*UNTRAINED, "own", "own_plain", "own_code"), libraries=()),
    "nas": Part(("nas",), ("operations", SLOTS, "gcn", "gat", "nar"), 1),
    "splits": Part(("nas",), ("nar", *(f"nar, {split}" for split in ("node_number", "motif_number", "random"))), 1),
    "losses": Part(("nas",), ("nar", "nar, contrast alone", "nar, classes alone"), 1),
}


@dataclass(frozen=True)
class Trial:
    """A question of a seed, put to an encoder; `set` says how the searched networks were reduced."""

    question: str
    model: str
    seed: int
    set: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "choice", "darts"))
    parser.add_argument("--corpus", default="", help="run folder of `nge retrieve build`, or a file that it wrote")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--models", default="", help="some of the part's models, as 'own;wl1, contracted'")
    parser.add_argument("--seeds", default="", help="as 0-2 or 100,101; by default as many as PARTS says, from 0")
    parser.add_argument("--families", type=int, default=20, help="families that are drawn, of `unseen`")
    parser.add_argument("--members", type=int, default=100, help="searched networks of a class")
    parser.add_argument("--edits", type=int, default=8, help="genes in which they differ from their centre")
    parser.add_argument("--width", type=int, default=128, help="features of networks on them")
    parser.add_argument("--batch", type=int, default=64, help="searched networks in a batch")
    parser.add_argument("--epochs", type=int, default=15, help="of networks on them")
    parser.add_argument("--show", action="store_true", help="train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        if options.part == "darts":
            show_darts(options)
        elif options.part == "choice":
            show_choice(options)
        elif not make_tables(options):
            parser.error("no row yet; leave --show out")
    except UserError as error:
        parser.error(str(error))


def make_tables(options: argparse.Namespace) -> int:
    """Carry out what is missing of a part, and print its tables; the number of rows there are."""
    wanted, path = list(trials(options)), options.out / "retrieve_rows.jsonl"
    found = read_rows(path)
    if not options.show:
        with path.open("a") as file:
            for trial in [trial for trial in wanted if trial not in found]:
                row = row_of(trial, options)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"{trial.question} {trial.model} {trial.seed}: {row['seconds']} s", flush=True)
        found = read_rows(path)
    rows = [found[trial] for trial in wanted if trial in found]
    if rows:
        told = [{name: row[name] for name in row if name not in ("trial", "date")} for row in rows]
        compared = comparisons(told)
        print(tables(told, compared))
        print(f"\n{len(rows)} of {len(wanted)} trials")
        header = results_header("python experiments/retrieve.py", options.part)
        results = {"trials": len(wanted), "results": summarise(told), "comparisons": compared}
        write_json(options.out / f"retrieve_{options.part}.json", {**header, **results, "rows": rows})
    return len(rows)


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Those of a part, question by question."""
    part = PARTS[options.part]
    models = [name for name in part.models if not options.models or name in options.models.split(";")]
    seeds = numbers(options.seeds) if options.seeds else range(part.seeds)
    for question in part.questions:
        of = f"{options.members} a class, {options.edits} edits, width {options.width}, batch {options.batch}, "
        for seed in seeds:
            for model in models:
                drawn = question in DRAWN or by_chance(model)
                if drawn or seed == seeds[0]:
                    text = f"{of}{options.epochs} epochs" if question == "nas" else options.corpus
                    yield Trial(question, model, seed, text)


def by_chance(model: str) -> bool:
    """Whether a seed decides anything of an encoder, beside what is asked."""
    return model in FROM_FAMILIES or model in NETWORKS or model in VARIANTS


def read_rows(path: Path) -> dict[Trial, dict[str, Any]]:
    """The rows of finished trials; a line that a crash cut off is passed over."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[Trial(**row["trial"])] = row
    return found


def row_of(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Ask one question."""
    question = ask(trial.question, trial.seed, options.part, json.dumps(vars(options), default=str))
    began = time.perf_counter()
    answers = question.answers(candidate_of(trial, options), 5, trial.seed)
    found = figures(answers, question.task.family_Q)
    told = {"task": trial.question, "model": trial.model, "seed": trial.seed, "trial": asdict(trial)}
    return {
        **told,
        **found,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - began, 2),
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


def candidate_of(trial: Trial, options: argparse.Namespace) -> Candidate:
    """An encoder by its name here; what no chance enters is fitted once."""
    model = trial.model
    if model == SLOTS:
        of_set = NasSetSettings(members=options.members, edits=options.edits)
        return Candidate(lambda: Slots(of_set, trial.seed), families=False)
    smoothing = OURS["own"].smoothing if model in SMOOTHED else None
    model = SMOOTHED.get(model, model)
    if model in FINGERPRINTS:
        found = Candidate(lambda: UntrainedEmbedder(FINGERPRINTS[model]), families=False)
    else:
        name, given = VARIANTS.get(model, (model, {}))
        of_networks = {"width": options.width, "batch_size": options.batch, "epochs": options.epochs}
        found = candidate(name, {**of_networks, **given} if trial.question == "nas" else given)
    if trial.question not in ("seen", "nas") and not by_chance(model):
        fitted = once(str(OURS[model].settings) if model in OURS else model, found)
        found = replace(found, make=lambda: fitted)
    return found if smoothing is None else replace(found, smoothing=smoothing)


class Once(Embedder):
    """Is fitted to the same graphs once, and embeds them once."""

    def __init__(self, embedder: Embedder):
        self._embedder, self._graphs, self._found_ND = embedder, None, np.zeros((0, 0))

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        if self._graphs is not graphs:
            self._embedder.fit(graphs, families, seed)
            self._found_ND = self._embedder.embed(graphs).astype(np.float32)
            self._graphs = graphs

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._found_ND if graphs is self._graphs else self._embedder.embed(graphs)


_FITTED: dict[str, Once] = {}


def once(model: str, found: Candidate) -> Once:
    """The one of a name that is fitted already."""
    return _FITTED.setdefault(model, Once(found.make()))


class Slots(Embedder):
    """The searched networks of a set by their genes: no graph is looked at."""

    def __init__(self, settings: NasSetSettings, seed: int):
        self._feature_AF = slot_features(nas_set(settings, seed)[0])

    def fit(self, graphs: Sequence[OrderedGraph], families: Sequence[str], seed: int) -> None:
        pass

    def embed(self, graphs: Sequence[OrderedGraph]) -> np.ndarray:
        return self._feature_AF


def comparisons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of ours with the control of highest MAP; where code is taken over, with all controls."""
    found = []
    for question in dict.fromkeys(row["task"] for row in rows):
        asked = [row for row in rows if row["task"] == question]
        maps = {result["model"]: result["map_at_20"]["mean"] for result in summarise(asked)}
        controls = sorted((name for name in maps if name in UNTRAINED), key=lambda name: -maps[name])
        for control in controls if question.startswith("code") else controls[:1]:
            first = [row for row in asked if row["model"] == control]
            for model in (name for name in maps if name in OURS):
                found += compare([*first, *(row for row in asked if row["model"] == model)])
    return found


def tables(rows: Sequence[dict[str, Any]], compared: Sequence[dict[str, Any]]) -> str:
    """All questions of a part."""
    parts = []
    for question in dict.fromkeys(row["task"] for row in rows):
        own = [result for result in summarise(rows) if result["task"] == question]
        parts.append(f"\n### {question}, {own[0]['queries']:.0f} queries\n")
        columns = {"MRR": "mrr_at_20", "MAP@20": "map_at_20", "MAP@100": "map_at_100", "NDCG@20": "ndcg_at_20"}
        lines = [
            [one["model"], *(spread(one[name]) for name in columns.values()), str(one["seeds"])] for one in own
        ]
        parts.append(markdown(["encoder", *columns, "seeds"], lines))
        pairs = [pair for pair in compared if pair["task"] == question]
        if pairs:
            lines = [
                [
                    f"{pair['model']} - {pair['against']}",
                    f"{pair['difference']:+.4f}",
                    f"{pair['p']:.2g}",
                    f"{pair['mrr_difference']:+.4f}",
                ]
                for pair in pairs
            ]
            parts.append("\n" + markdown(["difference", "MAP@20", "p", "MRR"], lines))
    return "\n".join(parts)


def spread(figure: dict[str, Any]) -> str:
    """Mean, and deviation over seeds."""
    return three(figure["mean"]) + ("" if not figure["deviation"] else f" ± {figure['deviation']:.3f}")


#: What our settings were chosen among: fingerprints, by which of ours they are of; and smoothing.
CHOICES = {
    f"{sees}; {how}": (fingerprints, smoothing)
    for sees, fingerprints in (
        ("surroundings", own.FINGERPRINTS[:2]),
        ("and operations", own.FINGERPRINTS[:3]),
        ("and all without views", own.FINGERPRINTS),
    )
    for how, smoothing in (
        ("plain", Smoothing()),
        ("smoothed", Smoothing(8)),
        ("both", Smoothing(8, kept=0.5)),
    )
}


def show_choice(options: argparse.Namespace) -> None:
    """For each seed of `unseen`, the choice of highest MAP on all families that it does not draw, on those it does.

    The control is chosen in the same way, of those with surroundings.
    """
    figure: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    controls = [name for name in UNTRAINED if name.startswith("wl")]
    given, families = json.dumps(vars(options), default=str), {}
    for name in (*controls, *CHOICES):
        if name in CHOICES:
            fingerprints, smoothing = CHOICES[name]
            settings = own.OwnSettings(fingerprints)
            made = once(str(fingerprints), Candidate(functools.partial(own.OwnEmbedder, settings)))
            tried = Candidate(lambda made=made: made, smoothing, families=False)
        else:
            tried = candidate_of(Trial("families", name, 0), options)
        for question in ("families", "twins", "torchvision"):
            asked = ask(question, 0, "vision", given)
            answers, families[question] = asked.answers(tried, 5, 0), asked.task.family_Q
            figure.setdefault(question, {})[name] = answers.average_precisions(20), answers.reciprocal_ranks(20)
    found = []
    for question, seed in itertools.product(figure, range(3)):
        drawn = set(ask("unseen", seed, "vision", given).task.family_Q.tolist())
        report_Q = np.isin(families[question], list(drawn))
        best = [
            max(names, key=lambda name: np.nanmean(figure[question][name][0][~report_Q]))
            for names in (list(CHOICES), controls)
        ]
        maps, ranks = zip(*([np.nanmean(x[report_Q]) for x in figure[question][name]] for name in best))
        found.append({"question": question, "seed": seed, "chosen": best, "map_at_20": maps, "mrr_at_20": ranks})
    lines = [
        [
            one["question"],
            str(one["seed"]),
            *one["chosen"],
            *(f"{three(r)}/{three(m)}" for r, m in zip(one["mrr_at_20"], one["map_at_20"])),
        ]
        for one in found
    ]
    print(markdown(["question", "seed", "chosen", "control", "MRR/MAP@20", "the control's"], lines))
    write_json(
        options.out / "retrieve_choice.json",
        {**results_header("python experiments/retrieve.py choice"), "results": found},
    )


def show_darts(options: argparse.Namespace) -> None:
    """What is nearest to DARTS' second network, and where it lies among all others."""
    found = nge_search.retrieve_query("darts_v2", top=10)
    lines = [
        [near["name"], near["family"], three(near["similarity"]), three(near["shared"])]
        for near in found["nearest"]
    ]
    print(markdown(["network", "family", "similarity", "share in shared motifs"], lines))
    write_json(
        options.out / "retrieve_darts.json", {**results_header("python experiments/retrieve.py darts"), **found}
    )
    catalogue = open_catalogue()
    graph = catalogue.comparable(asked_network("darts_v2", catalogue.corpus).graph)
    query_1D = catalogue.embedder.embed([OrderedGraph.of(graph)])
    draw_map(catalogue.index.embedding_ND, catalogue.index.about, query_1D, options.out / "retrieve_map.png")


def draw_map(embedding_ND: np.ndarray, about: Sequence[dict[str, Any]], query_1D: np.ndarray, path: Path) -> None:
    """A point for each network, coloured by what mixes places; the largest families named; the query a star."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    point_N2 = layout(np.vstack([embedding_ND, query_1D]).astype(np.float32), 0)
    figure, axes = pyplot.subplots(figsize=(8, 8))
    for label, colour in (("cnn", "tab:blue"), ("attention", "tab:orange"), ("other", "tab:green")):
        own = [place for place, one in enumerate(about) if one["label"] == label]
        axes.scatter(*point_N2[own].T, s=7, color=colour, label=label, alpha=0.6, linewidths=0)
    families = [one["family"] for one in about]
    for family in sorted(set(families), key=lambda name: -families.count(name))[:24]:
        own = [place for place, name in enumerate(families) if name == family]
        axes.annotate(family, np.median(point_N2[own], axis=0), fontsize=6, ha="center")
    axes.scatter(*point_N2[-1], s=120, marker="*", color="black", label="darts_v2")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_axis_off()
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
