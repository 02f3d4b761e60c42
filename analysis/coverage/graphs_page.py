"""The page ``docs/reference/graphs.md``, from the lines of the results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.coverage.page import GROUPS, listed, markdown_table

ABOUT = {
    **GROUPS,
    "cases": (
        "Networks of the tests",
        "Tiny networks, one for each way to compute a gate, to apply it, or to call a network: "
        "`tests/gates/case_networks.py`.",
    ),
    "torchvision": (
        "torchvision",
        "All classification networks that `torchvision.models.list_models()` names, apart from the "
        "quantized ones.",
    ),
}
ORDER = ("attnscope", "timm", "torchvision", "cases")
_EXACT = 1e-5
_HEAD = """\
# Exported and folded networks

`attnscope export` and `attnscope fold` work on the exported graph of a network. This page shows
which public networks `torch.export` can export, whether their gates in the graph are those of the
network, and what folding changes. The networks have random weights, as in
[Coverage](coverage.md), and the graph is exported for any number of images. No network of the
groups below is left out: those that did not run, or have no graph, are listed at the end with the
reason. `python -m analysis.coverage.graphs` adds networks that have no row yet.

- **Graph**: the outputs and the values of all gates of the graph are those of the network, bit for
  bit, and also while all gates are edited. The number of images differs from that of the export. If
  a number is given, it is the largest difference as a share of the largest value. It comes from the
  fast path of `torch.nn.MultiheadAttention`, which a graph does not take (torchvision's `vit_b_16`
  and `vit_b_32`): if the fast path is switched off, the graph of `vit_b_32` is equal, too.
- **Folded**: all gates become random constants. The number is the largest difference from the
  output of the network whose gates are edited to the same constants, as a share of the largest
  output, in single precision. The constants are random, because means may be so near to the gates
  that a fold that does nothing would pass.
- **Constants**: where they went: into the layers before or after the gate, or they are stored.
  "unused" gates acted on other folded gates only.
- **Parameters and multiply-adds**: before and after, for one image. Stored constants are no
  parameters. Multiply-adds are those of convolutions and matrix products.
"""


def render(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the page in Markdown.

    Args:
        lines: one dict per network, as `analysis.coverage.graphs.check` returns it.
    """
    parts = [_HEAD, _summary(lines)]
    for group in ORDER:
        own = _of(lines, group)
        if own:
            title, about = ABOUT[group]
            parts.append(f"## {title}\n\n{about}\n\n{_table(own)}")
    parts += _reasons(lines)
    return "\n".join(parts)


def _of(lines: Sequence[Mapping[str, Any]], group: str) -> list[Mapping[str, Any]]:
    own = [line for line in lines if line["network"].startswith(f"{group}/")]
    return sorted(own, key=lambda line: str(line["network"]))


def _summary(lines: Sequence[Mapping[str, Any]]) -> str:
    groups = [(ABOUT[group][0], _of(lines, group)) for group in ORDER]
    rows = [[title, *_counts(own)] for title, own in groups if own]
    rows.append(["all", *_counts(lines)])
    head = (
        "",
        "networks",
        "run",
        "exported",
        "with gates",
        "equal bits",
        "folded",
        "exact",
        "largest difference",
    )
    exported = [line for line in lines if "graph" in line]
    seconds = sorted(line["seconds"] for line in exported)
    text = (
        'A fold is counted as "exact" if the difference is at most 1e-5. "Largest difference" is '
        "that of the folded networks.\n"
    )
    if seconds:
        text += (
            f"\nAn export took {seconds[len(seconds) // 2]:.0f} seconds (median; at most "
            f"{seconds[-1]:.0f}) on one core of a busy machine.\n"
        )
    above = [line for line in lines if line.get("folded", 0.0) > _EXACT]
    if above:
        doubles = ", ".join(
            f"{line['network']}: {_number(line['double'])}"
            for line in above
            if line.get("double") is not None
        )
        text += (
            "\nNetworks above 1e-5 were folded in double precision, too, which tells rounding from "
            f"a wrong fold: {doubles or 'none of them works in double precision'}.\n"
        )
    return f"{markdown_table(head, rows)}\n{text}"


def _counts(lines: Sequence[Mapping[str, Any]]) -> list[object]:
    folds = [line["folded"] for line in lines if "folded" in line]
    return [
        len(lines),
        sum("skipped" not in line for line in lines),
        sum("graph" in line for line in lines),
        sum("graph" in line and bool(line["gates"]) for line in lines),
        sum(line.get("graph") == 0 for line in lines),
        len(folds),
        sum(value <= _EXACT for value in folds),
        _number(max(folds)) if folds else "",
    ]


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "network",
        "pixels",
        "gates",
        "graph",
        "folded",
        "constants",
        "parameters",
        "multiply-adds",
    )
    rows = []
    for line in lines:
        if "skipped" in line:
            graph = "not run"
        elif "refused" in line:
            graph = f"none: {line['refused']}"
        elif "graph" not in line:
            graph = "; ".join(line.get("wrong", ()))
        else:
            graph = "equal" if line["graph"] == 0 else _number(line["graph"])
        fold = ""
        if "folded" in line:
            fold = _number(line["folded"])
        elif "not_folded" in line:
            fold = f"refused: {line['not_folded']}"
        rows.append(
            (
                line["network"].partition("/")[2],
                line.get("size", ""),
                listed(line.get("gates", {})),
                graph,
                fold,
                listed(line.get("forms", {})),
                _change(line.get("parameters", [])),
                _change(line.get("multiply_adds", [])),
            )
        )
    return markdown_table(head, rows)


def _reasons(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    refused = [line for line in lines if "refused" in line or "not_folded" in line]
    skipped = [line for line in lines if "skipped" in line]
    parts = []
    if refused:
        codes = Counter(line.get("refused") or line["not_folded"] for line in refused)
        rows = [
            (line["network"], line.get("refused") or line["not_folded"], line["message"])
            for line in refused
        ]
        table = markdown_table(("network", "code", "message"), rows)
        counts = ", ".join(f"{count} × {code}" for code, count in sorted(codes.items()))
        parts.append(
            f"## Networks without a graph or a fold\n\n{counts}. Gates of a network without a "
            "graph are read and edited as in any other network; it is only not folded and not "
            f"exported.\n\n{table}"
        )
    if skipped:
        left = [(line["network"], line["skipped"]) for line in skipped]
        parts.append(f"## Not run\n\n{markdown_table(('network', 'reason'), left)}")
    return parts


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else "infinite"


def _change(values: Sequence[int]) -> str:
    if not values:
        return ""
    before, after = _short(values[0]), _short(values[-1])
    if len(values) == 1:
        return before
    share = values[1] / values[0] - 1 if values[0] else 0.0
    return f"{before} → {after} ({share:+.1%})"


def _short(count: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return str(count)
