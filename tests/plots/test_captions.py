"""The wording of every caption, in one file: `snapshots/captions.txt`.

After a change of a caption, write the file again and read what changed::

    ATTNSCOPE_UPDATE_SNAPSHOTS=1 python -m pytest tests/plots/test_captions.py

Numbers are not compared here, because their last digits may depend on the versions of libraries.
Other tests hold them against the statistics.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnscope.comparison import Comparison, SeedComparison
from attnscope.plots import PLOTS, Unavailable
from attnscope.plots.subjects import Intervened, Seeds
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording
from tests.plots.reading import (
    add_masks,
    add_run_files,
    make_history,
    with_named_experiments,
)

Make = Callable[..., Recording]
SNAPSHOT = Path(__file__).parent / "snapshots" / "captions.txt"


def without_numbers(text: str) -> str:
    return re.sub(r"[+−-]?\d[\d,]*(\.\d+)?", "#", text)


def captions(
    make_recording: Make, write_recording: Make, add_interventions: Callable[..., Path]
) -> str:
    """Every plot of networks that have everything, and of some to which something is missing."""
    cbam, twin = (
        make_recording(name, count=90, seed=seed, accuracy=0.6, attributed=12)
        for seed, name in enumerate(("cbam", "twin"))
    )
    se = make_recording("se", count=90, seed=2, accuracy=0.9, spatial=False)
    bare = write_recording("bare", labels=[0, 1, 2] * 30)
    right = [make_recording(f"right-{seed}", count=90, seed=seed, accuracy=2) for seed in (0, 1)]
    add_run_files(cbam)
    add_masks(cbam, 80)
    made = {recording: read_outcomes(add_interventions(recording)) for recording in (cbam, twin)}
    subjects = {
        "history": make_history(),
        "history without labels": make_history(classes=0, lost=True),
        "history of one observation": make_history(steps=1),
        "cbam": cbam,
        "cbam, interventions": Intervened(cbam, made[cbam]),
        "cbam, experiments by name": Intervened(
            cbam, with_named_experiments(made[cbam], [gate.name for gate in cbam.gates])
        ),
        "se and cbam": Comparison(se, cbam),
        "cbam over two seeds": Seeds("cbam", [cbam, twin], list(made.values())),
        "se and cbam over two seeds": SeedComparison(("se", "cbam"), [se, right[0]], [cbam, twin]),
        "se": se,
        "bare (no gates, no Grad-CAM)": bare,
        "right-0 (no errors)": right[0],
        "right-0 and right-1": Comparison(*right),
        "bare and bare-2": Comparison(bare, write_recording("bare-2", labels=[0, 1, 2] * 30)),
        "one seed of each": SeedComparison(("se", "cbam"), [se], [cbam]),
    }
    seen: set[str] = set()
    parts = []
    for title, subject in subjects.items():
        for plot in PLOTS.values():
            if plot.subject is not type(subject):
                continue
            try:
                caption = plot.words(plot.result(subject))
            except Unavailable:
                continue
            if without_numbers(caption) not in seen:
                seen.add(without_numbers(caption))
                parts.append(f"{plot.name}: {title}\n{caption}\n")
    return "\n".join(parts)


def test_captions_are_worded_as_in_the_snapshot(
    make_recording: Make,
    write_recording: Make,
    add_interventions: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The recording without gates has no images either, and no caption depends on them.
    monkeypatch.setattr(Recording, "image", lambda self, i: np.zeros((4, 4, 3), np.uint8))
    text = captions(make_recording, write_recording, add_interventions)
    if os.environ.get("ATTNSCOPE_UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text, encoding="utf-8")
    found = {line.split(":")[0] for line in text.splitlines() if re.match(r"\w+: ", line)}
    assert set(PLOTS) <= found
    assert without_numbers(text) == without_numbers(SNAPSHOT.read_text(encoding="utf-8"))
