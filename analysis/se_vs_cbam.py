"""Compare two networks class by class: python analysis/se_vs_cbam.py RUN_SE RUN_CBAM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from attnscope import statistics
from attnscope.comparison import Comparison
from attnscope.errors import InputError
from attnscope.files import refuse_existing, write_bytes
from attnscope.plots.builtin import per_class_accuracy
from attnscope.recording.recording import Recording
from attnscope.report import write_comparison, write_report


def main(
    first: Annotated[Path, tyro.conf.Positional],
    second: Annotated[Path, tyro.conf.Positional],
    out: Path = Path("se-vs-cbam"),
) -> None:
    """Compare two runs on the same images, and write tables (CSV), figures and a report.

    Args:
        first: a run with a recording, or a recording.
        second: another one, of the same images.
        out: output folder, which must not exist.
    """
    refuse_existing(out)
    a, b = Recording(first), Recording(second)
    accuracy = per_class_accuracy.compute(Comparison(a, b))
    tables = {
        "accuracy": accuracy.comparison,
        "profiles": statistics.compare_profiles(a, b),
        "class_order": statistics.compare_class_order(a, b),
        "grad_cam": statistics.compare_grad_cam(a, b),
        "agreement_first": statistics.agreement_summary(a),
        "agreement_second": statistics.agreement_summary(b),
    }
    out.mkdir(parents=True)
    for name, table in tables.items():
        write_bytes(out / f"{name}.csv", table.to_csv(index=False).encode())
    write_comparison(first, second, out)
    write_report([first, second], out / "report.html")
    print(per_class_accuracy.caption(accuracy))
    print(f"{out}: {len(tables)} tables, figures, report.html")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
