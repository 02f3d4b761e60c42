"""Draw the two pictures of docs/architecture.md from the code.

    python analysis/architecture_pictures.py --out docs/images

``modules.png`` has a row and a column for each row of the page's table, and a dot for each import
between them. ``batch.png`` shows the path of a batch from image file to pixels.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "attnscope"
_INK, _LINE, _FILL = "#1b2430", "#9db4cc", "#eef3f8"
_STEPS = (
    ("image file", "JPEG, PNG, array", "data/folder.py, digits.py, cifar.py", ""),
    ("images of a split", "uint8 (N, 3, H, W), labels, paths", "data/images.py", "decode, resize"),
    ("batch", "float32 (n, 3, H, W)", "capturing/batching.py", "normalize"),
    (
        "forward under the tracer",
        "gates (n, C), (n, H, W) ..., logits (n, K)",
        "gates/tracer.py, gates/hooks.py",
        "watch_gates",
    ),
    (
        "attribution of the same forward",
        "Grad-CAM (n, h, w), signed",
        "attribution/",
        "gradients after one layer",
    ),
    ("shard", "arrays.safetensors, rows.parquet", "recording/writer.py", "complete or absent"),
    ("Recording", "gate(name) -> (N, C)", "recording/recording.py", "memory-mapped, no torch"),
    ("statistic", "DataFrame, arrays (classes, H, W)", "statistics/", "stateless"),
    ("plot", "typed result, caption", "plots/", "compute"),
    ("pixels", "Axes -> PNG, PDF, HTML, dashboard", "report/, streamlit_app/", "draw"),
)


def main(out: Path = ROOT / "docs" / "images") -> None:
    """Draw both pictures.

    Args:
        out: output folder of the PNG files.
    """
    for name, draw in (("modules", draw_modules), ("batch", draw_batch)):
        figure = Figure(figsize=(17.5, 10.5) if name == "modules" else (11, 5.2))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_axis_off()
        draw(ax)
        figure.savefig(out / f"{name}.png", dpi=110, metadata={"Software": None})
        print(out / f"{name}.png")


def draw_modules(ax: Axes) -> Axes:
    """Draw a matrix in which a row has a dot in the column of each folder that it imports."""
    subjects, found = read_table(), imports()
    names = list(subjects)
    count, left = len(names), 20.0
    ax.set(xlim=(0, left + count + 1.4), ylim=(count + 1.2, -6.6))
    for row, name in enumerate(names):
        y = row + 0.5
        if row % 2 == 0:
            ax.axhspan(row, row + 1, color=_FILL, zorder=0)
        title = f"{name}/" if (PACKAGE / name).is_dir() else name
        ax.text(0.15, y, title, va="center", fontsize=9.5, weight="bold", color=_INK)
        about = re.sub(r"`([^`]*)`", r"\1", subjects[name]).partition(";")[0]
        ax.text(6.2, y, textwrap.shorten(about, 60, placeholder=" ..."), va="center", fontsize=7.4)
        x = left + row + 0.5
        ax.text(x, -0.15, title, rotation=90, ha="center", va="bottom", fontsize=8.5, color=_INK)
        ax.add_patch(FancyBboxPatch(
            (x - 0.5, row), 1, 1, boxstyle="square,pad=0", facecolor=_LINE, edgecolor="none",
        ))  # fmt: skip
        for other in found.get(name, ()):
            ax.plot(left + names.index(other) + 0.5, y, "o", color="#1f5f99", markersize=5.5)
    ax.text(
        0.15, count + 0.8,
        "A dot means that the folder of the row imports from that of the column. All dots are left "
        "of the diagonal: a row imports only from rows above it.",
        fontsize=8.5, color="#5b6b7d",
    )  # fmt: skip
    return ax


def draw_batch(ax: Axes) -> Axes:
    """Draw the steps in two rows, the first from left to right and the second back."""
    half = -(-len(_STEPS) // 2)
    ax.set(xlim=(0, 11), ylim=(0, 5.2))
    width, high = 1.86, 1.5
    centers = []
    for number in range(len(_STEPS)):
        row, place = divmod(number, half)
        x = 1.1 + (place if row == 0 else half - 1 - place) * 2.2
        centers.append((x, 3.85 if row == 0 else 1.25))
    for number, ((x, y), (name, what, where, how)) in enumerate(zip(centers, _STEPS, strict=True)):
        _box(ax, x, y, width, high)
        ax.text(x, y + 0.5, "\n".join(textwrap.wrap(name, 20)), ha="center", va="center",
                fontsize=9, weight="bold", color=_INK)  # fmt: skip
        ax.text(x, y - 0.02, "\n".join(textwrap.wrap(what, 25)), ha="center", va="center",
                fontsize=7.6, color=_INK)  # fmt: skip
        ax.text(x, y - 0.5, "\n".join(textwrap.wrap(where, 27)), ha="center", va="center",
                fontsize=6.6, color="#1f5f99", family="monospace")  # fmt: skip
        if not number:
            continue
        x0, y0 = centers[number - 1]
        if y0 == y:
            side = 1 if x > x0 else -1
            start, end = (x0 + side * width / 2, y0), (x - side * width / 2, y)
            ax.text((x0 + x) / 2, y + 0.9, how, ha="center", fontsize=7, color="#5b6b7d")
        else:
            start, end = (x0, y0 - high / 2), (x, y + high / 2)
            ax.text(x + 0.1, (y0 + y) / 2, how, fontsize=7, color="#5b6b7d", va="center")
        arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=_INK)
        ax.add_patch(arrow)
    return ax


def _box(ax: Axes, x: float, y: float, width: float, height: float) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_FILL,
            edgecolor=_LINE,
            zorder=2,
        )
    )


def read_table() -> dict[str, str]:
    """Return the subject of each folder or module, from the page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.split("## Modules")[1].split("\n## ")[0].splitlines():
        if line.startswith("| `"):
            name, subject, _ = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`/")] = subject
    return rows


def imports() -> dict[str, set[str]]:
    """Return the folders and modules that each folder or module imports."""
    found: dict[str, set[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attnscope"):
                parts = (node.module or "").split(".")[1:]
                for other in parts[:1] or [alias.name for alias in node.names]:
                    if other != name and other != "__version__":
                        found.setdefault(name, set()).add(other)
    return found


if __name__ == "__main__":
    tyro.cli(main)
