"""Tables and figures of a study, from its result files: python -m analysis.study_page.

    python -m analysis.study_page docs/results/cifar10 docs/results/omniglot

The tables replace what stands between ``<!-- study NAME TABLE -->`` and ``<!-- end -->`` in a page,
where NAME is the folder of the study. The figures are ``study_NAME_*.png``. Nothing is trained or
measured here: `analysis.study` wrote the files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from tyro.conf import Positional

from attnscope.errors import InputError
from attnscope.files import read_json, write_bytes
from attnscope.plots import PLOTS
from attnscope.plots.builtin.seed_differences import draw as draw_differences
from attnscope.plots.builtin.seed_usage import SeedUsage
from attnscope.plots.choosing import largest_rows
from attnscope.plots.text import as_count, as_p, as_plain_points, as_points
from attnscope.plots.theme import INK, NETWORK_COLORS, NULL_COLOR, style
from attnscope.report import render
from attnscope.statistics.inference import significant
from attnscope.statistics.questions import REMOVAL, columns_of, direction

NONE = "none"
_DPI = 130
_JOINT = ("block", "all")
_BETWEEN = "between"


@dataclass(frozen=True)
class Results:
    """The result files of one study."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.folder.name

    @cached_property
    def kinds(self) -> dict[str, list[Path]]:
        """Kind of attention -> the folders of its networks, in the order of their seeds."""
        found: dict[str, dict[int, Path]] = {}
        for file in self.folder.glob("*/provenance.json"):
            kind, seed = file.parent.name.rsplit("-", 1)
            found.setdefault(kind, {})[int(seed)] = file.parent
        order = sorted(found, key=lambda kind: (kind != NONE, kind == "cbam", kind))
        return {kind: [found[kind][seed] for seed in sorted(found[kind])] for kind in order}

    @property
    def gated(self) -> dict[str, list[Path]]:
        """`kinds` without the networks that have no gates."""
        return {kind: folders for kind, folders in self.kinds.items() if kind != NONE}

    def between(self, name: str) -> pd.DataFrame | None:
        """Return a table of several networks; None if it is missing."""
        file = self.folder / _BETWEEN / f"{name}.csv"
        return pd.read_csv(file) if file.is_file() else None

    def differences(self, a: str, b: str) -> pd.DataFrame | None:
        """Return how much more accurate the second of two kinds is, for all images and each class.

        Returns:
            `attnscope.statistics.compare_seeds`; with one pair of networks, the accuracy of their
            `attnscope.Comparison`, whose intervals are over images; None without a pair.
        """
        over_seeds = self.between(f"accuracy-{a}-{b}")
        if over_seeds is not None:
            return over_seeds
        seed = self.kinds[a][0].name.rsplit("-", 1)[1]
        return self.between(f"accuracy-{a}-{b}-{seed}")

    def usage(self, kind: str) -> pd.DataFrame:
        """Return `attnscope.statistics.usage_over_seeds` of a kind.

        With one network, it is the usage of that network, whose intervals are over images.
        """
        over_seeds = self.between(f"usage-{kind}")
        if over_seeds is not None:
            return over_seeds
        first = self.gated[kind][0]
        usage = pd.concat([statistic(first, name) for name in ("usage", "joint")])
        return usage.assign(seeds=1, uses=(direction(usage, REMOVAL) > 0).astype(int))


def statistic(folder: Path, name: str) -> pd.DataFrame:
    """Return a table of one network."""
    return pd.read_csv(folder / f"statistics-{name}.csv")


def networks_table(results: Results) -> Iterator[list[str]]:
    """Yield one row per network: accuracies, calibration, size, minutes."""
    yield [
        "network", "validation", "test", "calibration error", "parameters", "training, min",
        "all, min",
    ]  # fmt: skip
    for folders in results.kinds.values():
        for folder in folders:
            result = read_json(folder / "result.json")
            minutes = read_json(folder / "provenance.json")["minutes"]
            calibration = statistic(folder, "calibration_summary").set_index("measure")["value"]
            yield [
                folder.name,
                f"{result['validation']['accuracy']:.2%}",
                f"{accuracy(folder):.2%}",
                f"{calibration['calibration_error']:.3f}",
                f"{result['parameters']:,}",
                f"{minutes['train']:.0f}",
                f"{sum(minutes.values()):.0f}",
            ]


def accuracy(folder: Path) -> float:
    """Return the accuracy of the recorded predictions."""
    predictions = statistic(folder, "predictions")
    return float((predictions["label"] == predictions["predicted"]).mean())


