"""`nge export`: a trained network for use elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from nge_search.commands.parser import Parser, given_path
from nge_search.console import show


def export(words: Sequence[str]) -> None:
    """`nge export`."""
    parser = Parser(
        prog="nge export",
        description="The network of a retraining or segmentation, for timm, ONNX and torch.export.",
    )
    parser.add_argument(
        "run", type=given_path, help="run folder of a retraining or of a segmentation, finished or not"
    )
    parser.add_argument(
        "--out", type=given_path, required=True, metavar="FOLDER", help="folder to write the export into"
    )
    parser.add_argument(
        "--format",
        action="append",
        default=[],
        help="format besides weights and config.json, which are always written: onnx, torch, or all; may be given "
        "several times",
    )
    parser.add_argument(
        "--weights", default="last", help="weights to export: last, or ema for the averaged ones (last)"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="SIDE", help="side in pixels of the images to export for (as trained)"
    )
    parser.add_argument(
        "--dynamic-size",
        action="store_true",
        help="let ONNX and torch.export files take images of any height and width; those of a segmentation do so "
        "where no --image-size is given",
    )
    parser.add_argument(
        "--argmax", action="store_true", help="let files of a segmentation give classes, int64, in place of logits"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export; other files in FOLDER are kept"
    )
    options = parser.parse_args(words)
    from nge_search.deploy.export import export_run
    from nge_search.deploy.export_folder import FILES

    names = ("weights", "image_size", "dynamic_size", "argmax", "overwrite")
    given = {name: getattr(options, name) for name in names}
    out = export_run(options.run, options.out, formats=options.format, say=show, **given)
    wrote = [path.name for path in sorted(out.iterdir()) if path.name in FILES]
    show(f"wrote {', '.join(wrote)} in {out}; README.md says how to load it")
