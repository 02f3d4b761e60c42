"""HTML for notebooks: tables whose text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> str:
    """Return an HTML table.

    Args:
        head: the column titles.
        rows: the cells of each row, as many as there are column titles.
        title: a line above the table.
    """
    lines = [f"<p>{escape(title)}</p>"] if title else []
    lines.append("<table><thead><tr>")
    lines += [f"<th>{escape(cell)}</th>" for cell in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table>")
    return "".join(lines)