def differences_table(results: Results) -> Iterator[list[str]]:
    """Yield one row per pair of kinds: difference of accuracy over seeds."""
    yield ["second − first", "seeds", "difference", "95% CI", "p", "classes that differ"]
    for a, b in combinations(results.kinds, 2):
        table = results.differences(a, b)
        if table is None:
            continue
        whole, classes = table.iloc[0], table.iloc[1:]
        differ = classes[significant(classes["p_holm"])]
        names = ", ".join(differ["class"].astype(str)) or "none"
        yield [
            f"{b} − {a}",
            str(int(whole.get("seeds", 1))),
            as_points(whole["difference"]),
            f"{as_plain_points(whole['low'])} to {as_plain_points(whole['high'])}",
            as_p(whole["p"]),
            f"{names} of {int(classes['p_holm'].notna().sum())} that are tested",
        ]


def gates_table(results: Results, kind: str) -> Iterator[list[str]]:
    """Yield one row per gate or group of gates: what is decodable, and what replacing costs."""
    asked = {"best constant": "removal", "another image": "resample", "other class": "matched"}
    yield [
        "gate", "decoded", "untrained", "input",
        *(f"{name}, {measure}" for name in asked for measure in ("points", "nats")), "used in",
    ]  # fmt: skip
    usage = results.usage(kind)
    folders = results.gated[kind][: int(usage["seeds"].max())]
    decoding = pd.concat([pd.read_csv(folder / "interventions-decoding.csv") for folder in folders])
    means = decoding.groupby("gate")[["untrained_accuracy", "input_accuracy"]].mean()
    for _, row in usage.iterrows():
        single = row["gate"] in means.index and row["kind"] not in _JOINT
        decoded = [row["balanced_accuracy"], *(means.loc[row["gate"]] if single else [np.nan] * 2)]
        yield [
            row["gate"].replace(".attention", ""),
            *(f"{share:.0%}" if np.isfinite(share) else "" for share in decoded),
            *(cell for question in asked.values() for cell in _losses(row, question)),
            f"{int(row['uses'])} of {int(row['seeds'])}",
        ]


def _losses(row: pd.Series[Any], question: str) -> tuple[str, str]:
    """Return the loss of accuracy in points with its interval, and the log loss that is added.

    A star marks what is significant.
    """
    value, low, high, p, log_loss, _, _, p_log_loss = row[columns_of(question)]
    if not np.isfinite(value):
        return "", ""
    star, log_loss_star = ("*" if found else "" for found in significant(np.array([p, p_log_loss])))
    ends = f" ({as_plain_points(low)} to {as_plain_points(high)})" if np.isfinite(low) else ""
    added = round(log_loss, 3) + 0.0  # no negative zero
    return f"{as_points(value)}{star}{ends}", f"{added:+.3f}{log_loss_star}".replace("-", "−")


def folds_table(results: Results) -> Iterator[list[str]]:
    """Yield one row per network with gates: how many were folded, and what that cost."""
    yield [
        "network", "folded", "accuracy before", "after", "loss on test", "95% CI",
        "parameters saved", "speed", "Jaccard over halves",
    ]  # fmt: skip
    for folders in results.gated.values():
        for folder in folders:
            fold = read_json(folder / "fold.json")
            test = fold["test"]
            count = len(fold["folded"])
            before, after = fold["parameters"]
            speed = np.median([folded / whole for whole, folded in fold["speed"]])
            jaccard = (fold.get("chosen") or {}).get("stability", {}).get("jaccard")
            yield [
                folder.name,
                f"{count} of {count + len(fold['dynamic'])}",
                f"{test['before']:.2%}",
                f"{test['after']:.2%}",
                f"{test['loss']:.2f}".replace("-", "−"),
                f"{test['low']:.2f} to {test['high']:.2f}".replace("-", "−"),
                f"{before - after:,}",
                f"{speed:.2f}",
                "" if jaccard is None else f"{jaccard:.2f}",
            ]


def tables(results: Results) -> dict[str, str]:
    """Return name -> table in Markdown."""
    made: dict[str, Iterator[list[str]]] = {
        "networks": networks_table(results),
        "differences": differences_table(results),
        "folds": folds_table(results),
    }
    made |= {f"gates {kind}": gates_table(results, kind) for kind in results.gated}
    return {name: markdown(rows) for name, rows in made.items()}


