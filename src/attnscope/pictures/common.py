"""What all pictures share: their type, names that can be drawn, numbers in words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnscope import figures
from attnscope.errors import InputError
from attnscope.recording.recording import Recording

SEED = 0
"""Of every choice of images."""
LEVEL = 0.05
"""Below it a p value, corrected for the number of tests, counts as a difference."""


class Unavailable(InputError):
    """A figure that this recording cannot have; the message says what is missing."""


@dataclass(frozen=True)
class Picture:
    """Figures of one name, with what they show in words."""

    figures: list[Figure]
    """Usually one; more where one page would not be legible."""
    caption: str
    """Sentences with the numbers."""


def run_folder(recording: Recording) -> Path | None:
    """The run in which a recording lies, or None."""
    folder = recording.folder.resolve()
    return folder.parent.parent if folder.parent.name == "recordings" else None


def intervene_command(recording: Recording) -> str | None:
    """What makes the interventions on a recording, for a shell; None if it lies in no run."""
    run, part = run_folder(recording), recording.folder.resolve().name
    if run is None:
        return None
    more = "" if part == "test" else f" --part {shlex.quote(part)}"
    return f"attnscope intervene {shlex.quote(str(run))}{more}"


def note_picture(recording: Recording, heading: str, text: str) -> Picture:
    """Words on a figure, where there is nothing to draw."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    figures.draw_note(figure.subplots(), drawable(text))
    figure.suptitle(f"{heading}: {title_of(recording)}")
    return Picture([figure], text)


def no_gate(recording: Recording, kind: str = "") -> str:
    """A sentence that says which gates there are instead of the wanted kind."""
    has = ", ".join(gate_counts(recording))
    if not has:
        return f"{recording.name} has no gates at all."
    return f"{recording.name} has no {kind} gates (its gates: {has})."


def gate_counts(recording: Recording) -> list[str]:
    """``8 channel``, ``8 spatial``: how many gates of each kind there are."""
    kinds = dict.fromkeys(gate.kind for gate in recording.gates)
    return [f"{len(recording.gates_of_kind(kind))} {kind}" for kind in kinds]


def has_grad_cam(recording: Recording) -> bool:
    """Whether Grad-CAM was recorded."""
    return bool(recording.grad_cam_layers)


def highest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The row with the highest value in a column."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=float)))]


def lowest(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The row with the lowest value in a column."""
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=float)))]


def class_names(recording: Recording) -> list[str]:
    """The classes as the installed fonts can draw them."""
    return figures.drawable_names(recording.classes)


def with_drawn_names(frame: pd.DataFrame, recording: Recording) -> pd.DataFrame:
    """A frame whose column ``class`` has the names that can be drawn."""
    drawn = dict(zip(recording.classes, class_names(recording), strict=True))
    return frame.assign(**{"class": [drawn.get(name, name) for name in frame["class"]]})


def drawable(text: str) -> str:
    """A text in which a box stands for each character that no installed font has."""
    missing = set(figures.missing_characters([text]))
    return "".join("□" if c in missing else c for c in text)


def name_of(recording: Recording) -> str:
    """The name of a recording for a title."""
    return shorten(drawable(recording.name), 40)


def two_names(a: Recording, b: Recording) -> tuple[str, str]:
    """Names of two recordings that differ from each other."""
    names = name_of(a), name_of(b)
    return names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")


def title_of(recording: Recording) -> str:
    """Name, part and number of images of a recording."""
    part = recording.about.get("part")
    images = f"{len(recording):,} images"
    return (
        f"{name_of(recording)} ({drawable(str(part))}, {images})"
        if part
        else (f"{name_of(recording)} ({images})")
    )


def shorten(text: object, length: int = 18) -> str:
    """A text in one line, cut to so many characters."""
    clean = " ".join(str(text).split())
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def as_percent(share: float) -> str:
    """A share of 0 to 1 in percent; a dash for NaN."""
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"


def as_points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign; a dash for NaN."""
    return f"{100 * difference:+.1f}".replace("-", "−") if np.isfinite(difference) else "–"


def as_number(value: float) -> str:
    """Three decimals; a dash for NaN."""
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"


def as_p(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    number = as_p_number(p)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def as_p_number(p: float) -> str:
    """A p value without its letter."""
    if not np.isfinite(p):
        return "no test"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def row_height(frame: pd.DataFrame) -> float:
    """How high a panel must be, in inches, to have a line for each row."""
    return max(1.6, (0.23 if len(frame) <= 40 else 0.13) * len(frame))
