"""Outcomes of interventions that are missing or damaged are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from attnscope.recording.outcomes import Outcomes, read_outcomes, write_outcomes
from attnscope.recording.recording import Recording
from tests.making import refused


def test_missing_and_damaged_outcomes_are_refused(
    make_recording: Callable[..., Recording],
    add_interventions: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = add_interventions(make_recording("cbam"))
    outcomes = read_outcomes(folder)
    assert outcomes.experiments == ["decode", "replace"]
    with refused("AS630", names=("cbam", "ablation", "attnscope intervene")):
        outcomes.table("ablation")
    with refused("AS631", names=(tmp_path,)):
        read_outcomes(tmp_path)
    (folder / "replacement.parquet").write_bytes(b"not Parquet")
    with refused("AS632", names=(folder,)):
        read_outcomes(folder)


@pytest.mark.parametrize("column", ["margin", "margin_change"])
def test_tables_of_margins_are_left_out(tmp_path: Path, column: str) -> None:
    """Those of earlier versions, of which an experiment counts as missing."""
    about = {"experiments": ["decode", "ablate"]}
    tables = {"decoding": pd.DataFrame({"gate": ["a"]}), "ablation": pd.DataFrame({column: [0.1]})}
    write_outcomes(tmp_path / "o", Outcomes(about, None, tables))
    found = read_outcomes(tmp_path / "o")
    assert found.experiments == ["decode"]
    assert set(found.tables) == {"decoding"}


def test_the_table_of_a_notebook_has_short_titles_and_says_what_its_columns_are(
    make_recording: Callable[..., Recording], add_interventions: Callable[..., Path]
) -> None:
    outcomes = read_outcomes(add_interventions(make_recording("cbam")))
    html = outcomes._repr_html_()
    titles = re.findall(r"<th>([^<]*)</th>", html)
    assert titles == ["Gate", "decoding", "mean", "constant", "swap_same", "swap_other"]
    effects = outcomes.table("effects").set_index(["target", "edit"])
    worst = effects["change"].idxmin()
    change, low, high = (100 * effects.loc[worst, key] for key in ("change", "low", "high"))
    cell = f"{change:+.1f} [{low:.1f}, {high:.1f}]".replace("-", "\N{MINUS SIGN}")
    assert f"<td>{cell}</td>" in html
    assert max(len(text) for text in re.findall(r"<t[dh]>([^<]*)</t[dh]>", html)) < 40
