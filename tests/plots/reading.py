"""Helpers that read figures and captions, and make runs and registries for a test."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from attnscope.gate_history import GateHistory, MonitoredGate, Observation
from attnscope.plots import PLOTS, Drawing
from attnscope.plots.subjects import Comparison
from attnscope.recording.masks import MaskFacts, Masks, write_masks
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.recording import Recording

IN_A_RUN_ONLY = {"training_curves", "training_images"}
ASKED_FOR = {"attributions", "attribution_agreement", "localization", "masked_images"}


def shown(ax: Axes) -> np.ndarray:
    return np.ma.filled(ax.images[-1].get_array().astype(float), np.nan)


def labels(texts) -> list[str]:
    return [text.get_text() for text in texts]


def words(figure: Figure) -> str:
    found = [figure.get_suptitle()]
    found += [text.get_text() for ax in figure.axes for text in ax.texts]
    return "\n".join(found)


def numbers(caption: str) -> list[str]:
    """The numbers in a caption as they are written, with their sign and percent sign."""
    return re.findall(r"(?<![\w.])[±+−-]?\d+(?:,\d{3})*(?:\.\d+)?%?(?!\w)", caption)


def maps(figure: Figure, cmap: str) -> list:
    return [i for ax in figure.axes for i in ax.images if i.cmap.name == cmap]


def add_run_files(recording: Recording) -> Path:
    run = recording.folder.parent.parent
    epochs = np.arange(1, 4)
    pd.DataFrame(
        {
            "epoch": epochs,
            "step": 10 * epochs,
            "train_loss": 2.0 / epochs,
            "train_accuracy": 0.3 * epochs,
            "validation_loss": 2.2 / epochs,
            "validation_accuracy": [0.5, 0.8, 0.7],
            "learning_rate": 0.1,
            "images_per_second": 100.0,
            "seconds": 60.0 * epochs,
        }
    ).to_csv(run / "metrics.csv", index=False)
    (run / "config.json").write_text(json.dumps({"classes": recording.classes}))
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    save_file(
        {"images": images, "labels": np.arange(10) % len(recording.classes)},
        run / "training_images.safetensors",
    )
    return run


def add_masks(recording: Recording, count: int) -> Masks:
    """Give the first images of a recording of `make_recording` random masks."""
    rng = np.random.default_rng(0)
    shares = {
        grid: rng.integers(0, 2, (count, *grid)).astype(np.float32)
        for grid in ((8, 8), (4, 4), (16, 16))
    }
    shares[1, 1] = rng.uniform(0.2, 0.8, (count, 1, 1)).astype(np.float32)
    pictures = np.zeros((count, 16, 16), np.uint8)
    pictures[:, :8, 4:] = 255
    facts = MaskFacts("masks", "", len(recording), count, len(recording) - count, 0, 0, 0)
    masks = Masks(np.arange(count), shares, pictures, facts)
    write_masks(recording, masks)
    return masks


def make_history(
    steps: int = 4, classes: int = 3, lost: bool = False, **options: Any
) -> GateHistory:
    """Three gates of two kinds whose numbers grow by a tenth with each observation.

    Args:
        steps: number of observations.
        classes: 0 for a history without labels.
        lost: whether the last gate has values that are not finite from the third one on.
        options: of `GateHistory`.
    """
    gates = tuple(
        MonitoredGate(name, kind, 0.0, 1.0, shape)
        for name, kind, shape in (
            ("layer1.channel", "channel", (8,)),
            ("layer1.spatial", "spatial", (4, 4)),
            ("layer2.channel", "channel", (16,)),
        )
    )

    def values(t: int, scale: float) -> tuple[float, ...]:
        own = [scale * (t + 1) / 10 + g / 100 for g in range(3)]
        return (*own[:2], np.nan if lost and t >= 2 else own[2])

    observations = tuple(
        Observation(
            50 * t,
            0.5,
            99.5 if t else None,
            values(t, 1),
            values(t, 0.5),
            values(t, 0) if t else (0.0, 0.0, 0.0),
            values(t, 2),
            values(t, -0.1) if classes else (np.nan,) * 3,
        )
        for t in range(steps)
    )
    return GateHistory(
        **{
            "name": "toy",
            "gates": gates,
            "images": 12,
            "classes": classes,
            "every": 50,
            "fingerprint": "",
            "observations": observations,
            **options,
        }
    )


def draw_plot(name: str, *recordings: Recording) -> Drawing:
    """A plot of one recording, or of two."""
    (subject,) = recordings if len(recordings) == 1 else (Comparison(*recordings),)
    return PLOTS[name].make(subject)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Keep only these plots of a recording, because drawing takes most of the time of a test."""
    kept = {n: p for n, p in PLOTS.items() if n in names or p.subject is not Recording}
    monkeypatch.setattr(PLOTS, "_known", kept)


def with_named_experiments(outcomes: Outcomes, gates: list[str]) -> Outcomes:
    """Add the tables of the experiments concept, sufficiency and pairs, made up.

    The first gate loses, the second gains, and nothing is seen at the others.
    """
    count = len(gates)
    sign = np.array([-1.0, 1.0, *[0.0] * (count - 2)])
    effect = {
        "images": 40,
        "change": 0.2 * sign,
        "low": 0.2 * sign - 0.05,
        "high": 0.2 * sign + 0.05,
        "p": np.where(sign, 0.001, 0.9),
        "log_loss_change": -0.5 * sign,
        "log_loss_low": -0.5 * sign - 0.1,
        "log_loss_high": -0.5 * sign + 0.1,
        "p_log_loss": np.where(sign, 0.001, 0.9),
    }
    concept = pd.DataFrame({"gate": gates, "rank": 2, "units": 8, "is_removal": False, **effect})
    concept = concept.assign(
        moved=0.1, random_moved=0.1, random_change=-0.01, null=0.02, null_low=-0.05, null_high=0.1,
        p_random=0.025, draws=39, spanned=8, probe_before=0.8, probe_after=0.34, probe_low=0.27,
        probe_high=0.41, probe_chance=0.333,
    )  # fmt: skip
    recovered = {f"recovered_{key}": each for key, each in effect.items() if key != "images"}
    sufficiency = pd.DataFrame({"gate": gates, **effect, **recovered})
    pairs = pd.DataFrame({"first": gates, "second": gates[::-1], **effect}).assign(
        excess=0.1 * sign,
        excess_log_loss=-0.4 * sign,
        excess_log_loss_low=-0.4 * sign - 0.1,
        excess_log_loss_high=-0.4 * sign + 0.1,
        p_excess_log_loss=effect["p"],
    )
    tables = {"concept": concept, "sufficiency": sufficiency, "pairs": pairs}
    about = {**outcomes.about, "concept_left_out": {"paths": "it is a softmax"}}
    return replace(outcomes, about=about, tables={**outcomes.tables, **tables})