def markdown(rows: Iterator[Sequence[str]]) -> str:
    """Return rows, of which the first is the heading, as a table."""
    first, *rest = rows
    lines = [first, ["---"] * len(first), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def usage_figure(results: Results, kind: str) -> Figure | None:
    """Draw what is decodable and used of each gate over the seeds of a kind; None with one."""
    usage = results.between(f"usage-{kind}")
    if usage is None:
        return None
    folders = results.gated[kind]
    is_joint = usage["kind"].isin(_JOINT)
    config = read_json(folders[0] / "provenance.json")["commands"]["interventions"].split()
    shown = SeedUsage(
        f"{kind}, {results.name}",
        usage[~is_joint].reset_index(drop=True),
        usage[is_joint].reset_index(drop=True),
        [statistic(folder, "usage") for folder in folders],
        [statistic(folder, "joint") for folder in folders],
        int(config[config.index("--images") + 1]),
    )
    (figure,) = PLOTS["seed_usage"].figures(shown)
    return figure


def differences_figure(results: Results) -> Figure | None:
    """Draw the differences of accuracy per class, one panel per kind with gates."""
    pairs = {kind: results.between(f"accuracy-{NONE}-{kind}") for kind in results.gated}
    found = {kind: table for kind, table in pairs.items() if table is not None}
    if not found:
        return None
    shown = {
        kind: table.iloc[largest_rows(table["difference"].abs())] for kind, table in found.items()
    }
    rows = max(len(table) for table in shown.values())
    figure = Figure(figsize=(max(5.5 * len(shown), 8.0), 1.4 + 0.28 * rows), layout="constrained")
    for ax, (kind, table) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(),
                                 strict=True):  # fmt: skip
        draw_differences(ax, table, (NONE, kind))
        ax.set_title(f"{kind} − {NONE}")
        ax.set_xlabel("difference in accuracy (percentage points)")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(f"Accuracy per class, with attention minus without: {results.name}")
    return figure


def decodable_figure(studies: Sequence[Results]) -> Figure:
    """Draw for each gate how well the class is decoded, and what its best constant costs."""
    figure = Figure(figsize=(4.6 * len(studies), 4.0), layout="constrained")
    for ax, results in zip(figure.subplots(1, len(studies), squeeze=False)[0], studies,
                           strict=True):  # fmt: skip
        ax.axhline(0, color=INK, linewidth=0.8)
        for number, kind in enumerate(results.gated):
            usage = results.usage(kind)
            gates = usage[~usage["kind"].isin(_JOINT)]
            x, y = 100 * gates["balanced_accuracy"], 100 * gates["removal_value"]
            ends = 100 * gates[["removal_low", "removal_high"]]
            spread = [y - ends["removal_low"], ends["removal_high"] - y]
            ax.errorbar(
                x, y, yerr=spread, fmt="o", markersize=4, elinewidth=0.8,
                color=NETWORK_COLORS[number], label=kind,
            )  # fmt: skip
        chance = gates["chance"].mean() * 100
        ax.axvline(chance, color=NULL_COLOR, linewidth=1.2, label="chance")
        ax.set_xlabel("balanced accuracy of a probe of the gate (%)")
        seeds = max(len(folders) for folders in results.gated.values())
        ax.set_title(f"{results.name} ({as_count(seeds, 'seed')})")
        ax.legend(fontsize=8)
    figure.axes[0].set_ylabel("accuracy lost with the best constant\n(percentage points)")
    figure.suptitle("Decodable from each gate, and lost without it (95% CIs)")
    return figure


def figures(studies: Sequence[Results]) -> dict[str, Figure]:
    """Return file name without suffix -> figure."""
    drawn: dict[str, Figure | None] = {}
    for results in studies:
        for kind in results.gated:
            drawn[f"study_{results.name}_{kind}"] = usage_figure(results, kind)
    with style():
        for results in studies:
            drawn[f"study_{results.name}_accuracy"] = differences_figure(results)
        drawn["study_decodable_used"] = decodable_figure(studies)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def fill(page: str, studies: Sequence[Results]) -> str:
    """Return a page with its tables renewed.

    Raises:
        InputError: AS944, the page asks for a table that there is not.
    """
    known = {
        f"study {results.name} {name}": table
        for results in studies
        for name, table in tables(results).items()
    }

    def renewed(found: re.Match[str]) -> str:
        name = found[1]
        if name not in known:
            raise InputError("AS944", f"there is no table '{name}'; there are {', '.join(known)}")
        return f"<!-- {name} -->\n\n{known[name]}\n\n<!-- end -->"

    return re.sub(r"<!-- (study [^>]+) -->.*?<!-- end -->", renewed, page, flags=re.DOTALL)


def main(
    studies: Positional[tuple[Path, ...]],
    page: Path = Path("docs/explanation/decodable-vs-used.md"),
    images: Path = Path("docs/images"),
) -> None:
    """Renew the tables of a page and its figures.

    Args:
        studies: Folders of results that `analysis.study` wrote.
        page: The page.
        images: Folder of the figures.
    """
    found = [Results(folder) for folder in studies]
    write_bytes(page, fill(page.read_text(encoding="utf-8"), found).encode())
    for name, figure in figures(found).items():
        write_bytes(images / f"{name}.png", render(figure, "png", _DPI))
        print(images / f"{name}.png")


if __name__ == "__main__":
    try:
        tyro.cli(main, description=__doc__)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
