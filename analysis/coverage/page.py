"""The page ``docs/reference/coverage.md``, from the lines of the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attnscope.kinds import NOT_A_GATE

GROUPS: Mapping[str, tuple[str, str]] = {
    "attnscope": (
        "attnscope's own networks",
        "All attention modules in two ResNets and in the small CNN.",
    ),
    "timm": (
        "timm",
        "The smallest member of each family. A family is one file of `timm.models` and the letters "
        "with which the name begins, without `tf_` and `legacy_`. The smallest member has the "
        "fewest parameters among those that `timm.list_models()` names.",
    ),
    "torchvision": (
        "torchvision",
        "All networks that `torchvision.models.list_models()` names, apart from the quantized "
        "ones: classification, segmentation, detection, video and optical flow.",
    ),
    "smp": (
        "segmentation_models_pytorch",
        "All architectures, with scSE in the decoders that have the option.",
    ),
    "monai": ("MONAI", "Networks and blocks with squeeze-and-excitation or attention gates."),
    "ultralytics": (
        "Ultralytics",
        "The attention blocks, and one network of each generation from the package's own files.",
    ),
}
_HEAD = """\
# Coverage

attnscope needs no table of networks. This page shows on which public networks it was tried, and
whether what it found there is right. The networks have random weights, and parameters that hold one
value only, such as a last BatchNorm that starts at zero, have random values. So every gate moves
and has an effect.

The values and edits of gates were checked without attnscope's tracer, on the operators of aten
that torch runs below its Python functions:

- **Values**: each recorded gate equals an operand of a multiplication, bit for bit.
- **Edits**: each gate was multiplied by a number of its own with `edit_gates`, and the same
  operands were multiplied by the same numbers below Python. All products and the output of both
  forwards are equal, bit for bit.
- **Rows**: if the two images change places, so do the two rows of each gate.
- **Nothing is silent**: each product of two tensors that depend on the input, of which one is
  constant along an axis of the other, is a gate, a normalization, or is listed by
  `inspect_gates`.

The last column of each table says "right" if all four hold.
"""
_TAIL = """\
## What is not covered

- **Kinds and names** were not checked by a second source. The recorded axes were, as far as a value
  must broadcast to the operand that it is, and the axis of the images. Networks whose kinds and
  names are known are in the tests.
- **Trained weights**, training mode, half precision and other devices. Random weights show the same
  products.
- **Larger members** of the families, which repeat the same blocks, and the quantized networks of
  torchvision, whose float layers are those of the others.
- **Gates inside compiled modules and scripted functions**, which attnscope refuses (AS406). A
  scripted function is found if the code of a module's `forward`, or of a Python function that it
  calls, names it; not one that is imported inside a function, or that an object which is no module
  holds.
- **Detection networks** ran with images of 128 pixels and at most 50 boxes per image.
"""


def render(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the page in Markdown.

    Args:
        lines: one dict per network, as `analysis.coverage.check.check` returns it.
    """
    parts = [_HEAD, _summary(lines)]
    for group, (title, about) in GROUPS.items():
        own = [line for line in lines if line["network"].startswith(f"{group}/")]
        if own:
            parts.append(f"## {title}\n\n{about}\n\n{_table(own)}")
    parts += [_codes(lines), _not_covered(lines)]
    return "\n".join(parts)


def _summary(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for group, (title, _) in GROUPS.items():
        own = [line for line in lines if line["network"].startswith(f"{group}/")]
        if own:
            rows.append([title, *_counts(own)])
    rows.append(["all", *_counts(lines)])
    head = ("", "networks", "with gates", "gates", "right", "wrong", "refused", "not run")
    seconds = sorted(line["seconds"] for line in lines if "seconds" in line)
    ratios = sorted(line["seconds"] / max(line["forward"], 1e-3) for line in lines if _ran(line))
    kinds = _total(lines, "gates")
    text = f"Gates by kind: {listed(kinds)}.\n"
    if seconds:
        text += (
            f"\nThe gates of a network were found in {_middle(seconds):.1f} seconds (median; at "
            f"most {seconds[-1]:.0f}) on one core of a busy machine, which is "
            f"{_middle(ratios):.0f} times a forward of two images.\n"
        )
    return f"{markdown_table(head, rows)}\n{text}"


def _ran(line: Mapping[str, Any]) -> bool:
    return "seconds" in line and "wrong" in line


def _counts(lines: Sequence[Mapping[str, Any]]) -> list[object]:
    return [
        len(lines),
        sum(bool(line.get("gates")) for line in lines),
        sum(_total(lines, "gates").values()),
        sum(_ran(line) and not line["wrong"] for line in lines),
        sum(bool(line.get("wrong")) for line in lines),
        sum("refused" in line for line in lines),
        sum("skipped" in line for line in lines),
    ]


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    head = ("network", "parameters", "pixels", "gates", "listed", "seconds", "checked")
    rows = []
    for line in sorted(lines, key=lambda line: line["network"]):
        millions = f"{line['parameters'] / 1e6:.2f} M" if "parameters" in line else ""
        if "skipped" in line:
            checked = "not run"
        elif "refused" in line:
            checked = f"refused: {line['refused']}"
        else:
            checked = "; ".join(line["wrong"]) or "right"
        rows.append(
            (
                line["network"].partition("/")[2],
                millions,
                line.get("size", ""),
                listed(line.get("gates", {})),
                listed(line.get("listed", {})),
                line.get("seconds", ""),
                checked,
            )
        )
    return markdown_table(head, rows)


def _codes(lines: Sequence[Mapping[str, Any]]) -> str:
    counts = _total(lines, "listed")
    rows = [
        (
            code,
            counts[code],
            NOT_A_GATE[code].format("OPERATION" if code != "other-kind" else "KIND"),
        )
        for code in NOT_A_GATE
        if counts[code]
    ]
    about = 'The column "listed" counts what `inspect_gates` lists beside the gates, by its code:\n'
    return f"## What is not a gate\n\n{about}\n{markdown_table(('code', 'count', 'meaning'), rows)}"


def _not_covered(lines: Sequence[Mapping[str, Any]]) -> str:
    text = _TAIL
    refused = [line for line in lines if "refused" in line]
    skipped = [line for line in lines if "skipped" in line]
    if refused:
        rows = [(line["network"], line["refused"], line["message"]) for line in refused]
        text += f"\n### Refused\n\n{markdown_table(('network', 'code', 'message'), rows)}"
    if skipped:
        rows = [(line["network"], "", line["skipped"]) for line in skipped]
        text += "\n### Not run\n\n"
        text += markdown_table(("network", "reason"), [(row[0], row[2]) for row in rows])
    return text


def _total(lines: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in lines:
        total.update(line.get(key, {}))
    return total


def listed(counts: Mapping[str, int]) -> str:
    """Return counts as text: ``8 channel, 8 spatial``."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown, whose cells may hold any text."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
