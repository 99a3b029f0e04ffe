"""What the last test of a retraining found: which classes it mistakes for which, and its worst images."""

from __future__ import annotations

import math
from html import escape

from nge_search.report.drawing.palette import STRONG
from nge_search.report.parts.evaluation import DRAWN_CLASSES, Evaluation, ShownImage
from nge_search.report.parts.numbers import MISSING, percent, plain
from nge_search.report.parts.page import Section, records
from nge_search.report.parts.sections import hint

_MISTAKES, _LOWEST = 15, 10
_LEVEL_HEADS = 90  # letters: names that together are longer stand upright above their columns


def confusion(found: Evaluation | None) -> Section:
    """The matrix as a heatmap for up to `DRAWN_CLASSES` classes; the classes and mistakes that cost most."""
    body = ""
    if found:
        tables = _mistakes(found) + _lowest(found)
        tables = f'<div class="beside">{tables}</div>' if tables else ""
        body = _matrix(found) + tables
        body = _reading(found) + body if body else ""
    return Section("confusion", "Confusion matrix", body)


def worst(found: Evaluation | None) -> Section:
    """The test images of largest loss."""
    body = ""
    if found and found.worst:
        thumbnails = "".join(_thumbnail(found, image) for image in found.worst)
        body = hint("The test images of largest loss, largest first. Rest the pointer on one for its name.")
        body += f'<div class="samples">{thumbnails}</div>'
    return Section("worst", "Worst-classified images", body)


def _reading(found: Evaluation) -> str:
    """One line: which test this is, and how many images it got right."""
    words = []
    if math.isfinite(found.epoch):
        words.append(f"Test at the end of epoch {plain(found.epoch, 6)}.")
    images, right = (sum(pair[which] for pair in found.per_class) for which in (0, 1))
    if images:
        words.append(f"{right} of {images} images classified correctly ({percent(100 * right / images)}).")
    if len(found.classes) > DRAWN_CLASSES:
        words.append(
            f"The matrix itself is drawn for up to {DRAWN_CLASSES} classes; here are {len(found.classes)}."
        )
    return hint(" ".join(words)) if words else ""


def _matrix(found: Evaluation) -> str:
    if not found.confusion:
        return ""
    heads = "".join(
        f'<th scope="col" title="predicted: {escape(name)}"><span>{escape(name)}</span></th>'
        for name in found.classes
    )
    upright = " upright" if sum(map(len, found.classes)) > _LEVEL_HEADS else ""
    rows = "".join(_matrix_row(found, true) for true in range(len(found.classes)))
    return (
        f'<div class="scroll" tabindex="0"><table class="p confusion{upright}"><thead><tr>'
        f'<th scope="col">true ↓ predicted →</th>{heads}<th scope="col">accuracy</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="scale"><span>0</span><i></i><span>100&nbsp;%</span> of the images of the true class, '
        "on a square-root scale, so that rare mistakes show</p>"
    )


def _matrix_row(found: Evaluation, true: int) -> str:
    counts, name = found.confusion[true], found.classes[true]
    images = sum(counts)
    cells = []
    for predicted, count in enumerate(counts):
        share = count / images if images else 0.0
        level = math.sqrt(share)
        classes = ["right"] if predicted == true else []
        classes += ["strong"] if level > STRONG else []
        classes += ["none"] if count == 0 else []
        kind = f' class="{" ".join(classes)}"' if classes else ""
        what = f"{name}, correct" if predicted == true else f"{name} taken for {found.classes[predicted]}"
        tip = f"{what}: {count} of {images} ({percent(100 * share)})"
        cells.append(f'<td{kind} style="--p:{level:.3f}" title="{escape(tip)}">{count}</td>')
    accuracy = percent(100 * counts[true] / images) if images else MISSING
    tip = f"{name}: {counts[true]} of {images} images classified correctly"
    return (
        f'<tr><th scope="row" title="{escape(name)}"><span>{escape(name)}</span></th>{"".join(cells)}'
        f'<td class="end" title="{escape(tip)}">{accuracy}</td></tr>'
    )


def _mistakes(found: Evaluation) -> str:
    rows = []
    for true, predicted, count in found.confused[:_MISTAKES]:
        images = found.per_class[true][0] if found.per_class else 0
        share = percent(100 * count / images) if images else MISSING
        rows.append((found.classes[true], found.classes[predicted], str(count), share))
    return records("Most frequent mistakes", ("true class", "taken for"), ("images", "of the class"), rows)


def _lowest(found: Evaluation) -> str:
    shares = {
        position: right / images for position, (images, right) in enumerate(found.per_class) if images
    }  # a class without test images has no accuracy
    rows = []
    for position in sorted(shares, key=shares.__getitem__)[:_LOWEST]:
        images, right = found.per_class[position]
        rows.append((found.classes[position], str(right), str(images), percent(100 * shares[position])))
    return records("Lowest accuracy", ("class",), ("correct", "images", "accuracy"), rows)


def _thumbnail(found: Evaluation, image: ShownImage) -> str:
    true, predicted = escape(found.classes[image.label]), escape(found.classes[image.predicted])
    name = escape(image.name or "test image")
    return (
        f'<figure><img src="data:image/png;base64,{image.png}" width="128" height="128" title="{name}" '
        f'alt="{name}: {true}, predicted as {predicted}">'
        f"<figcaption><span>true <b>{true}</b></span><span>predicted <b>{predicted}</b></span>"
        f"<span>loss {plain(image.loss)}</span></figcaption></figure>"
    )
