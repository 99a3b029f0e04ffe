"""The report of a segmentation: its figures and curves, how well it found each class, pictures of what it found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from nge_search.report.parts.numbers import MISSING, number, percent, plain, scaled, share
from nge_search.report.parts.page import Figure, Section, grid, records
from nge_search.report.parts.run import Run
from nge_search.report.parts.sections import (
    cells,
    chart,
    configuration,
    genotype,
    hint,
    norm_charts,
    other_charts,
    remark,
    shared_charts,
    throughput,
    training_time,
)
from nge_search.report.parts.segmentation import Masks, MaskShares, Picture, Segmentation

_SHOWN = (
    *("train_loss", "test_loss", "test_miou", "train_pixel_accuracy", "test_pixel_accuracy"),
    *("learning_rate", "head_learning_rate", "images_per_second", "peak_memory_mb"),
)


def figures(run: Run) -> list[Figure]:
    """The headline; before the summary exists, accuracies come from the last epoch with a test."""
    miou, accuracy = _figure(run, "miou", "test_miou"), _figure(run, "pixel_accuracy", "test_pixel_accuracy")
    return [
        Figure(percent(miou), "mIoU, test", remark(run, miou, "test_miou", "best_miou", True)),
        Figure(percent(accuracy), "Pixel accuracy, test"),
        Figure(scaled(run.figure("params")), "Parameters", _backbone(run)),
        Figure(scaled(run.figure("macs")), "Mult-adds", _crop(run)),
        training_time(run),
        throughput(run),
    ]


def sections(run: Run) -> list[Section]:
    curves = [
        chart(run, "Loss", {"train_loss": "training", "test_loss": "test"}, sparse=True),
        chart(run, "Mean intersection over union", {"test_miou": "test"}, "%", sparse=True),
        chart(
            run,
            "Pixel accuracy",
            {"train_pixel_accuracy": "training", "test_pixel_accuracy": "test"},
            "%",
            sparse=True,
        ),
        chart(run, "Learning rates", {"learning_rate": "backbone", "head_learning_rate": "heads"}),
        *shared_charts(run),
    ]
    return [
        cells(run.graphs, "Cells"),
        Section("curves", "Curves", grid(curves)),
        _classes(run),
        _pictures(run.segmentation),
        _masks(run.masks),
        Section("norms", "Parameter norms", grid(norm_charts(run))),
        Section("other", "Other figures", grid(other_charts(run, _SHOWN))),
        genotype(run.genotype),
        *configuration(run),
    ]


def _figure(run: Run, key: str, row_key: str) -> float:
    """The summary's figure `key`, else that of the last row that has `row_key`; both in percent."""
    value = number((run.summary or {}).get(key))
    return value if math.isfinite(value) else run.last(row_key)


def _backbone(run: Run) -> str:
    backbone, whole = run.figure("backbone_params"), run.figure("params")
    if not math.isfinite(backbone):
        return ""
    part = f" ({share(backbone / whole)})" if whole > 0 else ""
    return f"{scaled(backbone)} in the backbone{part}"


def _crop(run: Run) -> str:
    side = number(run.setting("data.crop"))
    known = math.isfinite(side) and math.isfinite(run.figure("macs"))
    return f"at {plain(side, 6)} × {plain(side, 6)} pixels" if known else ""


def _classes(run: Run) -> Section:
    """A row for each class, and the means of their figures."""
    found = run.segmentation
    body = ""
    if found and (found.iou or found.confusion):
        heads = (
            '<th scope="col">class</th><th scope="col" colspan="2">intersection over union</th>'
            '<th scope="col" class="count">pixels</th><th scope="col" class="count">found</th>'
            '<th scope="col">most often taken for</th>'
        )
        rows = "".join(_row(found, position) for position in range(len(found.classes)))
        body = (
            f'{_reading(run, found)}<div class="scroll" tabindex="0"><table class="plain iou"><thead><tr>{heads}'
            f"</tr></thead><tbody>{rows}</tbody><tfoot>{_means(found)}</tfoot></table></div>"
        )
    return Section("iou", "Intersection over union", body)


