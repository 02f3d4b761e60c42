"""The results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.gpu.stages import STAGES, Stage

NOT_MEASURED = "not measured yet"


def render(lines: Sequence[dict[str, Any]]) -> str:
    """Return one table per stage. Rows that were not measured are named, too.

    Args:
        lines: of `analysis.gpu.results.read`. A line is a row, or says how a stage ended.
    """
    return "\n\n".join(_table(stage, lines) for stage in STAGES.values()) + "\n"


def _table(stage: Stage, lines: Sequence[dict[str, Any]]) -> str:
    own = [line for line in lines if line["stage"] == stage.name]
    rows = {line["work"]: line for line in own if "work" in line}
    ended = next((line["ended"] for line in reversed(own) if "ended" in line), "")
    table = [
        f"**{stage.about}**" + (f" ({ended})" if ended not in ("", "ok") else ""),
        "",
        "| measurement | value | ratio | goal |",
        "| --- | --- | --- | --- |",
    ]
    for work in dict.fromkeys([*stage.goals, *rows]):
        goal = stage.goals.get(work, "")
        line = rows.get(work)
        cells = [NOT_MEASURED, ""] if line is None else [_value(line), _ratio(line)]
        table.append("| " + " | ".join([work, *cells, goal]) + " |")
    if not stage.goals and not rows:
        table.append(f"| | {NOT_MEASURED} | | |")
    return "\n".join(table)


def _value(line: dict[str, Any]) -> str:
    value = line.get("value")
    number = "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    text = f"{number} {line.get('unit', '')}".strip()
    note = str(line.get("note", "")).replace("|", "/")
    return f"{text} ({note})" if text and note else text or note


def _ratio(line: dict[str, Any]) -> str:
    if "ratio" not in line:
        return ""
    return f"{line['ratio']:.3f} ({line['low']:.3f} to {line['high']:.3f})"
