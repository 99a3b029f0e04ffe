"""`nge predict score`: what a trained predictor expects of architectures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nge_search.commands.parser import Parser, given_path, require_between, require_free
from nge_search.console import show

#: Architectures that are shown and drawn at most.
_MOST_BEST = 100


def score(words: Sequence[str]) -> None:
    """`nge predict score`."""
    parser = Parser(
        prog="nge predict score",
        description="The accuracies of architectures, as a trained predictor expects them.",
    )
    parser.add_argument("predictor", type=given_path, help="run folder of nge predict train, or darts, which ships")
    parser.add_argument(
        "architectures",
        type=given_path,
        help="CSV with the column `architecture`, run folder of a search (each epoch), or one architecture",
    )
    parser.add_argument("--out", type=given_path, metavar="FILE", help="CSV to write all scores into")
    parser.add_argument(
        "--best", type=int, default=10, help="number of architectures of highest score to show (10)"
    )
    parser.add_argument(
        "--draw", type=given_path, metavar="FOLDER", help="folder to write a drawing of the best architectures into"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files that --out and --draw name")
    parser.add_argument("--json", action="store_true", help="print all scores as JSON, in the order given")
    options = parser.parse_args(words)
    require_between("best", options.best, 1, _MOST_BEST)
    drawings = [Path(options.draw or ".") / f"best.{suffix}" for suffix in ("svg", "png")]
    wrote = [*([options.out] if options.out else []), *(drawings if options.draw else [])]
    require_free(wrote, options.overwrite)
    from nge_search.files import write_atomic
    from nge_search.predict.saved import load_predictor
    from nge_search.predict.scoring import best, to_csv
    from nge_search.predict.scoring import score as scored_by

    saved = load_predictor(options.predictor)
    scored = scored_by(saved, options.architectures)
    chosen = best(scored, options.best)
    if options.out:
        write_atomic(Path(options.out), to_csv(scored))
    if options.draw:
        from nge_search.report import save_sheet

        titles = [f"{rank}. {one.words()}" for rank, one in enumerate(chosen, 1)]
        save_sheet([(title, saved.space.graphs(one.code)) for title, one in zip(titles, chosen)], *drawings)
    if options.json:
        document = {"predictor": saved.describe(), "architectures": [one.to_dict() for one in scored]}
        show(*json.dumps(document, indent=2).splitlines())
        return
    lines = [saved.describe()]
    if scored[0].epoch is None:
        lines += [f"{one.words()}  {one.text}" for one in chosen]
    else:
        lines += [f"epoch {one.epoch}: {one.words()}  {one.text}" for one in scored]
    show(*lines, *(f"wrote {path}" for path in wrote))