def _reading(run: Run, found: Segmentation) -> str:
    """Which test this is, and how to read the table."""
    words = []
    if math.isfinite(found.epoch):
        words.append(f"Test at the end of epoch {plain(found.epoch, 6)}.")
        if run.rows and run.rows[-1]["epoch"] > found.epoch:
            words.append(f"The run has since reached epoch {plain(run.rows[-1]['epoch'], 6)}.")
    pixels, right = _total(found), sum(row[true] for true, row in enumerate(found.confusion))
    if pixels:
        images = f" of {plain(found.images, 9)} images" if found.images >= 1 else ""
        words.append(f"{percent(100 * right / pixels)} of {scaled(pixels)} pixels{images} classified correctly.")
    words.append(
        "Intersection over union: the pixels that are of a class and were taken for it, over those that are "
        "either. Found: the share of the class's pixels taken for it."
    )
    return hint(" ".join(words))


def _total(found: Segmentation) -> int:
    return sum(map(sum, found.confusion))


def _row(found: Segmentation, true: int) -> str:
    name, swatch = escape(found.classes[true]), ""
    if found.colours:
        swatch = '<i class="swatch" style="background:#{:02x}{:02x}{:02x}"></i>'.format(*found.colours[true])
    pixels = sum(found.confusion[true]) if found.confusion else math.nan
    iou = found.iou[true] if found.iou else math.nan
    return (
        f'<tr><th scope="row">{swatch}{name}</th>{_bar(iou)}<td class="count">{scaled(pixels)}</td>'
        f'<td class="count">{percent(100 * _recall(found, true))}</td><td>{escape(_mistake(found, true))}</td></tr>'
    )


def _means(found: Segmentation) -> str:
    """Of the classes that have a figure: how mIoU is defined."""
    right = _mean(_recall(found, true) for true in range(len(found.classes)))
    return (
        f'<tr><th scope="row">mean</th>{_bar(_mean(found.iou))}<td></td>'
        f'<td class="count">{percent(100 * right)}</td><td></td></tr>'
    )


def _bar(iou: float) -> str:
    """Two cells: a bar, and the figure in percent."""
    level = iou if math.isfinite(iou) else 0.0
    return f'<td class="bar" style="--p:{level:.3f}"><i></i></td><td class="count">{percent(100 * iou)}</td>'


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _recall(found: Segmentation, true: int) -> float:
    """The share of a class's pixels that were taken for it, NaN if there are none."""
    row = found.confusion[true] if found.confusion else ()
    return row[true] / sum(row) if sum(row) else math.nan


def _mistake(found: Segmentation, true: int) -> str:
    """The other class that most of a class's pixels were taken for, and their share."""
    row = found.confusion[true] if found.confusion else ()
    wrong = [0 if predicted == true else count for predicted, count in enumerate(row)]
    most = max(wrong, default=0)
    return f"{found.classes[wrong.index(most)]}, {percent(100 * most / sum(row))}" if most else MISSING


def _pictures(found: Segmentation | None) -> Section:
    """Test images beside their masks."""
    body = ""
    if found and found.pictures:
        rows = "".join(map(_picture, found.pictures))
        body = hint(
            "From left to right: the image, its true classes, the predicted ones; classes in their colours. "
            "True classes in pale yellow do not count."
        )
        body += f'<div class="masks">{rows}</div>'
    return Section("pictures", "Pictures", body)


def _picture(picture: Picture) -> str:
    name = escape(picture.name or "test image")
    parts = {"image": picture.image, "true classes": picture.truth, "predicted classes": picture.prediction}
    images = "".join(
        f'<img src="data:image/png;base64,{png}" title="{part}" alt="{name}: {part}">'
        for part, png in parts.items()
    )
    return f"<figure><div>{images}</div><figcaption>{name}</figcaption></figure>"


def _masks(masks: Masks | None) -> Section:
    """The share of each class in the pixels of training and validation masks."""
    if masks is None:
        return Section("masks", "Masks", "")
    sets = masks.train, masks.test
    rows = [
        (name, *(_part(found, found.pixels[position]) for found in sets))
        for position, name in enumerate(masks.classes)
    ]
    rows.append(("ignored", *(_part(found, found.ignored) for found in sets)))
    words = "; ".join(
        f"{plain(found.counted, 9)} of {plain(found.images, 9)} {name}"
        for name, found in (("training", masks.train), ("validation", masks.test))
    )
    body = hint(f"Shares of the pixels of the masks that were counted: {words}. Ignored pixels are of no class.")
    return Section("masks", "Masks", body + records("Pixels", ["class"], ["training", "validation"], rows))


def _part(found: MaskShares, pixels: int) -> str:
    """A share of a set's pixels; that of none is no share."""
    total = sum(found.pixels) + found.ignored
    return percent(100 * pixels / total) if total and pixels else MISSING
