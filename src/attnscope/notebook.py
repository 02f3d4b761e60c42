"""HTML that a notebook shows: tables and titles. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(head: Sequence[object], rows: Iterable[Sequence[object]], left: int = 0) -> str:
    """Return a table with a header row.

    Args:
        head: the column titles.
        rows: the cells of each row, as many as there are column titles.
        left: number of columns that are aligned to the left, the others to the right. 0 leaves the
            alignment to the notebook.
    """
    body = "".join(_row(row, ["td"] * len(row), left) for row in rows)
    titles = _row(head, ["th"] * len(head), left)
    return f"<table><thead>{titles}</thead><tbody>{body}</tbody></table>"


def html_properties(properties: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values, one row each."""
    rows = "".join(_row(each, ["th", "td"], left=2) for each in properties)
    return f"<table><tbody>{rows}</tbody></table>"


def html_page(title: str, *tables: str) -> str:
    """Return tables below a title."""
    return f"<div><p><strong>{escape(title)}</strong></p>{''.join(tables)}</div>"


def html_details(summary: str, content: str) -> str:
    """Return content that opens when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def html_paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def number_of(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``16 gates``, ``10 classes``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def _row(cells: Sequence[object], tags: Sequence[str], left: int) -> str:
    found = []
    for number, (cell, tag) in enumerate(zip(cells, tags, strict=True)):
        style = f' style="text-align: {"left" if number < left else "right"}"' if left else ""
        found.append(f"<{tag}{style}>{escape(str(cell))}</{tag}>")
    return f"<tr>{''.join(found)}</tr>"
