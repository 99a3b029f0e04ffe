"""`nge test`: a trained network on labelled images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from nge_search.commands.parser import Parser, given_path
from nge_search.console import show


def test(words: Sequence[str]) -> None:
    """`nge test`."""
    parser = Parser(
        prog="nge test",
        description="The error of a trained network on labelled images, class by class, and its calibration.",
        epilog="With data.root=FOLDER the images are those of class folders, or of the test folder beside a train "
        "folder; of a segmentation, images in VOC's layout with masks of the network's classes, by number. Without "
        "settings a run's own test set.",
    )
    parser.add_argument(
        "model", type=given_path, help="run folder of a retraining or of a segmentation, or its export"
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="settings of the images, as data.root=FOLDER, data.test_fraction=0.2 (what a training would hold out) "
        "or data.name=digits; also device, precision, threads and train.eval_batch_size",
    )
    parser.add_argument(
        "--weights", default="last", help="weights of a retraining: last, or ema for the averaged ones (last)"
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, the confusion matrix too")
    options = parser.parse_intermixed_args(list(words))
    from nge_search.deploy.testing import lines, measure

    def say(line: str) -> None:
        show(line, file=sys.stderr if options.json else sys.stdout)

    found = measure(options.model, options.settings, options.weights, say)
    show(*(json.dumps(found, indent=2).splitlines() if options.json else lines(found)))
