"""What a network predicts if one channel of a gate no longer depends on the image."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.recording.explored import read_explored, write_explored
from attnscope.recording.recording import Recording
from attnscope.statistics.channel import channel_values
from attnscope.statistics.copies import copy_groups
from attnscope.statistics.removal import Removal, removal_effect

if TYPE_CHECKING:
    from attnscope.live import LiveNetwork

IMAGES = 200
"""Approximate number of images on which the effect is measured."""


def remove_channel(
    network: LiveNetwork, gate: str, channel: int, images: int = IMAGES, seed: int = 0
) -> Removal:
    """Set one channel of a gate to its mean, compare the predictions, and keep the result.

    The mean is that over the images that are not scored, so that no image influences its own
    measurement. The scored images are a stratified sample, as in `attnscope.intervene`.

    Args:
        network: the network of a recording.
        gate: name of a gate with channels.
        channel: number of the channel.
        images: approximate number of images.
        seed: seed of the sample.

    Raises:
        InputError: the recording has no class labels (AS648) or no class scores (AS618), no class
            has two images (AS808), there is no such channel (AS742), or the network does not run on
            the recorded images any more.
    """
    # Torch is imported here, and not where a result is only read.
    from attnscope.interventions.setup import donor_rows, scored_rows
    from attnscope.live import Channels

    recording = network.recording
    if recording.label_kind != CLASS:
        raise InputError(
            "AS648",
            f"{recording.folder} has no class labels, by which accuracy is measured; capture "
            "images with class labels",
        )
    copies = copy_groups(recording)
    rows = scored_rows(recording, images, seed, copies)
    if not len(rows):
        raise InputError(
            "AS808",
            f"{recording.folder} has no class with two images that are no copies of each other, so "
            "that no image is left for the mean gate; capture more images",
        )
    values = channel_values(recording, gate, channel)
    mean = float(values[donor_rows(len(values), rows, copies)].mean(dtype=np.float64))
    before = network.scores(rows)
    after = network.scores(rows, {gate: Channels({channel: mean})})
    removal = removal_effect(before, after, recording.labels[rows])
    write_explored(recording, _subject(gate, channel), _to_json(removal))
    return removal


def removed_channel(recording: Recording, gate: str, channel: int) -> Removal | None:
    """Return what `remove_channel` kept for the present recording, or None.

    Raises:
        InputError: the file cannot be read or has changed.
    """
    known = read_explored(recording, _subject(gate, channel))
    if known is None:
        return None
    # A missing number is None in JSON and NaN in a table.
    return Removal(**{**known, "classes": pd.DataFrame(known["classes"])})


def _to_json(removal: Removal) -> dict[str, object]:
    columns = {
        name: [None if pd.isna(value) else value for value in column.tolist()]
        for name, column in removal.classes.items()
    }
    return {**asdict(removal), "classes": columns}


def _subject(gate: str, channel: int) -> str:
    return f"mean of channel {channel} of gate {gate}"
