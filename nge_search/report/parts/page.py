"""The page around the sections: document head, header, figures, tables, code blocks; everything escaped here."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from nge_search.report.parts.assets import SCRIPT, STYLE


@dataclass(frozen=True)
class Section:
    """`body` is HTML; an empty one is left out of the page and of the table of contents."""

    anchor: str
    title: str
    body: str


@dataclass(frozen=True)
class Figure:
    """A headline figure: its value as text, what it is, and a remark in small print."""

    value: str
    name: str
    remark: str = ""


#: How every page begins, by which one of ours is told from another program's.
BEGINNING = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; """
)


def document(title: str, subtitle: str, banner: str, figures: Sequence[Figure], sections: Iterable[Section]) -> str:
    """The whole page. Its content security policy allows no request at all, and no script but our own."""
    shown = [section for section in sections if section.body]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    contents = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in shown)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for section in shown
    )
    return (
        f"{BEGINNING}script-src 'sha256-{digest}'; img-src data:\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><p class="kicker">{escape(subtitle)}</p><h1>{escape(title)}</h1>{banner}'
        f'<dl class="figures">{"".join(map(_figure, figures))}</dl></header>'
        f'<nav aria-label="Contents">{contents}</nav><main>{body}</main>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _figure(figure: Figure) -> str:
    remark = f"<small>{escape(figure.remark)}</small>" if figure.remark else ""
    return f"<div><dt>{escape(figure.name)}</dt><dd>{escape(figure.value)}{remark}</dd></div>"


def notice(text: str, kind: str = "") -> str:
    """A framed line; `kind` is empty or `warning`."""
    return f'<p class="notice {kind}">{escape(text)}</p>'


def code(text: str, name: str) -> str:
    """A block of text with a copy button, which appears only where JavaScript runs; `name` says what is copied."""
    return (
        '<div class="code"><button type="button" class="copy" hidden '
        f'aria-label="Copy {escape(name)}">Copy</button><pre tabindex="0">{escape(text)}</pre></div>'
    )


def grid(parts: Iterable[str]) -> str:
    """Charts side by side; empty if there is none."""
    filled = "".join(parts)
    return f'<div class="charts">{filled}</div>' if filled else ""


def table(values: dict[str, Any]) -> str:
    """Keys and values, nested objects flattened to `outer.inner`; empty for an empty object."""
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in _flatten(values)
    )
    return f'<div class="scroll"><table class="plain"><tbody>{rows}</tbody></table></div>' if rows else ""


def records(title: str, names: Sequence[str], counts: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A <figure> with a table: columns of names, then columns of numbers; empty without a row."""
    kinds = [""] * len(names) + [' class="count"'] * len(counts)
    heads = "".join(f'<th scope="col"{kind}>{escape(head)}</th>' for kind, head in zip(kinds, (*names, *counts)))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for kind, cell in zip(kinds, row))}</tr>" for row in rows
    )
    if not body:
        return ""
    return (
        f'<figure class="records"><figcaption>{escape(title)}</figcaption><div class="scroll" tabindex="0">'
        f'<table class="plain"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></figure>'
    )


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and prefix.count(".") < 8:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _cell(value)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
