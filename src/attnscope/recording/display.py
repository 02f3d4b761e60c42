"""What a notebook shows of recordings and outcomes: small HTML tables. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from attnscope.kinds import Gate


def html_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a header row."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{_rows(rows, 'td')}</tbody></table>"


def html_properties(properties: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values, one row each."""
    return f"<table><tbody>{_rows(properties, 'th')}</tbody></table>"


def html_page(title: str, *tables: str) -> str:
    """Return tables below a title."""
    return f"<div><p><strong>{escape(title)}</strong></p>{''.join(tables)}</div>"


def html_gates(gates: Sequence[Gate]) -> str:
    """Return a table of gates that opens when its summary, their number, is clicked."""
    rows = [
        (gate.name, gate.kind, gate.channels, gate.activation, f"{gate.lo:g} to {gate.hi:g}")
        for gate in gates
    ]
    table = html_table(("Gate", "Kind", "Channels", "Activation", "Bounds"), rows)
    summary = escape(number_of(len(gates), "gate"))
    return f"<details><summary>{summary}</summary>{table}</details>"


def number_of(count: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``16 gates``, ``10 classes``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def _rows(rows: Iterable[Sequence[object]], first: str) -> str:
    found = []
    for row in rows:
        tags = [first, *["td"] * (len(row) - 1)]
        cells = "".join(
            f"<{tag}>{escape(str(cell))}</{tag}>" for tag, cell in zip(tags, row, strict=True)
        )
        found.append(f"<tr>{cells}</tr>")
    return "".join(found)
