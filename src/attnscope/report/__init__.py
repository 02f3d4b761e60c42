"""All plots of one or more recordings, as files and on one HTML page."""

from attnscope.report.files import (
    expect_own_names,
    lines_of,
    plots_of_one,
    render,
    write_comparison,
    write_drawings,
    write_figures,
    write_plots,
)
from attnscope.report.page import write_report
from attnscope.report.tables import write_tables

__all__ = [
    "expect_own_names",
    "lines_of",
    "plots_of_one",
    "render",
    "write_comparison",
    "write_drawings",
    "write_figures",
    "write_plots",
    "write_report",
    "write_tables",
]
